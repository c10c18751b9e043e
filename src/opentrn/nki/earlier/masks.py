"""Masks of the earlier API: which elements of its index grid an instruction touches.

A mask is a comparison of index expressions, or several of them joined with ``&``, ``|`` and ``~``. Almost all are
bounds of single axes, and then the instruction simply runs on a smaller view, as on the chip. What remains ragged
(``i_p >= i_f``) is returned as an array of booleans for the caller to select with.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore.source import caller, user_frame
from opentrn.nki.earlier.bytecode import joining_word
from opentrn.nki.earlier.indices import Index, Variable

__all__ = ["Predicate", "Region", "compare", "resolve", "terms_of"]

_OPS: dict[str, Callable[[Any, int], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


class Predicate:
    """A condition on index expressions: ``kind`` is a comparison with zero, ``and`` or ``or``."""

    __slots__ = ("kind", "index", "parts")
    __array_ufunc__ = None

    def __init__(self, kind: str, index: Index | None = None, parts: tuple[Predicate, ...] = ()) -> None:
        self.kind = kind
        self.index = index
        self.parts = parts

    def __and__(self, other: Any) -> Any:
        return _join("and", self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Any:
        return _join("or", self, other)

    __ror__ = __or__

    def __invert__(self) -> Predicate:
        if self.index is not None:
            return Predicate(_OPPOSITE[self.kind], self.index)
        return Predicate("or" if self.kind == "and" else "and", None, tuple(~p for p in self.parts))

    def __bool__(self) -> bool:
        """Kernels also write ``i_p < n and i_f < m``; the compiler reads it as ``&``, and so does this."""
        frame = user_frame(1)
        word = _joining_word(frame.f_code, frame.f_lasti) if frame is not None else None
        if word is None or frame is None:
            raise ValidationError(
                "a mask has no single truth value; pass it as mask=, join masks with & and |, "
                "and branch on Python integers",
                caller(),
            )
        _pending.append((word, self, frame.f_code))
        return word == "and"

    def __repr__(self) -> str:
        return (
            f"{self.index!r} {self.kind} 0"
            if self.index is not None
            else f" {self.kind} ".join(f"({p!r})" for p in self.parts)
        )


_pending: list[tuple[str, Predicate, CodeType]] = []
_words: dict[tuple[CodeType, int], str | None] = {}


def _joining_word(code: CodeType, position: int) -> str | None:
    key = (code, position)
    if key not in _words:
        _words[key] = joining_word(code, position)
    return _words[key]


def _joined(predicate: Predicate) -> Predicate:
    """``predicate`` with the left side of the ``and`` or ``or`` that it is the right side of."""
    if not _pending:
        return predicate
    word, left, code = _pending.pop()
    frame = user_frame(2)
    if frame is None or frame.f_code is not code:
        return predicate
    return _join(word, left, predicate)


def _join(kind: str, a: Any, b: Any) -> Any:
    if isinstance(b, (bool, np.bool_)):
        return (a if b else False) if kind == "and" else (True if b else a)
    if b is None:
        return a
    if not isinstance(b, Predicate):
        return NotImplemented
    parts = (a.parts if a.kind == kind else (a,)) + (b.parts if b.kind == kind else (b,))
    return Predicate(kind, None, parts)


def compare(difference: Index, op: str) -> Any:
    """The predicate ``difference op 0``; a plain bool when the difference is the same everywhere."""
    predicate: Any = Predicate(op, difference)
    return _joined(predicate) if _pending else predicate


class Region:
    """What a mask leaves of a grid.

    Attributes:
        ranges: first and one past last element of each axis.
        ragged: boolean array over the ranges where the mask is not a box, else None.
    """

    __slots__ = ("ranges", "ragged")

    def __init__(self, ranges: tuple[tuple[int, int], ...], ragged: np.ndarray | None) -> None:
        self.ranges = ranges
        self.ragged = ragged


def resolve(mask: Any, shape: Sequence[int], variables: Sequence[Sequence[Variable | None]]) -> Region | bool:
    """What ``mask`` leaves of a grid of ``shape``: True for all of it, False for nothing, or a Region.

    ``variables`` holds, for each operand, the counter of each axis; a mask restricts the axis of its counter, or, where
    no operand was indexed with that counter, the axis in the same place counted from the right.
    """
    if _pending:
        _, left, code = _pending.pop()
        frame = user_frame(1)
        if frame is not None and frame.f_code is code and isinstance(mask, (bool, np.bool_)):
            mask = _join("and", left, mask)
    if mask is None:
        return True
    if isinstance(mask, Index):
        mask = mask != 0
    if not isinstance(mask, Predicate):
        if isinstance(mask, (bool, np.bool_, int, np.integer)):
            return bool(mask)
        raise ValidationError(
            f"mask={mask!r} is not a mask; compare index expressions, for example mask=(i_p < rows); "
            "masks in tiles go to nl.where or nisa.tensor_copy_predicated",
            caller(),
        )
    ndim = len(shape)
    names = [v for v in variables if v is not None and len(v) == ndim]
    ranges = [(0, n) for n in shape]
    rest: list[Predicate] = []
    for part in mask.parts if mask.kind == "and" else (mask,):
        if part.index is None:
            rest.append(part)
            continue
        terms = terms_of(part.index, ndim, names)
        if not terms:
            if not _OPS[part.kind](part.index.const, 0):
                return False
        elif len(terms) == 1:
            ((axis, coefficient),) = terms.items()
            low, high = ranges[axis]
            if part.kind == "!=":
                rest.append(part)
                continue
            low, high = _solve(part.kind, part.index.const, coefficient, low, high)
            if low >= high:
                return False
            ranges[axis] = (low, high)
        else:
            rest.append(part)
    if rest:
        grid = np.ones([hi - lo for lo, hi in ranges], dtype=np.bool_)
        for part in rest:
            grid &= _evaluate(part, ranges, names)
        if not grid.any():
            return False
        for axis in range(ndim):  # shrink to the box around what is left
            where = np.flatnonzero(grid.any(axis=tuple(a for a in range(ndim) if a != axis)))
            low = ranges[axis][0]
            grid = np.take(grid, range(int(where[0]), int(where[-1]) + 1), axis=axis)
            ranges[axis] = (low + int(where[0]), low + int(where[-1]) + 1)
        if not grid.all():
            return Region(tuple(ranges), grid)
    if all(r == (0, n) for r, n in zip(ranges, shape, strict=True)):
        return True
    return Region(tuple(ranges), None)


def _solve(kind: str, const: int, coefficient: int, low: int, high: int) -> tuple[int, int]:
    """The part of ``low <= i < high`` where ``const + coefficient * i`` compares with 0 as ``kind`` says."""
    if kind == "==":
        at, rest = divmod(-const, coefficient)
        return (max(low, at), min(high, at + 1)) if not rest else (low, low)
    if kind in (">", ">="):
        kind, const, coefficient = ("<" if kind == ">" else "<="), -const, -coefficient
    if kind == "<=":
        const -= 1
    # const + coefficient * i < 0
    if coefficient > 0:
        return low, min(high, -(const // coefficient))
    return max(low, const // -coefficient + 1), high


def terms_of(index: Index, ndim: int, names: Sequence[Sequence[Variable | None]]) -> dict[int, int]:
    """Coefficient of each axis of the grid in an index expression."""
    result: dict[int, int] = {}
    for axis, coefficient, variable in index.terms:
        if variable.size == 1 or coefficient == 0:
            continue
        at = next((v.index(variable) for v in names if variable in v), ndim + axis)
        if not 0 <= at < ndim:
            raise ValidationError(f"the mask {index!r} has an axis that the instruction's tiles do not have", caller())
        result[at] = result.get(at, 0) + coefficient
    return result


def _evaluate(part: Predicate, ranges: list[tuple[int, int]], names: list[Sequence[Variable | None]]) -> np.ndarray:
    """A predicate as booleans over the ranges."""
    ndim = len(ranges)
    if part.index is None:
        values = [_evaluate(p, ranges, names) for p in part.parts]
        join = np.logical_and if part.kind == "and" else np.logical_or
        result = values[0]
        for v in values[1:]:
            result = join(result, v)
        return result
    total: Any = np.full((1,) * ndim, part.index.const, dtype=np.int64)
    for axis, coefficient in terms_of(part.index, ndim, names).items():
        low, high = ranges[axis]
        total = total + (coefficient * np.arange(low, high)).reshape((-1,) + (1,) * (ndim - axis - 1))
    return _OPS[part.kind](total, 0)
