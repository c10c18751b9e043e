"""From ``tile[key]`` to an access pattern.

Integers, slices, index expressions and tiles of indices all become an offset, and for each axis of the result a size
and a stride. What the key looks like decides everything but the offset, so a key like one seen before only has its
offset computed.
"""

from __future__ import annotations

from typing import Any

from opentrn.errors import ValidationError
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.tensor import DynamicSlice, Indirection, NkiTensor
from opentrn.nki.earlier.indices import Index, Variable, as_int
from opentrn.nki.earlier.views import fail

__all__ = ["Excess", "Indexed", "index"]

Excess = tuple[tuple[int, int, int, tuple[tuple[int, int], ...]], ...]
"""Of each dimension that an index reaches out of: (dimension, size, constant, ((axis of the result, step), ...))."""

Indexed = tuple[NkiTensor, int, "tuple[Variable | None, ...] | None", "Excess | None"]
"""View, place of its partition dimension, counter of each axis, and what reaches outside."""

_new = object.__new__
_known: dict[tuple, tuple] = {}


def index(owner: Any, view: NkiTensor, par: int, key: tuple) -> Indexed:
    """The view ``owner[key]`` of a tile whose view is ``view``.

    Reaching outside the tensor is not refused yet: a mask may exclude it.

    Raises:
        ValidationError: the key cannot be an access pattern.
    """
    layout = view.layout
    signature: list[Any] = [layout, par]
    starts: list[int] = []
    for k in key:
        kind = type(k)
        if kind is int:
            signature.append("i")
            starts.append(k)
        elif kind is Index:
            signature.append(-id(k.terms) if k.terms else k.shape)
            starts.append(k.const)
        elif kind is slice and k.step is None:
            start, stop = k.start, k.stop
            if start is None and stop is None:
                signature.append(":")
                starts.append(0)
            elif type(start) is int and type(stop) is int and start >= 0 and stop >= 0:
                signature.append(stop - start)
                starts.append(start)
            else:
                break
        elif kind is DynamicSlice and type(k.start) is int and type(k.size) is int:
            signature.append(k.size)
            starts.append(k.start)
        else:
            break
    else:
        found = _known.get(tuple(signature))
        if found is not None and view.indirection is None:
            offset = view.offset
            for start, (stride, low, high) in zip(starts, found[3], strict=True):
                if start < low or start > high:
                    break
                offset += start * stride
            else:
                result = _new(NkiTensor)
                result.storage = view.storage
                result.layout = found[0]
                result.offset = offset
                result.indirection = None
                result._array = None
                return result, found[1], found[2], None
        if found is None:
            made = _Pattern(owner, view, par, key).result()
            if made[3] is None and made[0].indirection is None:
                _remember(tuple(signature), view, par, key, made)
            return made
    return _Pattern(owner, view, par, key).result()


def _remember(signature: tuple, view: NkiTensor, par: int, key: tuple, made: Indexed) -> None:
    """Keep the result of a key, and for each of its entries the stride and the starts that stay inside."""
    sizes, strides = _in_order(view, par)
    bounds = []
    for k, size, stride in zip(key, sizes, strides, strict=False):
        if type(k) is Index:
            low, high = k.bounds()
            bounds.append((stride, k.const - low, size - 1 - high + k.const))
        elif type(k) is int:
            bounds.append((stride, 0, size - 1))
        else:
            count = (
                size
                if type(k) is slice and k.start is None
                else k.size
                if type(k) is DynamicSlice
                else k.stop - k.start
            )
            bounds.append((stride, 0, size - count))
    # The terms stand for themselves in the signature, so they must live as long as it.
    _known[signature] = (made[0].layout, made[1], made[2], bounds, [k.terms for k in key if type(k) is Index])


