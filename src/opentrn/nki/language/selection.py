"""Choosing elements: by a condition, and at random."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import uint8
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.language.operands import broadcast_shape, expanded, fail, new_tile, promoted, require_tile

__all__ = ["dropout", "where"]


def where(condition: NkiTensor, x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """``x`` where ``condition`` is nonzero, ``y`` elsewhere; ``x`` and ``y`` are tiles or numbers."""
    require_tile(condition, "where")
    tiles = [require_tile(v, "where") for v in (x, y) if isinstance(v, NkiTensor)]
    if not tiles and dtype is None:
        raise fail("where", "with two numbers, give the dtype of the result")
    shape = broadcast_shape("where", condition, *tiles)
    kind = promoted(*(tiles or [condition]), dtype=dtype)
    mask = new_tile(shape, uint8)
    isa.tensor_scalar(mask, expanded(condition, shape), "not_equal", 0)
    result = new_tile(shape, kind)
    if isinstance(y, NkiTensor):
        isa.tensor_copy(result, expanded(y, shape))
    else:
        isa.memset(result, y)
    if isinstance(x, NkiTensor):
        x = expanded(x, shape)
        if x.dtype is not kind:
            converted = new_tile(shape, kind)
            isa.tensor_copy(converted, x)
            x = converted
    isa.tensor_copy_predicated(result, x, mask)
    return result


def dropout(x: NkiTensor, rate: Any, dtype: Any = None) -> NkiTensor:
    """``x`` with each element set to 0 with probability ``rate``, a number or a (P, 1) column."""
    dropped = new_tile(require_tile(x, "dropout").shape, x.dtype)
    isa.dropout(dropped, x, rate)
    kind = promoted(x, dtype=dtype)
    if kind is x.dtype:
        return dropped
    result = new_tile(x.shape, kind)
    isa.tensor_copy(result, dropped)
    return result
