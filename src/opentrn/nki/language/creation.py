"""Making tensors: empty, filled, random, and constants that are loaded with the program."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import as_dtype, uint8, uint32
from opentrn.neuroncore.memory import FULL, MemoryRegion
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = [
    "empty_like", "full", "ndarray", "ones", "rand", "random_seed", "shared_constant", "shared_identity_matrix",
    "zeros",
    "zeros_like",
]  # fmt: skip

_sbuf = MemoryRegion.sbuf


def ndarray(
    shape: Sequence[int], dtype: Any, buffer: MemoryRegion | str = _sbuf, name: str = "",
    address: tuple[int, int] | None = None,
) -> NkiTensor:  # fmt: skip
    """A tensor whose contents are undefined until written.

    Args:
        address: (partition, byte within the partition) for a tensor placed by the kernel.
    """
    return machine.current().allocate(shape, dtype, buffer, name, address)


def zeros(shape: Sequence[int], dtype: Any, buffer: MemoryRegion | str = _sbuf, name: str = "") -> NkiTensor:
    """A tensor of zeros."""
    return full(shape, 0, dtype, buffer, name)


def ones(shape: Sequence[int], dtype: Any, buffer: MemoryRegion | str = _sbuf, name: str = "") -> NkiTensor:
    """A tensor of ones."""
    return full(shape, 1, dtype, buffer, name)


def full(
    shape: Sequence[int], fill_value: Any, dtype: Any, buffer: MemoryRegion | str = _sbuf, name: str = ""
) -> NkiTensor:
    """A tensor filled with a number."""
    tensor = ndarray(shape, dtype, buffer, name)
    isa.memset(tensor, fill_value)
    return tensor


def empty_like(x: NkiTensor, dtype: Any = None, buffer: MemoryRegion | str | None = None, name: str = "") -> NkiTensor:
    """An undefined tensor of the shape of ``x``, and of its type and memory unless given."""
    return ndarray(x.shape, x.dtype if dtype is None else dtype, x.buffer if buffer is None else buffer, name)


def zeros_like(x: NkiTensor, dtype: Any = None, buffer: MemoryRegion | str | None = None, name: str = "") -> NkiTensor:
    """Zeros in the shape of ``x``, and of its type and memory unless given."""
    tensor = empty_like(x, dtype, buffer, name)
    isa.memset(tensor, 0)
    return tensor


def random_seed(seed: NkiTensor) -> None:
    """Seed the Vector engine's generator with the 32-bit value of a (1, 1) tensor; the same seed gives the same
    :func:`rand`."""
    isa.set_rng_seed(seed)


def rand(shape: Sequence[int], dtype: Any, buffer: MemoryRegion | str = _sbuf, name: str = "") -> NkiTensor:
    """Uniform random numbers in [0, 1), of 24 random bits each, rounded to ``dtype``."""
    tensor = ndarray(shape, dtype, buffer, name)
    if tensor.layout.on_chip:
        _fill_random(tensor)
        return tensor
    rows = tensor.reshape((tensor.shape[0], -1))
    tile_rows = machine.current().hardware.num_partitions
    for start in range(0, rows.shape[0], tile_rows):
        block = rows[start : min(start + tile_rows, rows.shape[0])]
        tile = ndarray(block.shape, dtype)
        _fill_random(tile)
        isa.dma_copy(block, tile)
    return tensor


def _fill_random(tile: NkiTensor) -> None:
    bits = ndarray(tile.shape, uint32)
    isa.rng(bits)
    isa.tensor_scalar(bits, bits, op0="right_shift", operand0=8)
    isa.tensor_scalar(tile, bits, op0="multiply", operand0=2.0**-24)


def shared_constant(constant: Any) -> NkiTensor:
    """A constant that is loaded with the program, in shared HBM.

    Args:
        constant: a NumPy array, or the path of a ``.npy`` file.

    Raises:
        ValidationError: the file cannot be read, or holds a type that a NeuronCore does not.
    """
    if isinstance(constant, (str, os.PathLike)):
        try:
            constant = np.load(constant)
        except (OSError, ValueError) as error:
            raise ValidationError(f"shared_constant: cannot read {constant}: {error}", caller()) from None
    data = np.asarray(constant)
    try:
        kind = as_dtype(data.dtype)
    except TypeError:
        raise ValidationError(
            f"shared_constant: a NeuronCore holds no {data.dtype}; convert the array first", caller()
        ) from None
    tensor = ndarray(data.shape or (1,), kind, MemoryRegion.shared_hbm)
    _load_constant(tensor, data)
    return tensor


def _load_constant(tensor: NkiTensor, data: np.ndarray) -> None:
    if machine.current().execute:
        tensor.array()[...] = data.reshape(tensor.shape)
        tensor.storage.state = FULL


def shared_identity_matrix(n: int, dtype: Any = uint8, dst: NkiTensor | None = None) -> NkiTensor:
    """The (n, n) identity in SBUF, loaded from a constant; into ``dst`` if given."""
    kind = as_dtype(dtype)
    source = ndarray((n, n), kind, MemoryRegion.shared_hbm, name=f"identity_{n}_{kind}")
    _load_constant(source, np.eye(n, dtype=source.layout.host))
    tile = ndarray((n, n), kind) if dst is None else dst
    isa.dma_copy(tile, source)
    return tile
