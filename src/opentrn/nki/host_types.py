"""How arrays on the host hold types that NumPy has no name for: the packed MX words and tfloat32.

Importing this module teaches ``numpy.dtype`` their names, so that ``numpy.zeros(shape, dtype=nl.float8_e4m3fn_x4)``
works
as it does with AWS's own packages. A packed word is a structured type of one integer field that carries the type's
name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.dtypes import DType, all_dtypes, tfloat32

__all__ = ["host_dtype", "packed_dtype_of"]

_PACKED: dict[DType, np.dtype] = {d: np.dtype([(str(d), d.numpy)]) for d in all_dtypes() if d.kind == "packed"}
_NAMES: dict[str, Any] = {str(d): host for d, host in _PACKED.items()} | {"tfloat32": np.float32}

for _name, _host in _NAMES.items():
    np.sctypeDict.setdefault(_name, _host)


def host_dtype(dtype: DType) -> np.dtype:
    """The NumPy type in which results of ``dtype`` are handed to the caller."""
    return np.dtype(np.float32) if dtype is tfloat32 else _PACKED.get(dtype, dtype.numpy)


def packed_dtype_of(numpy_dtype: np.dtype) -> DType | None:
    """The packed type that a structured NumPy type names, or None."""
    names = getattr(numpy_dtype, "names", None)
    if not names or len(names) != 1:
        return None
    return next((d for d in _PACKED if str(d) == names[0]), None)
