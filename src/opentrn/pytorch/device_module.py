"""``torch.neuron``: what scripts ask a device module of PyTorch, in the words of ``torch.cuda``.

A device is one logical NeuronCore, as in AWS's backend. Streams run in order on the one queue of a device.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from opentrn.errors import UnsupportedError
from opentrn.pytorch import memory, recording, usage

__all__ = [
    "Event",
    "Stream",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "empty_cache",
    "get_amp_supported_dtype",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_initialized",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_rng_state",
    "set_rng_state_all",
    "stream",
    "synchronize",
]

_chip: Any = None


def use_chip(chip: Any) -> None:
    """Set the chip whose logical cores are the devices."""
    global _chip
    _chip = chip


def chip() -> Any:
    """The hardware record of the simulated chip."""
    return _chip


def logical_cores() -> int:
    """Physical cores that make one device: ``NEURON_LOGICAL_NC_CONFIG``, or the chip's default."""
    asked = os.environ.get("NEURON_LOGICAL_NC_CONFIG")
    return int(asked) if asked in ("1", "2") else int(_chip.get("lnc_default", 1))


def is_available() -> bool:
    """True: the device is simulated, so it is always there."""
    return True


def is_initialized() -> bool:
    """True once the backend is registered."""
    return _chip is not None


def init() -> None:
    """Nothing to do."""


def _is_in_bad_fork() -> bool:
    return False


def _lazy_init() -> None:
    pass


def device_count() -> int:
    """Logical cores of one chip."""
    return int(_chip.num_cores) // logical_cores()


def _index(which: Any) -> int:
    if which is None:
        return memory.current_device()
    if isinstance(which, int):
        return which
    found = torch.device(which)
    if found.type != "neuron":
        raise ValueError(f"expected a neuron device, not {which}")
    return memory.current_device() if found.index is None else found.index


def current_device() -> int:
    """Index of the device that ``"neuron"`` without a number means."""
    return memory.current_device()


def set_device(which: Any) -> None:
    """Choose the device that ``"neuron"`` without a number means."""
    memory.set_current_device(_index(which))


class device(contextlib.ContextDecorator):
    """Context manager that chooses the current device."""

    def __init__(self, which: Any) -> None:
        self.index = _index(which)

    def __enter__(self) -> device:
        self.before = memory.current_device()
        if self.index >= 0:
            memory.set_current_device(self.index)
        return self

    def __exit__(self, *_: Any) -> None:
        memory.set_current_device(self.before)


@dataclass(frozen=True)
class DeviceProperties:
    """What the device is. ``total_memory`` in bytes."""

    name: str
    total_memory: int
    num_physical_cores: int


def get_device_properties(which: Any = None) -> DeviceProperties:
    """Name, HBM and physical cores of a device."""
    return DeviceProperties(get_device_name(which), memory.device_memory(_index(which)).capacity_bytes, logical_cores())


def get_device_name(which: Any = None) -> str:
    """For example ``AWS Trainium2 (simulated), logical core of 2 NeuronCores``."""
    count = logical_cores()
    return f"{_chip.title} (simulated), logical core of {count} NeuronCore{'s' if count > 1 else ''}"


def get_device_capability(which: Any = None) -> tuple[int, int]:
    """(generation of the NeuronCore, 0)."""
    return int(_chip.core.generation), 0


def synchronize(which: Any = None) -> None:
    """Wait for the device: what was recorded so far becomes a region of its own."""
    recording.synchronize("synchronize")


def is_bf16_supported() -> bool:
    """True on every NeuronCore."""
    return True


def get_amp_supported_dtype() -> list[torch.dtype]:
    """Types that autocast may use."""
    return [torch.bfloat16, torch.float16]


def manual_seed(seed: int) -> None:
    """Seed the device's generator. It is the host's: a model run on the CPU with the same seed draws the same
    numbers."""
    torch.default_generator.manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    """Seed every device."""
    torch.default_generator.manual_seed(int(seed))


def seed() -> None:
    """Seed from the system's entropy."""
    torch.default_generator.seed()


seed_all = seed


def initial_seed() -> int:
    """The current seed."""
    return torch.default_generator.initial_seed()


