"""Compile-time constants: NumPy arrays that become part of the program, in HBM."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore import machine
from opentrn.neuroncore.dtypes import DType, as_dtype
from opentrn.neuroncore.memory import FULL, MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.tiles import Tile, fail

__all__ = ["in_hbm", "shared_constant", "shared_identity_matrix"]


def in_hbm(values: np.ndarray, dtype: DType, core: Any) -> NkiTensor:
    """An HBM tensor with these values."""
    tensor = core.allocate(values.shape, dtype, MemoryRegion.private_hbm)
    if core.execute:
        tensor.array()[...] = values.astype(np.float32) if dtype.kind == "float" else values
        tensor.storage.state = FULL
    return tensor


def shared_constant(constant: Any, dtype: Any = None, **_: Any) -> Tile:
    """A NumPy array as an HBM tensor of the kernel; load it with ``nl.load``."""
    array = np.asarray(constant)
    if array.dtype == object:
        raise fail("nl.shared_constant takes a NumPy array of numbers")
    kind = as_dtype(array.dtype) if dtype is None else as_dtype(dtype)
    return Tile(in_hbm(array if array.ndim else array.reshape(1), kind, machine.current()))


def shared_identity_matrix(n: int, dtype: Any = "uint8", **_: Any) -> Tile:
    """The n x n identity matrix as an HBM tensor of the kernel."""
    return shared_constant(np.eye(int(n), dtype=np.float32), dtype)
