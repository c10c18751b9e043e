"""Moving tiles: load, store, copy, assignment, broadcast and transposition."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import DType, float32, is_float, uint8
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.blocks import Blocks, fill
from opentrn.nki.earlier.indices import Index
from opentrn.nki.earlier.operands import (
    Deferred,
    Tile,
    aligned,
    column,
    dtype_of,
    fail,
    flush,
    in_sbuf,
    is_number,
    number,
    part,
    pieces,
    ranges_of,
    region_of,
    tile_of,
)
from opentrn.nki.earlier.views import box, whole

__all__ = [
    "accumulate",
    "assign",
    "broadcast_partitions",
    "broadcast_to",
    "copy",
    "copy_where",
    "load",
    "load_transpose2d",
    "store",
    "transpose",
]

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum


def load(src: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Load a tensor or view of HBM into a new SBUF tile; its first dimension becomes the partition dimension.

    ``dtype`` converts on the way. A view indexed by a tile of row numbers is gathered.
    """
    flush()
    source = tile_of(src, "the source of nl.load")
    shape = source.shape
    region = region_of(mask, shape, source)
    kind = dtype_of(dtype, source.dtype)
    view = None if region is False else part(source, ranges_of(region))
    if len(shape) == 1:
        shape = (shape[0], 1)
        if not isinstance(region, bool):
            region.ranges = (*region.ranges, (0, 1))
            region.ragged = region.ragged[:, None] if region.ragged is not None else None

    def emit(dst: NkiTensor) -> None:
        isa.dma_copy(dst, view)

    return Deferred(shape, kind, emit, regions=(_sbuf,), moves=True, region=region).defer()


def store(dst: Any, value: Any = None, *, mask: Any = None, **_: Any) -> None:
    """Store a tile or a number into a tensor or view of HBM; a tile in PSUM is copied to SBUF first.

    Raises:
        ValidationError: the shapes hold different numbers of elements, or an unmasked index reaches outside.
    """
    flush()
    target = tile_of(dst, "the destination of nl.store")
    shape = target.shape
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if is_number(value):
        region = region_of(mask, shape, target)
        if region is not False:
            for piece in _pieces(target, region):
                isa.memset(piece, number(value))
        return
    tile = tile_of(value, "the value of nl.store")
    if tile.buffer is _psum:
        tile = _converted(tile, target.dtype)
    region = region_of(mask, shape, target, tile)
    if region is False:
        return
    if tile.size != target.size:
        raise fail(
            f"nl.store: the destination {list(shape)} holds {target.size} elements "
            f"and the value {list(tile.shape)} {tile.size}"
        )
    if region is True:
        a, b = target.nki, tile.nki
        if tile.par:
            order = [tile.par, *range(tile.par), *range(tile.par + 1, a.layout.ndim)]
            a = a._view(tuple(a.layout.shape[d] for d in order), tuple(a.layout.strides[d] for d in order), a.offset)
        isa.dma_copy(a, b)
        return
    ranges = region.ranges
    own = _fit_ranges(ranges, shape, tile.shape)
    if region.ragged is None:
        isa.dma_copy(part(target, ranges), part(tile, own))
        return
    # A ragged mask leaves runs of elements: one transfer a run, as the descriptors of the DMA would be.
    a, b = part(target, ranges), part(tile, own)
    for run in _runs(region.ragged):
        isa.dma_copy(box(a, 0, run), box(b, tile.par, _fit_ranges(run, a.layout.shape, b.layout.shape)))


def _pieces(target: Tile, region: Any) -> list[NkiTensor]:
    if region is True:
        return [whole(target.nki)]
    view = part(target, region.ranges)
    if region.ragged is None:
        return [view]
    return [box(view, target.par, run) for run in _runs(region.ragged)]


def _runs(ragged: np.ndarray) -> list[tuple[tuple[int, int], ...]]:
    """Boxes (one row, one run of its last axis) that make up a boolean array."""
    boxes = []
    for row in np.ndindex(ragged.shape[:-1]):
        line = np.flatnonzero(np.diff(np.concatenate(([0], ragged[row].astype(np.int8), [0]))))
        for low, high in zip(line[0::2], line[1::2], strict=True):
            boxes.append((*((n, n + 1) for n in row), (int(low), int(high))))
    return boxes


def _fit_ranges(ranges: tuple, shape: tuple, other: tuple) -> tuple:
    """Ranges of ``shape`` for a tile of the same elements in another shape (dimensions of size 1 apart)."""
    if other == shape:
        return ranges
    kept = [r for r, n in zip(ranges, shape, strict=True) if n != 1]
    if [n for n in other if n != 1] != [n for n in shape if n != 1]:
        raise fail(f"a mask on {list(shape)} does not fit a tile of shape {list(other)}; give both the same shape")
    remaining = iter(kept)
    return tuple((0, 1) if n == 1 else next(remaining) for n in other)


