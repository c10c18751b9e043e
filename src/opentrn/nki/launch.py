"""Launching a kernel: arrays in, one or more cores driven through the function, arrays out.

What a launch computes (values, a Program, or both) is set by whoever runs the program, through :func:`session`;
the profiler and the estimator use that, kernels never see it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from opentrn import hardware
from opentrn.errors import ValidationError
from opentrn.neuroncore import capacity, machine
from opentrn.neuroncore.cores import CoreGroup
from opentrn.neuroncore.machine import Core
from opentrn.neuroncore.program import Program, Recorder, finish
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki import arrays

__all__ = ["Launch", "Session", "grid_size", "is_running", "run", "session", "set_default"]


@dataclass
class Launch:
    """One launch of a kernel that a session watched.

    ``programs`` holds the instruction stream of each physical core; ``error`` what stopped the kernel half-way, if
    anything did.
    """

    name: str
    source: tuple[str, int] | None
    chip: str
    grid: tuple[int, ...]
    programs: list[Program]
    error: BaseException | None = None


@dataclass
class Session:
    """How kernels run while the session is open, and what was launched.

    Attributes:
        chip: chip name, or None for ``NEURON_PLATFORM_TARGET_OVERRIDE`` and then trn3.
        execute: compute values.
        record: collect Programs in ``launches``.
        uninitialized: ``"error"``, ``"warn"`` or ``"ignore"``: what a use of memory never written does.
        assume: value of registers that a run without values would load, or a function of where one is loaded from
            (text) to it; None stops at the first loop or address that needs one.
        communicator: connects the kernel's collectives with other ranks (``neuroncore.isa.collectives.Communicator``).
        on_launch: called with every finished Launch.
    """

    chip: str | None = None
    execute: bool = True
    record: bool = False
    uninitialized: str = "error"
    launches: list[Launch] = field(default_factory=list)
    on_launch: Callable[[Launch], None] | None = None
    assume: int | Callable[[str], int | None] | None = None
    communicator: Any = None


_sessions: list[Session] = [Session(uninitialized=os.environ.get("OPENTRN_UNINITIALIZED", "error"))]
_running = threading.local()


@contextlib.contextmanager
def session(**settings: Any) -> Iterator[Session]:
    """Run the kernels launched inside the block as ``settings`` (fields of :class:`Session`) say."""
    opened = Session(**{"uninitialized": _sessions[0].uninitialized, **settings})
    _sessions.append(opened)
    try:
        yield opened
    finally:
        _sessions.remove(opened)


def set_default(**settings: Any) -> None:
    """Change how kernels run outside every session (fields of :class:`Session`)."""
    for name, value in settings.items():
        setattr(_sessions[0], name, value)


def current_session() -> Session:
    """The innermost open session."""
    return _sessions[-1]


def is_running() -> bool:
    """Whether this thread is inside a kernel."""
    return getattr(_running, "depth", 0) > 0


def grid_size(size: Any) -> int:
    """Programs along one axis of a launch grid."""
    try:
        count = int(size)
    except (TypeError, ValueError):
        raise ValidationError(
            f"{size!r} is not a grid size; launch as kernel[2](...) or kernel[8, 4](...)", caller()
        ) from None
    if count < 1:
        raise ValidationError(f"a grid axis of {count} programs; it needs at least one", caller())
    return count


def run(
    function: Callable[..., Any], bound: inspect.BoundArguments, grid: tuple[int, ...], options: dict[str, Any]
) -> Any:
    """Run ``function`` once a program of the grid and return its results as the caller's kind of array."""
    settings = current_session()
    chip = settings.chip or options.get("platform_target") or machine.default_chip()
    core_record = hardware.chip(chip).core
    # One program, or the physical cores of one logical core, run side by side; larger grids one program after another.
    cores_together = grid[0] if len(grid) == 1 and grid[0] == 2 and not options.get("spmd_sequential") else 1
    converter = arrays.Converter(core_record, execute=settings.execute, shared=cores_together > 1)
    call_args = converter.arguments(bound)
    record = Launch(function.__name__, _defined_at(function), chip, grid, [])
    ids = list(itertools.product(*(range(n) for n in grid))) or [()]
    group = CoreGroup(cores_together, converter.allocations)
    result: Any = None
    cores: list[Core] = []
    try:
        if cores_together > 1:
            cores = [_core(core_record, settings, i, grid, group, n) for n, i in enumerate(ids)]
            result = group.run([_body(core, function, call_args) for core in cores])[0]
        else:
            for program_id in ids:
                core = _core(core_record, settings, program_id, grid, group if len(ids) > 1 else None, 0)
                group.restart()
                cores.append(core)
                result = _body(core, function, call_args)()
        if (
            options.get("api") == "nki" or "api" not in options
        ):  # whose compiler splits live ranges, and spills what still does not fit
            for core in cores:
                capacity.check(core)
        return converter.results(result, cores[0])
    except BaseException as error:
        record.error = error
        raise
    finally:
        if settings.record:
            record.programs = [
                finish(
                    c.recorder, c, function.__name__, record.source, converter.allocations, options.get("api", "nki")
                )
                for c in cores
                if c.recorder is not None
            ]
            settings.launches.append(record)
            if settings.on_launch is not None:
                settings.on_launch(record)


def _core(
    record: Any, settings: Session, program_id: tuple[int, ...], grid: tuple[int, ...], group: Any, index: int
) -> Core:
    recorder = Recorder() if settings.record else None
    return Core(
        record, program_id=program_id, grid=grid, execute=settings.execute, recorder=recorder, group=group, index=index,
        uninitialized=settings.uninitialized, assume=settings.assume,
        communicator=settings.communicator,
    )  # fmt: skip


def _body(core: Core, function: Callable[..., Any], bound: inspect.BoundArguments) -> Callable[[], Any]:
    def body() -> Any:
        before = machine.state.core
        machine.state.core = core
        _running.depth = getattr(_running, "depth", 0) + 1
        try:
            with np.errstate(all="ignore"), _single_threaded_blas():
                return function(*bound.args, **bound.kwargs)
        finally:
            machine.state.core = before
            _running.depth -= 1

    return body


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _single_threaded_blas() -> Any:
    """A tile's product takes microseconds; a second BLAS thread gains little, and waiting for one that has no CPU
    costs a
    hundred times the product."""
    return _blas().limit(limits=1, user_api="blas")


def _defined_at(function: Callable[..., Any]) -> tuple[str, int] | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else None


def tensors_in(value: Any) -> Iterator[NkiTensor]:
    """Every tensor inside nested tuples, lists and dictionaries."""
    if isinstance(value, NkiTensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors_in(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_in(entry)
