"""Live ranges of the parts of a tensor: arrays of tiles, as the compiler of the earlier interface sees them.

Kernels for ``neuronxcc.nki`` declare one array for all iterations of a loop and use one tile of it in each; the
compiler
gives every tile a place for as long as it lives. Here such an array becomes one tensor a tile.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from opentrn.neuroncore.memory import Allocation, MemoryRegion

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["split_tiles"]


def split_tiles(program: Program) -> tuple[Program, np.ndarray]:
    """``program`` with arrays of tiles taken apart, and for each tensor the bytes at which it begins in its array."""
    num = len(program.allocations)
    if not num or not len(program):
        return program, np.zeros(max(num, 1), dtype=np.int64)
    allocation = program.operand_allocation % num
    widths = np.array([len(p.layouts) for p in program.plans], dtype=np.int64)
    layouts = [layout for p in program.plans for layout in p.layouts]
    counts = widths[program.plan]
    start = np.concatenate(([0], np.cumsum(counts)))
    first_slot = np.concatenate(([0], np.cumsum(widths)))[:-1]
    slot = np.repeat(first_slot[program.plan], counts) + (np.arange(start[-1]) - np.repeat(start[:-1], counts))
    instruction = np.repeat(np.arange(len(program)), counts)
    free = np.array([max(x.storage_free, 1) for x in layouts], dtype=np.int64)[slot]
    item = np.array([x.dtype.itemsize for x in layouts], dtype=np.int64)[slot]
    span = np.array([x.span for x in layouts], dtype=np.int64)[slot]
    dynamic = np.array([x.indirect is not None for x in layouts], dtype=bool)[slot]
    low = program.operand_offset % free * item
    high = low + span * item
    allocations = list(program.allocations)
    origin = [0] * num
    renamed = allocation.copy()
    order = np.argsort(allocation, kind="stable")
    edges = np.searchsorted(allocation[order], np.arange(num + 1))
    for k, a in enumerate(program.allocations):
        if a.region is not MemoryRegion.sbuf or a.address is not None or len(a.shape) < 3:
            continue
        rows = order[edges[k] : edges[k + 1]]
        if not len(rows) or dynamic[rows].any():
            continue
        size = _tile_bytes(a, low[rows], high[rows])
        if size >= a.bytes_per_partition:
            continue
        which = low[rows] // size
        for tile in np.unique(which).tolist():
            mine = rows[which == tile]
            part = Allocation(
                len(allocations),
                a.region,
                a.num_partitions,
                size,
                a.name,
                a.site,
                None,
                a.dtype,
                (a.shape[0], size // a.dtype.itemsize),
            )
            part.first_use, part.last_use = int(instruction[mine].min()), int(instruction[mine].max())
            renamed[mine] = len(allocations)
            allocations.append(part)
            origin.append(tile * size)
        gone = Allocation(
            a.id, a.region, a.num_partitions, a.bytes_per_partition, a.name, a.site, None, a.dtype, a.shape
        )
        allocations[k] = gone
    origins = np.array(origin, dtype=np.int64)
    return replace(program, allocations=allocations, operand_allocation=renamed), origins


def _tile_bytes(a: Allocation, low: np.ndarray, high: np.ndarray) -> int:
    """Bytes of the smallest leading-index slice of ``a`` that no access crosses."""
    size = a.dtype.itemsize
    for n in reversed(a.shape[2:]):
        size *= n
        if (low // size == (high - 1) // size).all():
            return size
    return a.bytes_per_partition
