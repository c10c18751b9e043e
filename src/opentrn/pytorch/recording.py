"""What the device was asked to do, written down as it happens: the material of the compiler.

Operations collect in a region until the host waits for the device (``.item()``, a copy to the host,
``torch.neuron.synchronize()``)
or an optimizer step ends. Appending is all that happens per operation; ``on_region`` receives each finished region.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

__all__ = [
    "Operation",
    "Region",
    "Value",
    "clear",
    "meta_mode",
    "record",
    "step_done",
    "synchronize",
    "transfer",
]

_ids = itertools.count(1)


class Value:
    """A tensor as the compiler sees it: shape, strides (elements), dtype and the buffer it lies in."""

    __slots__ = ("buffer", "dtype", "id", "offset", "shape", "stride")

    def __init__(
        self, shape: tuple[int, ...], stride: tuple[int, ...], offset: int, dtype: torch.dtype, buffer: int
    ) -> None:
        self.id = next(_ids)
        self.shape = shape
        self.stride = stride
        self.offset = offset
        self.dtype = dtype
        self.buffer = buffer

    def __repr__(self) -> str:
        return f"%{self.id}:{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


class Operation(NamedTuple):
    """One ATen operation; tensors in ``args`` and ``kwargs`` are :class:`Value`."""

    func: Any
    args: tuple
    kwargs: dict[str, Any]
    results: tuple[Value, ...]


class Region:
    """Operations between two points where host and device met.

    Attributes:
        operations: in program order.
        ends_with: why it ended: ``item``, ``copy to the host``, ``synchronize``, ``step``.
        to_device_bytes, to_host_bytes: across the host link.
        num_steps: optimizer steps inside.
    """

    __slots__ = ("ends_with", "num_steps", "operations", "to_device_bytes", "to_host_bytes")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.ends_with = ""
        self.to_device_bytes = 0
        self.to_host_bytes = 0
        self.num_steps = 0


meta_mode = False
"""True while a model is estimated: new tensors have shapes and no values."""
enabled = True
"""Whether operations are written down."""
_region = Region()
_append = _region.operations.append
on_region: Callable[[Region], None] | None = None
_NO_KWARGS: dict[str, Any] = {}


def record(func: Any, args: tuple, kwargs: dict[str, Any], results: Any) -> None:
    """Write down one operation. Tensors become their :class:`Value`, so nothing is kept alive."""
    if not enabled:
        return
    _append(
        Operation(
            func,
            tuple([_describe(a) for a in args]),
            {k: _describe(v) for k, v in kwargs.items()} if kwargs else _NO_KWARGS,
            tuple([r._value for r in results if hasattr(r, "_value")]),
        )
    )


def _describe(x: Any) -> Any:
    value = getattr(x, "_value", None)
    if value.__class__ is Value:
        return value
    if x.__class__ is list or x.__class__ is tuple:
        return tuple([_describe(v) for v in x])
    if isinstance(x, torch.Tensor):
        return float("nan") if x.is_meta or x.dim() else x.item()  # a scalar of the host
    return x


def transfer(value: Value, *, to_device: bool) -> None:
    """Note bytes that cross the link between host and device."""
    count = value.dtype.itemsize
    for n in value.shape:
        count *= n
    if to_device:
        _region.to_device_bytes += count
    else:
        _region.to_host_bytes += count


def synchronize(why: str) -> None:
    """The host waits for the device: the region ends."""
    global _region, _append
    if not _region.operations:
        return
    done, _region = _region, Region()
    _append = _region.operations.append
    done.ends_with = why
    if on_region is not None:
        on_region(done)


def step_done() -> None:
    """An optimizer step ended: so does the region, and a step is counted."""
    _region.num_steps += 1
    synchronize("step")


def clear() -> None:
    """Forget what was written down since the last synchronisation."""
    global _region, _append
    _region = Region()
    _append = _region.operations.append
