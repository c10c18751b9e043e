"""Where the compiler's allocator would put the tensors that the kernel left to it.

A tensor holds its bytes from its first use to its last. Fresh memory is taken while there is any; after that the place
that has been free longest is used again, so that a loop's buffers rotate through all of the memory and a new tile waits
for the oldest one only. How much memory there is thus decides how far loads run ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["place"]

_QUADRANT = 32
_UNLIMITED = 1 << 40


def place(program: Program, *, unlimited: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(partition, byte) of every on-chip tensor; addresses that the kernel chose are kept.

    ``unlimited`` gives every tensor bytes of its own, as if memory never ran out.
    """
    tensors = program.tensors
    hardware = program.hardware
    partition, byte = np.maximum(tensors.partition, 0), np.maximum(tensors.byte, 0)
    limits = np.array(
        [
            hardware.sbuf_bytes_per_partition - hardware.sbuf_reserved_bytes_per_partition,
            hardware.psum_bytes_per_partition,
        ]
    )
    # The allocator's share begins above what the kernel placed itself.
    fixed = np.zeros(2, dtype=np.int64)
    for m in range(2):
        placed = (tensors.memory == m) & (tensors.byte >= 0)
        fixed[m] = (tensors.byte + tensors.bytes_per_partition)[placed].max(initial=0)
    chosen = np.flatnonzero((tensors.memory >= 0) & (tensors.byte < 0) & (tensors.first_use >= 0))
    begin = chosen[np.argsort(tensors.first_use[chosen], kind="stable")]
    finish = chosen[np.argsort(tensors.last_use[chosen], kind="stable")]
    quadrants = -(-tensors.num_partitions // _QUADRANT)
    quadrants = np.where(quadrants == 3, 4, np.minimum(quadrants, 4))
    _place(
        begin,
        finish,
        tensors.first_use,
        tensors.last_use,
        np.maximum(tensors.bytes_per_partition, 1),
        quadrants,
        tensors.memory,
        fixed,
        np.full(2, _UNLIMITED) if unlimited else limits,
        np.array([0, hardware.psum_bank_bytes]),
        partition,
        byte,
    )
    return partition, byte


@numba.njit(cache=True)
def _straddles(start, size, unit):
    """Whether a tensor that would fit into a bank lies in two."""
    return unit > 0 and size <= unit and start // unit != (start + size - 1) // unit


@numba.njit(cache=True)
def _unlink(k, m, after, before, head, tail):
    if before[k] >= 0:
        after[before[k]] = after[k]
    else:
        head[m] = after[k]
    if after[k] >= 0:
        before[after[k]] = before[k]
    else:
        tail[m] = before[k]


@numba.njit(cache=True)
def _place(begin, finish, first_use, last_use, size, quadrants, memory, fixed, limit, unit, partition, byte):
    """Fill ``partition`` and ``byte``. Free blocks of each memory are a linked list, the longest free first."""
    n = len(begin)
    capacity = 4 * n + 64
    length = np.empty(capacity, np.int64)
    wide = np.empty(capacity, np.int64)  # quarters of the partitions
    row = np.empty(capacity, np.int64)
    at = np.empty(capacity, np.int64)
    unused = np.zeros(capacity, np.bool_)
    after = np.full(capacity, -1, np.int64)
    before = np.full(capacity, -1, np.int64)
    spare = np.arange(capacity)[::-1].copy()
    num_spare = capacity
    head = np.full(2, -1, np.int64)
    tail = np.full(2, -1, np.int64)
    fresh = fixed.copy()
    ended = 0
    for position in range(n):
        t = begin[position]
        m = memory[t]
        need, quarters = size[t], quadrants[t]
        while ended < n and last_use[finish[ended]] < first_use[t]:
            f = finish[ended]
            ended += 1
            num_spare -= 1
            k = spare[num_spare]
            length[k], wide[k], row[k], at[k], unused[k] = size[f], quadrants[f], partition[f], byte[f], False
            before[k], after[k] = tail[memory[f]], -1
            if tail[memory[f]] >= 0:
                after[tail[memory[f]]] = k
            else:
                head[memory[f]] = k
            tail[memory[f]] = k
        start = fresh[m]
        if _straddles(start, need, unit[m]):
            start = (start // unit[m] + 1) * unit[m]
        found = -1
        if quarters < 4:
            k = head[m]
            while k >= 0 and unused[k]:
                if wide[k] == quarters and length[k] == need:
                    found = k
                    break
                k = after[k]
        column = False
        if found < 0 and start + need <= limit[m]:
            fresh[m] = start + need
            partition[t], byte[t] = 0, start
            column = True
        else:
            if found < 0:
                k = head[m]
                while k >= 0:
                    if wide[k] == quarters and length[k] >= need and not _straddles(at[k], need, unit[m]):
                        found = k
                        break
                    k = after[k]
            if found < 0 and quarters < 4:
                k = head[m]
                while k >= 0:
                    if wide[k] == 4 and length[k] >= need and not _straddles(at[k], need, unit[m]):
                        found = k
                        break
                    k = after[k]
                column = found >= 0
            if found >= 0:
                partition[t], byte[t] = row[found], at[found]
                if length[found] > need:
                    length[found] -= need
                    at[found] += need
                else:
                    _unlink(found, m, after, before, head, tail)
                    spare[num_spare] = found
                    num_spare += 1
            else:
                # Join neighbouring free blocks that span all partitions; of the runs that are large enough, the first.
                count = 0
                k = head[m]
                while k >= 0:
                    count += wide[k] == 4
                    k = after[k]
                blocks = np.empty(count, np.int64)
                starts = np.empty(count, np.int64)
                count = 0
                k = head[m]
                while k >= 0:
                    if wide[k] == 4:
                        blocks[count], starts[count] = k, at[k]
                        count += 1
                    k = after[k]
                order = np.argsort(starts)
                run = 0
                place_at = np.int64(-1)
                for j in range(count):
                    b = blocks[order[j]]
                    if j == 0 or at[blocks[order[j - 1]]] + length[blocks[order[j - 1]]] != at[b]:
                        run = j
                    while True:
                        low = at[blocks[order[run]]]
                        if _straddles(low, need, unit[m]):
                            low = (low // unit[m] + 1) * unit[m]
                        if (
                            run < j
                            and at[b] + length[b] - at[blocks[order[run + 1]]] >= need
                            and not _straddles(at[blocks[order[run + 1]]], need, unit[m])
                        ):
                            run += 1
                        else:
                            break
                    if at[b] + length[b] - low >= need:
                        place_at = low
                        end = at[b] + length[b]
                        # The first block keeps what lies before, the last what is left behind; those between are
                        # used up.
                        for x in range(run, j + 1):
                            q = blocks[order[x]]
                            q_end = at[q] + length[q]
                            if at[q] < low:
                                length[q] = low - at[q]
                            elif x == j and end > low + need:
                                at[q], length[q] = low + need, end - low - need
                            else:
                                _unlink(q, m, after, before, head, tail)
                                spare[num_spare] = q
                                num_spare += 1
                            if at[q] < low and x == j and q_end > low + need:
                                # One block holds the whole place: a second one for its tail.
                                num_spare -= 1
                                z = spare[num_spare]
                                length[z], wide[z], row[z], at[z], unused[z] = (
                                    q_end - low - need,
                                    4,
                                    0,
                                    low + need,
                                    False,
                                )
                                before[z], after[z] = q, after[q]
                                if after[q] >= 0:
                                    before[after[q]] = z
                                else:
                                    tail[m] = z
                                after[q] = z
                        break
                column = True
                if place_at < 0:  # past the end, where the compiler would spill
                    place_at = start
                    fresh[m] = start + need
                partition[t], byte[t] = 0, place_at
        if column and quarters < 4:
            for q in range(4 - quarters, 0, -quarters):
                if num_spare == 0:
                    break
                num_spare -= 1
                k = spare[num_spare]
                length[k], wide[k], row[k], at[k], unused[k] = need, quarters, q * _QUADRANT, byte[t], True
                before[k], after[k] = -1, head[m]
                if head[m] >= 0:
                    before[head[m]] = k
                else:
                    tail[m] = k
                head[m] = k
