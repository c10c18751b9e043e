"""What the functions of ``nki.language`` do to their operands before they issue an instruction.

Tiles of different shapes are broadcast along free dimensions (by a stride of zero) and, where they have one partition,
across partitions (by an instruction); types of different kinds are promoted.
"""

from __future__ import annotations

from typing import Any

from opentrn.errors import ValidationError
from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import DType, as_dtype, bfloat16, float16, float32, is_float
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["broadcast_shape", "expanded", "fail", "in_sbuf", "new_tile", "promoted", "require_tile", "spread"]

_QUADRANT = 32


def fail(what: str, message: str) -> ValidationError:
    """A refusal of a call of ``nl.<what>``, with the line of the kernel."""
    return ValidationError(f"nl.{what}: {message}", caller())


def require_tile(value: Any, what: str) -> NkiTensor:
    """``value``, refused unless it is a tile in SBUF or PSUM."""
    if not isinstance(value, NkiTensor):
        raise fail(what, f"needs a tile in SBUF or PSUM, not {type(value).__name__}")
    if not value.layout.on_chip:
        raise fail(
            what, f"the operand {list(value.shape)} is in {value.buffer.value}; load it into SBUF first, with nl.load"
        )
    return value


def new_tile(shape: tuple[int, ...], dtype: Any, region: MemoryRegion = MemoryRegion.sbuf) -> NkiTensor:
    """A tile for a result."""
    return machine.current().allocate(shape, dtype, region)


def in_sbuf(tile: NkiTensor) -> NkiTensor:
    """The tile itself if in SBUF, else a copy there."""
    if tile.buffer is MemoryRegion.sbuf:
        return tile
    copied = new_tile(tile.shape, tile.dtype)
    isa.tensor_copy(copied, tile)
    return copied


def _wider(a: DType, b: DType) -> DType:
    """The type that results from tiles of types ``a`` and ``b``."""
    if a is b:
        return a
    if is_float(a) != is_float(b):
        return a if is_float(a) else b
    if {a, b} == {bfloat16, float16}:
        return float32  # neither holds the other
    if a.itemsize != b.itemsize:
        return a if a.itemsize > b.itemsize else b
    return float32 if is_float(a) else a if a.kind == "int" else b


def promoted(*values: Any, dtype: Any = None) -> DType:
    """The type of a result: ``dtype`` if given, else what the tiles promote to.

    Numbers do not widen a type; a fraction makes an integer tile float32.
    """
    if dtype is not None:
        return as_dtype(dtype)
    kinds = [v.dtype for v in values if isinstance(v, NkiTensor)]
    result = kinds[0]
    for kind in kinds[1:]:
        result = _wider(result, kind)
    fraction = any(isinstance(v, float) and not v.is_integer() for v in values)
    return float32 if fraction and not is_float(result) else result


def broadcast_shape(what: str, *tiles: NkiTensor) -> tuple[int, ...]:
    """The shape that tiles of equal rank broadcast to."""
    rank = max(t.ndim for t in tiles)
    shape = [1] * rank
    for tile in tiles:
        if tile.ndim != rank:
            raise fail(what, f"tiles of {[list(t.shape) for t in tiles]} differ in rank; reshape them to the same")
        for d, n in enumerate(tile.shape):
            if n != 1 and shape[d] not in (1, n):
                raise fail(what, f"tiles of {[list(t.shape) for t in tiles]} do not broadcast to one shape")
            shape[d] = max(shape[d], n)
    return tuple(shape)


def spread(tile: NkiTensor, partitions: int) -> NkiTensor:
    """A new tile with the one partition of ``tile`` repeated over ``partitions``, by shuffles of 32 partitions each."""
    result = new_tile((partitions, *tile.shape[1:]), tile.dtype)
    for first in range(0, partitions, _QUADRANT):
        isa.nc_stream_shuffle(result[first : min(first + _QUADRANT, partitions)], tile, [0] * _QUADRANT)
    return result


def expanded(tile: NkiTensor, shape: tuple[int, ...]) -> NkiTensor:
    """``tile`` as a view (or, across partitions, a tile) of ``shape``."""
    if tile.shape[0] == 1 and shape[0] != 1:
        tile = spread(tile, shape[0])
    for d in range(1, len(shape)):
        if tile.shape[d] != shape[d]:
            tile = tile.broadcast(d, shape[d])
    return tile
