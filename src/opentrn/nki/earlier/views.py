"""Arithmetic on views that the earlier API needs beyond the methods of NkiTensor."""

from __future__ import annotations

from collections.abc import Sequence

from opentrn.errors import ValidationError
from opentrn.neuroncore.dtypes import DType
from opentrn.neuroncore.layout import intern_layout
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import Indirection, NkiTensor

__all__ = ["Ranges", "box", "fail", "product", "reinterpret", "whole"]

Ranges = tuple[tuple[int, int], ...]
"""First and one past last index of each axis."""


def fail(message: str) -> ValidationError:
    """A refusal, with the line of the kernel."""
    return ValidationError(message, caller())


def product(shape: Sequence[int]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


def whole(view: NkiTensor) -> NkiTensor:
    """A contiguous view with its free dimensions merged, which never has too many for an access pattern."""
    layout = view.layout
    if layout.ndim <= 2 or not layout.is_contiguous():
        return view
    if layout.on_chip:
        return view._view((layout.shape[0], layout.free_size), (layout.strides[0], 1), view.offset)
    return view


def box(view: NkiTensor, par: int, ranges: tuple[tuple[int, int], ...]) -> NkiTensor:
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
    chosen = index._view(
        (high - low, *index.layout.shape[1:]), index.layout.strides, index.offset + low * index.layout.strides[0]
    )
    part = view._view(tuple(hi - lo for lo, hi in ranges), layout.strides, offset)
    part.indirection = Indirection("vector", chosen, indirection.stride, indirection.limit, 0)
    return part


def reinterpret(view: NkiTensor, kind: DType, shape: tuple[int, ...]) -> NkiTensor:
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
