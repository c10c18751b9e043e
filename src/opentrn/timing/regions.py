"""Which views of memory overlap: every distinct view of a program is a region, and each region knows the others it
touches.

A region is where a view lies, not which tensor it belongs to, so that tensors placed at the same bytes one after
another
conflict exactly as they do on the chip. A view is a box in (row, middle, byte) coordinates of its tensor: tiles of
different columns of a matrix in HBM share a byte range and still do not conflict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["Regions", "find_regions"]


@dataclass(frozen=True)
class Regions:
    """Regions of a program.

    Attributes:
        of_operand: region of each operand row, -1 where nothing ever conflicts (memory that is only read).
        start, other: CSR: region ``r`` overlaps ``other[start[r]:start[r + 1]]``, itself first.
        covered: whether ``r`` contains that other region entirely.
        tensor: allocation index that first used the region.
    """

    of_operand: np.ndarray
    start: np.ndarray
    other: np.ndarray
    covered: np.ndarray
    tensor: np.ndarray


def _layout_table(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """(first slot of each plan, one row a slot: on chip, elements a partition, item bytes, partitions, dynamic, is
    write).
    """
    rows = [
        (
            s.on_chip,
            max(s.storage_free, 1),
            s.dtype.itemsize,
            s.num_partitions,
            s.indirect is not None,
            # What other cores wrote to a barrier's tensor is there once the barrier is passed.
            k < len(p.writes) or p.instruction.name == "core_barrier",
        )
        for p in program.plans
        for k, s in enumerate(p.layouts)
    ]
    widths = [len(p.layouts) for p in program.plans]
    first = np.concatenate(([0], np.cumsum(widths))).astype(np.int64)
    return first, np.array(rows, dtype=np.int64).reshape(-1, 6)


def find_regions(program: Program, placement: tuple[np.ndarray, np.ndarray]) -> tuple[Regions, np.ndarray, np.ndarray]:
    """Regions of ``program`` whose on-chip tensors lie at ``placement`` (partition, byte).

    Returns the regions, the first operand row of each instruction, and whether each operand is written.
    """
    first_slot, slots = _layout_table(program)
    layouts = [layout for p in program.plans for layout in p.layouts]
    ids = {id(layout): k for k, layout in enumerate({id(x): x for x in layouts}.values())}
    layout_of_slot = np.array([ids[id(x)] for x in layouts], dtype=np.int64)
    num = max(len(program.allocations), 1)
    space = np.empty(num, dtype=np.int64)
    base = np.zeros(num, dtype=np.int64)
    part = np.zeros(num, dtype=np.int64)
    if program.allocations:
        memory = program.tensors.memory
        chip = memory >= 0
        space[:] = np.where(chip, memory, 2 + np.arange(num))
        part[chip], base[chip] = placement[0][chip], placement[1][chip]
    operand_start, is_write, region_of, first_operand, count = _number(
        program.plan,
        first_slot,
        slots,
        layout_of_slot,
        program.operand_allocation,
        program.operand_offset,
        space,
        base,
        part,
    )
    first_operand = first_operand[:count]
    boxes = _boxes(program, layouts, layout_of_slot, first_slot, operand_start, first_operand, space, base, part)
    start, other, covered = _overlaps(*boxes)
    tensor = program.operand_allocation[first_operand] % num
    return Regions(region_of, start, other, covered, tensor), operand_start, is_write


@numba.njit(cache=True)
def _number(plan, first_slot, slots, layout_of_slot, allocation, offset, space, base, part):
    """Number the distinct (space, layout, place) triples in order of first use, by an open hash table."""
    n = len(plan)
    rows = len(allocation)
    num = len(space)
    operand_start = np.empty(n + 1, np.int64)
    slot = np.empty(rows, np.int32)
    is_write = np.empty(rows, np.bool_)
    written = np.zeros(num, np.bool_)
    at = 0
    for i in range(n):
        operand_start[i] = at
        p = plan[i]
        for s in range(first_slot[p], first_slot[p + 1]):
            slot[at] = s
            w = slots[s, 5] != 0
            is_write[at] = w
            if w:
                a = allocation[at]
                written[a if a >= 0 else num + a] = True
            at += 1
    operand_start[n] = at
    bits = 10
    while (1 << bits) < 2 * at:
        bits += 1
    mask = (1 << bits) - 1
    table = np.full(1 << bits, -1, np.int64)
    first_operand = np.empty(max(at, 1), np.int64)
    region_of = np.empty(rows, np.int64)
    key_a = np.empty(max(at, 1), np.int64)
    key_b = np.empty(max(at, 1), np.int64)
    count = 0
    for k in range(at):
        a = allocation[k]
        if a < 0:
            a += num
        s = slot[k]
        on_chip = slots[s, 0] != 0
        if not on_chip and not written[a]:
            region_of[k] = -1
            continue
        where = np.int64(0)
        if slots[s, 4] == 0:
            where = offset[k]
        if on_chip:
            free = slots[s, 1]
            where = (((where // free) + part[a]) << 32) | ((where % free) * slots[s, 2] + base[a])
        ka = (space[a] << 24) | layout_of_slot[s]
        kb = where
        h = (ka * np.int64(-7046029254386353131)) ^ (kb * np.int64(-4417276706812531889))
        h = (h ^ (h >> 29)) & mask
        while True:
            r = table[h]
            if r < 0:
                table[h] = count
                key_a[count] = ka
                key_b[count] = kb
                first_operand[count] = k
                region_of[k] = count
                count += 1
                break
            if key_a[r] == ka and key_b[r] == kb:
                region_of[k] = r
                break
            h = (h + 1) & mask
    return operand_start, is_write, region_of, first_operand, count


def _boxes(program, layouts, layout_of_slot, first_slot, operand_start, first_operand, space, base, part):  # noqa: ANN001
    """Columns of the regions' boxes; computed once a region, so plain NumPy and Python will do."""
    n = len(first_operand)
    num = max(len(program.allocations), 1)
    instruction = np.searchsorted(operand_start, first_operand, side="right") - 1
    slot = (
        first_slot[program.plan[instruction]] + (first_operand - operand_start[instruction])
        if n
        else np.zeros(0, np.int64)
    )
    allocation = program.operand_allocation[first_operand] % num
    offset = program.operand_offset[first_operand]
    out = np.zeros((n, 13), dtype=np.int64)
    # Extents depend on the layout and the tensor's own shape only.
    tensors = program.tensors
    pitch_of = (
        np.stack([tensors.line_bytes, tensors.plane_bytes], axis=1)
        if program.allocations
        else np.ones((1, 2), np.int64)
    )
    cache: dict[tuple, tuple] = {}
    extents = np.zeros((n, 3), dtype=np.int64)
    facts = np.zeros((n, 5), dtype=np.int64)
    for k in range(n):
        layout = layouts[slot[k]]
        a = allocation[k]
        pitches = pitch_of[a]
        key = (id(layout), pitches[0], pitches[1])
        found = cache.get(key)
        if found is None:
            found = cache[key] = (
                _extents(layout, *pitches),
                (
                    layout.on_chip,
                    max(layout.storage_free, 1),
                    layout.dtype.itemsize,
                    layout.num_partitions,
                    layout.indirect is not None,
                ),
            )
        extents[k], facts[k] = found
    on_chip, free, item, parts, dynamic = facts.T
    chip = on_chip.astype(bool)
    whole = tensors.bytes_per_partition[allocation] if program.allocations else np.zeros(n, np.int64)
    within = np.where(chip, offset % free, offset) * item
    within = np.where(dynamic > 0, 0, within)
    inner_pitch, middle_pitch = pitch_of[allocation].T
    row = within // middle_pitch
    middle = within % middle_pitch // inner_pitch
    inner = within % inner_pitch
    e_row, e_mid, e_in = extents.T
    # A view that runs over the end of its line covers whole lines.
    over = inner + e_in > inner_pitch
    e_mid = np.where(over, e_mid + (inner + e_in - 1) // inner_pitch, e_mid)
    inner, e_in = np.where(over, 0, inner), np.where(over, inner_pitch, e_in)
    lines = np.maximum(middle_pitch // inner_pitch, 1)
    over = middle + e_mid > lines
    e_row = np.where(over, e_row + (middle + e_mid - 1) // lines, e_row)
    middle, e_mid = np.where(over, 0, middle), np.where(over, lines, e_mid)
    linear_end = (row + e_row - 1) * middle_pitch + (middle + e_mid - 1) * inner_pitch + inner + e_in
    place = np.where(chip, base[allocation], 0)
    lo = np.where(dynamic > 0, 0, within) + place
    hi = np.where(dynamic > 0, whole, linear_end) + place
    p0 = np.where(chip, np.where(dynamic > 0, 0, offset // free) + part[allocation], 0)
    p1 = p0 + np.where(chip, parts, 1)
    out[:, 0], out[:, 1], out[:, 2], out[:, 3], out[:, 4] = space[allocation], p0, p1, lo, hi
    # Boxes of the same shape of lines at the same base compare line by line; others by their byte range alone.
    out[:, 5] = (place << 1) ^ (inner_pitch << 20) ^ (middle_pitch << 40)
    out[:, 6], out[:, 7] = row, row + e_row
    out[:, 8], out[:, 9] = middle, middle + e_mid
    out[:, 10], out[:, 11] = inner, inner + e_in
    out[dynamic > 0, 5] = -1 - np.arange(np.count_nonzero(dynamic > 0))
    order = np.lexsort((out[:, 3], out[:, 0])).astype(np.int64)
    return out, order


def _extents(layout, inner_pitch: int, middle_pitch: int) -> tuple[int, int, int]:  # noqa: ANN001
    """(rows, lines, bytes) that a view spans, from its strides."""
    item = layout.dtype.itemsize
    rows, lines, span = 1, 1, item
    first = 1 if layout.on_chip else 0
    for size, stride in zip(layout.shape[first:], layout.strides[first:], strict=True):
        step = abs(stride) * item
        reach = (size - 1) * step
        if step >= middle_pitch and step % middle_pitch == 0:
            rows += reach // middle_pitch
        elif step >= inner_pitch and step % inner_pitch == 0:
            lines += reach // inner_pitch
        else:
            span += reach
    return rows, lines, span


@numba.njit(cache=True)
def _overlaps(box, order):
    """Pairs of regions that share a byte, by a sweep over their first bytes."""
    n = len(box)
    active = np.empty(max(n, 1), np.int64)
    num_active = 0
    degree = np.ones(max(n, 1), np.int64)
    capacity = max(4 * n, 1024)
    left = np.empty(capacity, np.int64)
    right = np.empty(capacity, np.int64)
    pairs = 0
    space = np.int64(-1)
    for k in range(n):
        r = order[k]
        if box[r, 0] != space:
            space = box[r, 0]
            num_active = 0
        kept = 0
        for m in range(num_active):
            q = active[m]
            if box[q, 4] <= box[r, 3]:
                continue
            active[kept] = q
            kept += 1
            if box[q, 1] < box[r, 2] and box[r, 1] < box[q, 2]:
                hit = True
                if box[q, 5] == box[r, 5]:
                    hit = (
                        box[q, 6] < box[r, 7]
                        and box[r, 6] < box[q, 7]
                        and box[q, 8] < box[r, 9]
                        and box[r, 8] < box[q, 9]
                        and box[q, 10] < box[r, 11]
                        and box[r, 10] < box[q, 11]
                    )
                if hit:
                    if pairs == capacity:
                        capacity *= 2
                        bigger = np.empty(capacity, np.int64)
                        bigger[:pairs] = left
                        left = bigger
                        bigger = np.empty(capacity, np.int64)
                        bigger[:pairs] = right
                        right = bigger
                    left[pairs] = q
                    right[pairs] = r
                    degree[q] += 1
                    degree[r] += 1
                    pairs += 1
        active[kept] = r
        num_active = kept + 1
    start = np.zeros(n + 1, np.int64)
    for r in range(n):
        start[r + 1] = start[r] + degree[r]
    other = np.empty(max(start[n], 1), np.int64)
    covered = np.zeros(max(start[n], 1), np.bool_)
    fill = start[:-1].copy()
    for r in range(n):
        other[fill[r]] = r
        covered[fill[r]] = True
        fill[r] += 1
    for k in range(pairs):
        for side in range(2):
            q, r = (left[k], right[k]) if side == 0 else (right[k], left[k])
            other[fill[q]] = r
            covered[fill[q]] = _contains(box, q, r)
            fill[q] += 1
    return start, other, covered


@numba.njit(cache=True)
def _contains(box, q, r):
    """Whether region ``q`` contains ``r``, as far as their boxes tell; False where they cannot."""
    if box[q, 1] > box[r, 1] or box[q, 2] < box[r, 2]:
        return False
    if box[q, 5] != box[r, 5]:
        return False
    return (
        box[q, 6] <= box[r, 6]
        and box[q, 7] >= box[r, 7]
        and box[q, 8] <= box[r, 8]
        and box[q, 9] >= box[r, 9]
        and box[q, 10] <= box[r, 10]
        and box[q, 11] >= box[r, 11]
    )
