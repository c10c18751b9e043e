"""Links, topologies, collective algorithms and their time.

    from opentrn.fabric import RankGroup, collective_time_us, topology

    rack = topology("trn2-ultraserver")                     # 64 chips, 256 ranks (logical cores)
    collective_time_us("all_reduce", 64 * 2**20, RankGroup(256), rack)
    collective_time_us("all_gather", sizes, RankGroup(16, stride=4), rack)     # an array in, an array out

Ranks are logical cores numbered chip by chip, instance by instance. `collective_time_us` is a closed form: it costs
microseconds, is deterministic and accepts NumPy arrays of sizes. `simulate` runs the same algorithm message by
message with contention on every shared link. Sizes follow nccom-test and nccl-tests: the buffer of an all-reduce,
broadcast, permute or send; the gathered output of an all-gather; the input of a reduce-scatter or all-to-all.
"""

from importlib import import_module
from typing import Any

# Public name -> module; imported on first use so that `import opentrn.fabric` stays cheap.
_PUBLIC = {
    "Topology": "topologies",
    "Axis": "topologies",
    "topology": "topologies",
    "topology_names": "topologies",
    "torus": "topologies",
    "RankGroup": "group",
    "collective_time_us": "collectives",
    "collective_estimate": "collectives",
    "all_to_all_v_time_us": "collectives",
    "send_time_us": "collectives",
    "Estimate": "collectives",
    "OPS": "operations",
    "bus_bandwidth_factor": "operations",
    "simulate": "simulation",
    "validate": "validation",
    "plot_collectives": "plot",
    "topology_graph": "graph",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'opentrn.fabric' has no attribute {name!r}")
    value = getattr(import_module(f"opentrn.fabric.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
