"""A Program: the instructions that a kernel issued, as columns.

This is what every other part reads: timing schedules it, energy prices it, the profiler shows it. One row an
instruction and, beside it, one row an operand. Everything about an instruction except where its operands lie is in its
*plan* (:class:`~opentrn.neuroncore.instruction.Plan`), shared by all instructions alike; a program of a million
matmuls has a handful of plans, and what an instruction costs is computed once a plan.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.neuroncore import source
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.source import Site, Source, is_ours, line_of

if TYPE_CHECKING:
    from opentrn.neuroncore.instruction import Plan
    from opentrn.neuroncore.machine import Core
    from opentrn.neuroncore.memory import Allocation

__all__ = ["Operands", "Program", "Recorder", "Tensors"]


class Recorder:
    """Collects a program while a kernel runs; appends plain integers, nothing else."""

    def __init__(self) -> None:
        self.plan_ids = array("i")
        self.site_ids = array("i")
        self.operands = array("q")  # allocation id and element offset of each tensor operand, writes first
        self.sites: list[Site] = []
        self._site_index: dict[tuple[int, int], int] = {}
        self.dependencies: list[tuple[int, int]] = []
        self.names: dict[int, str] = {}
        self.markers: list[tuple[int, str, Any]] = []

    def record(self, plan: Plan, args: tuple, frame: FrameType, name: str | None) -> None:
        """Append one instruction issued from ``frame``."""
        code = frame.f_code
        key = (id(code), frame.f_lasti)
        site = self._site_index.get(key)
        if site is None:
            site = self._new_site(frame)
        if name:
            self.names[len(self.plan_ids)] = name
        self.plan_ids.append(plan.id)
        self.site_ids.append(site)
        operands = self.operands
        for position in plan.operands:
            tensor = args[position]
            operands.append(tensor.storage.allocation.id)
            operands.append(tensor.offset)

    def uses(self, table: Sequence[Plan], num_allocations: int) -> tuple[np.ndarray, np.ndarray]:
        """First and last instruction that used each of a core's tensors, -1 for none; ``table`` has the plans by
        number."""
        first = np.full(num_allocations, -1, dtype=np.int64)
        last = first.copy()
        if not len(self.plan_ids):
            return first, last
        plan = np.frombuffer(self.plan_ids, dtype=np.int32)
        used, inverse = np.unique(plan, return_inverse=True)
        widths = np.array([len(table[p].operands) for p in used.tolist()], dtype=np.int64)[inverse]
        index = np.repeat(np.arange(len(plan)), widths)
        owner = np.frombuffer(self.operands, dtype=np.int64)[0::2]
        own = owner >= 0
        index, owner = index[own], owner[own]
        last[owner] = index  # the last assignment stays
        first[owner[::-1]] = index[::-1]
        return first, last

    def _new_site(self, frame: FrameType) -> int:
        if source.pinned is not None:
            return self._site(source.pinned)
        where: FrameType | None = frame
        while where is not None and is_ours(where.f_code):
            where = where.f_back
        user = where or frame
        if where is frame:
            index = self._site_index[id(frame.f_code), frame.f_lasti] = len(self.sites)
            self.sites.append((frame.f_code, frame.f_lasti))
            return index
        # Called through a function of ours (nl.add and the like): the user's line differs from call to call.
        return self._site((user.f_code, user.f_lasti))

    def _site(self, site: Site) -> int:
        key = (id(site[0]), site[1])
        index = self._site_index.get(key)
        if index is None:
            index = self._site_index[key] = len(self.sites)
            self.sites.append(site)
        return index

    def add_dependency(self, producer: int, consumer: int) -> None:
        """An ordering that the kernel asked for beyond what the data need."""
        self.dependencies.append((producer, consumer))

    def mark(self, index: int, kind: str, value: Any = None) -> None:
        """A point between instructions that constrains the schedule (a barrier, the edges of a no-reorder block)."""
        self.markers.append((index, kind, value))


@dataclass(frozen=True)
class Operands:
    """Columns with one row an operand; instruction ``i`` owns rows ``start[i]`` to ``start[i + 1]``, writes first.

    Bytes count within a partition on chip and within the tensor in HBM, in device (not host) representation.
    """

    start: np.ndarray
    allocation: np.ndarray
    is_write: np.ndarray
    partition_start: np.ndarray
    num_partitions: np.ndarray
    byte_start: np.ndarray
    byte_end: np.ndarray


@dataclass(frozen=True)
class Tensors:
    """Columns with one row an allocation.

    ``memory`` is 0 in SBUF, 1 in PSUM, -1 in HBM; ``partition`` and ``byte`` are the kernel's choice of place, -1
    without one; ``line_bytes`` and ``plane_bytes`` the bytes of the last dimension and of the last two (free
    dimensions, on chip).
    """

    memory: np.ndarray
    num_partitions: np.ndarray
    bytes_per_partition: np.ndarray
    partition: np.ndarray
    byte: np.ndarray
    first_use: np.ndarray
    last_use: np.ndarray
    line_bytes: np.ndarray
    plane_bytes: np.ndarray


@dataclass(frozen=True)
class Program:
    """The instruction stream of one core for one launch of a kernel.

    Attributes:
        name: of the kernel; source: where it is defined.
        hardware: the core it was recorded for; core_index: which physical core of the launch.
        plans: every plan in use; ``plan`` indexes it.
        plan, site: one entry an instruction, in program order.
        sites: code positions that ``site`` indexes (see :meth:`source`).
        allocations: every tensor of the kernel, with the first and last instruction that used it. Negative numbers in
            ``operand_allocation`` count from the end: the kernel's arguments and what its cores share.
        api: the interface that the kernel was written for: ``"nki"``, or ``"earlier"`` for ``neuronxcc.nki``, whose
            compiler moves, hoists and buffers loads (``"as-written"`` where the kernel switched that off).
        dependencies: (producer, consumer) pairs asked for with ``depends_on``.
        markers: (position, kind, value) scheduling constraints, ``barrier``, ``no_reorder_begin``, ``no_reorder_end``.
    """

    name: str
    source: Source | None
    hardware: Any
    core_index: int
    plans: list[Plan]
    plan: np.ndarray
    site: np.ndarray
    sites: list[Site]
    allocations: list[Allocation]
    operand_allocation: np.ndarray
    operand_offset: np.ndarray
    dependencies: list[tuple[int, int]] = field(default_factory=list)
    markers: list[tuple[int, str, Any]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    api: str = "nki"

    def __len__(self) -> int:
        return len(self.plan)

    def line(self, site: int) -> Source | None:
        """File and line of a site."""
        return line_of(self.sites[site])

    @cached_property
    def tensors(self) -> Tensors:
        """The allocations as columns."""
        memories = {MemoryRegion.sbuf: 0, MemoryRegion.psum: 1}
        kinds: dict[tuple, int] = {}
        facts: list[tuple[int, int, int, int]] = []
        count = len(self.allocations)

        def kind_of(a: Allocation) -> int:
            key = (a.shape, a.dtype, a.region)
            kind = kinds.get(key)
            if kind is None:
                kind = kinds[key] = len(facts)
                free = a.shape[1:] if a.region.on_chip else a.shape
                line = max((free[-1] if free else 1) * a.dtype.itemsize, 1)
                plane = max(line * (free[-2] if len(free) > 1 else 1), 1)
                facts.append((memories.get(a.region, -1), a.num_partitions, line, plane))
            return kind

        def column(values: Iterable[int]) -> np.ndarray:
            return np.fromiter(values, dtype=np.int64, count=count)

        kind = column(map(kind_of, self.allocations))
        memory, partitions, line, plane = np.array(facts, dtype=np.int64).reshape(-1, 4)[kind].T.copy()
        partition, byte = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
        for k, a in enumerate(self.allocations):
            if a.address is not None:
                partition[k], byte[k] = a.address
        return Tensors(
            memory, partitions, column([a.bytes_per_partition for a in self.allocations]), partition, byte,
            column([a.first_use for a in self.allocations]), column([a.last_use for a in self.allocations]),
            line, plane,
        )  # fmt: skip

    @cached_property
    def operands(self) -> Operands:
        """Where each operand lies, from the plans' layouts and the recorded offsets."""
        widths = np.array([len(p.layouts) for p in self.plans], dtype=np.int64)
        counts = widths[self.plan] if len(self.plan) else np.zeros(0, np.int64)
        start = np.zeros(len(self.plan) + 1, dtype=np.int64)
        np.cumsum(counts, out=start[1:])
        # One row of constants for each (plan, operand slot), gathered by a flat slot number.
        first_slot = np.concatenate(([0], np.cumsum(widths)))[:-1] if len(widths) else np.zeros(0, np.int64)
        slots = [(layout, k < len(p.writes)) for p in self.plans for k, layout in enumerate(p.layouts)]
        slot = np.repeat(first_slot[self.plan], counts) + (np.arange(start[-1]) - np.repeat(start[:-1], counts))
        on_chip = np.array([s.on_chip for s, _ in slots], dtype=bool)[slot]
        free = np.array([max(s.storage_free, 1) for s, _ in slots], dtype=np.int64)[slot]
        span = np.array([s.span for s, _ in slots], dtype=np.int64)[slot]
        item = np.array([s.dtype.itemsize for s, _ in slots], dtype=np.int64)[slot]
        parts = np.array([s.num_partitions for s, _ in slots], dtype=np.int32)[slot]
        dynamic = np.array([s.indirect is not None for s, _ in slots], dtype=bool)[slot]
        write = np.array([w for _, w in slots], dtype=bool)[slot]
        table_bytes = np.array([a.bytes_per_partition for a in self.allocations], dtype=np.int64)
        table_address = np.array([a.address[0] if a.address else 0 for a in self.allocations], dtype=np.int32)
        offset = self.operand_offset
        within = np.where(on_chip, offset % free, offset)
        first = np.where(on_chip, offset // free, 0).astype(np.int32)
        byte_start = within * item
        byte_end = byte_start + span * item
        # A dynamic address may be anywhere in its tensor.
        whole = table_bytes[self.operand_allocation] if len(self.allocations) else byte_end
        byte_start = np.where(dynamic, 0, byte_start)
        byte_end = np.where(dynamic, whole, byte_end)
        first = first + table_address[self.operand_allocation] if len(self.allocations) else first
        return Operands(start, self.operand_allocation, write, first, parts, byte_start, byte_end)


def finish(
    recorder: Recorder, core: Core, name: str, source: Source | None, launch: Sequence[Allocation] = (),
    api: str = "nki",
) -> Program:  # fmt: skip
    """Turn what a recorder collected into a Program; ``launch`` are the tensors that belong to no one core."""
    core.settle_uses()
    plan_ids = np.frombuffer(recorder.plan_ids, dtype=np.int32) if len(recorder.plan_ids) else np.zeros(0, np.int32)
    used, plan = np.unique(plan_ids, return_inverse=True)
    table = core._plan_list
    pairs = np.frombuffer(recorder.operands, dtype=np.int64) if len(recorder.operands) else np.zeros(0, np.int64)
    program = Program(
        name=name,
        source=source,
        hardware=core.hardware,
        core_index=core.index,
        plans=[table[i] for i in used],
        plan=plan.astype(np.int32),
        site=np.array(recorder.site_ids, dtype=np.int32),
        sites=recorder.sites,
        allocations=[*core.allocations, *reversed(launch)],
        operand_allocation=pairs[0::2].copy(),
        operand_offset=pairs[1::2].copy(),
        dependencies=recorder.dependencies,
        markers=recorder.markers,
        names=recorder.names,
        api=api,
    )
    _ = program.tensors  # part of recording, so that whoever schedules it twice pays once
    return program