def copy(src: Any, *, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any) -> Tile:
    """A copy of a tile, of another type if ``dtype`` says so."""
    flush()
    source = tile_of(src, "the source of a copy")
    if not source.buffer.on_chip:
        return load(source, mask=mask, dtype=dtype)
    shape, par = source.shape, source.par
    region = region_of(mask, shape, source)
    view: Any = None if region is False else part(source, ranges_of(region))
    chosen = isa.tensor_copy.instruction.operands["engine"].default if engine is None else engine

    def emit(dst: NkiTensor) -> None:
        for to, source in pieces(dst, view):
            isa.tensor_copy(to, source, engine=chosen)

    return Deferred(shape, dtype_of(dtype, source.dtype), emit, par=par, moves=dtype is None, region=region).defer()


def _converted(tile: Tile, dtype: DType) -> Tile:
    copied = copy(tile, dtype=dtype)
    flush()
    return copied


def assign(target: Any, value: Any) -> None:
    """Write ``value`` into the view ``target``."""
    if isinstance(target, Blocks):
        target = tile_of(target)
    if type(value) is Tile:
        deferred = value.deferred
        if deferred is not None:
            if deferred.reduces is not None:
                deferred.done = True
                deferred.reduces(target)
                value.deferred, value.access, value.par, value.psum = None, target.access, target.par, target.psum
                return
            if deferred.into(target):
                return
            ranges, nothing, ragged = deferred.ranges, deferred.nothing, deferred.ragged
            deferred.force()
            if nothing:
                return
            if ranges is not None:
                ranges_there = _fit_ranges(ranges, value.shape, target.shape)
                dst, src = part(target, ranges_there), part(value, ranges)
                if ragged is not None:
                    copy_where(dst, np.moveaxis(ragged, value.par, 0), src)
                else:
                    _move(dst, src)
                return
        _copy_into(target, value)
        return
    flush()
    if is_number(value):
        fill(target, number(value))
    elif isinstance(value, (Index, NkiTensor, Blocks)):
        _copy_into(target, tile_of(value))
    else:
        raise fail(f"a tile cannot hold {type(value).__name__}; assign a tile or a number")


def _copy_into(target: Tile, value: Tile) -> None:
    flush()
    src = value.nki
    if target.psum is not None and target.access is not None:
        target.psum.written(target.access, False)
    dst = target.nki
    if dst.storage is src.storage and dst.offset == src.offset and dst.layout is src.layout:
        return
    if value.shape != target.shape:
        same = dst.layout.size == src.layout.size
        chips = dst.layout.on_chip and src.layout.on_chip
        if not same or (chips and dst.layout.shape[0] != src.layout.shape[0]):
            shape = target.shape
            src = aligned(value, shape, target.par, None)
    elif value.par != target.par:
        src = aligned(value, target.shape, target.par, None)
    _move(dst, src)


def _move(dst: NkiTensor, src: NkiTensor) -> None:
    if dst.layout.on_chip and src.layout.on_chip:
        isa.tensor_copy(dst, src)
    else:
        if src.layout.region is _psum:
            src = _converted(Tile(src), dst.layout.dtype).nki
        isa.dma_copy(dst, src)


def accumulate(target: Tile, value: Any) -> Tile:
    """``target += value``; a matmul into PSUM adds in the Tensor engine's accumulation."""
    if type(value) is Tile and value.deferred is not None and value.deferred.matmul and target.buffer is _psum:
        deferred, seeds = value.deferred, target.psum
        assert target.access is not None
        if deferred.nothing:
            flush()
            return target
        place = box(target.access, target.par, deferred.ranges) if deferred.ranges is not None else target.access
        possible, adds = seeds.mode(place) if seeds is not None else (True, None)
        if possible and deferred.into(target, adds):
            return target
    from opentrn.nki.earlier.arithmetic import add

    if type(value) is Tile and value.deferred is not None and value.deferred.nothing:
        flush()
        return target
    if type(value) is Tile and value.deferred is not None and value.deferred.ranges is not None:
        ranges = value.deferred.ranges
        value.deferred.force()
        inner, other = Tile(part(target, ranges), target.par, psum=target.psum), Tile(part(value, ranges), value.par)
        assign(inner, add(inner, other, dtype=target.dtype))
        return target
    result = add(target, value, dtype=target.dtype)
    deferred = result.deferred
    if deferred is not None and target.shape == deferred.shape and target.buffer in deferred.regions:
        view = target.nki
        if target.psum is not None:
            target.psum.written(view, False)
        deferred.run(view, target.par)
        result.deferred, result.access = None, target.access
    else:
        assign(target, result)
    return target


