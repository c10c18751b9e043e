"""Rounding to whole numbers, by conversion to int32 and back (nearest even) and a correction of one."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import float32, int32, uint8
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.language.operands import new_tile, promoted, require_tile

__all__ = ["ceil", "floor", "trunc"]

_WHOLE_FROM = 2.0**23
"""Magnitude from which every float32 is a whole number."""


def _rounded(x: NkiTensor, what: str, dtype: Any, *corrections: tuple[str, str]) -> NkiTensor:
    """Nearest whole number of ``x``, moved by one where it lies on the wrong side of ``x``.

    Each correction (comparison, operator) applies the operator with ``nearest <comparison> x`` as 0 or 1.
    """
    kind = promoted(require_tile(x, what), dtype=dtype)
    wide, counts, nearest, wrong = (new_tile(x.shape, t) for t in (float32, int32, float32, float32))
    isa.tensor_copy(wide, x)
    isa.tensor_copy(counts, wide)
    isa.tensor_copy(nearest, counts)
    for comparison, operator in corrections:
        isa.tensor_tensor(wrong, nearest, wide, comparison)
        isa.tensor_tensor(nearest, nearest, wrong, operator)
    # Large numbers, infinities and NaN pass as they are.
    small = new_tile(x.shape, uint8)
    isa.tensor_scalar(small, wide, "abs", 0, False, "less", _WHOLE_FROM)
    isa.tensor_copy_predicated(wide, nearest, small)
    if kind is float32:
        return wide
    result = new_tile(x.shape, kind)
    isa.tensor_copy(result, wide)
    return result


def floor(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Largest whole number not above ``x``."""
    return _rounded(x, "floor", dtype, ("greater", "subtract"))


def ceil(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Smallest whole number not below ``x``."""
    return _rounded(x, "ceil", dtype, ("less", "add"))


def trunc(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x`` without its fraction: the sign of ``x`` times the floor of its magnitude."""
    kind = promoted(require_tile(x, "trunc"), dtype=dtype)
    magnitude, sign, result = new_tile(x.shape, float32), new_tile(x.shape, float32), new_tile(x.shape, kind)
    isa.tensor_scalar(magnitude, x, "abs", 0)
    isa.activation(sign, "sign", x)
    isa.tensor_tensor(result, floor(magnitude), sign, "multiply")
    return result
