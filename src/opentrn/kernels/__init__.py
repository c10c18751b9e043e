"""Kernels of the operations that models are made of, written in NKI as a user would; one file a kernel.

Names are resolved on first use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "matmul": "matmul",
    "bmm": "matmul",
    "softmax": "softmax",
    "log_softmax": "softmax",
    "softmax_backward": "softmax",
    "log_softmax_backward": "softmax",
    "rms_norm": "norms",
    "layer_norm": "norms",
    "attention": "attention",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"opentrn.kernels has no kernel {name!r}; it has {', '.join(__all__)}")
    module = importlib.import_module(f"opentrn.kernels.{_WHERE[name]}")
    # Importing a submodule binds its name here, over the kernels that share it: bind the kernels last.
    for kernel, file in _WHERE.items():
        if file == _WHERE[name]:
            globals()[kernel] = getattr(module, kernel)
    return globals()[name]
