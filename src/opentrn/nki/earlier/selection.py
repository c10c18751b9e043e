"""Selection, generation and gathers of the earlier API: what depends on the position of an element."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import float32, uint32
from opentrn.neuroncore.isa.settings import engine, reduce_cmd
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.arithmetic import _nothing
from opentrn.nki.earlier.indices import Index
from opentrn.nki.earlier.issuing import (
    deferred,
    on_chip_tile,
    par_range,
    written,
)
from opentrn.nki.earlier.masks import Predicate, resolve, terms_of
from opentrn.nki.earlier.movement import column_or_number
from opentrn.nki.earlier.movement import copy as _copy
from opentrn.nki.earlier.operands import (
    Tile,
    aligned,
    dtype_of,
    fail,
    flush,
    in_sbuf,
    part,
    ranges_of,
    region_of,
)
from opentrn.nki.earlier.views import product, whole

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum
tensor_engine, vector_engine = engine.tensor, engine.vector


def _flat(index: Index) -> Index:
    return index[None, :] if index.ndim == 1 else index


def iota(expr: Any, dtype: Any, *, mask: Any = None, **_: Any) -> Tile:
    """The values of an index expression as a tile; its first axis becomes the partition dimension."""
    flush()
    if not isinstance(expr, Index):
        raise fail(f"iota: expr is {expr!r}, not an index expression; build one from nl.arange or nl.mgrid")
    index = _flat(expr)
    shape = index.shape
    names = tuple(next((v for a, _, v in index.terms if a == n - len(shape)), None) for n in range(len(shape)))

    region = resolve(mask, shape, [names]) if mask is not None else True
    kind = dtype_of(dtype, float32)
    if region is False:
        return _nothing(shape, kind)
    steps = {a + len(shape): c for a, c, _ in index.terms}
    ranges = tuple((0, n) for n in shape) if isinstance(region, bool) else region.ranges
    offset = index.const + sum(steps.get(d, 0) * lo for d, (lo, _) in enumerate(ranges))
    pattern = [[steps.get(d, 0), hi - lo] for d, (lo, hi) in enumerate(ranges) if d]
    emit_to = lambda dst: isa.iota(dst, pattern, offset=offset, channel_multiplier=steps.get(0, 0))  # noqa: E731
    return deferred(shape, 0, kind, region, emit_to, regions=(_sbuf,))


_COMPARISONS = {
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
    "==": "equal",
    "!=": "not_equal",
}


def affine_select(
    pred: Any, on_true_tile: Any, on_false_value: Any, *, mask: Any = None, dtype: Any = None, **_: Any
) -> Tile:
    """``on_true_tile`` where a comparison of index expressions holds, a number elsewhere."""
    flush()
    tile = in_sbuf(on_chip_tile(on_true_tile, "affine_select's on_true_tile"))
    shape, par = tile.shape, tile.par
    kind = dtype_of(dtype, tile.dtype)
    if isinstance(pred, bool):
        if pred:
            return _copy(tile, mask=mask, dtype=kind)
        region = region_of(mask, shape, tile)
        return deferred(shape, par, kind, region, lambda dst: isa.memset(whole(dst), on_false_value))
    if not isinstance(pred, Predicate):
        raise fail(f"affine_select: pred is {pred!r}, not a comparison of index expressions")
    region = region_of(mask, shape, tile)
    if region is False:
        return _nothing(shape, kind, par)
    ranges = ranges_of(region) or tuple((0, n) for n in shape)
    view = aligned(tile, shape, par, ranges_of(region))
    conditions = pred.parts if pred.kind == "and" else (pred,)
    if any(c.index is None for c in conditions):
        raise fail("affine_select takes one comparison, or several joined with &; for others use nl.where")

    names = [tile.vars] if tile.vars is not None and len(tile.vars) == len(shape) else []
    plans = []
    for condition in conditions:
        assert condition.index is not None
        steps = terms_of(condition.index, len(shape), names)
        offset = condition.index.const + sum(steps.get(d, 0) * lo for d, (lo, _) in enumerate(ranges))
        pattern = [[steps.get(d, 0), hi - lo] for d, (lo, hi) in enumerate(ranges) if d != par]
        plans.append((pattern, steps.get(par, 0), offset, _COMPARISONS[condition.kind]))

    def emit(dst: NkiTensor) -> None:
        source = view
        for pattern, multiplier, offset, comparison in plans:
            isa.affine_select(dst, pattern, multiplier, source, on_false_value, cmp_op=comparison, offset=offset)
            source = dst

    return deferred(shape, par, kind, region, emit, regions=(_sbuf,))


def range_select(
    *,
    on_true_tile: Any,
    comp_op0: Any,
    comp_op1: Any,
    bound0: Any,
    bound1: Any,
    reduce_cmd: Any = reduce_cmd.idle,
    reduce_res: Any = None,
    reduce_op: Any = "maximum",
    range_start: Any = 0,
    on_false_value: Any = -3.4028234663852886e38,
    mask: Any = None,
    dtype: Any = None,
    **_: Any,
) -> Tile:
    """``on_true_tile`` where the element's position passes two comparisons with bounds, a number elsewhere."""
    flush()
    tile = on_chip_tile(on_true_tile, "range_select's on_true_tile")
    region = region_of(mask, tile.shape, tile)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    low, high = column_or_number(bound0, rows), column_or_number(bound1, rows)
    res = written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        isa.range_select(
            dst,
            view,
            comp_op0,
            comp_op1,
            low,
            high,
            reduce_cmd=reduce_cmd,
            reduce_res=res,
            reduce_op=reduce_op,
            range_start=range_start,
            on_false_value=on_false_value,
        )

    return deferred(tile.shape, tile.par, kind, region, emit)


