"""Launching kernels of the earlier API: arrays become tiles, and what is still deferred at the end is carried out."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn import hardware
from opentrn.errors import ValidationError
from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki import launch
from opentrn.nki.earlier.allocation import tape
from opentrn.nki.earlier.blocks import Blocks
from opentrn.nki.earlier.deferral import flush, forget
from opentrn.nki.earlier.iteration import NeuronCores
from opentrn.nki.earlier.tiles import Tile

__all__ = ["DEFAULT_CHIP", "Kernel", "hardware_of_kernels", "printable"]

DEFAULT_CHIP = "trn2"
"""The newest chip that the earlier API was released for."""


def _chip(options: dict[str, Any]) -> str:
    return (
        launch.current_session().chip
        or options.get("platform_target")
        or os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE")
        or DEFAULT_CHIP
    )


def hardware_of_kernels() -> Any:
    """The core that a kernel runs on, also while a module that asks for it is imported."""
    core = machine.state.core
    return core.hardware if core is not None else hardware.chip(_chip({})).core


def _to_tiles(value: Any) -> Any:
    if isinstance(value, NkiTensor):
        return Tile(value)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_to_tiles(v) for v in value)
    if isinstance(value, dict):
        return {k: _to_tiles(v) for k, v in value.items()}
    return value


def _from_tiles(value: Any, simulation: bool) -> Any:
    if type(value) is Tile:
        view = value.nki
        if simulation and view.layout.on_chip:  # the simulator hands out tiles, the device does not
            out = machine.current().allocate(view.layout.shape, view.layout.dtype, MemoryRegion.private_hbm)
            isa.dma_copy(out, view)
            return out
        return view
    if isinstance(value, Blocks):
        raise ValidationError(
            f"the kernel returns {value!r}; store it to an nl.shared_hbm tensor and return that", caller()
        )
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_from_tiles(v, simulation) for v in value)
    if isinstance(value, dict):
        return {k: _from_tiles(v, simulation) for k, v in value.items()}
    return value


def _grid_size(size: Any) -> int:
    # Published kernels launch on [0] and mean one program.
    return 1 if isinstance(size, int) and size == 0 else launch.grid_size(size)


def _interface(kernel: Kernel) -> str:
    """Whether the compiler may rearrange the kernel: ``"earlier"``, or ``"as-written"`` where it was told not to."""
    as_written = kernel.options.get("as_written") or getattr(kernel.function, "as_written", False)
    return "as-written" if as_written else "earlier"


class Kernel:
    """A kernel of the earlier API: call it with arrays, or index it with a launch grid first.

    Arrays may be NumPy, torch or JAX; results come back as the same kind, and what the kernel stores into an argument
    changes the caller's array.
    """

    def __init__(
        self, function: Callable[..., Any], grid: tuple[int, ...] = (), cores: int = 1, **options: Any
    ) -> None:
        self.function = function
        self.grid = grid
        self.cores = cores
        self.options = options
        functools.update_wrapper(self, function)

    def __getitem__(self, grid: Any) -> Kernel:
        sizes = grid if isinstance(grid, tuple) else (grid,)
        cores = 1
        for s in sizes:
            if isinstance(s, NeuronCores):
                cores *= s.cores
        return type(self)(self.function, tuple(_grid_size(s) for s in sizes), cores, **self.options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if launch.is_running():
            return self.function(*args, **kwargs)
        return self.run(args, kwargs)

    def run(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Launch with these arguments."""
        function = self.function
        try:
            bound = inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            raise ValidationError(f"kernel {function.__name__}: {error}", caller()) from None

        @functools.wraps(function)
        def body(*a: Any, **k: Any) -> Any:
            forget()
            tape.rewind()
            try:
                result = function(*_to_tiles(a), **_to_tiles(k))
                flush()
                return _from_tiles(result, bool(self.options.get("simulation")))
            finally:
                forget()

        options = {**self.options, "platform_target": _chip(self.options), "api": _interface(self)}
        if not (self.cores > 1 and len(self.grid) == 1 and self.grid[0] == self.cores):
            options["spmd_sequential"] = True
        return launch.run(body, bound, self.grid, options)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        grid = f"[{', '.join(map(str, self.grid))}]" if self.grid else ""
        return f"<nki kernel {self.function.__qualname__}{grid}>"


def printable(view: NkiTensor, par: int) -> np.ndarray:
    """The values of a view in the order of axes that the kernel sees."""
    array = view.array()
    return np.moveaxis(np.array(array), 0, par) if par else np.array(array)
