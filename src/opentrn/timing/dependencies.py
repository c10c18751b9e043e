"""What each instruction has to wait for: read after write, write after read, write after write, and what the kernel
asked for.

Edges are found in program order from the regions that operands touch. Of the instructions that one engine ran
before, the
last one is enough: an engine finishes in order. Transfers do not, so each of them keeps its own edge.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["OVERWRITE", "READ", "find_dependencies"]

READ, OVERWRITE, EXPLICIT = 0, 1, 2
"""Kinds of edges: the consumer reads what the producer wrote; it writes where the producer worked; asked for."""


@numba.njit(cache=True)
def find_dependencies(
    operand_start,
    is_write,
    region_of,
    start,
    other,
    covered,
    tensor,
    operand_tensor,
    stream,
    in_order,
    explicit,
    num_regions,
):
    """Edges as CSR: (first edge of each instruction, producer, kind, whether the two use different tensors).

    ``stream`` is the issue queue of each instruction; ``in_order`` says of a queue that it completes in order.
    """
    n = len(operand_start) - 1
    num_streams = len(in_order)
    writer = np.full(max(num_regions, 1), -1, np.int64)
    writer_tensor = np.full(max(num_regions, 1), -1, np.int64)
    reader = np.full((max(num_regions, 1), num_streams), -1, np.int64)
    reader_tensor = np.full(max(num_regions, 1), -1, np.int64)
    begin = np.zeros(n + 1, np.int64)
    capacity = max(4 * n, 1024)
    producer = np.empty(capacity, np.int64)
    kind = np.empty(capacity, np.int8)
    reuse = np.empty(capacity, np.bool_)
    last = np.full(num_streams, -1, np.int64)
    last_kind = np.zeros(num_streams, np.int8)
    last_reuse = np.zeros(num_streams, np.bool_)
    edges = 0
    at_explicit = 0
    for i in range(n):
        own = stream[i]
        for s in range(num_streams):
            last[s] = -1
        mark = edges
        for k in range(operand_start[i], operand_start[i + 1]):
            r = region_of[k]
            if r < 0:
                continue
            t = operand_tensor[k]
            wrote = is_write[k]
            for m in range(start[r], start[r + 1]):
                q = other[m]
                for source in range(1 + (num_streams if wrote else 0)):
                    if source == 0:
                        p = writer[q]
                        different = writer_tensor[q] != t
                    else:
                        p = reader[q, source - 1]
                        different = reader_tensor[q] != t
                    if p < 0 or p == i:
                        continue
                    sort = OVERWRITE if wrote else READ
                    s = stream[p]
                    if s == own and sort == OVERWRITE and in_order[s]:
                        continue
                    if in_order[s]:
                        if p > last[s] or (p == last[s] and sort == READ):
                            last[s] = p
                            last_kind[s] = sort
                            last_reuse[s] = different
                    else:
                        known = False
                        for e in range(mark, edges):
                            if producer[e] == p:
                                known = True
                                if sort == READ:
                                    kind[e] = READ
                                break
                        if not known:
                            if edges + num_streams + 2 >= capacity:
                                capacity *= 2
                                producer = _grown(producer, capacity)
                                kind = _grown(kind, capacity)
                                reuse = _grown(reuse, capacity)
                            producer[edges] = p
                            kind[edges] = sort
                            reuse[edges] = different
                            edges += 1
        if edges + num_streams + 2 >= capacity:
            capacity *= 2
            producer = _grown(producer, capacity)
            kind = _grown(kind, capacity)
            reuse = _grown(reuse, capacity)
        for s in range(num_streams):
            if last[s] >= 0:
                producer[edges] = last[s]
                kind[edges] = last_kind[s]
                reuse[edges] = last_reuse[s]
                edges += 1
        while at_explicit < len(explicit) and explicit[at_explicit, 1] == i:
            if edges + 2 >= capacity:
                capacity *= 2
                producer = _grown(producer, capacity)
                kind = _grown(kind, capacity)
                reuse = _grown(reuse, capacity)
            producer[edges] = explicit[at_explicit, 0]
            kind[edges] = EXPLICIT
            reuse[edges] = False
            edges += 1
            at_explicit += 1
        begin[i + 1] = edges
        for k in range(operand_start[i], operand_start[i + 1]):
            r = region_of[k]
            if r < 0 or is_write[k]:
                continue
            reader[r, own] = i
            reader_tensor[r] = operand_tensor[k]
        for k in range(operand_start[i], operand_start[i + 1]):
            r = region_of[k]
            if r < 0 or not is_write[k]:
                continue
            for m in range(start[r], start[r + 1]):
                if covered[m]:
                    q = other[m]
                    # Whoever waits for this write has waited for all that came before it here.
                    writer[q] = i
                    writer_tensor[q] = operand_tensor[k]
                    for s in range(num_streams):
                        reader[q, s] = -1
    return begin, producer[:edges], kind[:edges], reuse[:edges]


@numba.njit(cache=True)
def _grown(array, capacity):
    bigger = np.empty(capacity, array.dtype)
    bigger[: len(array)] = array
    return bigger
