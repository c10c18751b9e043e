"""Where the compiler's allocator would put the tensors that the kernel left to it.

A tensor holds its bytes from its first use to its last. Fresh memory is taken while there is any; after that the place
that has been free longest is used again, so that a loop's buffers rotate through all of the memory and a new tile waits
for the oldest one only. How much memory there is thus decides how far loads run ahead.

Free blocks stand in queues, one for each (bytes, quarters of the partitions), oldest first. The queues are linked lists in
arrays: ``kinds`` rows are (bytes, quarters, head, tail), ``blocks`` rows (freed at, partition, byte, next, previous).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from opentrn.neuroncore.memory import MemoryRegion

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["place"]

_QUADRANT = 32
_REGIONS = (MemoryRegion.sbuf, MemoryRegion.psum)

# Columns of ``kinds`` and ``blocks``, and what ``counts`` holds.
_SIZE, _QUARTERS, _HEAD, _TAIL = range(4)
_FREED, _ROW, _START, _NEXT, _PREVIOUS = range(5)
_FRESH, _NUM_KINDS, _NUM_BLOCKS, _UNUSED_BLOCKS = range(4)


def place(program: Program, *, unlimited: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(partition, byte) of every on-chip tensor; addresses that the kernel chose are kept.

    ``unlimited`` gives every tensor bytes of its own, as if memory never ran out.
    """
    hardware, tensors = program.hardware, program.tensors
    count = max(len(tensors.kind), 1)
    partition, byte = np.zeros((2, count), dtype=np.int64)
    chosen = tensors.byte >= 0
    partition[: len(chosen)][chosen], byte[: len(chosen)][chosen] = tensors.partition[chosen], tensors.byte[chosen]
    limits = (
        (hardware.sbuf_bytes_per_partition - hardware.sbuf_reserved_bytes_per_partition, 0),
        (hardware.psum_bytes_per_partition, hardware.psum_bank_bytes),
    )
    for code, (limit, unit) in enumerate(limits):
        # The allocator's share begins above what the kernel placed itself.
        fixed = chosen & (tensors.region == code)
        first = int((tensors.byte + tensors.num_bytes)[fixed].max()) if fixed.any() else 0
        mine = np.flatnonzero((tensors.region == code) & ~chosen & (tensors.first_use >= 0))
        if not len(mine):
            continue
        quarters = -(-tensors.num_partitions[mine] // _QUADRANT)
        quarters = np.where(quarters <= 2, quarters, 4)
        size = np.maximum(tensors.num_bytes[mine], 1)
        begin, end = tensors.first_use[mine], tensors.last_use[mine]
        partition[mine], byte[mine] = _run(
            np.lexsort((mine, begin)), np.lexsort((mine, end)), begin, end, size, quarters, first,
            (1 << 40) if unlimited else limit, unit,
        )  # fmt: skip
    return partition, byte


@numba.njit(cache=True)
def _run(by_begin, by_end, begin, end, size, quarters, first, limit, unit):
    """(partition, byte) of tensors of one memory, taken in order of first use and given back in order of last use."""
    n = len(size)
    kinds = np.empty((256, 4), np.int64)
    blocks = np.empty((1024, 5), np.int64)
    counts = np.array([first, 0, 0, -1], np.int64)
    partition, byte = np.empty(n, np.int64), np.empty(n, np.int64)
    clock, ended = 0, 0
    for k in range(n):
        t = by_begin[k]
        while ended < n and end[by_end[ended]] < begin[t]:
            e = by_end[ended]
            ended += 1
            clock += 1
            kinds, blocks = _give(kinds, blocks, counts, size[e], quarters[e], partition[e], byte[e], clock, False)
        kinds, blocks, row, start = _take(kinds, blocks, counts, size[t], quarters[t], limit, unit)
        partition[t], byte[t] = row, start
    return partition, byte


@numba.njit(cache=True)
def _fit(start, size, unit):
    """A tensor that fits into a bank does not straddle two."""
    if unit and size <= unit and start // unit != (start + size - 1) // unit:
        return -(-start // unit) * unit
    return start


@numba.njit(cache=True)
def _kind(kinds, counts, size, quarters):
    """Queue of a (bytes, quarters), or -1."""
    for k in range(counts[_NUM_KINDS]):
        if kinds[k, _SIZE] == size and kinds[k, _QUARTERS] == quarters:
            return k
    return -1


@numba.njit(cache=True)
def _give(kinds, blocks, counts, size, quarters, row, start, freed, oldest):
    """Queue a free block, at the end or as the oldest; returns the tables, which may have grown."""
    k = _kind(kinds, counts, size, quarters)
    if k < 0:
        k = counts[_NUM_KINDS]
        if k == len(kinds):
            kinds = np.concatenate((kinds, np.empty_like(kinds)))
        counts[_NUM_KINDS] += 1
        kinds[k, _SIZE], kinds[k, _QUARTERS], kinds[k, _HEAD], kinds[k, _TAIL] = size, quarters, -1, -1
    b = counts[_UNUSED_BLOCKS]
    if b >= 0:
        counts[_UNUSED_BLOCKS] = blocks[b, _NEXT]
    else:
        b = counts[_NUM_BLOCKS]
        if b == len(blocks):
            blocks = np.concatenate((blocks, np.empty_like(blocks)))
        counts[_NUM_BLOCKS] += 1
    blocks[b, _FREED], blocks[b, _ROW], blocks[b, _START] = freed, row, start
    head, tail = kinds[k, _HEAD], kinds[k, _TAIL]
    if oldest:
        blocks[b, _NEXT], blocks[b, _PREVIOUS] = head, -1
        if head >= 0:
            blocks[head, _PREVIOUS] = b
        else:
            kinds[k, _TAIL] = b
        kinds[k, _HEAD] = b
    else:
        blocks[b, _NEXT], blocks[b, _PREVIOUS] = -1, tail
        if tail >= 0:
            blocks[tail, _NEXT] = b
        else:
            kinds[k, _HEAD] = b
        kinds[k, _TAIL] = b
    return kinds, blocks


@numba.njit(cache=True)
def _unlink(kinds, blocks, counts, k, b):
    """Take block ``b`` out of queue ``k``."""
    after, before = blocks[b, _NEXT], blocks[b, _PREVIOUS]
    if before >= 0:
        blocks[before, _NEXT] = after
    else:
        kinds[k, _HEAD] = after
    if after >= 0:
        blocks[after, _PREVIOUS] = before
    else:
        kinds[k, _TAIL] = before
    blocks[b, _NEXT] = counts[_UNUSED_BLOCKS]
    counts[_UNUSED_BLOCKS] = b


@numba.njit(cache=True)
def _cut(kinds, blocks, counts, k, size):
    """The oldest block of a queue, with what is left of it given back."""
    b = kinds[k, _HEAD]
    freed, row, start = blocks[b, _FREED], blocks[b, _ROW], blocks[b, _START]
    _unlink(kinds, blocks, counts, k, b)
    if kinds[k, _SIZE] > size:
        kinds, blocks = _give(
            kinds, blocks, counts, kinds[k, _SIZE] - size, kinds[k, _QUARTERS], row, start + size, freed, True
        )
    return kinds, blocks, row, start


@numba.njit(cache=True)
def _oldest(kinds, blocks, counts, size, quarters, unit):
    """Queue whose oldest block has room and has been free longest, or -1."""
    best = -1
    for k in range(counts[_NUM_KINDS]):
        b = kinds[k, _HEAD]
        if b < 0 or kinds[k, _SIZE] < size or kinds[k, _QUARTERS] < quarters:
            continue
        if best >= 0 and blocks[b, _FREED] >= blocks[kinds[best, _HEAD], _FREED]:
            continue
        if kinds[k, _SIZE] != size and _fit(blocks[b, _START], size, unit) != blocks[b, _START]:
            continue
        best = k
    return best


@numba.njit(cache=True)
def _take(kinds, blocks, counts, size, quarters, limit, unit):
    """(tables, partition, byte) of a place for ``size`` bytes on ``quarters`` quarters of the partitions."""
    if quarters == 4:
        return _take_whole(kinds, blocks, counts, size, limit, unit)
    k = _kind(kinds, counts, size, quarters)
    if k >= 0 and kinds[k, _HEAD] >= 0 and blocks[kinds[k, _HEAD], _FREED] == 0:
        return _cut(kinds, blocks, counts, k, size)  # a quarter that was cut and never used
    if _fit(counts[_FRESH], size, unit) + size > limit:
        k = _oldest(kinds, blocks, counts, size, quarters, unit)
        if k >= 0 and kinds[k, _QUARTERS] == quarters:
            return _cut(kinds, blocks, counts, k, size)
    # The first quarters of a column over all partitions; the others are free, and the first to be taken.
    kinds, blocks, row, start = _take_whole(kinds, blocks, counts, size, limit, unit)
    q = 4 - quarters
    while q > 0:
        kinds, blocks = _give(kinds, blocks, counts, size, quarters, q * _QUADRANT, start, 0, True)
        q -= quarters
    return kinds, blocks, row, start


@numba.njit(cache=True)
def _take_whole(kinds, blocks, counts, size, limit, unit):
    """The same on all partitions."""
    start = _fit(counts[_FRESH], size, unit)
    if start + size <= limit:
        counts[_FRESH] = start + size
        return kinds, blocks, 0, start
    k = _oldest(kinds, blocks, counts, size, 4, unit)
    if k >= 0:
        return _cut(kinds, blocks, counts, k, size)
    kinds, blocks, start = _merge(kinds, blocks, counts, size, unit)
    if start < 0:  # past the end: the compiler would spill here
        start = _fit(counts[_FRESH], size, unit)
        counts[_FRESH] = start + size
    return kinds, blocks, 0, start


@numba.njit(cache=True)
def _merge(kinds, blocks, counts, size, unit):
    """Join neighbouring free blocks that span all partitions into one of ``size`` bytes, the oldest such; -1 for none."""
    total = 0
    for k in range(counts[_NUM_KINDS]):
        if kinds[k, _QUARTERS] == 4:
            b = kinds[k, _HEAD]
            while b >= 0:
                total += 1
                b = blocks[b, _NEXT]
    starts, lengths = np.empty(total, np.int64), np.empty(total, np.int64)
    freed, block, queue = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64)
    m = 0
    for k in range(counts[_NUM_KINDS]):
        if kinds[k, _QUARTERS] == 4:
            b = kinds[k, _HEAD]
            while b >= 0:
                starts[m], lengths[m], freed[m] = blocks[b, _START], kinds[k, _SIZE], blocks[b, _FREED]
                block[m], queue[m] = b, k
                m += 1
                b = blocks[b, _NEXT]
    order = np.argsort(starts, kind="mergesort")
    low, best_low, best_high, best_age = 0, -1, -1, np.int64(0)
    for high in range(total):
        r = order[high]
        if high and starts[order[high - 1]] + lengths[order[high - 1]] != starts[r]:
            low = high
        stop = starts[r] + lengths[r]
        # Drop blocks from the front while the rest is enough.
        while low < high and stop - _fit(starts[order[low + 1]], size, unit) >= size:
            low += 1
        if stop - _fit(starts[order[low]], size, unit) >= size:
            age = freed[order[low]]
            for m in range(low + 1, high + 1):
                age = max(age, freed[order[m]])
            if best_low < 0 or age < best_age:
                best_low, best_high, best_age = low, high, age
    if best_low < 0:
        return kinds, blocks, -1
    first, last = starts[order[best_low]], order[best_high]
    begin, stop = _fit(first, size, unit), starts[last] + lengths[last]
    for m in range(best_low, best_high + 1):
        _unlink(kinds, blocks, counts, queue[order[m]], block[order[m]])
    if stop > begin + size:
        kinds, blocks = _give(kinds, blocks, counts, stop - begin - size, 4, 0, begin + size, best_age, True)
    if begin > first:
        kinds, blocks = _give(kinds, blocks, counts, begin - first, 4, 0, first, best_age, True)
    return kinds, blocks, begin
