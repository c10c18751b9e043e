"""Assignment into a view, ``tile[...] = value``: the copy or fill instruction that it stands for."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["assign"]


def assign(target: NkiTensor, value: Any) -> None:
    """Copy a tensor, or fill with a number."""
    from opentrn.neuroncore import isa

    if not isinstance(value, NkiTensor):
        isa.memset(target, value)
    elif target.layout.on_chip and value.layout.on_chip:
        isa.tensor_copy(target, value)
    else:
        isa.dma_copy(target, value)
