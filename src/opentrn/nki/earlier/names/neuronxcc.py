"""``neuronxcc``: of the compiler's package only NKI, and what kernels and their tests import beside it."""

from __future__ import annotations

from typing import Any

__version__ = "2.21.0+opentrn"


def __getattr__(name: str) -> Any:
    if name == "nki":
        import importlib

        return importlib.import_module("opentrn.nki.earlier.names.nki")
    raise AttributeError(f"module 'neuronxcc' has no attribute {name!r}; only neuronxcc.nki is available here")
