"""What the compiler of the earlier interface does to loads: a tile that is still on chip is not loaded again.

Kernels for ``neuronxcc.nki`` state loads where they are used, often inside loops that load the same tile again and
again;
its compiler moves such loads out of the loops when the tiles fit into SBUF. Seen from the instruction stream that
is a cache: a load from memory that the kernel never writes is dropped when its tile was loaded before and can have
stayed.
So is an element-wise instruction on tiles that have not changed since it ran before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from opentrn.neuroncore.capacity import live_bytes
from opentrn.neuroncore.memory import Allocation, MemoryRegion

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["hoist_loads"]


def hoist_loads(program: Program) -> tuple[Program, np.ndarray]:
    """``program`` with repeated loads sharing one tile, and which instructions are thereby dropped."""
    dropped = np.zeros(len(program), dtype=np.bool_)
    loads = {
        k
        for k, p in enumerate(program.plans)
        if p.instruction.name == "dma_copy" and len(p.layouts) == 2 and _is_load(p)
    }
    pure = {k for k, p in enumerate(program.plans) if p.instruction.name == "tensor_tensor" and len(p.layouts) == 3}
    if not loads:
        return program, dropped
    width = np.array([len(p.layouts) for p in program.plans], dtype=np.int64)
    start = np.concatenate(([0], np.cumsum(width[program.plan])))
    num = max(len(program.allocations), 1)
    allocation = program.operand_allocation % num
    is_write = _writes(program, start)
    writers = np.bincount(allocation[is_write], minlength=num)
    kind = np.zeros(len(program.plans) + 1, dtype=np.int8)
    kind[list(loads)], kind[list(pure)] = 1, 2
    kinds = kind[program.plan]
    on_chip = np.array([a.region is MemoryRegion.sbuf for a in program.allocations] or [False])
    rows = np.flatnonzero(kinds)
    first = allocation[start[rows]]
    good = (writers[first] == 1) & on_chip[first]
    good &= (kinds[rows] == 2) | (writers[allocation[np.minimum(start[rows] + 1, len(allocation) - 1)]] == 0)
    rows = rows[good]
    # Bytes of a partition that are left once everything that is not a repeatable load has its place.
    repeatable = set(allocation[start[rows[kinds[rows] == 1]]].tolist())
    others = [a for k, a in enumerate(program.allocations) if k not in repeatable]
    hardware = program.hardware
    limit = hardware.sbuf_bytes_per_partition - hardware.sbuf_reserved_bytes_per_partition
    used = live_bytes(others, MemoryRegion.sbuf, len(program))
    budget = limit - (float(used.max()) if len(used) else 0.0)
    resident: OrderedDict[tuple, tuple[int, int]] = OrderedDict()
    taken = 0
    alias = np.arange(num)
    last_use: dict[int, int] = {}
    plan, operands = program.plan.tolist(), start.tolist()
    names, offsets = allocation.tolist(), program.operand_offset.tolist()
    for i in rows.tolist():
        k = operands[i]
        tile = names[k]
        source: tuple = (plan[i], offsets[k])
        if kinds[i] == 1:
            source = (*source, names[k + 1], offsets[k + 1])
        else:
            # Equal inputs are equal tensors, each written once: by the time of the first reader it holds what it
            # will hold.
            left, right = int(alias[names[k + 1]]), int(alias[names[k + 2]])
            if writers[left] != 1 or writers[right] != 1:
                continue
            source = (*source, left, offsets[k + 1], right, offsets[k + 2])
        found = resident.get(source)
        if found is not None:
            resident.move_to_end(source)
            alias[tile] = found[0]
            dropped[i] = True
            last_use[found[0]] = max(last_use.get(found[0], -1), program.allocations[tile].last_use)
            continue
        size = program.allocations[tile].bytes_per_partition
        while resident and taken + size > budget:
            _, (_, freed) = resident.popitem(last=False)
            taken -= freed
        if size <= budget:
            resident[source] = (tile, size)
            taken += size
    if not dropped.any():
        return program, dropped
    allocations: list[Allocation] = list(program.allocations)
    for tile, until in last_use.items():
        a = allocations[tile]
        longer = Allocation(
            a.id, a.region, a.num_partitions, a.bytes_per_partition, a.name, a.site, a.address, a.dtype, a.shape
        )
        longer.first_use, longer.last_use = a.first_use, max(a.last_use, until)
        allocations[tile] = longer
    for tile in np.flatnonzero(alias != np.arange(num)).tolist():
        a = allocations[tile]
        unused = Allocation(
            a.id, a.region, a.num_partitions, a.bytes_per_partition, a.name, a.site, a.address, a.dtype, a.shape
        )
        allocations[tile] = unused
    return replace(program, allocations=allocations, operand_allocation=alias[allocation]), dropped


def _is_load(plan) -> bool:  # noqa: ANN001
    dst, src = plan.layouts
    return dst.region is MemoryRegion.sbuf and not src.on_chip and dst.indirect is None and src.indirect is None


def _writes(program: Program, start: np.ndarray) -> np.ndarray:
    """Whether each operand row is written."""
    writes = np.array([len(p.writes) for p in program.plans], dtype=np.int64)[program.plan]
    counts = np.diff(start)
    position = np.arange(start[-1]) - np.repeat(start[:-1], counts)
    return position < np.repeat(writes, counts)
