"""``nki.tensor``: the tensor class, under the path that some tools import it from."""

from __future__ import annotations

from opentrn.neuroncore.tensor import DynamicSlice, NkiTensor, ds

Tensor = NkiTensor

__all__ = ["DynamicSlice", "NkiTensor", "Tensor", "ds"]
