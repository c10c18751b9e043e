"""A NeuronCore that runs a kernel: its memories, its engine state, and the stream of instructions it is given.

Execution never looks at a clock: a :class:`Core` computes values, records a Program, or both. Which one is a choice
of whoever launches the kernel; the kernel cannot tell.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn import hardware
from opentrn.errors import CapacityError, UninitializedError, ValidationError
from opentrn.neuroncore import undefined
from opentrn.neuroncore.dtypes import as_dtype, numpy_dtype, precise_fp
from opentrn.neuroncore.host_memory import keep_temporaries
from opentrn.neuroncore.layout import contiguous_strides, intern_layout, start_class
from opentrn.neuroncore.memory import EMPTY, FULL, PARTIAL, Allocation, MemoryRegion, Storage
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller, is_ours
from opentrn.neuroncore.tensor import NkiTensor

if TYPE_CHECKING:
    from opentrn.neuroncore.instruction import Plan
    from opentrn.neuroncore.program import Recorder

__all__ = ["Core", "current", "default_chip", "state"]


class _State(threading.local):
    """The core that this thread drives."""

    core: Any = None
    outside: tuple[str, Any] | None = None
    """(chip, core) for calls outside a kernel."""


state = _State()


class Core:
    """One physical NeuronCore while it runs one kernel.

    Attributes:
        hardware: the core's record of figures (``opentrn.hardware.core``).
        program_id: coordinates in the launch grid; ``grid`` its sizes (empty when launched without a grid).
        execute: whether values are computed.
        recorder: collects the Program, or None.
        registers of the engines that outlive an instruction: ``vector_accumulator``, ``scalar_accumulator``, random
        states.
    """

    def __init__(
        self, core: Any, *, program_id: Sequence[int] = (), grid: Sequence[int] = (), execute: bool = True,
        recorder: Recorder | None = None, group: Any = None, index: int = 0, uninitialized: str = "error",
        assume: Any = None, communicator: Any = None,
    ) -> None:  # fmt: skip
        keep_temporaries()
        self.hardware = core
        self.program_id = tuple(program_id)
        self.grid = tuple(grid)
        self.execute = execute
        self.recorder = recorder
        self.group = group
        self.index = index
        self.uninitialized = uninitialized
        self._assume = assume
        self.communicator = communicator
        self.precise = precise_fp()
        self.plans, self._plan_list = _plan_table(core, self.precise)
        self.count = 0
        self.allocations: list[Allocation] = []
        self.vector_accumulator: Any = None
        self.scalar_accumulator: Any = None
        self.lane = 0  # partition of the first lane of the instruction that runs, where its registers matter
        self.random: dict[str, Any] = {}
        self.findings: list[Any] = []
        self.no_reorder_depth = 0
        self.loops: tuple[Any, ...] = ()  # the device loops that the kernel is in
        self._settled = 0
        self._arenas: dict[MemoryRegion, tuple[np.ndarray, np.ndarray]] = {}
        self._shapes: dict[tuple, tuple] = {}

    # Plans

    def next_plan_id(self) -> int:
        return len(self._plan_list)

    def add_plan(self, plan: Plan) -> None:
        self._plan_list.append(plan)

    # Memory

    def allocate(
        self, shape: Sequence[int], dtype: Any, region: MemoryRegion | str = MemoryRegion.sbuf, name: str = "",
        address: tuple[int, int] | None = None,
    ) -> NkiTensor:  # fmt: skip
        """A new tensor; its contents are undefined until written.

        Raises:
            ValidationError: an empty or malformed shape, more partitions than the memory has.
            CapacityError: the tensor alone is larger than the memory.
        """
        try:
            layout, host, num_partitions, free_bytes, chip_bytes = self._shapes[shape, dtype, region]  # type: ignore[index]
        except (KeyError, TypeError):
            shape, dtype, region = self._shape_key(shape, dtype, region)
            layout, host, num_partitions, free_bytes, chip_bytes = self._shapes[shape, dtype, region]
        frame = sys._getframe(1)
        while is_ours(frame.f_code) and frame.f_back is not None:
            frame = frame.f_back
        allocations = self.allocations
        allocation = Allocation(
            len(allocations), layout.region, num_partitions, chip_bytes, name, (frame.f_code, frame.f_lasti), address,
            layout.dtype, layout.shape,
        )  # fmt: skip
        allocations.append(allocation)
        if not self.execute and layout.on_chip:
            storage = Storage(layout.region, layout.dtype, host, num_partitions, free_bytes, None, allocation, FULL)
        elif layout.region is MemoryRegion.shared_hbm and self.group is not None:
            storage = self.group.shared(self, allocation, layout, host, free_bytes)
        else:
            storage = self._storage(layout, host, num_partitions, free_bytes, allocation, address)
        if address is not None and address[0] and layout.on_chip:
            layout = intern_layout(
                layout.shape, layout.strides, layout.dtype, host, layout.region, layout.storage_free, None,
                start_class(address[0]),
            )  # fmt: skip
        tensor = object.__new__(NkiTensor)
        tensor.storage = storage
        tensor.layout = layout
        tensor.offset = 0
        tensor.indirection = None
        tensor._array = None
        return tensor

    def _storage(self, layout: Any, host: np.dtype, num_partitions: int, free_bytes: int, allocation: Allocation,
                 address: tuple[int, int] | None) -> Storage:  # fmt: skip
        if not self.execute:
            return Storage(layout.region, layout.dtype, host, num_partitions, free_bytes, None, allocation, FULL)
        if address is not None and layout.on_chip and self.precise:
            return self._placed(layout, host, num_partitions, free_bytes, allocation, address)
        data = np.empty(num_partitions * free_bytes, dtype=np.uint8)
        return Storage(layout.region, layout.dtype, host, num_partitions, free_bytes, data, allocation)

    def _placed(self, layout: Any, host: np.dtype, num_partitions: int, free_bytes: int, allocation: Allocation,
                address: tuple[int, int]) -> Storage:  # fmt: skip
        """A tensor at an address the kernel chose: it shares bytes with whatever else was placed there."""
        partition, byte = address
        limit = self.capacity(layout.region)
        if (
            partition < 0
            or partition + num_partitions > self.hardware.num_partitions
            or byte < 0
            or byte + free_bytes > limit
        ):
            raise CapacityError(
                f"a tensor of {num_partitions} partitions x {free_bytes} bytes at address {address} leaves "
                f"{layout.region.value}, which has {self.hardware.num_partitions} partitions x {limit} bytes",
                caller(),
            )
        arena = self._arenas.get(layout.region)
        if arena is None:
            size = self.hardware.num_partitions * limit
            arena = self._arenas[layout.region] = np.empty(size, dtype=np.uint8), np.zeros(size, dtype=np.bool_)
        data, mask = arena
        base = partition * limit + byte
        # What an earlier tensor left at this address is readable, as on the chip: the mask is the memory's, not the
        # tensor's.
        storage = Storage(
            layout.region, layout.dtype, host, num_partitions, free_bytes, data, allocation, EMPTY, base, limit
        )
        storage.arena = mask
        return storage

    def _shape_key(self, shape: Any, dtype: Any, region: Any) -> tuple:
        """Check a new shape and remember what every tensor of it shares."""
        try:
            dims = tuple(int(n) for n in shape)
        except TypeError:
            raise ValidationError(f"a shape is a tuple of integers, not {shape!r}", caller()) from None
        try:
            kind = as_dtype(dtype)
        except TypeError as error:
            raise ValidationError(f"{error}; use a type of nki.language", caller()) from None
        try:
            where = (
                region
                if isinstance(region, MemoryRegion)
                else MemoryRegion(str(region).replace("hbm", "private_hbm") if region == "hbm" else region)
            )
        except ValueError:
            raise ValidationError(
                f"{region!r} is not a memory; use nl.sbuf, nl.psum, nl.private_hbm or nl.shared_hbm", caller()
            ) from None
        if not dims or min(dims) < 1:
            raise ValidationError(
                f"shape {dims} has a dimension without elements; every size must be 1 or more", caller()
            )
        host = numpy_dtype(kind, self.precise)
        size = 1
        for n in dims:
            size *= n
        if where.on_chip:
            partitions = dims[0]
            if len(dims) < 2:
                dims = (partitions, 1)
            if partitions > self.hardware.num_partitions:
                raise ValidationError(
                    f"{where.value} tensor {kind}{list(dims)} needs {partitions} partitions and the memory has "
                    f"{self.hardware.num_partitions}; split dimension 0 into tiles of {self.hardware.num_partitions}",
                    caller(),
                )
            free = size // partitions
            chip_bytes = free * kind.itemsize
            limit = self.capacity(where)
            if chip_bytes > limit:
                raise CapacityError(
                    f"{where.value} tensor {kind}{list(dims)} needs {chip_bytes} bytes a partition and {where.value} "
                    "has "
                    f"{limit}; split the free dimensions into smaller tiles",
                    caller(),
                )
        else:
            partitions, free, chip_bytes = 1, size, size * kind.itemsize
        layout = intern_layout(dims, contiguous_strides(dims), kind, host, where, free)
        entry = (layout, host, partitions, free * host.itemsize, chip_bytes)
        self._shapes[dims, kind, where] = entry
        key = (tuple(shape) if isinstance(shape, (list, tuple)) else dims, kind, where)
        self._shapes[key] = entry
        return key

    def capacity(self, region: MemoryRegion) -> int:
        """Bytes of one partition of an on-chip memory."""
        if region is MemoryRegion.psum:
            return self.hardware.psum_bytes_per_partition
        return self.hardware.sbuf_bytes_per_partition

    # Issue

    def issue(self, plan: Plan, args: tuple, name: str | None = None) -> int:
        """Run and record one instruction whose arguments match ``plan``; returns its position in the stream."""
        index = self.count
        self.count = index + 1
        place: Any = plan.place
        if place is not None:
            args = place(plan, args)
        if plan.indirect:
            plan, args = self._resolve_indices(plan, args, index)
        if plan.writes_shared and self.group is not None and self.group.size > 1:
            self.group.take_turns(self)
        recorder = self.recorder
        if recorder is not None:
            recorder.record(plan, args, sys._getframe(2), name)  # live ranges follow from the record
        else:
            for position in plan.operands:
                allocation = args[position].storage.allocation
                allocation.last_use = index
                if allocation.first_use < 0:
                    allocation.first_use = index
        if self.execute:
            if plan.on_tensors or plan.indirect:
                self._run_tensors(plan, args)
                return index
            for position in plan.watched:
                if args[position].storage.state != FULL:
                    undefined.run(self, plan, args)
                    return index
            if plan.adds and args[plan.adds] and args[0].storage.state != FULL:
                undefined.run(self, plan, args)
                return index
            for position in plan.writes:
                tensor = args[position]
                storage = tensor.storage
                if storage.state != FULL:
                    self._writing(tensor, storage)
                if storage.wide is not None:
                    storage.wide = None
            arrays = [a.array() if type(a) is NkiTensor else a for a in args]
            for position in plan.widen:
                arrays[position] = wide(args[position])
            plan.run(self, *arrays)
        return index

    def settle_uses(self) -> None:
        """Bring the live ranges of this core's tensors up to date with what was recorded."""
        recorder = self.recorder
        if recorder is None or self._settled == self.count:
            return
        self._settled = self.count
        first, last = recorder.uses(self._plan_list, len(self.allocations))
        for allocation, begin, end in zip(self.allocations, first.tolist(), last.tolist(), strict=True):
            allocation.first_use = begin
            allocation.last_use = end

    def _writing(self, tensor: NkiTensor, storage: Storage) -> None:
        """Record a write through ``tensor`` before it happens."""
        layout = tensor.layout
        if storage.state == EMPTY:
            if (
                layout.size * layout.itemsize == storage.size_bytes
                and layout.indirect is None
                and 0 not in layout.strides
            ):
                if storage.arena is None:
                    storage.state = FULL
                else:
                    storage.fill()
                return
            storage.begin_partial()
        if storage.state == PARTIAL:
            storage.written(tensor.mask_array())

    def _resolve_indices(self, plan: Plan, args: tuple, index: int) -> tuple[Plan, tuple]:
        """Make what gives the addresses of a dynamic instruction part of it: index tensors it reads, registers it
        awaits."""
        from opentrn.neuroncore import indirection

        indirection.check_placement(plan, args)
        for position in plan.operands:
            dynamic = args[position].indirection
            if dynamic is not None and type(dynamic.index) is VirtualRegister:
                producer = dynamic.index.producer
                if producer is not None and producer[0] is self:
                    self.add_dependency(producer[1], index)
        return plan.with_indices(self, args)

    def _run_tensors(self, plan: Plan, args: tuple) -> None:
        """Run an instruction that resolves addresses itself, or one with dynamic operands."""
        from opentrn.neuroncore import indirection

        indirection.run(self, plan, args)

    def mark(self, kind: str, value: Any = None) -> None:
        """Record a point between instructions, before the next one."""
        if self.recorder is not None:
            self.recorder.mark(self.count, kind, value)

    def add_dependency(self, producer: int, consumer: int) -> None:
        """Make instruction ``consumer`` wait for ``producer`` in the recorded program."""
        if self.recorder is not None:
            self.recorder.add_dependency(producer, consumer)

    def assumed(self, origin: str) -> int | None:
        """The value to assume for a register that would be loaded from ``origin``, in a run without values."""
        if isinstance(self._assume, int) or self._assume is None:
            return self._assume
        return self._assume(origin)

    def report_undefined(self, message: str, source: Any) -> None:
        """Raise, warn or pass over a use of memory never written, as the launch asked for."""
        if self.uninitialized == "ignore":
            return
        error = UninitializedError(message, source)
        if self.uninitialized == "error":
            raise error
        import warnings

        self.findings.append(error)
        warnings.warn(str(error), RuntimeWarning, stacklevel=3)


