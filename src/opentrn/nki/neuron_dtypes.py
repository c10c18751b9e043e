"""``neuron_dtypes``: the NumPy types and casts that kernels' tests import next to NKI.

Each name is a NumPy type of ``ml_dtypes``, or a packed word of :mod:`opentrn.nki.host_types`.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from opentrn.neuroncore.dtypes import as_dtype
from opentrn.nki.host_types import host_dtype, packed_dtype_of

__all__ = [
    "bfloat16", "finfo", "float4_e2m1fn_x4", "float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e4m3fn_x4",
    "float8_e5m2", "float8_e5m2_x4", "float8_e8m0fnu", "is_float_type", "sizeinbytes", "static_cast", "tfloat32",
]  # fmt: skip

bfloat16 = ml_dtypes.bfloat16
float8_e3m4 = ml_dtypes.float8_e3m4
float8_e4m3 = ml_dtypes.float8_e4m3
float8_e4m3fn = ml_dtypes.float8_e4m3fn
float8_e5m2 = ml_dtypes.float8_e5m2
float8_e8m0fnu = ml_dtypes.float8_e8m0fnu
tfloat32 = np.float32
float8_e4m3fn_x4 = host_dtype(as_dtype("float8_e4m3fn_x4"))
float8_e5m2_x4 = host_dtype(as_dtype("float8_e5m2_x4"))
float4_e2m1fn_x4 = host_dtype(as_dtype("float4_e2m1fn_x4"))

_ELEMENTS = {
    "float8_e4m3fn_x4": ml_dtypes.float8_e4m3fn,
    "float8_e5m2_x4": ml_dtypes.float8_e5m2,
    "float4_e2m1fn_x4": ml_dtypes.float4_e2m1fn,
}


def _numpy(dtype: Any) -> np.dtype:
    try:
        return host_dtype(as_dtype(dtype))
    except TypeError:
        return np.dtype(dtype)


def finfo(dtype: Any) -> Any:
    """Limits of a float type, as ``numpy.finfo`` gives them."""
    return ml_dtypes.finfo(_numpy(dtype))


def sizeinbytes(dtype: Any) -> int:
    """Bytes of one element."""
    return _numpy(dtype).itemsize


def is_float_type(dtype: Any) -> bool:
    """Whether a type is floating point, the narrow ones included."""
    kind = _numpy(dtype)
    if kind.names:
        return False
    try:
        ml_dtypes.finfo(kind)
    except (TypeError, ValueError):
        return False
    return True


def static_cast(array: Any, dtype: Any) -> np.ndarray:
    """An array converted to another type; four elements of the last dimension become one packed word, and back."""
    values = np.asarray(array)
    target = _numpy(dtype)
    if values.dtype == target:
        return values
    packed = packed_dtype_of(values.dtype)
    if packed is not None:
        values = _unpack(values, str(packed))
    into = packed_dtype_of(target)
    if into is not None:
        return _pack(values, str(into), target)
    return values.astype(target)


def _unpack(words: np.ndarray, name: str) -> np.ndarray:
    """The elements of packed words, the first in the lowest bits."""
    element = _ELEMENTS[name]
    bits = np.ascontiguousarray(words)
    if name.startswith("float4"):
        raw = bits.view(np.uint16)[..., None] >> np.array([0, 4, 8, 12], np.uint16)
        elements = (raw & np.uint16(0xF)).astype(np.uint8).view(element)
    else:
        elements = bits.view(np.uint8).view(element).reshape(*words.shape, 4)
    return elements.reshape(*words.shape[:-1], words.shape[-1] * 4)


def _pack(values: np.ndarray, name: str, target: np.dtype) -> np.ndarray:
    element = _ELEMENTS[name]
    narrow = np.ascontiguousarray(values.astype(element))
    shape = (*narrow.shape[:-1], narrow.shape[-1] // 4)
    if name.startswith("float4"):
        nibbles = narrow.view(np.uint8).reshape(*shape, 4).astype(np.uint16) & np.uint16(0xF)
        words = (nibbles << np.array([0, 4, 8, 12], np.uint16)).sum(axis=-1, dtype=np.uint16)
    else:
        words = narrow.view(np.uint8).reshape(*shape, 4).view(np.uint32).reshape(shape)
    return np.ascontiguousarray(words).view(target)
