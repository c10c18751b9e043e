"""Kernels of the operations that models are made of, written in NKI as a user would; one file a kernel.

Names are resolved on first use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "matmul": "dense",
    "bmm": "dense",
    "softmax": "softmaxes",
    "log_softmax": "softmaxes",
    "softmax_backward": "softmaxes",
    "log_softmax_backward": "softmaxes",
    "rms_norm": "norms",
    "layer_norm": "norms",
    "attention": "attending",
    "fused_rows": "rows",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"opentrn.kernels has no kernel {name!r}; it has {', '.join(__all__)}")
    # No file has the name of a kernel: importing a submodule binds its name here.
    value = getattr(importlib.import_module(f"opentrn.kernels.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
