"""Whether a kernel's tensors fit: live ranges against the size of SBUF and PSUM.

A tensor occupies its memory from the first instruction that uses it to the last, as the compiler's allocator would have
it, whatever Python variables still name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from opentrn.errors import CapacityError
from opentrn.neuroncore.memory import Allocation, MemoryRegion

if TYPE_CHECKING:
    from opentrn.neuroncore.machine import Core

__all__ = ["check", "live_bytes", "peak", "weight"]

_QUADRANT = 32


def weight(allocation: Allocation) -> float:
    """Bytes a partition that a tensor takes, counted in quadrants: one of 32 partitions leaves three quarters free."""
    quadrants = -(-allocation.num_partitions // _QUADRANT)
    return allocation.bytes_per_partition * quadrants / 4


def live_bytes(allocations: Sequence[Allocation], region: MemoryRegion, length: int) -> np.ndarray:
    """Bytes a partition in use at each instruction, for the tensors that the allocator places."""
    found = [(a.first_use, a.last_use + 1, weight(a)) for a in allocations
             if a.region is region and a.first_use >= 0 and a.address is None]  # fmt: skip
    if not found:
        return np.zeros(length)
    first, end, size = (np.array(column) for column in zip(*found, strict=True))
    change = np.bincount(first, size, length + 1) - np.bincount(end, size, length + 1)
    return np.cumsum(change[:-1])


def peak(allocations: list[Allocation], region: MemoryRegion, length: int) -> tuple[int, int]:
    """(bytes a partition at the fullest moment, the instruction where that is), manual placements included."""
    placed = max(
        (a.address[1] + a.bytes_per_partition for a in allocations if a.region is region and a.address), default=0
    )
    if not length:
        return placed, 0
    live = live_bytes(allocations, region, length)
    where = int(live.argmax())
    return int(live[where]) + placed, where


def check(core: Core) -> None:
    """Refuse a kernel whose live tensors overflow SBUF or PSUM, naming them, largest first.

    Raises:
        CapacityError: with the line that allocated the tensor which did not fit any more.
    """
    core.settle_uses()
    for region in (MemoryRegion.sbuf, MemoryRegion.psum):
        limit = core.capacity(region)
        needed, where = peak(core.allocations, region, core.count)
        if needed <= limit:
            continue
        live = [
            a for a in core.allocations
            if a.region is region and (a.address is not None or a.first_use <= where <= a.last_use) and a.first_use >= 0
        ]  # fmt: skip
        newest = max(live, key=lambda a: a.first_use)
        live.sort(key=lambda a: (-weight(a), a.id))
        names = "; ".join(_describe(a) for a in live[:6])
        more = f"; and {len(live) - 6} more" if len(live) > 6 else ""
        raise CapacityError(
            f"{region.value} overflows: the tensors in use at once need {needed} bytes a partition and there are "
            f"{limit}; "
            f"largest first: {names}{more}; use smaller tiles, or narrow types, or use tensors for shorter",
            newest.source,
        )


def _describe(a: Allocation) -> str:
    source = a.source
    line = f" line {source[1]}" if source else ""
    name = f"{a.name!r} " if a.name else ""
    return f"{name}{a.dtype}{list(a.shape)}{line} ({a.bytes_per_partition} B)"