def wide(tensor: NkiTensor) -> np.ndarray:
    """A float32 array of a narrow view's values; the conversion of a whole storage is kept until it is written
    again."""
    storage, layout = tensor.storage, tensor.layout
    if storage.pitch != storage.free_bytes or storage.host is not layout.host or 0 in layout.strides:
        return tensor.array().astype(np.float32)
    values = storage.wide
    if values is None:
        values = storage.wide = storage.whole().astype(np.float32)
    return np.ndarray(layout.shape, np.float32, values, tensor.offset * 4, tuple([s * 4 for s in layout.strides]))


_PLANS: dict[tuple, tuple[dict, list]] = {}


def _plan_table(core: Any, precise: bool) -> tuple[dict, list]:
    """Plans are shared by all cores of one kind: the same call is checked once a process."""
    return _PLANS.setdefault((id(core), precise), ({}, []))


def default_chip() -> str:
    """The chip a kernel runs on when nobody says otherwise: trn3.

    ``NEURON_PLATFORM_TARGET_OVERRIDE`` (trn2, gen3...) names another, and so does ``NKI_NC_VERSION``, which AWS's
    kernel library sets in its tests.
    """
    import os

    return os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE") or os.environ.get("NKI_NC_VERSION") or "trn3"


def current() -> Core:
    """The core that this thread drives; outside a kernel, one of the default chip."""
    if state.core is not None:
        return state.core
    chip = default_chip()
    if state.outside is None or state.outside[0] != chip:
        state.outside = (chip, Core(hardware.chip(chip).core, uninitialized="warn"))
    return state.outside[1]
