"""Conversion between the types of memory and the float32 that the engines compute in.

Every compute engine widens its operands to float32 and narrows its results to the type of the destination. Into
floats that is rounding to nearest even, with overflow to infinity (to NaN where the type has no infinity); into
integers rounding to nearest even and saturation. `docs/numerics.md` gives the source of each rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from opentrn.neuroncore.dtypes import tfloat32
from opentrn.neuroncore.layout import Layout

__all__ = ["as_float32", "choose", "number", "round_to_integer", "round_to_tfloat32", "storer", "widen"]

Store = Callable[[np.ndarray, Any], None]

_FLOAT32 = np.dtype(np.float32)
_UINT8 = np.dtype(np.uint8)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# ml_dtypes converts its one-byte types element by element (some 7 ns each); a table is an order of magnitude faster.
_BYTE_FLOATS = frozenset(
    np.dtype(t)
    for t in (
        ml_dtypes.float8_e3m4, ml_dtypes.float8_e4m3, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e8m0fnu,
    )
)  # fmt: skip
_TABLE_WORTHWHILE = 2048
"""Elements from which narrowing through a table beats ml_dtypes' own conversion."""

# Bounds in float32 within which rounding cannot leave the type.
_INTEGER_RANGE = {
    np.dtype(t): (np.float32(np.iinfo(t).min), np.nextafter(np.float32(np.iinfo(t).max), np.float32(0)))
    for t in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32)
}

_UP: dict[np.dtype, np.ndarray] = {}
_DOWN: dict[np.dtype, np.ndarray] = {}


def _up_table(dtype: np.dtype) -> np.ndarray:
    """float32 value of each of the 256 patterns of a one-byte float."""
    table = _UP.get(dtype)
    if table is None:
        table = _UP[dtype] = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    return table


def _down_table(dtype: np.dtype) -> np.ndarray:
    """Pattern of a one-byte float nearest to each float32 that is given by its upper 16 bits."""
    table = _DOWN.get(dtype)
    if table is None:
        upper = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
        with np.errstate(all="ignore"):
            table = _DOWN[dtype] = upper.view(np.float32).astype(dtype).view(np.uint8)
    return table


def widen(array: np.ndarray) -> np.ndarray:
    """An array of any type as float32; a float32 array is passed through, not copied."""
    dtype = array.dtype
    if dtype == _FLOAT32:
        return array
    if dtype in _BYTE_FLOATS:
        return _up_table(dtype).take(array.view(_UINT8))
    return array.astype(_FLOAT32)


def number(value: Any) -> Any:
    """A constant operand in the form in which NumPy combines it with float32 arrays in float32."""
    kind = type(value)
    if kind is float or kind is np.float32:
        return value
    if kind is np.ndarray:
        return widen(value)
    if isinstance(value, np.generic):
        return np.float32(value)
    return np.float32(int(value) if hasattr(value, "read") else value)


def as_float32(value: Any) -> Any:
    """Values as the engines see them: arrays widened, numbers as float32."""
    return widen(value) if type(value) is np.ndarray else np.float32(value)


def round_to_integer(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float32 to an integer type: nearest even, saturating, NaN to zero."""
    low, high = _INTEGER_RANGE[dtype]
    # Values that all fit, and are no NaN, need no second look.
    if values.size and np.maximum.reduce(values, axis=None) <= high and np.minimum.reduce(values, axis=None) >= low:
        return np.rint(values).astype(dtype)
    wide = np.rint(values, dtype=np.float64)
    info = np.iinfo(dtype)
    np.minimum(np.maximum(wide, info.min, out=wide), info.max, out=wide)
    wide[np.isnan(wide)] = 0
    return wide.astype(dtype)


def choose(where: np.ndarray, yes: np.ndarray, no: np.ndarray, out: np.ndarray) -> None:
    """``out = yes`` where ``where`` holds, ``no`` elsewhere, all of one type; ``out`` may be any of the others.

    By masks of bits, for predicates without a pattern: NumPy's own selection branches on each element.
    """
    if where.size < _TABLE_WORTHWHILE or out.itemsize > 4:
        out[...] = np.where(where, yes, no)
        return
    word = np.dtype(f"i{out.itemsize}")
    mask = where.view(np.int8).astype(word)
    np.negative(mask, out=mask)
    left, right = yes.view(word), no.view(word)
    difference = np.bitwise_xor(left, right)
    mask &= difference
    np.bitwise_xor(mask, right, out=out.view(word))


def round_to_tfloat32(values: np.ndarray) -> np.ndarray:
    """float32 with the 10-bit mantissa of tfloat32, to nearest even; infinities and NaN stay."""
    bits = values.view(np.uint32)
    carry = (bits >> np.uint32(13)) & np.uint32(1)
    rounded = ((bits + np.uint32(0xFFF) + carry) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isnan(values), values, rounded)


def _store_byte_float(target: np.ndarray, values: np.ndarray) -> None:
    """Narrow to a one-byte float by its upper 16 bits, the lower ones collected into a sticky bit.

    Exact: no one-byte type keeps more than 4 mantissa bits, so the guard bit lies above the 7 that remain here.
    """
    if values.size < _TABLE_WORTHWHILE:
        target[...] = values
        return
    bits = np.ascontiguousarray(values).view(np.uint32)
    upper = bits & np.uint32(0xFFFF)
    upper += np.uint32(0xFFFF)
    upper |= bits
    upper >>= np.uint32(16)
    target.view(_UINT8)[...] = _down_table(target.dtype).take(upper)


def storer(layout: Layout) -> Store:
    """The function that writes float32 results (or booleans, or integers) into an array of ``layout``'s type."""
    host, dtype = layout.host, layout.dtype

    def plain(target: np.ndarray, values: Any) -> None:
        target[...] = values

    def integers(target: np.ndarray, values: Any) -> None:
        kind = values.dtype.kind
        target[...] = values if kind == "b" or values.dtype == host else round_to_integer(widen(values), host)

    def byte_floats(target: np.ndarray, values: Any) -> None:
        if np.ndim(values) == 0:
            target[...] = values
        else:
            _store_byte_float(target, widen(values))

    def tfloats(target: np.ndarray, values: Any) -> None:
        target[...] = round_to_tfloat32(np.asarray(values, np.float32))

    def booleans(target: np.ndarray, values: Any) -> None:
        target[...] = np.not_equal(values, 0)

    if dtype is tfloat32:
        return tfloats
    if host.kind == "b":
        return booleans
    if host.kind in "iu":
        return integers
    if host in _BYTE_FLOATS:
        return byte_floats
    return plain
