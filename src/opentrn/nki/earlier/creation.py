"""New tiles: ``nl.ndarray``, ``zeros``, ``full``, random numbers."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import float32, uint32
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.blocks import allocate
from opentrn.nki.earlier.operands import Deferred, dtype_of, fail, flush, is_number, number, region_of, tile_of

__all__ = ["empty_like", "full", "ndarray", "ones", "par_dim", "rand", "random_seed", "zeros", "zeros_like"]


class par_dim(int):
    """Marks the partition dimension in a shape; the dimensions before it are blocks."""

    def __new__(cls, value: Any) -> par_dim:
        return super().__new__(cls, int(value))

    def __repr__(self) -> str:
        return f"nl.par_dim({int(self)})"


def ndarray(shape: Any, dtype: Any, *, buffer: Any = None, name: str = "", **_: Any) -> Any:
    """A tensor whose contents are undefined, in SBUF unless ``buffer`` says otherwise."""
    return allocate(shape, dtype, buffer, name)


def zeros(shape: Any, dtype: Any, *, buffer: Any = None, name: str = "", **_: Any) -> Any:
    """A tensor of zeros; in PSUM the first matmul that accumulates into it makes the fill unnecessary."""
    return allocate(shape, dtype, buffer, name, 0)


def ones(shape: Any, dtype: Any, *, buffer: Any = None, name: str = "", **_: Any) -> Any:
    """A tensor of ones."""
    return allocate(shape, dtype, buffer, name, 1)


def full(shape: Any, fill_value: Any, dtype: Any, *, buffer: Any = None, name: str = "", **_: Any) -> Any:
    """A tensor filled with a number."""
    if not is_number(fill_value):
        raise fail(f"nl.full: fill_value is {fill_value!r}, not a number")
    return allocate(shape, dtype, buffer, name, number(fill_value))


def empty_like(a: Any, dtype: Any = None, *, buffer: Any = None, name: str = "", **_: Any) -> Any:
    """A tensor with the shape and type of another, contents undefined."""
    return allocate(_shape(a), dtype or a.dtype, a.buffer if buffer is None else buffer, name)


def zeros_like(a: Any, dtype: Any = None, *, buffer: Any = None, name: str = "", **_: Any) -> Any:
    """A tensor of zeros with the shape and type of another."""
    return allocate(_shape(a), dtype or a.dtype, a.buffer if buffer is None else buffer, name, 0)


def _shape(a: Any) -> tuple:
    shape, par = list(a.shape), getattr(a, "par", len(getattr(a, "blocks", ())))
    if a.buffer.on_chip:
        shape[par] = par_dim(shape[par])
    return tuple(shape)


def rand(shape: Any, dtype: Any = float32, **_: Any) -> Any:
    """A tile of random numbers in [0, 1)."""
    flush()
    sizes = tuple(int(n) for n in (shape if isinstance(shape, (tuple, list)) else (shape,)))
    if len(sizes) == 1:
        sizes = (*sizes, 1)

    def emit(dst: NkiTensor) -> None:
        bits = machine.current().allocate(dst.layout.shape, uint32, MemoryRegion.sbuf)
        isa.rng(bits)
        isa.tensor_scalar(bits, bits, "right_shift", 8)  # 24 bits: what a float32 holds exactly
        isa.tensor_scalar(dst, bits, "multiply", 2.0**-24)

    return Deferred(sizes, dtype_of(dtype, float32), emit, regions=(MemoryRegion.sbuf,)).defer()


def random_seed(seed: Any, *, mask: Any = None, **_: Any) -> None:
    """Seed the random numbers of the core with an integer or a (1, 1) tile."""
    flush()
    if mask is not None and region_of(mask, (1, 1)) is False:
        return
    core = machine.current()
    seeds = core.allocate((1, 1), uint32, MemoryRegion.sbuf)
    if is_number(seed):
        isa.memset(seeds, int(seed))
    else:
        isa.tensor_copy(seeds, tile_of(seed, "the seed").nki)
    isa.set_rng_seed(seeds)