def select_reduce(
    *,
    dst: Any,
    predicate: Any,
    on_true: Any,
    on_false: Any,
    reduce_res: Any = None,
    reduce_cmd: Any = reduce_cmd.idle,
    reduce_op: Any = "maximum",
    reverse_pred: bool = False,
    mask: Any = None,
    **_: Any,
) -> None:
    """``dst = where(predicate, on_true, on_false)``, with its maximum along the free axis in ``reduce_res``."""
    flush()
    target = on_chip_tile(dst, "select_reduce's dst")
    chosen, source = (
        on_chip_tile(predicate, "select_reduce's predicate"),
        on_chip_tile(on_true, "select_reduce's on_true"),
    )
    region = region_of(mask, target.shape, target, chosen, source)
    if region is False:
        return
    ranges, rows = ranges_of(region), par_range(region, target.par)
    isa.select_reduce(
        part(target, ranges),
        aligned(chosen, target.shape, target.par, ranges),
        aligned(source, target.shape, target.par, ranges),
        column_or_number(on_false, rows),
        reduce_res=written(reduce_res, rows),
        reduce_cmd=reduce_cmd,
        reduce_op=reduce_op,
        reverse_pred=reverse_pred,
    )


def dropout(data: Any, prob: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """``data`` with elements set to 0 at the probability ``prob`` (a number or one value a partition)."""
    flush()
    tile = on_chip_tile(data, "dropout's data")
    region = region_of(mask, tile.shape, tile, prob)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rate = column_or_number(prob, par_range(region, tile.par))
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return deferred(tile.shape, tile.par, kind, region, lambda dst: isa.dropout(dst, view, rate))


def local_gather(
    src_buffer: Any, index: Any, num_elem_per_idx: int = 1, num_valid_indices: Any = None, *, mask: Any = None, **_: Any
) -> Tile:
    """Gather within SBUF, each GpSimd core with the indices of its 16 partitions."""
    flush()
    source, indices = on_chip_tile(src_buffer, "local_gather's src_buffer"), on_chip_tile(index, "local_gather's index")
    count = num_valid_indices or product(indices.shape[1:]) * 16
    shape = (source.shape[0], int(count) * int(num_elem_per_idx))
    a, b = source.nki, indices.nki

    def emit(dst: NkiTensor) -> None:
        isa.local_gather(dst, a, b, num_elem_per_idx=num_elem_per_idx, num_valid_indices=num_valid_indices)

    return deferred(shape, 0, source.dtype, True, emit, regions=(_sbuf,))


def nc_stream_shuffle(src: Any, dst: Any, shuffle_mask: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> None:
    """Move partitions within each group of 32: partition i of ``dst`` from ``shuffle_mask[i]`` of ``src``."""
    flush()
    source, target = on_chip_tile(src, "nc_stream_shuffle's src"), on_chip_tile(dst, "nc_stream_shuffle's dst")
    region = region_of(mask, target.shape, target)
    if region is not False:
        isa.nc_stream_shuffle(part(target, ranges_of(region)), source.nki, shuffle_mask)


def gather_flattened(data: Any, indices: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """``data[p, indices[p, k]]`` with the free dimensions of ``data`` flattened."""
    flush()
    source, index = on_chip_tile(data, "gather_flattened's data"), on_chip_tile(indices, "gather_flattened's indices")
    region = region_of(mask, index.shape, index)
    kind = dtype_of(dtype, source.dtype)
    if region is False:
        return _nothing(index.shape, kind, index.par)
    if index.dtype.kind == "int" and index.dtype.itemsize == 4:
        index = index.view(uint32)
    a, b = source.nki, part(index, ranges_of(region))
    return deferred(index.shape, index.par, kind, region, lambda dst: isa.nc_n_gather(dst, a, b), regions=(_sbuf,))
