"""Index expressions of the earlier API: ``nl.arange`` and ``nl.mgrid``, kept symbolic.

``tile[i_p, 512 * j + i_f]`` is an access pattern, not a gather: each axis of the index grid adds a multiple of its
counter to the address. So an :class:`Index` is an affine form, a constant plus one coefficient an axis, and indexing
with it is arithmetic on strides whatever its size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller

__all__ = ["Grid", "Index", "Variable", "arange", "as_int", "mgrid"]


class Variable:
    """The counter of one ``nl.arange``; masks find the axis they restrict by it."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


def as_int(value: Any) -> int | None:
    """An integer for anything that is one (NumPy integers, whole floats, registers); None otherwise."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return int(value)
    if isinstance(value, VirtualRegister):
        return value.read()
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return None


class Index:
    """``const + sum(coefficient * counter)`` over the axes of an index grid.

    Attributes:
        shape: extent of the grid (1 where an axis is only there to broadcast).
        const: value where all counters are 0.
        terms: (axis counted from the right, coefficient, counter), one entry an axis that is not broadcast.
    """

    __slots__ = ("shape", "const", "terms")
    __array_ufunc__ = None  # NumPy numbers leave arithmetic with an Index to the Index

    def __init__(self, shape: tuple[int, ...], const: int, terms: tuple[tuple[int, int, Variable], ...]) -> None:
        self.shape = shape
        self.const = const
        self.terms = terms

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        parts = [str(self.const)] if self.const or not self.terms else []
        parts += [f"{c}*i{axis}[0:{v.size}]" for axis, c, v in self.terms]
        return f"Index({' + '.join(parts)})"

    def __getitem__(self, key: Any) -> Index:
        """Insert broadcast axes with None, or take a part of an axis with a slice or an integer."""
        entries = list(key) if isinstance(key, tuple) else [key]
        given = sum(1 for k in entries if k is not None and k is not Ellipsis)
        if Ellipsis in entries:
            at = entries.index(Ellipsis)
            entries[at : at + 1] = [slice(None)] * (len(self.shape) - given)
        else:
            entries += [slice(None)] * (len(self.shape) - given)
        kept: list[tuple[int, int | None, Variable | None]] = []  # (size, coefficient or None, counter)
        const, old = self.const, {axis: (c, v) for axis, c, v in self.terms}
        dim, ndim = 0, len(self.shape)
        for k in entries:
            if k is None:
                kept.append((1, None, None))
                continue
            if dim >= ndim:
                raise ValidationError(f"too many indices for an index expression of {ndim} axes", caller())
            size = self.shape[dim]
            coefficient, variable = old.get(dim - ndim, (None, None))
            dim += 1
            if isinstance(k, slice):
                start, stop, step = k.indices(size)
                if (start, stop, step) != (0, size, 1):
                    size = max(0, -(-(stop - start) // step))
                    if coefficient is not None:
                        const += coefficient * start
                        coefficient, variable = coefficient * step, Variable(size)
                kept.append((size, coefficient, variable))
            else:
                at = as_int(k)
                if at is None:
                    raise ValidationError(
                        f"{k!r} cannot index an index expression; use None, slices or integers", caller()
                    )
                const += (coefficient or 0) * (at + size if at < 0 else at)
        total = len(kept)
        terms = tuple((n - total, c, v) for n, (_, c, v) in enumerate(kept) if c is not None and v is not None)
        return Index(tuple(size for size, _, _ in kept), const, terms)

    # Arithmetic

    def _combine(self, other: Any, sign: int) -> Any:
        if type(other) is int:
            return Index(self.shape, self.const + sign * other, self.terms)
        if isinstance(other, Index):
            merged = {axis: (c, v) for axis, c, v in self.terms}
            for axis, c, v in other.terms:
                known = merged.get(axis)
                # Counters of one axis run together: the first names the axis.
                merged[axis] = (c * sign, v) if known is None else (known[0] + sign * c, known[1])
            shape = _broadcast(self.shape, other.shape)
            terms = tuple((axis, c, v) for axis, (c, v) in sorted(merged.items()))
            return Index(shape, self.const + sign * other.const, terms)
        number = as_int(other)
        if number is None:
            return NotImplemented
        return Index(self.shape, self.const + sign * number, self.terms)

    def __add__(self, other: Any) -> Any:
        return self._combine(other, 1)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._combine(other, -1)

    def __rsub__(self, other: Any) -> Any:
        return (self * -1)._combine(other, 1)

    def __neg__(self) -> Index:
        return self * -1

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Index):
            if not other.varies():
                return self._broadcast_to(other) * other.const
            if not self.varies():
                return other._broadcast_to(self) * self.const
            raise _not_affine("the product of two counters")
        number = as_int(other)
        if number is None:
            return NotImplemented
        return Index(self.shape, self.const * number, tuple((a, c * number, v) for a, c, v in self.terms))

    __rmul__ = __mul__

    def _broadcast_to(self, other: Index) -> Index:
        # A tuple of its own: its identity stands for the shape too, where keys are remembered.
        return Index(_broadcast(self.shape, other.shape), self.const, (*self.terms,))

    def __floordiv__(self, other: Any) -> Any:
        return self._divide(other, "//")

    def __mod__(self, other: Any) -> Any:
        return self._divide(other, "%")

    def _divide(self, other: Any, what: str) -> Index:
        by = as_int(other)
        if by is None or by == 0:
            raise ValidationError(
                f"an index expression {what} {other!r}; the divisor must be an integer that is not 0", caller()
            )
        varying = [(a, c, v) for a, c, v in self.terms if v.size > 1]
        if all(c % by == 0 for _, c, _ in varying):
            if what == "//":
                return Index(self.shape, self.const // by, tuple((a, c // by, v) for a, c, v in varying))
            return Index(self.shape, self.const % by, ())
        low, high = self.bounds()
        if low // by == high // by:  # every value has the same quotient
            if what == "//":
                return Index(self.shape, low // by, ())
            return Index(self.shape, self.const - low // by * by, self.terms)
        raise _not_affine(f"{self!r} {what} {by}")

    # Comparison: the terms of masks

    def _compare(self, other: Any, op: str) -> Any:
        from opentrn.nki.earlier.masks import compare

        difference = self._combine(other, -1)
        return difference if difference is NotImplemented else compare(difference, op)

    def __lt__(self, other: Any) -> Any:
        return self._compare(other, "<")

    def __le__(self, other: Any) -> Any:
        return self._compare(other, "<=")

    def __gt__(self, other: Any) -> Any:
        return self._compare(other, ">")

    def __ge__(self, other: Any) -> Any:
        return self._compare(other, ">=")

    def __eq__(self, other: Any) -> Any:  # type: ignore[override]
        return self._compare(other, "==")

    def __ne__(self, other: Any) -> Any:  # type: ignore[override]
        return self._compare(other, "!=")

    __hash__ = object.__hash__

    # Values

    def varies(self) -> bool:
        """Whether the value differs between elements of the grid."""
        return any(c and v.size > 1 for _, c, v in self.terms)

    def bounds(self) -> tuple[int, int]:
        """Smallest and largest value."""
        low = high = self.const
        for _, c, v in self.terms:
            if c > 0:
                high += c * (v.size - 1)
            else:
                low += c * (v.size - 1)
        return low, high

    def values(self) -> np.ndarray:
        """The integers, as an array of the grid's shape."""
        result = np.full(self.shape, self.const, dtype=np.int64)
        for axis, c, v in self.terms:
            result += c * np.arange(v.size).reshape((-1,) + (1,) * (-axis - 1))
        return result


