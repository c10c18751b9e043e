"""Accumulation in PSUM: which matmul overwrites and which adds, where its output may lie, and which part of the array
it uses."""

from __future__ import annotations

from opentrn.neuroncore import machine
from opentrn.neuroncore.instruction import Issue, Plan
from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.memory import FULL
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["accumulation", "check_bank", "check_output", "starts_accumulation", "within_tile"]

_TILE_SIZES = {2: (64, 128), 3: (32, 64, 128)}


def starts_accumulation(dst: NkiTensor) -> bool:
    """Whether a matmul with ``accumulate=None`` is the first into this part of PSUM, and so overwrites it."""
    storage = dst.storage
    groups = storage.psum_started
    key = (dst.offset, dst.layout.id)
    if groups is None:
        storage.psum_started = {key: dst.layout}
        return True
    if key in groups:
        return False
    first, last = _span(dst.offset, dst.layout)
    begin, end = _partitions(dst.offset, dst.layout)
    started = any(
        first < high and low < last and begin < stop and start < end
        for (low, high), (start, stop) in (
            (_span(offset, layout), _partitions(offset, layout)) for (offset, _), layout in groups.items()
        )
    )
    groups[key] = dst.layout
    return not started


def _span(offset: int, layout: Layout) -> tuple[int, int]:
    within = offset % layout.storage_free
    return within, within + layout.span


def _partitions(offset: int, layout: Layout) -> tuple[int, int]:
    first = offset // layout.storage_free
    return first, first + layout.num_partitions


def accumulation(plan: Plan, dst: NkiTensor, accumulate: object) -> bool:
    """Whether this matmul adds to what ``dst`` holds."""
    groups = dst.storage.psum_started
    if groups is not None and (dst.offset, dst.layout.id) in groups:  # this very place was written before
        return True if accumulate is None else bool(accumulate)
    if plan.issue.core.generation < 4:
        check_bank(plan, dst)
    first = starts_accumulation(dst)
    if first and accumulate and plan.issue.core.generation < 4:
        _report_foreign_start(plan, dst)
    return not first if accumulate is None else bool(accumulate)


def _report_foreign_start(plan: Plan, dst: NkiTensor) -> None:
    core = machine.current()
    if core.execute and dst.storage.state == FULL:  # what was never written at all is found when it is read
        core.report_undefined(
            f"{plan.instruction.name}: accumulates onto PSUM that another instruction wrote, which NeuronCore-v"
            f"{plan.issue.core.generation} leaves undefined; start the accumulation with a matmul, accumulate=False "
            "(or None)",
            caller(),
        )


def check_bank(plan: Plan, dst: NkiTensor) -> None:
    """Refuse an output across a PSUM bank, which the Tensor engine of NeuronCore-v2 and v3 cannot write."""
    layout, bank = dst.layout, plan.issue.core.psum_bank_bytes
    item = layout.dtype.itemsize
    start = dst.offset % layout.storage_free * item
    address = dst.storage.allocation.address
    start += address[1] if address else 0
    end = start + layout.span * item
    if start // bank != (end - 1) // bank:
        raise plan.issue.fail(
            f"dst covers bytes {start}:{end} of its PSUM partition and crosses a bank of {bank} bytes; keep each "
            "output within "
            f"one bank ({bank // item} elements of {layout.dtype})"
        )


def within_tile(i: Issue, row_only: bool = False) -> tuple[int, int]:
    """(rows, columns) of the systolic array that a matmul may use: all of it, or the tile that it asks for."""
    size, position = i.tile_size or (), i.tile_position or ()
    full = i.core.num_partitions
    if not size and not position:
        return full, full
    if not size or not position:
        raise i.fail("tile_position and tile_size go together; give both or neither")
    if len(size) != 2 or len(position) != 2:
        raise i.fail(f"tile_size={size} and tile_position={position} are pairs of (row, column)")
    allowed = _TILE_SIZES[2 if i.core.generation == 2 else 3]
    for what, start, step in zip(("row", "column"), position, size, strict=True):
        start, step = int(start), int(step)
        if step not in allowed:
            raise i.fail(
                f"tile_size {what} {step}; NeuronCore-v{i.core.generation} has tiles of {', '.join(map(str, allowed))}"
            )
        if start % step or not 0 <= start <= full - step:
            raise i.fail(f"tile_position {what} {start}; it must be a multiple of the tile's {step} within {full}")
    if row_only and (int(size[1]) != full or int(position[1])):
        raise i.fail(
            f"tile_size column {size[1]} at {position[1]}; MX matmuls tile rows only, use column size {full} at 0"
        )
    return int(size[0]), int(size[1])


def check_output(i: Issue, size_m: int, size_n: int) -> None:
    """Refuse an output that PSUM cannot take or that does not have the shape of the product."""
    d, core = i.dst, i.core
    item = d.dtype.itemsize
    limit = (core.psum_bank_bytes if core.generation < 4 else core.psum_bytes_per_partition) // item
    if size_n > limit:
        raise i.fail(
            f"moving has {size_n} columns; NeuronCore-v{core.generation} takes at most {limit} into {d.dtype}, "
            "split the output columns"
        )
    if d.num_partitions != size_m or d.free_size != size_n:
        raise i.fail(
            f"dst must be [{size_m}, {size_n}] for stationary {list(i.stationary.shape)} and moving "
            f"{list(i.moving.shape)}, not {list(d.shape)}"
        )
