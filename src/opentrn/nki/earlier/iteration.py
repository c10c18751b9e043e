"""Loops, the launch grid, and reductions over them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from opentrn.neuroncore import machine
from opentrn.neuroncore.memory import EMPTY, FULL
from opentrn.neuroncore.source import is_ours
from opentrn.nki.earlier.allocation import tape
from opentrn.nki.earlier.bytecode import stored_in
from opentrn.nki.earlier.indices import Index, as_int
from opentrn.nki.earlier.operands import Deferred, Tile, dtype_of, fail, flush, region_of, tile_of

__all__ = [
    "NeuronCores",
    "affine_range",
    "loop_reduce",
    "nc",
    "num_programs",
    "program_id",
    "program_ndim",
    "sequential_range",
    "spmd_dim",
    "static_range",
]


def _range(name: str, args: tuple) -> range:
    numbers = []
    for a in args:
        n = as_int(a)
        if n is None and isinstance(a, Index) and not a.varies():
            n = a.const
        if n is None:
            raise fail(f"nl.{name}{args!r}: loop bounds are integers known when the kernel is traced")
        numbers.append(n)
    if not 1 <= len(numbers) <= 3:
        raise fail(f"nl.{name} takes stop, or start and stop, or start, stop and step")
    return range(*numbers)


class Loop:
    """A loop that the compiler traces once: where tiles are placed in its body is decided in the first iteration."""

    def __init__(self, indices: range) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[int]:
        start = tape.position
        for index in self.indices:
            tape.position = start
            yield index

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return repr(self.indices)


def affine_range(*args: Any, **_: Any) -> Loop:
    """A loop whose iterations may run in any order or at once."""
    return Loop(_range("affine_range", args))


def sequential_range(*args: Any, **_: Any) -> Loop:
    """A loop whose iterations depend on each other."""
    return Loop(_range("sequential_range", args))


def static_range(*args: Any, **_: Any) -> range:
    """A loop that is unrolled."""
    return _range("static_range", args)


class NeuronCores:
    """Part of a launch grid that is spread over physical cores: ``nl.nc(2)``, ``nl.nc(2) * 2``."""

    def __init__(self, cores: int, programs: int = 1) -> None:
        self.cores = cores
        self.programs = programs

    def __mul__(self, other: Any) -> NeuronCores:
        return NeuronCores(self.cores, self.programs * int(other))

    __rmul__ = __mul__

    def __int__(self) -> int:
        return self.cores * self.programs

    def __repr__(self) -> str:
        return f"nl.nc({self.cores})" + (f" * {self.programs}" if self.programs != 1 else "")


def nc(cores: int) -> NeuronCores:
    """A grid dimension over ``cores`` physical NeuronCores of a logical one."""
    return NeuronCores(int(cores))


def spmd_dim(*dims: Any) -> NeuronCores:
    """A grid dimension made of several, at most one of them physical cores."""
    cores, programs = 1, 1
    for d in dims:
        if isinstance(d, NeuronCores):
            cores *= d.cores
            programs *= d.programs
        else:
            programs *= int(d)
    return NeuronCores(cores, programs)


def program_id(axis: int) -> int:
    """Coordinate of the running program along an axis of the launch grid."""
    core = machine.current()
    at = as_int(axis)
    if not core.program_id and at == 0:
        return 0
    if at is None or not 0 <= at < len(core.program_id):
        raise fail(
            f"nl.program_id({axis}): the kernel was launched on a grid of {len(core.program_id)} dimensions; "
            "launch it as kernel[n, m](...)"
        )
    return core.program_id[at]


def num_programs(axes: Any = None) -> int:
    """Programs along an axis, several axes or (None) the whole grid."""
    grid = machine.current().grid
    chosen = range(len(grid)) if axes is None else axes if isinstance(axes, (tuple, list)) else (axes,)
    count = 1
    for a in chosen:
        if not grid and a == 0:
            continue
        if not 0 <= a < len(grid):
            raise fail(f"nl.num_programs({axes}): the kernel was launched on a grid of {len(grid)} dimensions")
        count *= grid[a]
    return count


def program_ndim() -> int:
    """Dimensions of the launch grid."""
    return len(machine.current().grid)


def loop_reduce(x: Any, op: Any, loop_indices: Any = None, *, dtype: Any = None, mask: Any = None, **_: Any) -> Tile:
    """Reduce ``x`` over a loop: the tile that the result is assigned to is the other operand of ``op``."""
    from opentrn.nki.earlier import isa
    from opentrn.nki.earlier.movement import assign, copy

    flush()
    tile = tile_of(x, "the operand of nl.loop_reduce")
    kind = dtype_of(dtype, tile.dtype)
    tile.nki  # noqa: B018  (computed before the name it is assigned to is looked up)
    frame = sys._getframe(1)
    while is_ours(frame.f_code) and frame.f_back is not None:
        frame = frame.f_back
    before = stored_in(frame)

    def into(target: Tile) -> None:
        if region_of(mask, tile.shape, tile) is False:
            return
        flush()
        if _never_written(target):  # the first iteration starts the reduction
            assign(target, copy(tile, dtype=target.dtype, mask=mask))
        else:
            assign(target, isa.tensor_tensor(target, tile, op, dtype=target.dtype, mask=mask))
        flush()

    if type(before) is Tile and before.shape == tile.shape:
        into(before)
        return before
    result = Deferred(
        tile.shape,
        kind,
        lambda dst: _copied(dst, tile),
        par=tile.par,
        region=region_of(mask, tile.shape, tile),
        reduces=into,
    )
    return result.defer()


def _never_written(tile: Tile) -> bool:
    """Whether nothing has been written to any element of a view (values are not tracked when none are computed)."""
    view = tile.access
    if view is None or view.storage.state == FULL or tile.psum is not None and tile.psum.zero:
        return False
    return view.storage.state == EMPTY or not view.mask_array().any()


def _copied(dst: Any, tile: Tile) -> None:
    from opentrn.neuroncore import isa

    isa.tensor_copy(dst, tile.nki)


def all_reduce(x: Any, op: Any, program_axes: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Tile:
    """Reduce ``x`` over the programs of the launch grid."""
    from opentrn.errors import UnsupportedError

    if num_programs(program_axes if isinstance(program_axes, (tuple, list)) else (program_axes,)) == 1:
        return tile_of(x)
    raise UnsupportedError(
        "nl.all_reduce over several programs of a launch grid is not supported: programs run one after the other here; "
        "write each program's part to HBM and reduce it in a second kernel"
    )
