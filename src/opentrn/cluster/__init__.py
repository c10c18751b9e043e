"""A training job on many chips: models, parallel layouts, memory, the time of a step, search and goodput.

from opentrn.cluster import plan

for candidate in plan("llama3-70b", tokens=1e12, on=["trn2.48xlarge", "trn3-ultraserver"]).candidates:
    print(candidate.hardware, candidate.layout, candidate.cost_usd)
"""

from importlib import import_module
from typing import Any

# Public name -> module; imported on first use so that the command line starts quickly.
_PUBLIC = {
    "Model": "models",
    "load_model": "models",
    "model_names": "models",
    "Job": "job",
    "software": "job",
    "software_names": "job",
    "Layout": "layout",
    "Machine": "machines",
    "machine": "machines",
    "StepModel": "step",
    "OperatorTimes": "operator_times",
    "RooflineTimes": "operator_times",
    "validate": "validation",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'opentrn.cluster' has no attribute {name!r}")
    value = getattr(import_module(f"opentrn.cluster.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
