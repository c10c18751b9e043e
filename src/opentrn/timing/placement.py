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
    """One on-chip memory: fresh space first, then the free block that has been free longest, cut to size."""

    def __init__(self, first: int, limit: int, unit: int) -> None:
        self.next = first
        self.limit = limit
        self.unit = unit
        self.clock = 0
        # Free blocks by (bytes, quadrants of the partitions), oldest first: (freed at, partition, byte).
        self.free: dict[tuple[int, int], deque[tuple[int, int, int]]] = {}

    def take(self, size: int, quadrants: int) -> tuple[int, int]:
        """(partition, byte) of a place for ``size`` bytes on ``quadrants`` quarters of the partitions."""
        if quadrants == 4:
            start = self._fit(self.next, size)
            if start + size <= self.limit:
                self.next = start + size
                return 0, start
        elif self.free.get((size, quadrants)) and self.free[size, quadrants][0][0] == 0:
            return self._cut((size, quadrants), size)  # a quarter that was cut and never used
        elif self._fit(self.next, size) + size <= self.limit:
            return self._column(size, quadrants)
        best = None
        for key, blocks in self.free.items():
            if blocks and key[0] >= size and key[1] >= quadrants and (best is None or blocks[0][0] < self.free[best][0][0]):
                if key[0] != size and not self._fits(blocks[0][2], size):
                    continue
                best = key
        if best is not None and (quadrants == 4 or best[1] == quadrants):
            return self._cut(best, size)
        if quadrants < 4:
            return self._column(size, quadrants)
        merged = self._merge(size)
        if merged is not None:
            return 0, merged
        start = self._fit(self.next, size)  # past the end: the compiler would spill here
        self.next = start + size
        return 0, start

    def _column(self, size: int, quadrants: int) -> tuple[int, int]:
        """The first quarters of ``size`` bytes on all partitions; the others are free, and the first to be taken."""
        row, start = self.take(size, 4)
        for q in range(4 - quadrants, 0, -quadrants):
            self._give(size, quadrants, (q * _QUADRANT, start), 0, oldest=True)
        return row, start

    def _cut(self, key: tuple[int, int], size: int) -> tuple[int, int]:
        """The oldest block of a kind, with what is left of it given back."""
        freed, row, start = self.free[key].popleft()
        if key[0] > size:
            self._give(key[0] - size, key[1], (row, start + size), freed, oldest=True)
        return row, start

    def _fits(self, start: int, size: int) -> bool:
        return self._fit(start, size) == start

    def _fit(self, start: int, size: int) -> int:
        """A tensor that fits into a bank does not straddle two."""
        if self.unit and size <= self.unit and start // self.unit != (start + size - 1) // self.unit:
            return -(-start // self.unit) * self.unit
        return start

    def _merge(self, size: int) -> int | None:
        """Join neighbouring free blocks that span all partitions into one of ``size`` bytes; the oldest such."""
        spans = sorted((start, k[0], freed) for k, v in self.free.items() if k[1] == 4 for freed, _, start in v)
        best: tuple[int, int, list[tuple[int, int, int]]] | None = None
        members: list[tuple[int, int, int]] = []
        for start, length, freed in spans:
            if members and members[-1][0] + members[-1][1] == start:
                members.append((start, length, freed))
            else:
                members = [(start, length, freed)]
            # Drop blocks from the front while the rest is enough.
            while len(members) > 1 and start + length - self._fit(members[1][0], size) >= size:
                members.pop(0)
            if start + length - self._fit(members[0][0], size) >= size:
                age = max(m[2] for m in members)
                if best is None or age < best[0]:
                    best = (age, self._fit(members[0][0], size), list(members))
        if best is None:
            return None
        age, begin, used = best
        for start, length, freed in used:
            self.free[length, 4].remove((freed, 0, start))
        end = used[-1][0] + used[-1][1]
        if end > begin + size:
            self._give(end - begin - size, 4, (0, begin + size), age, oldest=True)
        if begin > used[0][0]:
            self._give(begin - used[0][0], 4, (0, used[0][0]), age, oldest=True)
        return begin

    def _give(self, size: int, quadrants: int, place: tuple[int, int], freed: int, oldest: bool = False) -> None:
        blocks = self.free.setdefault((size, quadrants), deque())
        if oldest:
            blocks.appendleft((freed, *place))
        else:
            blocks.append((freed, *place))

    def give(self, size: int, quadrants: int, place: tuple[int, int]) -> None:
        """The place is free again."""
        self.clock += 1
        self._give(size, quadrants, place, self.clock)


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
