"""Where the compiler's allocator would put the tensors that the kernel left to it.

A tensor holds its bytes from its first use to its last. Fresh memory is taken while there is any; after that the place
that has been free longest is used again, so that a loop's buffers rotate through all of the memory and a new tile waits
for the oldest one only. How much memory there is thus decides how far loads run ahead.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from opentrn.neuroncore.memory import MemoryRegion

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["place"]

_QUADRANT = 32


class _Memory:
    """One on-chip memory: slots of the sizes asked for, cut from fresh space, reused oldest first."""

    def __init__(self, first: int, limit: int, unit: int) -> None:
        self.next = first
        self.limit = limit
        self.unit = unit
        self.free: dict[tuple[int, int], deque[tuple[int, int]]] = {}
        self.blocks: list[tuple[int, int]] = []

    def take(self, size: int, quadrants: int) -> tuple[int, int]:
        """(partition, byte) of a place for ``size`` bytes on ``quadrants`` quarters of the partitions."""
        key = (size, quadrants)
        slots = self.free.setdefault(key, deque())
        start = self._fit(self.next, size)
        if start + size <= self.limit:
            self.next = start + size
            return self._cut(key, slots, start)
        if slots:
            return slots.popleft()
        # Another size's slot that is large enough, the smallest such; else past the end, where the compiler would spill.
        fits = [k for k, v in self.free.items() if v and k[0] >= size and k[1] >= quadrants]
        if fits:
            return self.free[min(fits)].popleft()
        merged = self._merge(size)
        if merged is not None:
            return self._cut(key, slots, merged)
        self.next = start + size
        return self._cut(key, slots, start)

    def _cut(self, key: tuple[int, int], slots: deque[tuple[int, int]], start: int) -> tuple[int, int]:
        quadrants = key[1]
        for q in range(quadrants, 4, quadrants):
            if q + quadrants <= 4:
                slots.append((q * _QUADRANT, start))
        return 0, start

    def _fit(self, start: int, size: int) -> int:
        """A tensor that fits into a bank does not straddle two."""
        if self.unit and size <= self.unit and start // self.unit != (start + size - 1) // self.unit:
            return -(-start // self.unit) * self.unit
        return start

    def _merge(self, size: int) -> int | None:
        """Join neighbouring free slots that span all partitions into one of ``size`` bytes."""
        spans = sorted((start, k[0], k) for k, v in self.free.items() if k[1] == 4 for p, start in v if p == 0)
        run_start, run_end, members = -1, -1, []
        for start, length, k in spans:
            if start == run_end:
                run_end += length
                members.append((start, k))
            else:
                run_start, run_end, members = start, start + length, [(start, k)]
            begin = self._fit(run_start, size)
            if run_end - begin >= size:
                for s, key in members:
                    self.free[key].remove((0, s))
                left = run_end - begin - size
                if left > 0:
                    self.free.setdefault((left, 4), deque()).append((0, begin + size))
                if begin > run_start:
                    self.free.setdefault((begin - run_start, 4), deque()).append((0, run_start))
                return begin
        return None

    def give(self, size: int, quadrants: int, place: tuple[int, int]) -> None:
        """The place is free again."""
        self.free.setdefault((size, quadrants), deque()).append(place)


def place(program: Program, *, unlimited: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(partition, byte) of every on-chip tensor; addresses that the kernel chose are kept.

    ``unlimited`` gives every tensor bytes of its own, as if memory never ran out.
    """
    hardware = program.hardware
    allocations = program.allocations
    partition = np.zeros(max(len(allocations), 1), dtype=np.int64)
    byte = np.zeros(max(len(allocations), 1), dtype=np.int64)
    memories = {}
    for region, limit, unit in (
        (MemoryRegion.sbuf, hardware.sbuf_bytes_per_partition - hardware.sbuf_reserved_bytes_per_partition, 0),
        (MemoryRegion.psum, hardware.psum_bytes_per_partition, hardware.psum_bank_bytes),
    ):  # fmt: skip
        # The allocator's share begins above what the kernel placed itself.
        fixed = max((a.address[1] + a.bytes_per_partition for a in allocations if a.region is region and a.address), default=0)
        memories[region] = _Memory(fixed, 1 << 40 if unlimited else limit, unit)
    order = []
    for k, a in enumerate(allocations):
        if not a.region.on_chip:
            continue
        if a.address is not None:
            partition[k], byte[k] = a.address
        elif a.first_use >= 0:
            order.append((a.first_use, k))
    order.sort()
    ending: list[tuple[int, int, int, int, MemoryRegion, tuple[int, int]]] = []
    for begin, k in order:
        a = allocations[k]
        while ending and ending[0][0] < begin:
            _, _, size, quadrants, region, where = heapq.heappop(ending)
            memories[region].give(size, quadrants, where)
        quadrants = {1: 1, 2: 2}.get(-(-a.num_partitions // _QUADRANT), 4)
        size = max(a.bytes_per_partition, 1)
        where = memories[a.region].take(size, quadrants)
        partition[k], byte[k] = where
        heapq.heappush(ending, (a.last_use, k, size, quadrants, a.region, where))
    return partition, byte
