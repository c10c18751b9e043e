"""Tiles of the earlier API: tensors with a partition dimension anywhere, advanced indexing and operators.

A :class:`Tile` is a view (an ``NkiTensor``, partition first) and the place of the partition dimension in the shape that
the kernel sees. Dimensions before it are *block* dimensions: many tiles under one name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.neuroncore.dtypes import DType, as_dtype
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.accumulators import Accumulator
from opentrn.nki.earlier.indexing import index
from opentrn.nki.earlier.indices import Variable, as_int
from opentrn.nki.earlier.views import Ranges, box, fail, product, reinterpret

if TYPE_CHECKING:
    from opentrn.nki.earlier.deferral import Deferred

__all__ = ["Tile", "check_excess", "part"]


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

    def __init__(
        self,
        access: NkiTensor,
        par: int = 0,
        vars: tuple | None = None,
        excess: tuple | None = None,
        psum: Accumulator | None = None,
    ) -> None:
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
        return product(self.shape)

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
        raise fail(
            "the value of a tile is not known when the kernel is traced; branch on Python numbers, "
            "or select with nl.where"
        )

    @property
    def nki(self) -> NkiTensor:
        """The view for an instruction, its result computed, its bounds checked."""
        if self.deferred is not None:
            self.deferred.force()
        if self.excess is not None:
            check_excess(self, None)
        assert self.access is not None
        if self.psum is not None and self.psum.zero:
            self.psum.reading(self.access)
        return self.access

    # Views

    def __getitem__(self, key: Any) -> Tile:
        """A view, by integers, slices, ``nl.ds``, ``...``, index expressions, or tiles of rows to gather from HBM."""
        if self.deferred is not None:
            self.deferred.force()
        if key is Ellipsis:
            return self
        assert self.access is not None
        view, par, names, excess = index(self, self.access, self.par, key if isinstance(key, tuple) else (key,))
        return Tile(view, par, names, (self, excess) if excess is not None else None, self.psum)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a tile, a number or an index expression into the view ``self[key]``."""
        from opentrn.nki.earlier.movement import assign

        target = self[key]
        if type(value) is Tile and value.deferred is None:
            a, b = value.access, target.access
            if a.storage is b.storage and a.offset == b.offset and a.layout is b.layout:  # type: ignore[union-attr]
                return  # `t[k] += v` has written in place already and hands back the view
        assign(target, value)

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
        return Tile(reinterpret(view, kind, shape), self.par, None, None, self.psum)

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


def _operator(name: str, function: str, reverse: bool = False) -> None:
    def method(self: Tile, other: Any) -> Any:
        from opentrn.nki.earlier import arithmetic

        f = getattr(arithmetic, function)
        return f(other, self) if reverse else f(self, other)

    method.__name__ = name
    setattr(Tile, name, method)


for _short, _long in (
    ("add", "add"),
    ("sub", "subtract"),
    ("mul", "multiply"),
    ("truediv", "divide"),
    ("pow", "power"),
    ("mod", "mod"),
    ("and", "bitwise_and"),
    ("or", "bitwise_or"),
    ("xor", "bitwise_xor"),
    ("lshift", "left_shift"),
    ("rshift", "right_shift"),
    ("floordiv", "floor_divide"),
):
    _operator(f"__{_short}__", _long)
    _operator(f"__r{_short}__", _long, reverse=True)
for _short, _long in (
    ("lt", "less"),
    ("le", "less_equal"),
    ("gt", "greater"),
    ("ge", "greater_equal"),
    ("eq", "equal"),
    ("ne", "not_equal"),
):
    _operator(f"__{_short}__", _long)
Tile.__hash__ = object.__hash__  # type: ignore[method-assign]


def _in_place(name: str, function: str) -> None:
    def method(self: Tile, other: Any) -> Tile:
        from opentrn.nki.earlier import arithmetic
        from opentrn.nki.earlier.movement import assign

        assign(self, getattr(arithmetic, function)(self, other, dtype=self.dtype))
        return self

    setattr(Tile, name, method)


for _short, _long in (
    ("sub", "subtract"),
    ("mul", "multiply"),
    ("truediv", "divide"),
    ("and", "bitwise_and"),
    ("or", "bitwise_or"),
):
    _in_place(f"__i{_short}__", _long)


def _unary(name: str, function: str) -> None:
    def method(self: Tile) -> Any:
        from opentrn.nki.earlier import arithmetic

        return getattr(arithmetic, function)(self)

    setattr(Tile, name, method)


_unary("__neg__", "negative")
_unary("__abs__", "abs")
_unary("__invert__", "invert")


def check_excess(tile: Tile, ranges: Ranges | None) -> None:
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


def part(tile: Tile, ranges: Ranges | None) -> NkiTensor:
    """The masked part of a tile for an instruction."""
    if ranges is None:
        return tile.nki
    if tile.deferred is not None:
        tile.deferred.force()
    if tile.excess is not None:
        check_excess(tile, ranges)
    assert tile.access is not None
    if tile.psum is not None and tile.psum.zero:
        tile.psum.reading(tile.access)
    return box(tile.access, tile.par, ranges)
