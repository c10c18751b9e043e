"""Compile-time constants: NumPy arrays that become part of the program, in HBM."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import DType, as_dtype
from opentrn.neuroncore.memory import FULL, MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.tiles import Tile
from opentrn.nki.earlier.views import fail

__all__ = ["identity", "in_hbm", "ones", "shared_constant", "shared_identity_matrix"]


def in_hbm(values: np.ndarray, dtype: DType, core: Any) -> NkiTensor:
    """An HBM tensor with these values."""
    tensor = core.allocate(values.shape, dtype, MemoryRegion.private_hbm)
    if core.execute:
        tensor.array()[...] = values.astype(np.float32) if dtype.kind == "float" else values
        tensor.storage.state = FULL
    return tensor


_kept: weakref.WeakKeyDictionary[Any, dict[Any, NkiTensor]] = weakref.WeakKeyDictionary()


def identity(size: int, dtype: DType) -> NkiTensor:
    """The identity matrix in SBUF, loaded once a launch: what a transposing matmul moves."""
    core = machine.current()
    kept = _kept.setdefault(core, {})
    known = kept.get(dtype)
    if known is None:
        n = core.hardware.num_partitions
        known = kept[dtype] = core.allocate((n, n), dtype, MemoryRegion.sbuf)
        isa.dma_copy(known, in_hbm(np.eye(n, dtype=np.float32), dtype, core))
    return known[0:size, 0:size]


def ones(dtype: DType) -> NkiTensor:
    """A row of ones in SBUF, filled once a launch: a matmul with it repeats a row on all partitions."""
    core = machine.current()
    kept = _kept.setdefault(core, {})
    known = kept.get(("ones", dtype))
    if known is None:
        known = kept["ones", dtype] = core.allocate((1, core.hardware.num_partitions), dtype, MemoryRegion.sbuf)
        isa.memset(known, 1.0)
    return known


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
