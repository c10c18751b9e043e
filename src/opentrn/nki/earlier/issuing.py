"""What the instructions of the earlier API share: their operands as tiles, their results as deferred tiles."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import alu
from opentrn.neuroncore.dtypes import DType, float32
from opentrn.neuroncore.instruction import Engine
from opentrn.neuroncore.isa.settings import engine
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.nki.earlier.arithmetic import _nothing
from opentrn.nki.earlier.operands import (
    Deferred,
    Tile,
    column,
    is_number,
    on_chip,
    tile_of,
)

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum
tensor_engine, vector_engine = engine.tensor, engine.vector


def engine_of(chosen: Any) -> Engine:
    return Engine.unknown if chosen is None else chosen


def on_chip_tile(value: Any, what: str) -> Tile:
    return on_chip(tile_of(value, what), what)


def deferred(shape: tuple[int, ...], par: int, kind: DType, region: Any, emit: Any, **options: Any) -> Tile:
    if region is False:
        return _nothing(shape, kind, par)
    return Deferred(shape, kind, emit, par=par, region=region, **options).defer()


def par_range(region: Any, par: int) -> Any:
    return None if isinstance(region, bool) else region.ranges[par]


def type_of(operand: Any) -> DType:
    return float32 if is_number(operand) else tile_of(operand).dtype


def on_bits(op: Any) -> bool:
    found = alu.operator(op)
    return found is not None and found.bitvec


def written(tile: Any, par_range: Any) -> Any:
    """A column that an instruction writes beside its result."""
    if tile is None:
        return None
    target = tile_of(tile, "reduce_res")
    if target.psum is not None and target.access is not None:
        target.psum.written(target.access, False)
    return column(target, par_range)


def rows_only(region: Any, tile: Tile, shape: tuple[int, ...]) -> Any:
    """The region of a result that has the partitions of ``tile`` and free dimensions of its own."""
    if isinstance(region, bool):
        return region
    rows = region.ranges[tile.par]
    if rows == (0, shape[0]):
        return True
    region.ranges = (rows, *((0, n) for n in shape[1:]))
    region.ragged = None
    return region
