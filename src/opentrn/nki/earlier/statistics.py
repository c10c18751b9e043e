"""Reductions, statistics, searches and running sums of the earlier API."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import uint32
from opentrn.neuroncore.isa.settings import engine, reduce_cmd
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.arithmetic import _nothing
from opentrn.nki.earlier.issuing import (
    deferred,
    on_chip_tile,
    par_range,
    rows_only,
)
from opentrn.nki.earlier.movement import column_or_number
from opentrn.nki.earlier.operands import (
    Tile,
    aligned,
    dtype_of,
    flush,
    in_sbuf,
    part,
    ranges_of,
    region_of,
)
from opentrn.nki.earlier.reductions import reduce
from opentrn.nki.earlier.views import product

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum
tensor_engine, vector_engine = engine.tensor, engine.vector


def tensor_reduce(
    op: Any,
    data: Any,
    axis: Any,
    *,
    mask: Any = None,
    dtype: Any = None,
    negate: bool = False,
    keepdims: bool = False,
    **_: Any,
) -> Tile:
    """Reduce ``data`` along free axes on the Vector engine."""
    return reduce(op, data, axis, dtype=dtype, mask=mask, negate=negate, keepdims=keepdims, what="tensor_reduce")


def tensor_partition_reduce(op: Any, data: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Reduce ``data`` along partitions, to one partition."""
    flush()
    tile = in_sbuf(on_chip_tile(data, "tensor_partition_reduce's data"))
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (1, *tile.shape[1:])
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    if not isinstance(region, bool):
        region.ranges = ((0, 1), *region.ranges[1:])
    return deferred(shape, 0, kind, region, lambda dst: isa.tensor_partition_reduce(dst, op, view), regions=(_sbuf,))


def bn_stats(data: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Statistics (P, 6) of each partition, for :func:`bn_aggr`."""
    flush()
    tile = on_chip_tile(data, "bn_stats' data")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (tile.shape[tile.par], 6)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return deferred(shape, 0, kind, rows_only(region, tile, shape), lambda dst: isa.bn_stats(dst, view))


def bn_aggr(data: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Mean and variance (P, 2) from statistics of :func:`bn_stats`."""
    flush()
    tile = on_chip_tile(data, "bn_aggr's data")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (tile.shape[tile.par], 2)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return deferred(shape, 0, kind, rows_only(region, tile, shape), lambda dst: isa.bn_aggr(dst, view))


def max8(src: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """The 8 largest values of each partition, descending."""
    flush()
    tile = on_chip_tile(src, "max8's src")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (tile.shape[tile.par], 8)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return deferred(shape, 0, kind, rows_only(region, tile, shape), lambda dst: isa.max8(dst, view))


def nc_find_index8(data: Any, vals: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Where each of 8 values a partition first occurs in ``data``."""
    flush()
    tile, values = on_chip_tile(data, "nc_find_index8's data"), on_chip_tile(vals, "nc_find_index8's vals")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, uint32), (tile.shape[tile.par], 8)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    out = rows_only(region, tile, shape)
    wanted = part(values, None if isinstance(out, bool) else out.ranges)
    return deferred(shape, 0, kind, out, lambda dst: isa.nc_find_index8(dst, view, wanted))


def nc_match_replace8(
    data: Any, vals: Any, imm: Any, dst_idx: Any = None, *, mask: Any = None, dtype: Any = None, **_: Any
) -> Tile:
    """``data`` with the first occurrence of each of 8 values a partition replaced by ``imm``."""
    flush()
    tile, values = on_chip_tile(data, "nc_match_replace8's data"), on_chip_tile(vals, "nc_match_replace8's vals")
    region = region_of(mask, tile.shape, tile)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    rows = None if isinstance(region, bool) else (region.ranges[tile.par], (0, 8))
    wanted = part(values, rows)
    found = None if dst_idx is None else part(on_chip_tile(dst_idx, "nc_match_replace8's dst_idx"), rows)

    def emit(dst: NkiTensor) -> None:
        isa.nc_match_replace8(dst, view, wanted, float(imm), dst_idx=found)

    return deferred(tile.shape, tile.par, kind, region, emit)


def sequence_bounds(*, segment_ids: Any, dtype: Any = None, **_: Any) -> Tile:
    """First and one past last position of each element's segment: (1, n) gives (1, 2, n)."""
    flush()
    tile = on_chip_tile(segment_ids, "sequence_bounds' segment_ids")
    shape = (tile.shape[0], 2, product(tile.shape[1:]))
    view = tile.nki
    return deferred(shape, 0, dtype_of(dtype, tile.dtype), True, lambda dst: isa.sequence_bounds(dst, view))


def tensor_scalar_cumulative(
    *,
    src: Any,
    dst: Any,
    op0: Any,
    op1: Any,
    imm0: Any,
    imm1: Any = None,
    reduce_cmd: Any = reduce_cmd.reset_reduce,
    mask: Any = None,
    **_: Any,
) -> None:
    """``dst`` = the running ``op1`` of ``src <op0> imm0`` along the free axis."""
    flush()
    source, target = (
        on_chip_tile(src, "tensor_scalar_cumulative's src"),
        on_chip_tile(dst, "tensor_scalar_cumulative's dst"),
    )
    region = region_of(mask, source.shape, source, target)
    if region is False:
        return
    ranges, rows = ranges_of(region), par_range(region, source.par)
    loads = reduce_cmd is not None and reduce_cmd.name == "load_reduce"  # the others have no use for imm1
    second = column_or_number(imm1, rows) if loads and imm1 is not None else None
    isa.tensor_scalar_cumulative(
        part(target, ranges),
        part(source, ranges),
        op0,
        op1,
        column_or_number(imm0, rows),
        imm1=second,
        reduce_cmd=reduce_cmd,
    )
