"""HBM of the simulated devices: who holds how many bytes, the peak, and what happens when it is full.

A :class:`Buffer` is freed when the last tensor that views it is gone, as with PyTorch's own allocators.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from opentrn.errors import CapacityError

__all__ = [
    "Buffer",
    "DeviceMemory",
    "OutOfDeviceMemory",
    "allocate",
    "configure",
    "current_device",
    "device_memory",
    "set_current_device",
]


class OutOfDeviceMemory(CapacityError, torch.OutOfMemoryError):
    """A tensor that does not fit into the HBM of a device."""


@dataclass
class DeviceMemory:
    """Bytes of one device: its share of HBM, what is allocated, the most that ever was, and how often."""

    capacity_bytes: int
    allocated_bytes: int = 0
    peak_bytes: int = 0
    num_allocations: int = 0
    total_allocated_bytes: int = 0


class Buffer:
    """One allocation in the HBM of a device."""

    __slots__ = ("__weakref__", "device", "id", "num_bytes")

    def __init__(self, num_bytes: int, device: int) -> None:
        self.id = next(_ids)
        self.num_bytes = num_bytes
        self.device = device

    def __copy__(self) -> Buffer:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Buffer:
        return self

    def __del__(self) -> None:
        _devices[self.device].allocated_bytes -= self.num_bytes


_ids = itertools.count(1)
_devices: list[DeviceMemory] = []
_current = 0
enforce = True
"""Whether running out of HBM is an error; the estimator lets it happen and reports it."""


def configure(count: int, capacity_bytes: int) -> None:
    """Set the number of devices and the HBM of each. Allocations made so far are kept."""
    for k in range(count):
        if k < len(_devices):
            _devices[k].capacity_bytes = capacity_bytes
        else:
            _devices.append(DeviceMemory(capacity_bytes))


def current_device() -> int:
    """Index of the device that ``"neuron"`` without a number means."""
    return _current


def set_current_device(index: int) -> None:
    """Choose the device that ``"neuron"`` without a number means."""
    global _current
    _check(index)
    _current = index


def device_memory(index: int | None = None) -> DeviceMemory:
    """The account of one device."""
    index = _current if index is None else index
    _check(index)
    return _devices[index]


def _check(index: int) -> None:
    if not 0 <= index < len(_devices):
        raise RuntimeError(
            f"neuron:{index} does not exist; this chip has the {len(_devices)} devices neuron:0 to "
            f"neuron:{len(_devices) - 1}"
        )


def allocate(num_bytes: int, device: int) -> Buffer:
    """Take HBM.

    Raises:
        OutOfDeviceMemory: it would not fit.
    """
    if device >= len(_devices):
        _check(device)
    account = _devices[device]
    held = account.allocated_bytes + num_bytes
    if held > account.capacity_bytes and enforce:
        raise _full(account, num_bytes, device)
    account.allocated_bytes = held
    account.num_allocations += 1
    account.total_allocated_bytes += num_bytes
    if held > account.peak_bytes:
        account.peak_bytes = held
    return Buffer(num_bytes, device)


def _full(account: DeviceMemory, num_bytes: int, device: int) -> OutOfDeviceMemory:
    from opentrn.pytorch import usage

    gib = 2**30
    held = usage.by_use(device)
    parts = ", ".join(f"{name.replace('_', ' ')} {size / gib:.2f} GiB" for name, size in held.items() if size)
    return OutOfDeviceMemory(
        f"neuron:{device} has {account.capacity_bytes / gib:.2f} GiB of HBM, "
        f"{account.allocated_bytes / gib:.2f} GiB are allocated "
        f"({parts or 'nothing'}) and a tensor of {num_bytes / gib:.3f} GiB does not fit; {usage.advice(held)}"
    )
