"""``nki.builtin``: what kernels of AWS's library find in ``builtins`` under its own simulator."""

from __future__ import annotations

from opentrn.neuroncore.tensor import NKIObject, NkiTensor

__all__ = ["NKIObject", "NkiTensor"]
