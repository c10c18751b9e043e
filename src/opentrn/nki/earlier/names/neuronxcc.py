"""``neuronxcc``: of the compiler's package only NKI, and what kernels and their tests import beside it."""

from __future__ import annotations

import logging
from typing import Any

# The compiler adds a level above all others; scripts silence it with `logging.disable(logging.OFF)`.
if not hasattr(logging, "OFF"):
    logging.OFF = logging.CRITICAL + 10  # type: ignore[attr-defined]
    logging.addLevelName(logging.CRITICAL + 10, "OFF")

__version__ = "2.21.0+opentrn"


def __getattr__(name: str) -> Any:
    if name == "nki":
        import importlib

        return importlib.import_module("opentrn.nki.earlier.names.nki")
    raise AttributeError(f"module 'neuronxcc' has no attribute {name!r}; only neuronxcc.nki is available here")
