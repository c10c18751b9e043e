"""What the compute instructions agree on: partitions match, elements a partition match, columns are (P, 1).

Free dimensions need not: an instruction streams the elements of each partition in order, so a (128, 4, 8) tile may be
written from a (128, 32) one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn.neuroncore.dtypes import is_packed, tfloat32
from opentrn.neuroncore.instruction import SCALAR, Issue
from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.memory import MemoryRegion

__all__ = [
    "column", "direct", "expand", "fit", "flat", "not_both_psum", "require_types", "same_elements", "same_partitions",
    "unpacked",
]  # fmt: skip


def same_partitions(i: Issue, *names: str) -> None:
    """Refuse operands that span different numbers of partitions."""
    first = i.fields[names[0]]
    for name in names[1:]:
        other = i.fields[name]
        if isinstance(other, Layout) and other.num_partitions != first.num_partitions:
            raise i.fail(
                f"{names[0]} spans {first.num_partitions} partitions and {name} {other.num_partitions} "
                f"({list(first.shape)} against {list(other.shape)}); slice them to the same partitions"
            )


def same_elements(i: Issue, *names: str) -> None:
    """Refuse operands with different partitions or different numbers of elements a partition."""
    same_partitions(i, *names)
    first = i.fields[names[0]]
    for name in names[1:]:
        other = i.fields[name]
        if isinstance(other, Layout) and other.free_size != first.free_size:
            raise i.fail(
                f"{names[0]} has {first.free_size} elements a partition and {name} {other.free_size} "
                f"({list(first.shape)} against {list(other.shape)}); they must agree, broadcast with "
                ".broadcast(dim, size)"
            )


def column(i: Issue, data: str, *names: str) -> None:
    """Refuse a vector operand that is not one element for each partition of ``data``."""
    partitions = i.fields[data].num_partitions
    for name in names:
        layout = i.fields[name]
        if isinstance(layout, Layout) and (layout.num_partitions != partitions or layout.free_size != 1):
            raise i.fail(
                f"{name} must be a number or a tensor of shape ({partitions}, 1), one value a partition of {data}, "
                f"not {list(layout.shape)}"
            )


def fit(layout: Layout, target: Layout) -> Callable[[np.ndarray], np.ndarray]:
    """A function that brings an array of ``layout`` into the shape of ``target`` (same elements, in order)."""
    if layout.shape == target.shape:
        return lambda a: a
    shape = target.shape
    return lambda a: a.reshape(shape)


def expand(layout: Layout | object | None, target: Layout) -> Callable[[Any], Any]:
    """A function that makes a (P, 1) column broadcast along the free dimensions of ``target``; numbers pass."""
    if layout is None or layout is SCALAR or not isinstance(layout, Layout):
        return lambda a: a
    shape = (layout.shape[0],) + (1,) * (target.ndim - 1)
    if layout.shape == shape:
        return lambda a: a
    return lambda a: a.reshape(shape)


def direct(layout: Layout) -> bool:
    """Whether a NumPy function may put float32 results straight into an array of ``layout``."""
    if layout.host != np.float32 or layout.dtype is tfloat32:
        return False
    return all(step or size == 1 for size, step in zip(layout.shape, layout.strides, strict=True))


def not_both_psum(i: Issue, first: str, second: str) -> None:
    """Refuse two inputs that are both in PSUM, which an engine reads one at a time."""
    a, b = i.fields[first], i.fields[second]
    if isinstance(a, Layout) and isinstance(b, Layout) and a.region is b.region is MemoryRegion.psum:
        raise i.fail(f"{first} and {second} cannot both be in PSUM; copy one of them to SBUF first")


def require_types(i: Issue, name: str, *allowed: str) -> None:
    """Refuse an operand of another type; numbers and absent operands pass."""
    layout = i.fields[name]
    if isinstance(layout, Layout) and layout.dtype not in allowed:
        raise i.fail(f"{name} is {layout.dtype}, but must be {_either(allowed)}; convert it with tensor_copy first")


def unpacked(i: Issue, *names: str) -> None:
    """Refuse packed MX words, on which only copies and the MX instructions work."""
    for name in names:
        layout = i.fields[name]
        if isinstance(layout, Layout) and is_packed(layout.dtype):
            raise i.fail(f"{name} is {layout.dtype}, packed MX words, which only copies and the MX instructions take")


def _either(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]


def flat(array: np.ndarray) -> np.ndarray:
    """(partitions, elements)."""
    return array if array.ndim == 2 else array.reshape(array.shape[0], -1)
