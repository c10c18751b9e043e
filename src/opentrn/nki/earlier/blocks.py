"""Allocation of tiles: one tensor, or blocks that are each a tensor of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from opentrn.neuroncore import isa, machine, source
from opentrn.neuroncore.dtypes import DType, as_dtype
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.source import is_ours, user_frame
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.accumulators import Accumulator, covers
from opentrn.nki.earlier.allocation import Placement, tape
from opentrn.nki.earlier.indices import Index, as_int
from opentrn.nki.earlier.tiles import Tile
from opentrn.nki.earlier.views import fail, product, whole

__all__ = ["Blocks", "allocate", "fill", "tile_of"]

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum


class Blocks:
    """Tiles under one name, each with an allocation of its own: PSUM blocks, and tiles whose place the kernel chose.

    The leading dimensions pick a tile; what follows indexes within it.
    """

    def __init__(
        self,
        blocks: tuple[int, ...],
        shape: tuple[int, ...],
        dtype: DType,
        region: MemoryRegion,
        place: Callable[..., Any] | None,
        fill: Any,
        name: str,
    ) -> None:
        self.blocks = blocks
        self.block_shape = shape
        self.dtype = dtype
        self.buffer = region
        self.name = name
        self._place = place
        self._fill = fill
        self._tiles: dict[tuple[int, ...], Tile] = {}
        frame = sys._getframe(1)
        while is_ours(frame.f_code) and frame.f_back is not None:
            frame = frame.f_back
        self._site = (frame.f_code, frame.f_lasti)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.blocks, *self.block_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return product(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    def __len__(self) -> int:
        return self.blocks[0]

    def __repr__(self) -> str:
        return f"<{product(self.blocks)} tiles {self.dtype}{list(self.block_shape)} in {self.buffer.value}>"

    __iter__ = None

    def block(self, index: tuple[int, ...]) -> Tile:
        """One tile."""
        tile = self._tiles.get(index)
        if tile is None:
            address = None
            if self._place is not None:
                free = product(self.block_shape[1:]) * self.dtype.itemsize
                address = self._place(index, self.block_shape[0], free)
            before = source.pinned
            source.pinned = self._site
            try:
                view = machine.current().allocate(self.block_shape, self.dtype, self.buffer, self.name, address)
            finally:
                source.pinned = before
            view.storage.allocation.site = self._site
            tile = self._tiles[index] = Tile(view, 0, None, None, Accumulator(view) if self.buffer is _psum else None)
            if self._fill is not None:
                fill(tile, self._fill)
        return tile

    def __getitem__(self, key: Any) -> Any:
        key = tuple(key) if isinstance(key, tuple) else (key,)
        count = len(self.blocks)
        if key and key[0] is Ellipsis and count == 0:
            return self.block(())[key]
        chosen: list[int] = []
        for dim in range(count):
            entry = key[dim] if dim < len(key) else slice(None)
            number = as_int(entry)
            if number is None and isinstance(entry, Index) and not entry.varies():
                number = entry.const
            if number is None and self.blocks[dim] == 1 and (entry is Ellipsis or isinstance(entry, slice)):
                number = 0
            if number is None:
                raise fail(
                    f"block dimension {dim} of {self!r} is indexed with {entry!r}; each block is a tile of its own, so "
                    "pick one with an integer"
                )
            if not -self.blocks[dim] <= number < self.blocks[dim]:
                raise fail(f"block {number} of dimension {dim}, which holds 0:{self.blocks[dim]} blocks")
            chosen.append(number % self.blocks[dim])
        return self.block(tuple(chosen))[key[count:] or ...]

    def __setitem__(self, key: Any, value: Any) -> None:
        key = tuple(key) if isinstance(key, tuple) else (key,)
        count = len(self.blocks)
        chosen = tuple(as_int(k.const if isinstance(k, Index) and not k.varies() else k) for k in key[:count])
        if len(chosen) == count and None not in chosen:
            self[key[:count]].__setitem__(key[count:] or ..., value)  # type: ignore[union-attr]
            return
        for index in np.ndindex(*self.blocks):  # a number into all blocks at once
            if not isinstance(value, (int, float, np.number)):
                raise fail(f"assign to {self!r} one block at a time, each is a tile of its own")
            fill(self.block(tuple(index)), value)


def fill(tile: Tile, value: Any) -> None:
    """Set every element; a PSUM tile of zeros is written only if no matmul starts an accumulation in it."""
    if tile.psum is not None and tile.access is not None:
        if value == 0 and covers(tile.access):
            tile.psum.fill_with_zeros()
            return
        tile.psum.written(tile.access, False)
    view = tile.nki
    isa.memset(whole(view), value)


def allocate(shape: Sequence[Any], dtype: Any, region: Any, name: str = "", fill_value: Any = None) -> Any:
    """A tile, or blocks of tiles, of the shape that ``nl.ndarray`` was given (one size may be an ``nl.par_dim``)."""
    place = None
    if isinstance(region, Placement):
        frame = user_frame(1)
        region = tape.place((frame.f_code, frame.f_lasti) if frame else None, region)
        place, region = region.address, region.region
    sizes, par = [], 0
    for n, size in enumerate(shape if isinstance(shape, (tuple, list)) else (shape,)):
        if type(size).__name__ == "par_dim":
            par = n
        number = as_int(size)
        if number is None:
            raise fail(f"a shape is made of integers; {size!r} in {tuple(shape)!r} is not one")
        sizes.append(number)
    kind = _dtype(dtype)
    if region is None:
        region = _sbuf
    if not isinstance(region, MemoryRegion):
        raise fail(
            f"buffer={region!r} is not a memory; use nl.sbuf, nl.psum, nl.shared_hbm, nl.private_hbm or "
            "an allocator of nki.compiler"
        )
    core = machine.current()
    if not region.on_chip:
        tile = Tile(core.allocate(tuple(sizes), kind, region, name))
        if fill_value is not None:
            fill(tile, fill_value)
        return tile
    blocks, block_shape = tuple(sizes[:par]), tuple(sizes[par:])
    if len(block_shape) == 1:
        block_shape = (*block_shape, 1)
    if place is None and not blocks:
        view = core.allocate(block_shape, kind, region, name)
        tile = Tile(view, 0, None, None, Accumulator(view) if region is _psum else None)
        if fill_value is not None:
            fill(tile, fill_value)
        return tile
    total = product(blocks) * product(block_shape[1:]) * kind.itemsize
    if place is not None or region is _psum or total > core.capacity(region):
        made = Blocks(blocks, block_shape, kind, region, place, fill_value, name)
        return made.block(()) if not blocks else made
    view = core.allocate((block_shape[0], *blocks, *block_shape[1:]), kind, region, name)
    tile = Tile(view, par)
    if fill_value is not None:
        fill(tile, fill_value)
    return tile


def _dtype(dtype: Any) -> DType:
    try:
        return as_dtype(dtype)
    except TypeError as error:
        raise fail(f"{error}; use a type of nki.language or NumPy") from None


def tile_of(value: Any, what: str = "an operand") -> Tile:
    """``value`` as a tile: index expressions become constants on chip."""
    if type(value) is Tile:
        return value
    if isinstance(value, Index):
        from opentrn.nki.earlier.isa import iota

        return iota(value, dtype="int32")
    if isinstance(value, Blocks):
        if product(value.blocks) == 1:
            return value.block((0,) * len(value.blocks))
        raise fail(f"{what} is {value!r}; pick one block, each is a tile of its own")
    if isinstance(value, NkiTensor):
        return Tile(value)
    raise fail(f"{what} must be a tile, not {type(value).__name__}; load it with nl.load first")
