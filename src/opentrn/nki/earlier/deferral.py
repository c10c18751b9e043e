"""Deferred results: where the value of a call is computed is decided by what the kernel does with it.

Functions of the earlier API return tiles, and the instructions below them write to a destination. So a result waits
until the next call: ``out[...] = nisa.activation(...)`` then writes to ``out`` itself, and only a result that is used
in another way gets memory of its own. At most one result is deferred at any time, so the order of the program is kept,
and errors and profiles name the line of the call.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn.neuroncore import machine, source
from opentrn.neuroncore.dtypes import DType
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.source import is_ours, user_frame
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.accumulators import Accumulator
from opentrn.nki.earlier.bytecode import goes_straight, result_site
from opentrn.nki.earlier.tiles import Tile, check_excess
from opentrn.nki.earlier.views import box, product

__all__ = ["Deferred", "flush", "forget"]

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum


class _State(threading.local):
    deferred: Any = None


_state = _State()


def forget() -> None:
    """Drop what an earlier kernel left deferred when it failed."""
    _state.deferred = None


def flush() -> None:
    """Carry out the deferred result, if there is one."""
    deferred = _state.deferred
    if deferred is not None:
        deferred.force()


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

    __slots__ = (
        "tile",
        "shape",
        "par",
        "dtype",
        "regions",
        "moves",
        "emit",
        "ranges",
        "ragged",
        "nothing",
        "sources",
        "matmul",
        "reduces",
        "site",
        "result",
        "done",
    )

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: DType,
        emit: Callable[..., None],
        *,
        par: int = 0,
        regions: tuple[MemoryRegion, ...] = (_sbuf, _psum),
        moves: bool = False,
        region: Any = True,
        sources: tuple[Any, ...] = (),
        matmul: bool = False,
        reduces: Any = None,
    ) -> None:
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
            target = destination if self.ranges is None else box(destination, par, self.ranges)
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
                if self.ranges is not None or layout.size != product(self.shape):
                    return False
                if layout.on_chip and layout.shape[0] != self.shape[self.par]:
                    return False
            if self.ranges is not None and target.excess is not None:
                check_excess(target, self.ranges)
            if target.psum is not None:
                place = view if self.ranges is None else box(view, par, self.ranges)
                target.psum.written(place, self.matmul and self.ragged is None)
            self.run(view, par, accumulate)
        self.tile.access = view
        self.tile.par = par
        self.tile.psum = target.psum
        self.tile.deferred = None
        return True
