"""Tiles of the earlier API: tensors with a partition dimension anywhere, advanced indexing, operators and deferred results.

A :class:`Tile` is a view (an ``NkiTensor``, partition first) and the place of the partition dimension in the shape that the
kernel sees. Dimensions before it are *block* dimensions: many tiles under one name.

Functions of this API return tiles, and the instructions below them write to a destination. So a result is *deferred*
until the next call: ``out[...] = nisa.activation(...)`` then writes to ``out`` itself, and only a result that is used in
another way gets memory of its own. At most one result is deferred at any time, so the order of the program is kept, and
errors and profiles name the line of the call.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import machine, source
from opentrn.neuroncore.dtypes import DType, as_dtype
from opentrn.neuroncore.layout import intern_layout
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller, is_ours, user_frame
from opentrn.neuroncore.tensor import DynamicSlice, Indirection, NkiTensor
from opentrn.nki.earlier.accumulators import Accumulator, covers
from opentrn.nki.earlier.bytecode import goes_straight, result_site
from opentrn.nki.earlier.indices import Index, Variable, as_int

__all__ = ["Blocks", "Deferred", "Tile", "allocate", "fail", "flush", "tile_of"]

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum


class _State(threading.local):
    deferred: Any = None


_state = _State()


def flush() -> None:
    """Carry out the deferred result, if there is one."""
    deferred = _state.deferred
    if deferred is not None:
        deferred.force()


def fail(message: str) -> ValidationError:
    """A refusal, with the line of the kernel."""
    return ValidationError(message, caller())


class Deferred:
    """A result that has no memory yet.

    Attributes:
        shape, par, dtype: of the tile.
        regions: memories that the instruction can write, the default first.
        moves: whether values pass unchanged, so that a destination of another type loses nothing.
        emit: issues the instructions into a destination view; ``accumulate`` says whether a matmul adds.
        ranges: the part of the tile that a mask leaves (None: all); ``ragged`` selects within it.
        nothing: the mask leaves no element at all.
        sources: storages it reads after it started to write (so that they cannot be its destination).
        matmul: whether it can accumulate in PSUM.
    """

    __slots__ = ("tile", "shape", "par", "dtype", "regions", "moves", "emit", "ranges", "ragged", "nothing", "sources",
                 "matmul", "reduces", "site", "result", "done")  # fmt: skip

    def __init__(
        self, shape: tuple[int, ...], dtype: DType, emit: Callable[..., None], *, par: int = 0,
        regions: tuple[MemoryRegion, ...] = (_sbuf, _psum), moves: bool = False, region: Any = True,
        sources: tuple[Any, ...] = (), matmul: bool = False, reduces: Any = None,
    ) -> None:  # fmt: skip
        self.shape = shape
        self.dtype = dtype
        self.emit = emit
        self.par = par
        self.regions = regions
        self.moves = moves
        self.nothing = region is False
        self.ranges = None if isinstance(region, bool) else region.ranges
        self.ragged = None if isinstance(region, bool) else region.ragged
        self.sources = sources
        self.matmul = matmul
        self.reduces = reduces
        self.done = False
        frame = sys._getframe(2)
        while is_ours(frame.f_code) and frame.f_back is not None:
            frame = frame.f_back
        self.site = (frame.f_code, frame.f_lasti)
        self.result = result_site(frame)

    def defer(self) -> Tile:
        """The tile that stands for the result."""
        tile = object.__new__(Tile)
        tile.access = None
        tile.par = self.par
        tile.vars = None
        tile.excess = None
        tile.psum = None
        tile.deferred = self
        self.tile = tile
        _state.deferred = self
        return tile

    def run(self, destination: NkiTensor, par: int, accumulate: bool | None = False) -> None:
        """Issue into ``destination``, a view of the full shape."""
        self.done = True
        if _state.deferred is self:
            _state.deferred = None
        if self.nothing:
            return
        before = source.pinned
        source.pinned = self.site
        try:
            target = destination if self.ranges is None else _part(destination, par, self.ranges)
            if self.ragged is not None:
                self._select(target, par)
            elif self.matmul:
                self.emit(target, accumulate)
            else:
                self.emit(target)
        finally:
            source.pinned = before

    def _select(self, target: NkiTensor, par: int) -> None:
        """Compute into a tile of its own and copy what the mask selects."""
        from opentrn.nki.earlier.movement import copy_where

        assert self.ragged is not None
        shape = target.layout.shape
        region = _sbuf if not self.matmul and _sbuf in self.regions else self.regions[0]
        scratch = machine.current().allocate(shape, self.dtype, region)
        if self.matmul:
            self.emit(scratch, False)
        else:
            self.emit(scratch)
        copy_where(target, np.moveaxis(self.ragged, par, 0) if target.layout.on_chip else self.ragged, scratch)

    def force(self) -> None:
        """Give the result memory of its own and compute it."""
        tile = self.tile
        if self.done:
            return
        shape, par = self.shape, self.par
        nki_shape = (shape[par], *shape[:par], *shape[par + 1 :]) if par else shape
        before = source.pinned
        source.pinned = self.site
        try:
            view = machine.current().allocate(nki_shape, self.dtype, self.regions[0])
        finally:
            source.pinned = before
        view.storage.allocation.site = self.site
        tile.access = view
        tile.deferred = None
        if view.layout.region is _psum:
            tile.psum = Accumulator(view)
            tile.psum.written(view, self.matmul)
        self.run(view, par)

    def into(self, target: Tile, accumulate: bool | None = False) -> bool:
        """Write the result to ``target`` if the instruction can and nothing else holds it; False leaves it deferred."""
        view = target.access
        if not goes_straight(self.result, user_frame(2)):
            return False
        if view is None or target.excess is not None and self.ranges is None and not self.nothing:
            return False
        layout = view.layout
        if layout.region not in self.regions or (layout.dtype is not self.dtype and not self.moves):
            return False
        if view.storage in self.sources or layout.indirect:
            return False
        par = target.par
        if self.nothing:
            self.done = True
            _state.deferred = None
        else:
            if target.shape != self.shape:
                if self.ranges is not None or layout.size != _product(self.shape):
                    return False
                if layout.on_chip and layout.shape[0] != self.shape[self.par]:
                    return False
            if self.ranges is not None and target.excess is not None:
                _check_excess(target, self.ranges)
            if target.psum is not None:
                place = view if self.ranges is None else _part(view, par, self.ranges)
                target.psum.written(place, self.matmul and self.ragged is None)
            self.run(view, par, accumulate)
        self.tile.access = view
        self.tile.par = par
        self.tile.psum = target.psum
        self.tile.deferred = None
        return True


def _product(shape: Sequence[int]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


class Tile:
    """A tensor of the earlier API in SBUF, PSUM or HBM.

    ``access`` is the access pattern, partition first; ``par`` the position of the partition dimension in :attr:`shape`;
    ``vars`` the counter that indexed each axis; ``excess`` what reaches outside the tensor and must be masked.
    """

    __slots__ = ("access", "par", "vars", "excess", "psum", "deferred")

    access: NkiTensor | None
    par: int
    vars: tuple[Variable | None, ...] | None
    excess: tuple | None
    psum: Accumulator | None
    deferred: Deferred | None

    def __init__(self, access: NkiTensor, par: int = 0, vars: tuple | None = None, excess: tuple | None = None,
                 psum: Accumulator | None = None) -> None:  # fmt: skip
        self.access = access
        self.par = par
        self.vars = vars
        self.excess = excess
        self.psum = psum
        self.deferred = None

    # Properties

    @property
    def shape(self) -> tuple[int, ...]:
        if self.deferred is not None:
            return self.deferred.shape
        assert self.access is not None
        shape, par = self.access.layout.shape, self.par
        return shape if not par else (*shape[1 : par + 1], shape[0], *shape[par + 1 :])

    @property
    def dtype(self) -> DType:
        return self.deferred.dtype if self.deferred is not None else self.access.layout.dtype  # type: ignore[union-attr]

    @property
    def buffer(self) -> MemoryRegion:
        return self.deferred.regions[0] if self.deferred is not None else self.access.layout.region  # type: ignore[union-attr]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return _product(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def name(self) -> str:
        return self.nki.name

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<tile {self.dtype}{list(self.shape)} in {self.buffer.value}>"

    __iter__ = None  # indexing past the end is an error of its own kind, so the iteration protocol would never stop

    def __bool__(self) -> bool:
        if self.deferred is None and not self.buffer.on_chip:
            return True  # `if bias:` asks whether a tensor was passed
        raise fail("the value of a tile is not known when the kernel is traced; branch on Python numbers, or select with nl.where")

    @property
    def nki(self) -> NkiTensor:
        """The view for an instruction, its result computed, its bounds checked."""
        if self.deferred is not None:
            self.deferred.force()
        if self.excess is not None:
            _check_excess(self, None)
        if self.psum is not None and self.psum.zero:
            self.psum.reading(self.access)
        assert self.access is not None
        return self.access

    # Views

    def __getitem__(self, key: Any) -> Tile:
        """A view: integers, slices, ``nl.ds``, ``...``, index expressions, and tiles of indices for gathers from HBM."""
        if self.deferred is not None:
            self.deferred.force()
        return _index(self, key if isinstance(key, tuple) else (key,))

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a tile, a number or an index expression into the view ``self[key]``."""
        from opentrn.nki.earlier.movement import assign

        if self.deferred is not None:
            self.deferred.force()
        # `t[k] += v` has written in place already and hands back the view.
        target = _index(self, key if isinstance(key, tuple) else (key,))
        if type(value) is Tile and value.deferred is None:
            a, b = value.access, target.access
            if a.storage is b.storage and a.offset == b.offset and a.layout is b.layout:  # type: ignore[union-attr]
                return
        assign(target, value)

    def _same(self, shape: Sequence[int], strides: Sequence[int], offset: int, par: int = 0) -> Tile:
        view = self.nki
        return Tile(view._view(tuple(shape), tuple(strides), offset), par, None, None, self.psum)

    def reshape(self, *shape: Any, **named: Any) -> Tile:
        """The same elements in another shape; on chip the partition dimension stays."""
        sizes = named.get("shape", shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)
        sizes = tuple(as_int(n) for n in sizes)
        view = self.nki
        if not view.layout.on_chip:
            return Tile(view.reshape(sizes))
        if self.par:
            raise fail("reshape of a tile with block dimensions; index the blocks first")
        return Tile(view.reshape(sizes), 0, None, None, self.psum)

    def broadcast_to(self, *shape: Any) -> Tile:
        """The tile repeated to a larger shape (see ``nl.broadcast_to``)."""
        from opentrn.nki.earlier.movement import broadcast_to

        return broadcast_to(self, shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)

    def expand_dims(self, axis: int) -> Tile:
        """A view with a dimension of size 1 inserted at ``axis``."""
        shape = list(self.shape)
        at = axis + len(shape) + 1 if axis < 0 else axis
        view = self.nki
        on_chip = view.layout.on_chip
        if on_chip and at <= self.par:
            return Tile(view.expand_dim(1 + at), self.par + 1, None, None, self.psum)
        return Tile(view.expand_dim(at), self.par, None, None, self.psum)

    def astype(self, dtype: Any) -> Tile:
        """A copy of another type."""
        from opentrn.nki.earlier.movement import copy

        return copy(self, dtype=dtype)

    def view(self, dtype: Any) -> Tile:
        """The same bytes as another type; the last dimension changes with the size of the type."""
        view, kind = self.nki, as_dtype(dtype)
        old = view.layout
        if kind.itemsize == old.dtype.itemsize:
            shape = old.shape
        else:
            shape = (*old.shape[:-1], old.shape[-1] * old.dtype.itemsize // kind.itemsize)
        return Tile(_reinterpret(view, kind, shape), self.par, None, None, self.psum)

    def assert_shape(self, shape: Sequence[int]) -> Tile:
        """Refuse a tile of another shape; returns the tile."""
        if tuple(shape) != self.shape:
            raise fail(f"the tile has shape {list(self.shape)}, not {list(shape)} as asserted")
        return self

    # Operators

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """``np.exp(tile)`` and ``np.float32(2) * tile`` are the functions of nki.language of the same name."""
        from opentrn.nki.earlier import language

        names = {"true_divide": "divide", "absolute": "abs", "remainder": "mod", "bitwise_not": "invert"}
        function = getattr(language, names.get(ufunc.__name__, ufunc.__name__), None)
        if method != "__call__" or function is None or kwargs:
            raise fail(f"np.{ufunc.__name__} does not work on tiles; use a function of nki.language")
        return function(*inputs)

    def __iadd__(self, other: Any) -> Tile:
        from opentrn.nki.earlier.movement import accumulate

        return accumulate(self, other)


def _reinterpret(view: NkiTensor, kind: DType, shape: tuple[int, ...]) -> NkiTensor:
    old = view.layout
    if old.strides[-1] != 1:
        raise fail("a view of another type needs contiguous elements along the last dimension")
    ratio = (old.dtype.itemsize, kind.itemsize)
    strides = tuple([s * ratio[0] // ratio[1] for s in old.strides[:-1]] + [1])
    result = object.__new__(NkiTensor)
    result.storage = view.storage
    result.layout = intern_layout(
        shape, strides, kind, view._host_of(kind), old.region, old.storage_free * ratio[0] // ratio[1], None
    )
    result.offset = view.offset * ratio[0] // ratio[1]
    result.indirection = None
    result._array = None
    return result


def _operator(name: str, function: str, reverse: bool = False) -> None:
    def method(self: Tile, other: Any) -> Any:
        from opentrn.nki.earlier import arithmetic

        f = getattr(arithmetic, function)
        return f(other, self) if reverse else f(self, other)

    method.__name__ = name
    setattr(Tile, name, method)


for _short, _long in (
    ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("pow", "power"), ("mod", "mod"),
    ("and", "bitwise_and"), ("or", "bitwise_or"), ("xor", "bitwise_xor"), ("lshift", "left_shift"), ("rshift", "right_shift"),
    ("floordiv", "floor_divide"),
):  # fmt: skip
    _operator(f"__{_short}__", _long)
    _operator(f"__r{_short}__", _long, reverse=True)
for _short, _long in (("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal"), ("eq", "equal"), ("ne", "not_equal")):
    _operator(f"__{_short}__", _long)
Tile.__hash__ = object.__hash__  # type: ignore[method-assign]


def _in_place(name: str, function: str) -> None:
    def method(self: Tile, other: Any) -> Tile:
        from opentrn.nki.earlier import arithmetic
        from opentrn.nki.earlier.movement import assign

        assign(self, getattr(arithmetic, function)(self, other, dtype=self.dtype))
        return self

    setattr(Tile, name, method)


for _short, _long in (("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("and", "bitwise_and"), ("or", "bitwise_or")):
    _in_place(f"__i{_short}__", _long)


def _unary(name: str, function: str) -> None:
    def method(self: Tile) -> Any:
        from opentrn.nki.earlier import arithmetic

        return getattr(arithmetic, function)(self)

    setattr(Tile, name, method)


_unary("__neg__", "negative")
_unary("__abs__", "abs")
_unary("__invert__", "invert")


class Blocks:
    """Tiles under one name, each with an allocation of its own: PSUM blocks, and tiles whose place the kernel chose.

    The leading dimensions pick a tile; what follows indexes within it.
    """

    def __init__(self, blocks: tuple[int, ...], shape: tuple[int, ...], dtype: DType, region: MemoryRegion,
                 place: Callable[..., Any] | None, fill: Any, name: str) -> None:  # fmt: skip
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
        return _product(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    def __len__(self) -> int:
        return self.blocks[0]

    def __repr__(self) -> str:
        return f"<{_product(self.blocks)} tiles {self.dtype}{list(self.block_shape)} in {self.buffer.value}>"

    __iter__ = None

    def block(self, index: tuple[int, ...]) -> Tile:
        """One tile."""
        tile = self._tiles.get(index)
        if tile is None:
            address = None
            if self._place is not None:
                free = _product(self.block_shape[1:]) * self.dtype.itemsize
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
        return _index(self.block(tuple(chosen)), key[count:] or (Ellipsis,))

    def __setitem__(self, key: Any, value: Any) -> None:
        key = tuple(key) if isinstance(key, tuple) else (key,)
        count = len(self.blocks)
        chosen = tuple(as_int(k.const if isinstance(k, Index) and not k.varies() else k) for k in key[:count])
        if len(chosen) == count and None not in chosen:
            self[key[:count]].__setitem__(key[count:] or (Ellipsis,), value)  # type: ignore[union-attr]
            return
        for index in np.ndindex(*self.blocks):  # a number into all blocks at once
            if not isinstance(value, (int, float, np.number)):
                raise fail(f"assign to {self!r} one block at a time, each is a tile of its own")
            fill(self.block(tuple(index)), value)


def fill(tile: Tile, value: Any) -> None:
    """Set every element; a PSUM tile of zeros is written only if no matmul starts an accumulation in it."""
    if tile.psum is not None:
        if value == 0 and covers(tile.access):
            tile.psum.fill_with_zeros()
            return
        tile.psum.written(tile.access, False)
    from opentrn.neuroncore import isa

    view = tile.nki
    isa.memset(whole(view), value)


def whole(view: NkiTensor) -> NkiTensor:
    """A contiguous view with its free dimensions merged, which never has too many for an access pattern."""
    layout = view.layout
    if layout.ndim <= 2 or not layout.is_contiguous():
        return view
    if layout.on_chip:
        return view._view((layout.shape[0], layout.free_size), (layout.strides[0], 1), view.offset)
    return view


def allocate(shape: Sequence[Any], dtype: Any, region: Any, name: str = "", fill_value: Any = None) -> Any:
    """A tile, or blocks of tiles, of the shape that ``nl.ndarray`` was given (one size may be an ``nl.par_dim``)."""
    from opentrn.nki.earlier.allocation import Placement, tape

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
        raise fail(f"buffer={region!r} is not a memory; use nl.sbuf, nl.psum, nl.shared_hbm, nl.private_hbm or an allocator of nki.compiler")
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
    total = _product(blocks) * _product(block_shape[1:]) * kind.itemsize
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
        if _product(value.blocks) == 1:
            return value.block((0,) * len(value.blocks))
        raise fail(f"{what} is {value!r}; pick one block, each is a tile of its own")
    if isinstance(value, NkiTensor):
        return Tile(value)
    raise fail(f"{what} must be a tile, not {type(value).__name__}; load it with nl.load first")


# Indexing


def _index(tile: Tile, key: tuple) -> Tile:
    """The view ``tile[key]``; what reaches outside is remembered, for a mask may yet exclude it."""
    view, par = tile.access, tile.par
    assert view is not None
    layout = view.layout
    sizes, strides = layout.shape, layout.strides
    if par:
        sizes = (*sizes[1 : par + 1], sizes[0], *sizes[par + 1 :])
        strides = (*strides[1 : par + 1], strides[0], *strides[par + 1 :])
    ndim = len(sizes)
    if len(key) != ndim or Ellipsis in [k for k in key if k is Ellipsis] or None in [k for k in key if k is None]:
        if len(key) == 1 and key[0] is Ellipsis:
            return tile
        key, sizes, strides, par = _expand(tile, key, sizes, strides, par)
    on_chip = layout.on_chip
    offset = view.offset
    axes: list[tuple[int, int, Variable | None, bool]] = []  # size, stride, counter, partition
    grid: dict[int, list] | None = None  # axis from the right -> [size, stride, counter, partition]
    grid_at, split, depth = 0, False, 0
    excess: list[tuple[int, int, tuple[tuple[Any, int], ...]]] | None = None
    dynamic = None
    for dim, k in enumerate(key):
        size, stride = sizes[dim], strides[dim]
        is_par = on_chip and dim == par
        kind = type(k)
        if kind is slice:
            start = 0 if k.start is None else k.start
            stop = size if k.stop is None else k.stop
            step = 1 if k.step is None else k.step
            if type(start) is not int or type(stop) is not int or type(step) is not int:
                start, stop, step = _numbers(dim, start, stop, step)
            if start < 0:
                start += size
            if stop < 0:
                stop += size
            count = stop - start if step == 1 else -(-(stop - start) // step)
            if count <= 0 or step < 1 or start < 0:
                raise _outside(tile, dim, start, stop, step)
            if stop > size and start + (count - 1) * step >= size:
                excess = excess or []
                excess.append((dim, start, ((len(axes), step),)))
            offset += start * stride
            axes.append((count, stride * step, None, is_par))
            if grid is not None:
                split = True
        elif kind is Index:
            if grid is None:
                grid, grid_at = {}, len(axes)
            elif split:
                grid_at = 0
            offset += k.const * stride
            depth = max(depth, len(k.shape))
            for n, extent in enumerate(k.shape):
                axis = n - len(k.shape)
                entry = grid.get(axis)
                if entry is None:
                    grid[axis] = [extent, 0, None, False]
                elif entry[0] == 1:
                    entry[0] = extent
                elif extent != 1 and extent != entry[0]:
                    raise fail(f"the index expressions of dimension {dim} and those before it have axes of {extent} and {entry[0]} elements")
            terms = []
            for axis, coefficient, variable in k.terms:
                entry = grid[axis]
                entry[1] += coefficient * stride
                if entry[2] is None or variable.size > 1:
                    entry[2] = variable
                if is_par and variable.size > 1:
                    entry[3] = True
                terms.append((axis, coefficient))
            low, high = k.bounds()
            if low < 0 or high >= size:
                excess = excess or []
                excess.append((dim, k.const, tuple(terms)))
        elif kind is DynamicSlice:
            start = as_int(k.start)
            count = as_int(k.size)
            if start is None and type(k.start) is Tile:
                dynamic = _scalar_index(dynamic, k.start, stride, size, dim)
                start = 0
            if start is None or count is None or count < 1 or start < 0:
                raise _outside(tile, dim, k.start, f"{k.start}+{k.size}", 1)
            if start + count > size:
                excess = excess or []
                excess.append((dim, start, ((len(axes), 1),)))
            offset += start * stride
            axes.append((count, stride, None, is_par))
            if grid is not None:
                split = True
        elif kind is Tile or isinstance(k, VirtualRegister):
            index = k if kind is not Tile else k
            if kind is Tile and k.size > 1:
                if dynamic is not None:
                    raise fail("two dimensions are indexed by tiles; only one dynamic index is possible")
                rows = k.shape[0]
                if k.size != rows:
                    raise fail(
                        f"dimension {dim} is indexed by a tile {list(k.shape)}; a gather takes one index a partition, (P, 1), "
                        "or use nl.gather_flattened within SBUF"
                    )
                if grid is None:
                    grid, grid_at = {}, len(axes)
                axis = -len(k.shape)
                entry = grid.setdefault(axis, [rows, 0, None, False])
                entry[0] = rows if entry[0] == 1 else entry[0]
                if k.vars and k.vars[0] is not None:
                    entry[2] = k.vars[0]
                for a in range(axis + 1, 0):
                    grid.setdefault(a, [1, 0, None, False])
                depth = max(depth, len(k.shape))
                dynamic = ("vector", k.nki, stride, size, axis)
            else:
                dynamic = _scalar_index(dynamic, index, stride, size, dim)
        else:
            number = as_int(k)
            if number is None:
                raise fail(f"{k!r} cannot index dimension {dim} of {tile!r}; use integers, slices, nl.ds or index expressions")
            if number < 0:
                number += size
            if number >= size or number < 0:
                excess = excess or []
                excess.append((dim, number, ()))
            offset += number * stride
    if grid is not None:
        ordered = [tuple(grid.get(a, (1, 0, None, False))) for a in range(-depth, 0)]
        axes[grid_at:grid_at] = ordered  # type: ignore[list-item]
        if excess is not None:
            excess = [_renumber(e, grid_at, depth) for e in excess]
    new_par = 0
    if on_chip:
        found = [n for n, a in enumerate(axes) if a[3]]
        if len(found) > 1:
            raise fail("the partition dimension is spread over two axes of the index grid; it must be one axis")
        stride = strides[par]
        if found:
            new_par = found[0]
            if axes[new_par][1] % stride and axes[new_par][0] > 1:
                raise fail("an index expression steps through partitions and elements at once; every partition makes the same access")
        elif axes and axes[0][0] == 1:
            axes[0] = (1, stride, axes[0][2], True)
        else:
            axes.insert(0, (1, stride, None, True))
            if excess is not None:
                excess = [(d, c, tuple((a + 1, s) for a, s in t)) for d, c, t in excess]
        if len(axes) < 2:
            axes.append((1, 1, None, False))
    elif not axes:
        axes.append((1, 1, None, False))
    order = axes if not new_par else [axes[new_par], *axes[:new_par], *axes[new_par + 1 :]]
    new_view = view._view(tuple([a[0] for a in order]), tuple([a[1] for a in order]), offset)
    names = tuple([a[2] for a in axes]) if grid is not None else None
    result = Tile(new_view, new_par, names, None, tile.psum)
    if excess is not None:
        result.excess = (tile, tuple((d, sizes[d], c, t) for d, c, t in excess))
    if dynamic is not None:
        _make_dynamic(result, dynamic, grid_at, depth)
    return result


def _renumber(entry: tuple, at: int, depth: int) -> tuple:
    """Axes of the result for the terms of an index that reaches outside; grid axes are negative."""
    dim, const, terms = entry
    return dim, const, tuple((at + depth + a if a < 0 else (a + depth if a >= at else a), s) for a, s in terms)


def _scalar_index(known: Any, index: Any, stride: int, size: int, dim: int) -> tuple:
    if known is not None:
        raise fail(f"dimension {dim} is the second to be indexed at run time; only one dynamic index is possible")
    return ("scalar", index.nki if type(index) is Tile else index, stride, size, None)


def _make_dynamic(tile: Tile, dynamic: tuple, grid_at: int, depth: int) -> None:
    kind, index, stride, size, axis = dynamic
    view = tile.access
    assert view is not None
    if kind == "vector":
        at = grid_at + depth + axis
        if at != 0 or view.layout.on_chip:
            raise fail("a gather takes its rows along the first dimension of an HBM tensor's view; put the index tile there")
        if view.layout.strides[0] != 0:
            raise fail("a dimension is indexed by a tile and another by the same counter; add the counter to the index tile instead")
        shape, strides = view.layout.shape, view.layout.strides
        view = view._view(shape, (stride, *strides[1:]), view.offset)
        tile.access = view._indirectly(Indirection("vector", index, stride, size, 0))
    else:
        tile.access = view._indirectly(Indirection("scalar", index, stride, size, None))


def _expand(tile: Tile, key: tuple, sizes: tuple, strides: tuple, par: int) -> tuple:
    """The key with ``...`` filled in, and new axes for None."""
    given = sum(1 for k in key if k is not None and k is not Ellipsis)
    if given > len(sizes):
        raise fail(f"{given} indices on a tile of {len(sizes)} dimensions, {list(sizes)}")
    fill_in = [slice(None)] * (len(sizes) - given)
    entries = list(key)
    at = next((n for n, k in enumerate(entries) if k is Ellipsis), None)
    if at is None:
        entries += fill_in
    else:
        entries[at : at + 1] = fill_in
    if None not in [k for k in entries if k is None]:
        return tuple(entries), sizes, strides, par
    new_sizes, new_strides, dim, new_par = [], [], 0, par
    keys: list[Any] = []
    for k in entries:
        if k is None:
            new_sizes.append(1)
            new_strides.append(1)
            keys.append(slice(None))
            if dim <= par:
                new_par += 1
        else:
            new_sizes.append(sizes[dim])
            new_strides.append(strides[dim])
            keys.append(k)
            dim += 1
    return tuple(keys), tuple(new_sizes), tuple(new_strides), new_par


def _numbers(dim: int, *values: Any) -> tuple[int, ...]:
    result = []
    for v in values:
        n = as_int(v)
        if n is None and isinstance(v, Index) and not v.varies():
            n = v.const
        if n is None:
            raise fail(f"a slice of dimension {dim} has the bound {v!r}, which is not an integer")
        result.append(n)
    return tuple(result)


def _outside(tile: Tile, dim: int, start: Any, stop: Any, step: int) -> ValidationError:
    return fail(f"slice {start}:{stop}{f':{step}' if step != 1 else ''} on dimension {dim} of {tile!r}, which holds 0:{tile.shape[dim]}")


def _check_excess(tile: Tile, ranges: tuple[tuple[int, int], ...] | None) -> None:
    """Refuse a view whose (unmasked) part reaches outside its tensor."""
    assert tile.excess is not None
    base, entries = tile.excess
    for dim, size, const, terms in entries:
        low = high = const
        for axis, step in terms:
            first, end = ranges[axis] if ranges is not None else (0, tile.shape[axis])
            edge = (first * step, (end - 1) * step)
            low += min(edge)
            high += max(edge)
        if low < 0 or high >= size:
            raise fail(
                f"the index of dimension {dim} covers {low}:{high + 1} of {base!r}, which holds 0:{size}; "
                f"clamp the last tile, or mask it, for example with mask=(index < {size})"
            )


def _part(view: NkiTensor, par: int, ranges: tuple[tuple[int, int], ...]) -> NkiTensor:
    """The box ``ranges`` (in the kernel's order of axes) of a view."""
    if par:
        ranges = (ranges[par], *ranges[:par], *ranges[par + 1 :])
    layout = view.layout
    offset = view.offset + sum(lo * s for (lo, _), s in zip(ranges, layout.strides, strict=True))
    indirection = view.indirection
    if indirection is None or indirection.kind != "vector":
        return view._view(tuple(hi - lo for lo, hi in ranges), layout.strides, offset)
    # Rows of a gather are picked by the index, not by the address.
    low, high = ranges[0]
    offset -= low * layout.strides[0]
    index = indirection.index
    chosen = index._view((high - low, *index.layout.shape[1:]), index.layout.strides, index.offset + low * index.layout.strides[0])
    part = view._view(tuple(hi - lo for lo, hi in ranges), layout.strides, offset)
    part.indirection = Indirection("vector", chosen, indirection.stride, indirection.limit, 0)
    return part


def part(tile: Tile, ranges: tuple[tuple[int, int], ...] | None) -> NkiTensor:
    """The masked part of a tile for an instruction."""
    if ranges is None:
        return tile.nki
    if tile.deferred is not None:
        tile.deferred.force()
    if tile.excess is not None:
        _check_excess(tile, ranges)
    if tile.psum is not None and tile.psum.zero:
        tile.psum.reading(tile.access)
    assert tile.access is not None
    return _part(tile.access, tile.par, ranges)