def broadcast_partitions(tile: Tile, count: int) -> Tile:
    """A tile of one partition repeated on ``count`` partitions, in SBUF.

    Floats go through the Tensor engine (a column of ones times the row, exact), other types through DMA.
    """
    flush()
    source = in_sbuf(tile)
    shape = list(source.shape)
    shape[source.par] = count
    view = source.nki
    core = machine.current()
    nki_shape = (count, *view.layout.shape[1:])
    result = core.allocate(nki_shape, source.dtype, _sbuf)
    free = view.layout.free_size
    if is_float(source.dtype) and source.dtype.itemsize > 1 and view.layout.is_contiguous():
        from opentrn.nki.earlier.constants import ones

        stationary = ones(source.dtype)[:, 0:count]
        row, flat = whole(view), whole(result)
        step = core.hardware.gemm_moving_fmax
        for start in range(0, free, step):
            size = min(step, free - start)
            product = core.allocate((count, size), "float32", _psum)
            isa.nc_matmul(product, stationary, row[:, start : start + size], accumulate=False)
            isa.tensor_copy(flat[:, start : start + size], product)
    else:
        isa.dma_copy(result, view._view(nki_shape, (0, *view.layout.strides[1:]), view.offset))
    return Tile(result, source.par)


def broadcast_to(src: Any, shape: Any, **_: Any) -> Tile:
    """The tile repeated to ``shape``: along free dimensions a view, along partitions a copy."""
    flush()
    tile = tile_of(src)
    sizes = tuple(int(n) for n in shape)
    if tile.shape == sizes:
        return tile
    if not tile.buffer.on_chip:
        view = tile.nki
        own, strides = list(view.layout.shape), list(view.layout.strides)
        own, strides = [1] * (len(sizes) - len(own)) + own, [0] * (len(sizes) - len(strides)) + strides
        if any(n not in (1, m) for n, m in zip(own, sizes, strict=True)):
            raise fail(f"broadcast_to: {list(tile.shape)} does not broadcast to {list(sizes)}")
        return Tile(
            view._view(
                sizes, tuple(0 if n != m else s for n, m, s in zip(own, sizes, strides, strict=True)), view.offset
            )
        )
    par = tile.par + len(sizes) - tile.ndim
    return Tile(aligned(tile, sizes, par, None), par, None, None, tile.psum)


def transpose(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Tile:
    """Swap the partition and free dimensions of a tile of at most 128 x 128."""
    from opentrn.nki.earlier.isa import nc_transpose

    return nc_transpose(x, mask=mask, dtype=dtype)


def load_transpose2d(src: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Load a 2-D view of HBM with its dimensions swapped: (F, P) becomes a tile (P, F)."""
    flush()
    source = tile_of(src, "the source of nl.load_transpose2d")
    if source.ndim != 2:
        raise fail(f"nl.load_transpose2d takes a 2-D view, not {list(source.shape)}")
    region = region_of(mask, source.shape, source)
    view = None if region is False else part(source, ranges_of(region))
    rows, columns = source.shape
    if not isinstance(region, bool):
        region.ranges = (region.ranges[1], region.ranges[0])
        region.ragged = region.ragged.T if region.ragged is not None else None

    def emit(dst: NkiTensor) -> None:
        assert view is not None
        shape, strides = view.layout.shape, view.layout.strides
        isa.dma_copy(dst, view._view((shape[1], shape[0]), (strides[1], strides[0]), view.offset))

    kind = dtype_of(dtype, source.dtype)
    return Deferred((columns, rows), kind, emit, regions=(_sbuf,), moves=True, region=region).defer()


def copy_where(dst: NkiTensor, selected: np.ndarray, src: NkiTensor) -> None:
    """Copy the elements of ``src`` that ``selected`` marks (partition first)."""
    core = machine.current()
    predicate = constant(selected.reshape(dst.layout.shape).astype(np.uint8), uint8, core)
    isa.tensor_copy_predicated(dst, src, predicate)


def constant(values: np.ndarray, dtype: DType, core: Any) -> NkiTensor:
    """An array known at compile time as an SBUF tile (it is part of the program's image, loaded by DMA)."""
    from opentrn.nki.earlier.constants import in_hbm

    tensor = in_hbm(values, dtype, core)
    tile = core.allocate(values.shape, dtype, _sbuf)
    isa.dma_copy(tile, tensor)
    return tile


def column_or_number(value: Any, par_range: Any, wide: bool = True) -> Any:
    """An operand that is a number or one value a partition, in float32 if ``wide`` (as engines want their scalars)."""
    if is_number(value):
        return number(value)
    tile = tile_of(value)
    if wide and tile.dtype is not float32:
        tile = _converted(tile, float32)
    return column(tile, par_range)