def _in_order(view: NkiTensor, par: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes and strides in the kernel's order of dimensions."""
    sizes, strides = view.layout.shape, view.layout.strides
    if par:
        sizes = (*sizes[1 : par + 1], sizes[0], *sizes[par + 1 :])
        strides = (*strides[1 : par + 1], strides[0], *strides[par + 1 :])
    return sizes, strides


class _Pattern:
    """Walks a key and collects the axes of the result: (size, stride, counter, is it the partition dimension)."""

    def __init__(self, owner: Any, view: NkiTensor, par: int, key: tuple) -> None:
        self.owner = owner
        self.view = view
        self.offset = view.offset
        self.axes: list[tuple[int, int, Variable | None, bool]] = []
        self.grid: dict[int, list[Any]] | None = None  # axis from the right -> [size, stride, counter, partition]
        self.grid_at = 0
        self.split = False
        self.depth = 0
        self.excess: list[tuple[int, int, tuple[tuple[int, int], ...]]] = []
        self.dynamic: tuple[str, Any, int, int, int | None] | None = None
        self.key, self.sizes, self.strides, self.par = _expand(key, *_in_order(view, par), par)
        for dim, k in enumerate(self.key):
            self._entry(dim, k)

    def _entry(self, dim: int, k: Any) -> None:
        size, stride = self.sizes[dim], self.strides[dim]
        kind = type(k)
        if kind is slice:
            self._slice(dim, size, stride, *_bounds(dim, k, size))
        elif kind is DynamicSlice:
            self._dynamic_slice(dim, size, stride, k)
        elif kind is Index:
            self._index(dim, size, stride, k)
        elif isinstance(k, VirtualRegister):
            self._by_scalar(dim, size, stride, k)
        elif hasattr(k, "nki"):
            self._by_tile(dim, size, stride, k)
        else:
            number = as_int(k)
            if number is None:
                raise fail(
                    f"{k!r} cannot index dimension {dim} of {self.owner!r}; "
                    "use integers, slices, nl.ds or index expressions"
                )
            if number < 0:
                number += size
            if not 0 <= number < size:
                self.excess.append((dim, number, ()))
            self.offset += number * stride

    def _slice(self, dim: int, size: int, stride: int, start: int, stop: int, step: int) -> None:
        count = -(-(stop - start) // step) if step > 0 else 0
        if count <= 0 or start < 0:
            raise self._outside(dim, f"{start}:{stop}" + (f":{step}" if step != 1 else ""))
        if start + (count - 1) * step >= size:
            self.excess.append((dim, start, ((len(self.axes), step),)))
        self.offset += start * stride
        self.axes.append((count, stride * step, None, dim == self.par))
        self.split = self.grid is not None

    def _dynamic_slice(self, dim: int, size: int, stride: int, k: DynamicSlice) -> None:
        start, count = as_int(k.start), as_int(k.size)
        if start is None and hasattr(k.start, "nki"):
            self._by_scalar(dim, size, stride, k.start.nki)
            start = 0
        if start is None or count is None or count < 1:
            raise self._outside(dim, f"nl.ds({k.start}, {k.size})")
        self._slice(dim, size, stride, start, start + count, 1)

    def _index(self, dim: int, size: int, stride: int, k: Index) -> None:
        grid = self._open_grid()
        self.offset += k.const * stride
        self.depth = max(self.depth, len(k.shape))
        for n, extent in enumerate(k.shape):
            entry = grid.setdefault(n - len(k.shape), [1, 0, None, False])
            if extent != 1 and entry[0] not in (1, extent):
                raise fail(
                    f"index expressions with axes of {extent} and {entry[0]} elements meet in one index "
                    f"of {self.owner!r}"
                )
            entry[0] = max(entry[0], extent)
        for axis, coefficient, variable in k.terms:
            entry = grid[axis]
            entry[1] += coefficient * stride
            if entry[2] is None or variable.size > 1:
                entry[2] = variable
            entry[3] = entry[3] or (dim == self.par and variable.size > 1)
        low, high = k.bounds()
        if low < 0 or high >= size:
            self.excess.append((dim, k.const, tuple((axis, c) for axis, c, _ in k.terms)))

    def _open_grid(self) -> dict[int, list[Any]]:
        if self.grid is None:
            self.grid, self.grid_at = {}, len(self.axes)
        elif self.split:
            self.grid_at = 0  # index expressions with a slice between them come first, as in NumPy
        return self.grid

    def _by_scalar(self, dim: int, size: int, stride: int, place: Any) -> None:
        if self.dynamic is not None:
            raise fail(f"dimension {dim} is the second to be indexed at run time; only one dynamic index is possible")
        self.dynamic = ("scalar", place, stride, size, None)

    def _by_tile(self, dim: int, size: int, stride: int, k: Any) -> None:
        rows = k.shape[0]
        if k.size == 1:
            self._by_scalar(dim, size, stride, k.nki)
            return
        if self.dynamic is not None:
            raise fail("two dimensions are indexed by tiles; only one dynamic index is possible")
        if k.size != rows:
            raise fail(
                f"dimension {dim} is indexed by a tile {list(k.shape)}; a gather takes one index a partition, (P, 1); "
                "within SBUF use nl.gather_flattened"
            )
        grid, ndim = self._open_grid(), len(k.shape)
        for axis in range(-ndim, 0):
            grid.setdefault(axis, [1, 0, None, False])
        grid[-ndim][0] = max(grid[-ndim][0], rows)
        if k.vars and k.vars[0] is not None:
            grid[-ndim][2] = k.vars[0]
        self.depth = max(self.depth, ndim)
        self.dynamic = ("vector", k.nki, stride, size, -ndim)

    def _outside(self, dim: int, what: str) -> ValidationError:
        return fail(f"slice {what} on dimension {dim} of {self.owner!r}, which holds 0:{self.sizes[dim]}")

    def result(self) -> Indexed:
        """The view and what belongs to it."""
        axes, excess = self.axes, self.excess
        if self.grid is not None:
            grid, at, depth = self.grid, self.grid_at, self.depth
            axes[at:at] = [tuple(grid.get(a, (1, 0, None, False))) for a in range(-depth, 0)]  # type: ignore[list-item]
            # Axes of the grid were counted from its right, those of slices before the grid was put in.
            excess = [
                (d, c, tuple((at + depth + a if a < 0 else a + depth * (a >= at), s) for a, s in t))
                for d, c, t in excess
            ]
        new_par = 0
        if self.view.layout.on_chip:
            new_par, inserted = self._partition(axes)
            if inserted:
                excess = [(d, c, tuple((a + 1, s) for a, s in t)) for d, c, t in excess]
        elif not axes:
            axes.append((1, 1, None, False))
        order = axes if not new_par else [axes[new_par], *axes[:new_par], *axes[new_par + 1 :]]
        view = self.view._view(tuple([a[0] for a in order]), tuple([a[1] for a in order]), self.offset)
        names = tuple([a[2] for a in axes]) if self.grid is not None else None
        if self.dynamic is not None:
            view = self._indirect(view)
        return view, new_par, names, tuple((d, self.sizes[d], c, t) for d, c, t in excess) or None

    def _partition(self, axes: list[tuple[int, int, Variable | None, bool]]) -> tuple[int, bool]:
        """Where the partition dimension ends up, and whether an axis of size 1 had to be inserted for it."""
        found = [n for n, a in enumerate(axes) if a[3]]
        stride = self.strides[self.par]
        inserted = False
        if len(found) > 1:
            raise fail("the partition dimension is spread over two axes of the index; it must be one axis")
        if found:
            size, step, _, _ = axes[found[0]]
            if step % stride and size > 1:
                raise fail(
                    "an index steps through partitions and elements at once; every partition makes the same access"
                )
        elif axes and axes[0][0] == 1:
            axes[0] = (1, stride, axes[0][2], True)
        else:
            axes.insert(0, (1, stride, None, True))
            inserted = True
        if len(axes) < 2:
            axes.append((1, 1, None, False))
        return (found[0] if found else 0), inserted

    def _indirect(self, view: NkiTensor) -> NkiTensor:
        assert self.dynamic is not None
        kind, place, stride, size, axis = self.dynamic
        if kind == "scalar":
            return view._indirectly(Indirection("scalar", place, stride, size, None))
        if self.grid_at + self.depth + (axis or 0) != 0 or view.layout.on_chip:
            raise fail(
                "a gather takes its rows along the first dimension of an HBM tensor's view; put the index tile there"
            )
        if view.layout.strides[0] != 0:
            raise fail(
                "a dimension is indexed by a tile and another by a counter on the same axis; add them in the tile"
            )
        view = view._view(view.layout.shape, (stride, *view.layout.strides[1:]), view.offset)
        return view._indirectly(Indirection("vector", place, stride, size, 0))


def _bounds(dim: int, k: slice, size: int) -> tuple[int, int, int]:
    """Start, stop and step of a slice."""
    numbers = []
    for v, default in ((k.start, 0), (k.stop, size), (k.step, 1)):
        n = default if v is None else as_int(v)
        if n is None and isinstance(v, Index) and not v.varies():
            n = v.const
        if n is None:
            raise fail(f"a slice of dimension {dim} has the bound {v!r}, which is not an integer")
        numbers.append(n)
    start, stop, step = numbers
    return (start + size if start < 0 else start), (stop + size if stop < 0 else stop), step


def _expand(key: tuple, sizes: tuple, strides: tuple, par: int) -> tuple[tuple, tuple, tuple, int]:
    """The key with ``...`` filled in, and axes of size 1 for None."""
    given = sum(1 for k in key if k is not None and k is not Ellipsis)
    if given > len(sizes):
        raise fail(f"{given} indices on a tile of {len(sizes)} dimensions, {list(sizes)}")
    entries = list(key)
    fill = [slice(None)] * (len(sizes) - given)
    at = next((n for n, k in enumerate(entries) if k is Ellipsis), None)
    if at is None:
        entries += fill
    else:
        entries[at : at + 1] = fill
    if not any(k is None for k in entries):
        return tuple(entries), sizes, strides, par
    new_sizes, new_strides, dim, new_par = [], [], 0, par
    for n, k in enumerate(entries):
        if k is None:
            new_sizes.append(1)
            new_strides.append(1)
            entries[n] = slice(None)
            new_par += dim <= par
        else:
            new_sizes.append(sizes[dim])
            new_strides.append(strides[dim])
            dim += 1
    return tuple(entries), tuple(new_sizes), tuple(new_strides), new_par
