"""What instructions need of tiles: one shape, one partition dimension, one memory, and a type for the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from opentrn.neuroncore.dtypes import DType, as_dtype, bfloat16, float32, int32, is_float, is_integer
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.blocks import tile_of
from opentrn.nki.earlier.deferral import Deferred, flush
from opentrn.nki.earlier.masks import Region, resolve
from opentrn.nki.earlier.tiles import Tile, part
from opentrn.nki.earlier.views import Ranges, box, fail

__all__ = [
    "Deferred",
    "Tile",
    "aligned",
    "broadcast_shape",
    "column",
    "dtype_of",
    "fail",
    "flush",
    "in_sbuf",
    "is_number",
    "number",
    "on_chip",
    "part",
    "pieces",
    "promote",
    "ranges_of",
    "region_of",
    "tile_of",
]


def is_number(value: Any) -> bool:
    """Whether ``value`` is a Python or NumPy number."""
    return isinstance(value, (int, float, np.generic)) or (isinstance(value, np.ndarray) and value.ndim == 0)


def number(value: Any) -> Any:
    """A number as a Python number, also those of narrow types."""
    if isinstance(value, (np.generic, np.ndarray)):
        plain = value.item()
        return plain if isinstance(plain, (int, float)) else float(plain)
    return value


def dtype_of(dtype: Any, default: DType) -> DType:
    """The type that a call asks for, or the default."""
    if dtype is None:
        return default
    if type(dtype) is DType:
        return dtype
    try:
        return as_dtype(dtype)
    except TypeError as error:
        raise fail(f"{error}; use a type of nki.language or NumPy") from None


def promote(a: Any, b: Any) -> DType:
    """The type that holds both operands: floats over integers, the wider over the narrower; numbers adapt to tiles."""
    if type(a) is not DType:
        a, b = b, a
    if a is b:
        return a
    if type(b) is not DType:  # a number beside a tile
        if is_integer(a) and isinstance(b, (float, np.floating)) and not float(b).is_integer():
            return float32
        return a
    if is_float(a) != is_float(b):
        return a if is_float(a) else b
    if a.itemsize != b.itemsize:
        return a if a.itemsize > b.itemsize else b
    if is_float(a):
        return float32 if a.itemsize >= 2 else bfloat16
    return int32 if a.itemsize == 4 else a


def region_of(mask: Any, shape: Sequence[int], *tiles: Any) -> Region | bool:
    """What a mask leaves of an instruction on ``shape``."""
    if mask is None:
        return True
    return resolve(mask, shape, [t.vars for t in tiles if type(t) is Tile and t.vars is not None])


def ranges_of(region: Region | bool) -> Ranges | None:
    """The box of a region, None for all."""
    return None if isinstance(region, bool) else region.ranges


def on_chip(tile: Tile, what: str) -> Tile:
    """Refuse an HBM tensor where an engine needs a tile."""
    if not tile.buffer.on_chip:
        raise fail(f"{what} is in HBM, which the compute engines do not reach; load it with nl.load first")
    return tile


def in_sbuf(tile: Tile) -> Tile:
    """The tile, or a copy of it in SBUF when it is in PSUM."""
    if tile.buffer is not MemoryRegion.psum:
        return tile
    from opentrn.nki.earlier.movement import copy

    copied = copy(tile)
    flush()
    return copied


def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of two operands, as NumPy; a (P, 1) column fits a tile of any dimensions."""
    if a == b:
        return a
    if len(a) != len(b):
        small, large = (a, b) if len(a) < len(b) else (b, a)
        if small[0] in (1, large[0]) and all(n == 1 for n in small[1:]):
            return large
        small = (1,) * (len(large) - len(small)) + small
        a, b = small, large
    for n, m in zip(a, b, strict=True):
        if n != m and n != 1 and m != 1:
            raise fail(f"tiles of shapes {list(a)} and {list(b)} do not broadcast; slice or reshape one of them")
    return tuple([m if n == 1 else n for n, m in zip(a, b, strict=True)])


def column(tile: Tile, par_range: tuple[int, int] | None) -> NkiTensor:
    """A tile as one value a partition."""
    view = tile.nki
    if par_range is not None and view.layout.shape[0] != 1:
        layout = view.layout
        view = view._view(
            (par_range[1] - par_range[0], *layout.shape[1:]),
            layout.strides,
            view.offset + par_range[0] * layout.strides[0],
        )
    return view


