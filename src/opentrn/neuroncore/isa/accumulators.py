"""The accumulator registers of the Vector and Scalar engines: one float32 a lane, kept from instruction to instruction.

``reduce_cmd`` says what an instruction does with them. A lane is a partition of memory, so an accumulation over
partitions 64 to 127 leaves that of partitions 0 to 63 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn.neuroncore import machine
from opentrn.neuroncore.alu import Operator
from opentrn.neuroncore.instruction import Issue, Plan
from opentrn.neuroncore.isa.settings import reduce_cmd
from opentrn.neuroncore.isa.shapes import flat
from opentrn.neuroncore.source import caller

__all__ = ["Registers", "accumulation", "first_lane", "row_reduction", "sum_rows"]


class Registers:
    """The registers of one engine: their values, and which of them hold something known."""

    __slots__ = ("values", "known")

    def __init__(self, num_lanes: int) -> None:
        self.values = np.full(num_lanes, np.nan, np.float32)
        self.known = np.zeros(num_lanes, np.bool_)


def first_lane(plan: Plan, args: tuple) -> tuple:
    """``place`` function of instructions with engine state: notes which lane the first partition of the operand is."""
    machine.current().lane = args[plan.reads[0] if plan.reads else plan.writes[0]].partition_start()
    return args


def sum_rows(values: np.ndarray) -> np.ndarray:
    """Sum of each partition in float32."""
    return np.add.reduce(flat(values), axis=1)


def row_reduction(op: Operator) -> Callable[[np.ndarray], np.ndarray]:
    """A function that reduces each partition with ``op``."""
    if op.name == "add":
        return sum_rows
    if op.name in ("abs_max", "abs_min"):
        choose = np.argmax if op.name == "abs_max" else np.argmin
        return lambda values: _by_magnitude(flat(values), choose)
    assert op.reduction is not None
    reduce = op.reduction.reduce
    return lambda values: reduce(flat(values), axis=1)


def _by_magnitude(values: np.ndarray, choose: Any) -> np.ndarray:
    """The element of extreme magnitude of each row, with its sign; the last of equals, as in a chain of abs_max."""
    last = values.shape[1] - 1 - choose(np.abs(values[:, ::-1]), axis=1)
    return np.take_along_axis(values, last[:, None], axis=1)[:, 0]


def accumulation(i: Issue, engine: str, op: Operator, *, spoils: bool = False) -> Callable[..., Any]:
    """What ``i.reduce_cmd`` asks for, as a function ``update(core, tile, initial)``.

    It returns the registers of the tile's lanes, of which the caller may not change anything, or None where the
    command is idle and nothing is read out. ``spoils`` says that the idle command leaves the registers in an unknown
    state.
    """
    reduce_tile, combine = row_reduction(op), op.function
    identity, attribute, name = np.float32(op.identity), f"{engine}_accumulator", i.instruction.name
    command = i.reduce_cmd
    num_lanes = i.fields[_first_tile(i)].num_partitions
    reads = i.fields.get("reduce_res") is not None

    def update(core: Any, tile: np.ndarray, initial: Any = None) -> np.ndarray | None:
        registers = getattr(core, attribute)
        if registers is None:
            registers = Registers(core.hardware.num_partitions)
            setattr(core, attribute, registers)
        lanes = slice(core.lane, core.lane + num_lanes)
        values, known = registers.values[lanes], registers.known[lanes]
        if command is reduce_cmd.idle:
            if spoils:
                values[...], known[...] = np.nan, False
            return values
        if command is reduce_cmd.reset:
            values[...] = identity
        elif command is reduce_cmd.reset_reduce:
            values[...] = reduce_tile(tile)
        else:
            if command is reduce_cmd.load_reduce:
                values[...] = initial
            elif not known.all():
                _report_unknown(core, engine, lanes, name)
            values[...] = combine(values, reduce_tile(tile))
        known[...] = True
        return values

    def nothing(core: Any, tile: np.ndarray, initial: Any = None) -> None:
        return None

    return nothing if command is reduce_cmd.idle and not reads and not spoils else update


def _first_tile(i: Issue) -> str:
    return next(n for n in i.instruction.operands if n != "dst" and hasattr(i.fields[n], "num_partitions"))


def _report_unknown(core: Any, engine: str, lanes: slice, name: str) -> None:
    core.report_undefined(
        f"{name}: reduce_cmd.reduce goes on from the accumulators of the {engine.capitalize()} engine, lanes "
        f"{lanes.start} to "
        f"{lanes.stop - 1}, which nothing has set; start with reduce_cmd.reset_reduce",
        caller(),
    )
