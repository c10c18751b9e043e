"""Loops of ``nki.language``: unrolled ranges, and loops whose bounds are registers.

A loop of the hardware is carried out here iteration by iteration, so the recorded program holds what the core would
execute. Its induction variable is a register, as on the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from opentrn.errors import ValidationError
from opentrn.neuroncore import machine
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller

__all__ = [
    "affine_range", "dynamic_range", "fori_loop", "no_reorder", "sequential_range", "static_range", "while_loop",
]  # fmt: skip


def _bound(value: Any, name: str) -> int:
    """A compile-time integer bound."""
    if isinstance(value, VirtualRegister):
        raise ValidationError(
            f"{name} is a register, and this loop is unrolled before the kernel runs; use nl.dynamic_range or "
            "nl.fori_loop",
            caller(),
        )
    try:
        return value.__index__()
    except (AttributeError, TypeError):
        raise ValidationError(f"{name} is {value!r}; a loop bound is an integer", caller()) from None


def _static(start: Any, stop: Any, step: Any) -> range:
    if stop is None:
        start, stop = 0, start
    step = _bound(step, "step")
    if step == 0:
        raise ValidationError("step is 0; a loop needs a step to move on", caller())
    return range(_bound(start, "start"), _bound(stop, "stop"), step)


def static_range(start: Any, stop: Any = None, step: int = 1) -> range:
    """Integers from ``start`` (0) to ``stop`` (exclusive) for a loop that is fully unrolled; like ``range``."""
    return _static(start, stop, step)


def affine_range(start: Any, stop: Any = None, step: int = 1) -> range:
    """The same as :func:`static_range`; earlier releases promised by it that iterations are independent."""
    return _static(start, stop, step)


def sequential_range(start: Any, stop: Any = None, step: int = 1) -> range:
    """The same as :func:`static_range`; earlier releases promised by it that iterations depend on each other."""
    return _static(start, stop, step)


def _dynamic_bound(value: Any, name: str) -> int:
    if isinstance(value, VirtualRegister):
        return value.read()
    return _bound(value, name)


def _positive_step(step: Any) -> int:
    if isinstance(step, VirtualRegister):
        raise ValidationError(
            "step is a register; the loop instruction holds its step, pass a positive integer", caller()
        )
    step = _bound(step, "step")
    if step < 1:
        raise ValidationError(f"step is {step}; the step of a loop on the device is a positive integer", caller())
    return step


def _refuse_in_no_reorder(what: str) -> None:
    core = machine.state.core
    if core is not None and core.no_reorder_depth:
        raise ValidationError(
            f"{what} inside nl.no_reorder(); the order of a loop on the device cannot be fixed from outside, put the "
            "no_reorder block into the loop body",
            caller(),
        )


def _iterations(start: int, stop: int, step: int) -> Iterator[VirtualRegister]:
    """The induction register of each iteration, between the marks of the loop."""
    core = machine.current()
    core.mark("loop_begin", (start, stop, step))
    outside = core.loops
    core.loops = (*outside, object())
    try:
        for value in range(start, stop, step):
            yield VirtualRegister(value, frozen=True)
    finally:
        core.loops = outside
        core.mark("loop_end")


def dynamic_range(start: Any, stop: Any = None, step: int = 1) -> Iterator[VirtualRegister]:
    """A loop that the core's sequencers run: bounds may be registers, the induction variable is one.

    ``step`` is a positive compile-time integer. Bounds are read once, when the loop starts.

    Raises:
        ValidationError: a malformed bound or step, or use inside :func:`no_reorder`.
    """
    _refuse_in_no_reorder("nl.dynamic_range")
    step = _positive_step(step)
    if stop is None:
        start, stop = 0, start
    return _iterations(_dynamic_bound(start, "start"), _dynamic_bound(stop, "stop"), step)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[VirtualRegister], Any], step: int = 1) -> None:
    """Call ``body_fun(i)`` for i from ``lower`` to ``upper`` (exclusive); ``i`` is a register, passed by value."""
    _refuse_in_no_reorder("nl.fori_loop")
    step = _positive_step(step)
    for i in _iterations(_dynamic_bound(lower, "lower"), _dynamic_bound(upper, "upper"), step):
        i.frozen = False  # a copy: writing to it does not steer the loop
        body_fun(i)


def while_loop(init: VirtualRegister, body_fun: Callable[[VirtualRegister], VirtualRegister]) -> None:
    """While the condition register is not zero, call ``body_fun`` with it; what the body returns is the next
    condition."""
    _refuse_in_no_reorder("nl.while_loop")
    condition = init
    if not isinstance(condition, VirtualRegister):
        raise ValidationError(f"init is {condition!r}; the condition is a register from nisa.register_alloc", caller())
    core = machine.current()
    core.mark("loop_begin", None)
    outside = core.loops
    core.loops = (*outside, object())
    try:
        while condition.read() != 0:
            copy = VirtualRegister()
            copy.copy(condition)
            condition = body_fun(copy)
            if not isinstance(condition, VirtualRegister):
                raise ValidationError(
                    f"the body of nl.while_loop returned {condition!r}; it returns the register with the next "
                    "condition",
                    caller(),
                )
    finally:
        core.loops = outside
        core.mark("loop_end")


@contextlib.contextmanager
def no_reorder() -> Iterator[None]:
    """Instructions inside the block run in program order."""
    core = machine.current()
    core.mark("no_reorder_begin")
    core.no_reorder_depth += 1
    try:
        yield
    finally:
        core.no_reorder_depth -= 1
        core.mark("no_reorder_end")
