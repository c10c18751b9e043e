"""Accumulation of matmuls in a PSUM tile: which starts, which adds, and which zeros are ever written.

``total = nl.zeros(..., buffer=nl.psum)`` followed by ``total += nl.matmul(...)`` is one accumulation group: the first
matmul into a place overwrites it, and the fill is left out. Only what is read without a matmul having started there is
set to zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["Accumulator", "covers"]


def covers(view: Any) -> bool:
    """Whether a view is all of its storage."""
    layout = view.layout
    return layout.size * layout.itemsize == view.storage.size_bytes and 0 not in layout.strides


class Accumulator:
    """What was written to a PSUM tile, ``whole``.

    Attributes:
        zero: the places that no matmul has started in count as zero, though nothing wrote them yet.
        foreign: an instruction other than a matmul wrote here; the Tensor engine does not add to that.
        started: places where a matmul has started, by offset and layout.
    """

    __slots__ = ("whole", "zero", "foreign", "started")

    def __init__(self, whole: NkiTensor) -> None:
        self.whole = whole
        self.zero = False
        self.foreign = False
        self.started: dict[tuple[int, int], tuple[int, Layout]] = {}

    def fill_with_zeros(self) -> None:
        """Make everything zero, in effect."""
        self.zero, self.foreign = True, False
        self.started.clear()

    def mode(self, view: NkiTensor) -> tuple[bool, bool | None]:
        """For a matmul that is to be added at ``view``: whether the Tensor engine can do it, and its ``accumulate``."""
        key = (view.offset, view.layout.id)
        if key in self.started:
            return True, True
        if self.zero:
            return not any(_overlap(view.offset, view.layout, *place) for place in self.started.values()), False
        return not self.foreign, None

    def written(self, view: NkiTensor, by_matmul: bool) -> None:
        """Record a write that is about to happen."""
        everything = covers(view)
        if by_matmul:
            self.started[view.offset, view.layout.id] = (view.offset, view.layout)
            if everything:
                self.zero = self.foreign = False
            return
        if self.zero:
            if everything:
                self.zero = False
            else:
                self.write_zeros()
        self.foreign = True
        self.started.clear()

    def reading(self, view: NkiTensor) -> None:
        """Before ``view`` is read: carry the fill out, unless matmuls have written all of the view."""
        if (view.offset, view.layout.id) not in self.started and not self._taken(view).all():
            self.write_zeros()

    def _taken(self, view: NkiTensor) -> np.ndarray:
        """Which elements of a view matmuls have written."""
        layout, base = self.whole.layout, self.whole.offset
        taken = np.zeros(layout.shape[0] * layout.free_size, dtype=np.bool_)
        for offset, place in self.started.values():
            np.lib.stride_tricks.as_strided(taken[offset - base :], place.shape, place.strides)[...] = True
        return np.lib.stride_tricks.as_strided(taken[view.offset - base :], view.layout.shape, view.layout.strides)

    def write_zeros(self) -> None:
        """Set to zero what no matmul has written."""
        from opentrn.neuroncore import isa

        self.zero = False
        view = self.whole
        layout = view.layout
        rows, free = layout.shape[0], layout.free_size
        flat = view._view((rows, free), (layout.strides[0], 1), view.offset)
        if not self.started:
            self.foreign = True
            isa.memset(flat, 0)
            return
        taken = self._taken(flat)
        first = 0
        while first < rows:  # partitions that are alike, then runs of elements that nothing wrote
            last = first + 1
            while last < rows and np.array_equal(taken[last], taken[first]):
                last += 1
            edges = np.flatnonzero(np.diff(np.concatenate(([1], taken[first].astype(np.int8), [1]))))
            for low, high in zip(edges[0::2], edges[1::2], strict=True):
                self.foreign = True
                isa.memset(flat[first:last, int(low) : int(high)], 0)
            first = last


def _overlap(offset: int, layout: Layout, other_offset: int, other: Layout) -> bool:
    free = layout.storage_free
    row, low = divmod(offset, free)
    other_row, other_low = divmod(other_offset, free)
    return (
        low < other_low + other.span
        and other_low < low + layout.span
        and row < other_row + other.num_partitions
        and other_row < row + layout.num_partitions
    )
