"""Time of one kernel call from shapes alone: the kernel is recorded without values and its program scheduled.

Equal calls are timed once a process: the key is the kernel, the shapes and types, the other arguments and the chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentrn.errors import OpenTrnError
from opentrn.nki.arrays import Spec
from opentrn.nki.kernel import Kernel

__all__ = ["KernelTime", "time_kernel"]


@dataclass(frozen=True)
class KernelTime:
    """What one call costs on one core: time of its instructions, flops of its matmuls, HBM traffic."""

    span_us: float
    flops: int
    hbm_bytes: int


_known: dict[Any, KernelTime] = {}


def time_kernel(kernel: Kernel, *args: Any, chip: str) -> KernelTime:
    """Time ``kernel(*args)`` on ``chip``; arrays are given as :class:`~opentrn.nki.arrays.Spec`, no memory is taken
    for them.

    Raises:
        OpenTrnError: the kernel is not legal for these shapes (the error of the launch).
    """
    key = (kernel.function.__module__, kernel.function.__qualname__, kernel.grid, _key(args), chip)
    known = _known.get(key)
    if known is None:
        known = _known[key] = _time(kernel, args, chip)
    return known


def _time(kernel: Kernel, args: tuple[Any, ...], chip: str) -> KernelTime:
    from opentrn import timing
    from opentrn.nki import launch

    with launch.session(chip=chip, execute=False, record=True) as session:
        kernel(*args)
    if len(session.launches) != 1:
        raise OpenTrnError(
            f"{kernel!r} made {len(session.launches)} launches where one was to be timed; pass a kernel, not a function"
        )
    timeline = timing.schedule(session.launches[0].programs)
    return KernelTime(timeline.span_us, timeline.total_flops, timeline.hbm_bytes)


def _key(value: Any) -> Any:
    if isinstance(value, Spec):
        return ("array", value.shape, str(value.dtype))
    if isinstance(value, (list, tuple)):
        return tuple(_key(v) for v in value)
    return value
