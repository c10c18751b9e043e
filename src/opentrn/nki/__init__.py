"""The NKI language as kernels import it: ``nki``, ``nki.language``, ``nki.isa`` and their companions.

Kernels reach these modules under their public names through ``trn run``, :func:`opentrn.install` or the pytest plugin.
"""

from __future__ import annotations

from typing import Any

from opentrn.nki.kernel import Kernel, cpu_simulate, jit, simulate

__all__ = ["Kernel", "cpu_simulate", "jit", "simulate"]

_SUBMODULES = ("builtin", "collectives", "compiler", "dtype", "experimental", "isa", "language", "tensor", "typing")


def __getattr__(name: str) -> Any:
    """``nki.language`` and the others after a bare ``import nki``."""
    if name not in _SUBMODULES:
        raise AttributeError(f"module 'nki' has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"opentrn.nki.{'language.dtypes' if name == 'dtype' else name}")