def get_rng_state(which: Any = "neuron") -> torch.Tensor:
    """State of the generator, a host tensor of bytes."""
    return torch.default_generator.get_state()


def set_rng_state(state: torch.Tensor, which: Any = "neuron") -> None:
    """Restore the generator's state."""
    torch.default_generator.set_state(state)


def get_rng_state_all() -> list[torch.Tensor]:
    """One state a device."""
    return [get_rng_state() for _ in range(device_count())]


def set_rng_state_all(states: Any) -> None:
    """Restore what :func:`get_rng_state_all` gave."""
    for state in states:
        set_rng_state(state)


def memory_allocated(which: Any = None) -> int:
    """Bytes of HBM in use now."""
    return memory.device_memory(_index(which)).allocated_bytes


def max_memory_allocated(which: Any = None) -> int:
    """Most bytes of HBM in use at once."""
    return memory.device_memory(_index(which)).peak_bytes


memory_reserved = memory_allocated
max_memory_reserved = max_memory_allocated


def reset_peak_memory_stats(which: Any = None) -> None:
    """Start the peak anew from what is in use."""
    account = memory.device_memory(_index(which))
    account.peak_bytes = account.allocated_bytes


def mem_get_info(which: Any = None) -> tuple[int, int]:
    """(free, total) bytes."""
    account = memory.device_memory(_index(which))
    return account.capacity_bytes - account.allocated_bytes, account.capacity_bytes


def memory_stats(which: Any = None) -> dict[str, int]:
    """Counters under the names that ``torch.cuda.memory_stats`` has for them."""
    account = memory.device_memory(_index(which))
    return {
        "allocated_bytes.all.current": account.allocated_bytes,
        "allocated_bytes.all.peak": account.peak_bytes,
        "allocated_bytes.all.allocated": account.total_allocated_bytes,
        "allocation.all.allocated": account.num_allocations,
        "reserved_bytes.all.current": account.allocated_bytes,
        "reserved_bytes.all.peak": account.peak_bytes,
    }


def memory_summary(which: Any = None, abbreviated: bool = False) -> str:
    """What the HBM of a device is used for, as text."""
    index = _index(which)
    account = memory.device_memory(index)
    lines = [f"neuron:{index}: {account.capacity_bytes / 2**30:.2f} GiB of HBM"]
    rows = {**usage.by_use(index), "allocated": account.allocated_bytes, "peak": account.peak_bytes}
    lines += [f"  {name.replace('_', ' '):<16}{size / 2**20:>12.2f} MiB" for name, size in rows.items()]
    return "\n".join(lines)


def empty_cache() -> None:
    """Nothing is cached."""


class Stream:
    """An in-order queue. All streams of a device are the same queue, so work needs no ordering between them."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device = torch.device("neuron", _index(device))
        self.stream_id = 0

    def synchronize(self) -> None:
        synchronize()

    def query(self) -> bool:
        return True

    def wait_stream(self, other: Any) -> None:
        """Nothing to wait for: one queue."""

    def wait_event(self, event: Any) -> None:
        """Nothing to wait for: one queue."""

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event(enable_timing=True)
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.device == self.device

    def __hash__(self) -> int:
        return hash(self.device)


class Event:
    """A point in the queue. It orders work; the chip's time between two points is not modelled yet, and asking for
    it says so."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.recorded = False

    def record(self, stream: Any = None) -> None:
        """Mark this point."""
        synchronize()
        self.recorded = True

    def synchronize(self) -> None:
        """Wait for the device."""
        synchronize()

    def query(self) -> bool:
        """True: work is done when it is asked for."""
        return True

    def wait(self, stream: Any = None) -> None:
        """Nothing to wait for: one queue."""

    def elapsed_time(self, end: Event) -> float:
        """Refused: a wall-clock time of this machine would be taken for the chip's."""
        raise UnsupportedError(
            "torch.neuron.Event.elapsed_time is not supported: the device records operations but does not time "
            "them yet; "
            "time an NKI kernel with trn profile"
        )


def current_stream(which: Any = None) -> Stream:
    """The device's queue."""
    return Stream(which)


default_stream = current_stream


@contextlib.contextmanager
def stream(chosen: Any) -> Iterator[Any]:
    """Context manager of ``torch.cuda.stream``'s name; there is one queue."""
    yield chosen
