"""What stands between a kernel's instructions and the chip: nothing for the current interface, a compiler for the
earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opentrn.neuroncore.program import Program
from opentrn.timing import blocks, fences, hoisting

__all__ = ["Compiled", "compile_earlier", "unchanged"]


@dataclass(frozen=True)
class Compiled:
    """A program as the scheduler takes it.

    Attributes:
        program: the same instructions, their tensors perhaps others.
        dropped: instructions that the compiler leaves out.
        origin: for each tensor, bytes at which it begins in the array that its offsets count from.
        order: (earlier, later) instructions kept in order.
    """

    program: Program
    dropped: np.ndarray
    origin: np.ndarray
    order: list[tuple[int, int]]


def unchanged(program: Program) -> Compiled:
    """The program as it is."""
    return Compiled(
        program, np.zeros(len(program), dtype=np.bool_), np.zeros(max(len(program.allocations), 1), np.int64), []
    )


def compile_earlier(program: Program) -> Compiled:
    """The program after the passes of the earlier interface's compiler that decide its time."""
    order = fences.loop_order(program)
    split, origin = blocks.split_tiles(program)
    hoisted, dropped = hoisting.hoist_loads(split)
    return Compiled(hoisted, dropped, origin, [(a, b) for a, b in order if not dropped[b]])
