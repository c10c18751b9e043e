"""Where a program stands in its launch grid, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import indirection, machine, undefined
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["device_print", "num_programs", "program_id", "program_ndim"]


def program_ndim() -> int:
    """Axes of the launch grid; 0 without a grid."""
    return len(machine.current().grid)


def program_id(axis: int = 0) -> int:
    """Index of this program along an axis of the launch grid; 0 without a grid."""
    core = machine.current()
    return core.program_id[_axis(axis, core.grid)] if core.grid else 0


def num_programs(axes: int | Sequence[int] | None = 0) -> int:
    """Programs along one axis, several axes, or (None) the whole launch grid; 1 without a grid."""
    grid = machine.current().grid
    if not grid:
        return 1
    chosen = range(len(grid)) if axes is None else [axes] if isinstance(axes, int) else axes
    count = 1
    for axis in chosen:
        count *= grid[_axis(axis, grid)]
    return count


def _axis(axis: Any, grid: tuple[int, ...]) -> int:
    if not isinstance(axis, int) or not -len(grid) <= axis < len(grid):
        raise ValidationError(f"axis {axis} of a launch grid with {len(grid)}", caller())
    return axis


def device_print(print_prefix: str, tensor: NkiTensor) -> None:
    """Print a prefix and the values of a tensor in SBUF, PSUM or HBM to stdout; values never written print as NaN (or
    4)."""
    core = machine.current()
    if not core.execute:
        return
    if tensor.indirection is None:
        undefined.defined(tensor)
    values, _ = indirection.read(core, tensor)
    print(print_prefix, np.asarray(values))
