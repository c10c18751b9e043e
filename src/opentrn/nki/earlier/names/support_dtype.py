"""``neuronxcc.starfish.support.dtype``: NumPy types of the narrow floats."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import dtypes as _dtypes

bfloat16 = _dtypes.bfloat16.numpy
float8_e4m3 = _dtypes.float8_e4m3.numpy
float8_e5m2 = _dtypes.float8_e5m2.numpy


def static_cast(x: Any, dtype: Any) -> Any:
    """A NumPy array of another type."""
    from opentrn.nki.earlier.language import static_cast as cast

    return cast(x, dtype)


def sizeinbytes(dtype: Any) -> int:
    """Bytes of an element of a type."""
    return _dtypes.as_dtype(dtype).itemsize
