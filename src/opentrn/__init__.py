"""The AWS Trainium and Inferentia stack with no chips in it.

Programs for the real hardware run unmodified on any machine, with the numbers the chip would produce.
Everything public is reached lazily, so that `import opentrn` costs a few milliseconds.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it (imported on first use).
_PUBLIC = {
    "chip": "opentrn.hardware",
    "chips": "opentrn.hardware",
    "core": "opentrn.hardware",
    "instance": "opentrn.hardware",
    "install": "opentrn.public_names",
    "OpenTrnError": "opentrn.errors",
}

__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'opentrn' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