def aligned(tile: Tile, shape: tuple[int, ...], par: int, ranges: Ranges | None) -> NkiTensor:
    """The tile as an operand of an instruction on ``shape``: broadcast, partition first, restricted to ``ranges``."""
    if tile.shape == shape and tile.par == par:
        return part(tile, ranges)
    own = tile.shape
    if len(own) == len(shape) and tile.par == par and ranges is not None and tile.excess is not None:
        return part(tile, ranges)
    view = tile.nki
    sizes, strides = list(view.layout.shape), list(view.layout.strides)
    if tile.par:
        sizes = [*sizes[1 : tile.par + 1], sizes[0], *sizes[tile.par + 1 :]]
        strides = [*strides[1 : tile.par + 1], strides[0], *strides[tile.par + 1 :]]
    own_par = tile.par
    if len(own) != len(shape):
        extra = len(shape) - len(own)
        if extra > 0 and own[0] in (1, shape[par]) and all(n == 1 for n in own[1:]):
            sizes = [1] * par + [sizes[0]] + [1] * (len(shape) - par - 1)
            strides = [0] * par + [strides[0]] + [0] * (len(shape) - par - 1)
            own_par = par
        elif extra > 0:
            sizes, strides, own_par = [1] * extra + sizes, [0] * extra + strides, own_par + extra
        else:
            raise fail(f"a tile of shape {list(own)} where {list(shape)} is needed")
    if own_par != par:
        if sizes[own_par] != 1 and sizes[par] != 1:
            raise fail(
                f"tiles {list(own)} and {list(shape)} have their partition dimensions in different places "
                f"({tile.par} and {par}); index them alike"
            )
        own_par = par
    for dim, (n, m) in enumerate(zip(sizes, shape, strict=True)):
        if n != m:
            if n != 1:
                raise fail(f"a tile of shape {list(own)} does not broadcast to {list(shape)}")
            if dim == par:
                from opentrn.nki.earlier.movement import broadcast_partitions

                spread = broadcast_partitions(tile, m)
                return aligned(spread, shape, par, ranges)
            sizes[dim], strides[dim] = m, 0
    order = [par, *range(par), *range(par + 1, len(shape))] if par else range(len(shape))
    result = view._view(tuple([sizes[d] for d in order]), tuple([strides[d] for d in order]), view.offset)
    return result if ranges is None else box(result, par, ranges)


def pieces(*views: NkiTensor) -> list[tuple[NkiTensor, ...]]:
    """Element-wise operands of one shape in pieces of at most the 5 dimensions of an access pattern.

    Dimensions of size 1 are dropped and those that are dense in all operands merged; what is still too much takes one
    instruction for each index of the leading free dimensions.
    """
    shape = views[0].layout.shape
    if len(shape) <= 5 or any(v.layout.shape != shape for v in views):
        return [views]
    groups: list[list[int]] = []
    for dim in range(1, len(shape)):
        if shape[dim] == 1:
            continue
        last = groups[-1][-1] if groups else None
        if last is not None and all(v.layout.strides[last] == v.layout.strides[dim] * shape[dim] for v in views):
            groups[-1].append(dim)
        else:
            groups.append([dim])
    result = []
    for v in views:
        sizes, strides = [shape[0]], [v.layout.strides[0]]
        for group in groups:
            n = 1
            for d in group:
                n *= shape[d]
            sizes.append(n)
            strides.append(v.layout.strides[group[-1]])
        if len(sizes) == 1:
            sizes.append(1)
            strides.append(1)
        result.append(v._view(tuple(sizes), tuple(strides), v.offset))
    if len(groups) <= 4:
        return [tuple(result)]
    extra = len(groups) - 4
    split = []
    for index in np.ndindex(*result[0].layout.shape[1 : 1 + extra]):
        chosen = []
        for v in result:
            sizes, strides = v.layout.shape, v.layout.strides
            start = v.offset + sum(i * s for i, s in zip(index, strides[1 : 1 + extra], strict=True))
            chosen.append(v._view((sizes[0], *sizes[1 + extra :]), (strides[0], *strides[1 + extra :]), start))
        split.append(tuple(chosen))
    return split
