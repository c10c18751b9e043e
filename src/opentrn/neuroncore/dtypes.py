"""The data types of the NeuronCore, and how their values are held on the host.

A :class:`DType` is a string (``nl.bfloat16 == "bfloat16"``, as the NKI documentation says) that also
knows its size and the NumPy type that stores it. ``ml_dtypes`` supplies every narrow float; the
packed ``x4`` types are opaque words of four elements and are unpacked by the MX instructions.
"""

from __future__ import annotations

import os
from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["DType", "as_dtype", "is_float", "is_integer", "is_packed", "numpy_dtype", "precise_fp", "all_dtypes"]


class DType(str):
    """Name of a NeuronCore data type; compares equal to its name and to the NumPy type of the same values."""

    itemsize: int
    bits: int
    kind: str
    """One of ``float``, ``int``, ``uint``, ``bool``, ``packed``, ``scale``."""
    numpy: np.dtype

    def __new__(cls, name: str, numpy_type: Any, kind: str, bits: int | None = None) -> DType:
        self = super().__new__(cls, name)
        self.numpy = np.dtype(numpy_type)
        self.itemsize = self.numpy.itemsize
        self.kind = kind
        self.bits = bits or 8 * self.itemsize
        return self

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, str):
            return str.__eq__(self, other)
        try:
            return as_dtype(other) is self
        except TypeError:
            return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__

    def __repr__(self) -> str:
        return f"nl.{str(self)}"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (as_dtype, (str(self),))

    def __copy__(self) -> DType:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> DType:
        return self


bool_ = DType("bool", np.bool_, "bool")
int8 = DType("int8", np.int8, "int")
int16 = DType("int16", np.int16, "int")
int32 = DType("int32", np.int32, "int")
int64 = DType("int64", np.int64, "int")
uint8 = DType("uint8", np.uint8, "uint")
uint16 = DType("uint16", np.uint16, "uint")
uint32 = DType("uint32", np.uint32, "uint")
float16 = DType("float16", np.float16, "float")
float32 = DType("float32", np.float32, "float")
bfloat16 = DType("bfloat16", ml_dtypes.bfloat16, "float")
tfloat32 = DType("tfloat32", np.float32, "float")
float8_e3m4 = DType("float8_e3m4", ml_dtypes.float8_e3m4, "float")
float8_e4m3 = DType("float8_e4m3", ml_dtypes.float8_e4m3, "float")
float8_e4m3fn = DType("float8_e4m3fn", ml_dtypes.float8_e4m3fn, "float")
float8_e5m2 = DType("float8_e5m2", ml_dtypes.float8_e5m2, "float")
float8_e8m0fnu = DType("float8_e8m0fnu", ml_dtypes.float8_e8m0fnu, "scale")
float8_e5m2_x4 = DType("float8_e5m2_x4", np.uint32, "packed")
float8_e4m3fn_x4 = DType("float8_e4m3fn_x4", np.uint32, "packed")
float4_e2m1fn_x4 = DType("float4_e2m1fn_x4", np.uint16, "packed")

_ALL = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, float16, float32, bfloat16, tfloat32, float8_e3m4,
    float8_e4m3, float8_e4m3fn, float8_e5m2, float8_e8m0fnu, float8_e5m2_x4, float8_e4m3fn_x4, float4_e2m1fn_x4,
)  # fmt: skip
_BY_NAME: dict[str, DType] = {str(d): d for d in _ALL}
_BY_NAME.update(
    {
        "bool_": bool_,
        "tf32": tfloat32,
        "fp32": float32,
        "bf16": bfloat16,
        "fp16": float16,
        # The names that the compiler's own reports print.
        "float8e4": float8_e4m3,
        "float8e5": float8_e5m2,
        "float8e3": float8_e3m4,
        "half": float16,
        "float": float32,
    }
)
# Values that arrive from NumPy, JAX or torch: tfloat32 and the packed types have no type of their own there.
_BY_NUMPY: dict[np.dtype, DType] = {d.numpy: d for d in reversed(_ALL) if d.kind != "packed" and d is not tfloat32}
_HOST_WIDE: dict[np.dtype, DType] = {np.dtype(np.float64): float32, np.dtype(np.uint64): uint32}
_LOW_PRECISION = frozenset(
    (bfloat16, float16, float8_e3m4, float8_e4m3, float8_e4m3fn, float8_e5m2),
)


def all_dtypes() -> tuple[DType, ...]:
    """Every data type, in declaration order."""
    return _ALL


def as_dtype(value: Any) -> DType:
    """The :class:`DType` that ``value`` names: a DType, a name, a NumPy or ml_dtypes type, or a torch dtype.

    Raises:
        TypeError: ``value`` names no type that a NeuronCore holds.
    """
    if type(value) is DType:
        return value
    if isinstance(value, str):
        name = value.removeprefix("nl.").removeprefix("torch.")
        found = _BY_NAME.get(name)
        if found is not None:
            return found
        raise TypeError(f"{value!r} is not a NeuronCore data type")
    name = getattr(value, "__neuron_dtype__", None)
    if name is not None:
        return as_dtype(name)
    text = str(value)
    if text.startswith("torch."):
        return as_dtype(text)
    if isinstance(value, type) and issubclass(value, bool):
        return bool_
    try:
        numpy_type = np.dtype(value)
    except TypeError:
        raise TypeError(f"{value!r} is not a NeuronCore data type") from None
    found = _BY_NUMPY.get(numpy_type) or _HOST_WIDE.get(numpy_type)
    if found is None:
        raise TypeError(f"{value!r} is not a NeuronCore data type")
    return found


def precise_fp() -> bool:
    """Whether narrow floats are stored in their own width (``NKI_PRECISE_FP``, default 1)."""
    return os.environ.get("NKI_PRECISE_FP", "1") not in ("0", "false", "False")


def numpy_dtype(dtype: DType, precise: bool = True) -> np.dtype:
    """The NumPy type that holds ``dtype`` on the host; float32 for narrow floats when not ``precise``."""
    if not precise and dtype in _LOW_PRECISION:
        return float32.numpy
    return dtype.numpy


def is_float(dtype: DType) -> bool:
    """Whether arithmetic on ``dtype`` is floating point."""
    return dtype.kind == "float"


def is_integer(dtype: DType) -> bool:
    """Whether ``dtype`` is an integer (or boolean) type, which bit-vector operators accept."""
    return dtype.kind in ("int", "uint", "bool")


def is_packed(dtype: DType) -> bool:
    """Whether ``dtype`` packs four MX elements into a word."""
    return dtype.kind == "packed"