def _not_affine(what: str) -> ValidationError:
    return ValidationError(
        f"{what} is not an affine index: access patterns step evenly along each axis; use one more axis "
        "(i // 4 becomes an axis of its own), or compute the index in a tile with nisa.iota and gather",
        caller(),
    )


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    if a == b:
        return a
    if len(a) < len(b):
        a = (1,) * (len(b) - len(a)) + a
    elif len(b) < len(a):
        b = (1,) * (len(a) - len(b)) + b
    for n, m in zip(a, b, strict=True):
        if n != m and n != 1 and m != 1:
            raise ValidationError(f"index expressions of shapes {list(a)} and {list(b)} do not broadcast", caller())
    return tuple(m if n == 1 else n for n, m in zip(a, b, strict=True))


def arange(*args: Any) -> Index:
    """Consecutive integers ``[start, stop)`` along a new axis, as ``numpy.arange``; None in an index places the axis.

    Raises:
        ValidationError: the range is empty or not made of integers.
    """
    numbers = [as_int(a) for a in args]
    if not 1 <= len(args) <= 3 or None in numbers:
        raise ValidationError(
            f"nl.arange{args!r}: give stop, or start and stop, or start, stop and step, as integers", caller()
        )
    values = range(*numbers)  # type: ignore[arg-type]
    if not len(values):
        raise ValidationError(f"nl.arange{args!r} is empty; an index needs at least one element", caller())
    return Index((len(values),), values.start, ((-1, values.step, Variable(len(values))),))


class Grid(tuple):
    """The axes of ``nl.mgrid[...]``: unpack them, or use ``.p``, ``.x``, ``.y``, ``.z``, ``.w``."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Index:
        at = "pxyzw".find(name) if len(name) == 1 else -1
        if 0 <= at < len(self):
            return self[at]
        raise AttributeError(
            f"this index grid has {len(self)} axes, {', '.join('pxyzw'[: len(self)])}; it has no {name!r}"
        )


class _MGrid:
    """``nl.mgrid``: one slice an axis of the grid."""

    def __getitem__(self, key: Any) -> Any:
        slices = key if isinstance(key, tuple) else (key,)
        count = len(slices)
        axes = []
        for n, s in enumerate(slices):
            if not isinstance(s, slice) or s.stop is None:
                raise ValidationError(
                    f"nl.mgrid takes slices with an end, as nl.mgrid[0:128, 0:512], not {s!r}", caller()
                )
            line = arange(s.start or 0, s.stop, s.step or 1)
            axes.append(line[(None,) * n + (slice(None),) + (None,) * (count - n - 1)])
        return Grid(axes) if isinstance(key, tuple) else axes[0]

    def __repr__(self) -> str:
        return "nl.mgrid"


mgrid = _MGrid()
