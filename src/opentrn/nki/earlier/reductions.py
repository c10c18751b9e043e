"""Reductions and normalisations of ``nki.language``, along the free dimensions of a tile."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import DType, bool_, float32, is_integer
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier import arithmetic
from opentrn.nki.earlier.arithmetic import _nothing
from opentrn.nki.earlier.operands import (
    Deferred,
    Tile,
    aligned,
    dtype_of,
    fail,
    flush,
    is_number,
    on_chip,
    ranges_of,
    region_of,
    tile_of,
)

__all__ = ["all", "any", "max", "mean", "min", "prod", "reduce", "rms_norm", "softmax", "sum", "var"]


def _axes(axis: Any, tile: Tile, what: str) -> tuple[int, ...]:
    numbers = axis if isinstance(axis, (list, tuple)) else (axis,)
    ndim = tile.ndim
    axes = tuple(sorted(int(a) + ndim if int(a) < 0 else int(a) for a in numbers))
    if not axes or axes[0] < 0 or axes[-1] >= ndim:
        raise fail(f"{what}: axis {axis} of a tile with {ndim} dimensions, {list(tile.shape)}")
    if tile.par in axes:
        raise fail(
            f"{what}: axis {tile.par} is the partition dimension of {list(tile.shape)}, and engines reduce "
            "along free dimensions; "
            "transpose the tile, multiply it with ones (nl.matmul), or use nisa.tensor_partition_reduce"
        )
    return axes


def reduce(
    op: Any,
    x: Any,
    axis: Any,
    *,
    dtype: Any = None,
    mask: Any = None,
    keepdims: bool = False,
    negate: bool = False,
    what: str = "",
    default: DType | None = None,
) -> Tile:
    """``op`` over the free axes ``axis``; what is left of a 2-D tile is a column (P, 1)."""
    flush()
    tile = on_chip(tile_of(x), f"the operand of {what}")
    axes = _axes(axis, tile, what)
    shape, par = tile.shape, tile.par
    kept = [d for d in range(len(shape)) if d not in axes]
    new_shape = tuple(1 if d in axes else n for d, n in enumerate(shape)) if keepdims else tuple(shape[d] for d in kept)
    new_par = par if keepdims else kept.index(par)
    if len(new_shape) < 2:
        new_shape = (*new_shape, 1)
    kind = dtype_of(dtype, default or tile.dtype)
    region = region_of(mask, shape, tile)
    if region is False:
        return _nothing(new_shape, kind, new_par)
    left = ranges_of(region)
    out_region: Any = True
    if not isinstance(region, bool):
        if region.ragged is not None:
            raise fail(f"{what}: the mask leaves a ragged area; select it first with nl.where or nisa.affine_select")
        ranges = (
            tuple((0, 1) if d in axes else r for d, r in enumerate(region.ranges))
            if keepdims
            else tuple(region.ranges[d] for d in kept)
        )
        if len(ranges) < len(new_shape):
            ranges = (*ranges, (0, 1))
        if builtins.any(r != (0, n) for r, n in zip(ranges, new_shape, strict=True)):
            region.ranges = ranges
            out_region = region
    data = aligned(tile, shape, par, left)
    # Partition first; then what is kept, then what is reduced.
    position = {d: (0 if d == par else d + 1 if d < par else d) for d in range(len(shape))}
    order = [0, *(position[d] for d in kept if d != par), *(position[d] for d in axes)]
    layout = data.layout
    if order != list(range(len(order))):
        data = data._view(tuple(layout.shape[d] for d in order), tuple(layout.strides[d] for d in order), data.offset)
    data = _few_dims(data, len(kept))
    last = tuple(range(data.layout.ndim - (len(axes) if data.layout.ndim == len(order) else 1), data.layout.ndim))

    def emit(dst: NkiTensor) -> None:
        isa.tensor_reduce(dst, op, data, axis=last, negate=negate)

    return Deferred(new_shape, kind, emit, par=new_par, region=out_region).defer()


def _few_dims(data: NkiTensor, kept: int) -> NkiTensor:
    """Drop dimensions of size 1 where the view has more than an access pattern can hold."""
    layout = data.layout
    if layout.ndim <= 5:
        return data
    dims = [d for d in range(layout.ndim) if d == 0 or d == layout.ndim - 1 or layout.shape[d] != 1]
    return data._view(tuple(layout.shape[d] for d in dims), tuple(layout.strides[d] for d in dims), data.offset)


def _reduction(name: str, op: str, doc: str) -> Callable[..., Any]:
    def function(x: Any, axis: Any, *, dtype: Any = None, mask: Any = None, keepdims: bool = False, **_: Any) -> Tile:
        return reduce(op, x, axis, dtype=dtype, mask=mask, keepdims=keepdims, what=f"nl.{name}")

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc} along free axes."
    return function


sum = _reduction("sum", "add", "The sum")
prod = _reduction("prod", "multiply", "The product")
max = _reduction("max", "maximum", "The largest element")
min = _reduction("min", "minimum", "The smallest element")


def all(x: Any, axis: Any, *, dtype: Any = bool_, mask: Any = None, **_: Any) -> Tile:
    """Whether every element along the axes is true."""
    return reduce("minimum", arithmetic.not_equal(x, 0, mask=mask), axis, dtype=dtype, mask=mask, what="nl.all")


def any(x: Any, axis: Any, *, dtype: Any = bool_, mask: Any = None, **_: Any) -> Tile:
    """Whether an element along the axes is true."""
    return reduce("maximum", arithmetic.not_equal(x, 0, mask=mask), axis, dtype=dtype, mask=mask, what="nl.any")


def _count(tile: Tile, axis: Any, mask: Any, what: str) -> int:
    region = region_of(mask, tile.shape, tile)
    n = 1
    for a in _axes(axis, tile, what):
        n *= tile.shape[a] if isinstance(region, bool) else region.ranges[a][1] - region.ranges[a][0]
    return n


def mean(x: Any, axis: Any, *, dtype: Any = None, mask: Any = None, keepdims: bool = False, **_: Any) -> Tile:
    """The mean along free axes: a sum in float32, then a multiplication."""
    tile = tile_of(x)
    kind = dtype_of(dtype, float32 if is_integer(tile.dtype) else tile.dtype)
    total = reduce("add", tile, axis, dtype=float32, mask=mask, keepdims=keepdims, what="nl.mean")
    return arithmetic.multiply(total, 1.0 / _count(tile, axis, mask, "nl.mean"), dtype=kind)


def var(x: Any, axis: Any, *, dtype: Any = None, mask: Any = None, keepdims: bool = False, **_: Any) -> Tile:
    """The population variance along free axes: the mean of the squared distance from the mean."""
    tile = tile_of(x)
    kind = dtype_of(dtype, float32 if is_integer(tile.dtype) else tile.dtype)
    centre = mean(tile, axis, dtype=float32, mask=mask, keepdims=True)
    distance = arithmetic.square(arithmetic.subtract(tile, centre, dtype=float32, mask=mask), mask=mask)
    return mean(distance, axis, dtype=kind, mask=mask, keepdims=keepdims)


def softmax(x: Any, axis: Any, *, dtype: Any = None, compute_dtype: Any = None, mask: Any = None, **_: Any) -> Tile:
    """exp(x - max) / sum(exp(x - max)) along the last free axis."""
    tile = on_chip(tile_of(x), "the operand of nl.softmax")
    inner = dtype_of(compute_dtype, float32)
    if tile.ndim == 2:
        flush()
        least = reduce("maximum", tile, axis, dtype=float32, mask=mask, negate=True, what="nl.softmax")
        flush()
        from opentrn.nki.earlier import isa as earlier

        total = Tile(machine.current().allocate((tile.shape[0], 1), float32, MemoryRegion.sbuf))
        e = earlier.activation_reduce(
            "exp", tile, reduce_op="add", reduce_res=total, bias=least, dtype=inner, mask=mask
        )
        flush()
        return arithmetic.multiply(e, arithmetic.reciprocal(total), dtype=dtype_of(dtype, tile.dtype), mask=mask)
    largest = reduce("maximum", tile, axis, dtype=inner, mask=mask, keepdims=True, what="nl.softmax")
    e = arithmetic.exp(arithmetic.subtract(tile, largest, dtype=inner, mask=mask), dtype=inner, mask=mask)
    flush()
    total = reduce("add", e, axis, dtype=inner, mask=mask, keepdims=True, what="nl.softmax")
    return arithmetic.divide(e, total, dtype=dtype_of(dtype, tile.dtype), mask=mask)


def rms_norm(
    x: Any,
    w: Any,
    axis: Any,
    n: Any,
    epsilon: float = 1e-6,
    *,
    dtype: Any = None,
    compute_dtype: Any = None,
    mask: Any = None,
    **_: Any,
) -> Tile:
    """x / sqrt(sum(x * x) / n + epsilon) * w."""
    tile = on_chip(tile_of(x), "the operand of nl.rms_norm")
    inner = dtype_of(compute_dtype, float32)
    squares = reduce(
        "add",
        arithmetic.square(tile, dtype=inner, mask=mask),
        axis,
        dtype=inner,
        mask=mask,
        keepdims=True,
        what="nl.rms_norm",
    )
    scaled = arithmetic.add(arithmetic.multiply(squares, 1.0 / n), epsilon)
    normal = arithmetic.multiply(
        tile, arithmetic.rsqrt(scaled), dtype=inner if w is not None else dtype_of(dtype, tile.dtype), mask=mask
    )
    if w is None or (is_number(w) and w == 1):
        return normal
    return arithmetic.multiply(normal, w, dtype=dtype_of(dtype, tile.dtype), mask=mask)
