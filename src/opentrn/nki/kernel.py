"""``nki.jit`` and ``nki.simulate``: what turns a Python function into a kernel that can be launched."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from opentrn.errors import ValidationError
from opentrn.neuroncore import machine
from opentrn.neuroncore.source import caller
from opentrn.nki import launch

__all__ = ["Kernel", "cpu_simulate", "jit", "simulate"]


class Kernel:
    """A kernel: call it with arrays to run it, index it with a grid or an LNC degree first to launch that many
    programs.

    Arrays may be NumPy, torch or JAX; results come back as the same kind. A kernel called from inside another is
    inlined.
    """

    def __init__(self, function: Callable[..., Any], grid: tuple[int, ...] = (), **options: Any) -> None:
        self.function = function
        self.grid = grid
        self.options = options
        functools.update_wrapper(self, function)

    def __getitem__(self, grid: Any) -> Kernel:
        """The kernel launched on ``grid``: an LNC degree or a tuple of sizes."""
        sizes = grid if isinstance(grid, tuple) else (grid,)
        return Kernel(self.function, tuple(launch.grid_size(s) for s in sizes), **self.options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if machine.state.core is not None and launch.is_running():
            return self.function(*args, **kwargs)
        try:
            bound = inspect.signature(self.function).bind(*args, **kwargs)
        except TypeError as error:
            raise ValidationError(f"kernel {self.function.__name__}: {error}", caller()) from None
        return launch.run(self.function, bound, self.grid, self.options)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        grid = f"[{', '.join(map(str, self.grid))}]" if self.grid else ""
        return f"<nki kernel {self.function.__qualname__}{grid}>"


def jit(fn: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Decorator: make ``fn`` a kernel. Usable bare or with compiler options, which are recorded and otherwise
    ignored."""
    if fn is None:
        return lambda function: jit(function, **kwargs)
    if isinstance(fn, Kernel):
        return Kernel(fn.function, fn.grid, **{**fn.options, **kwargs})
    return Kernel(fn, **kwargs)


def simulate(kernel: Any) -> Kernel:
    """A callable that runs ``kernel`` (a kernel or a plain function) on the simulated core."""
    return kernel if isinstance(kernel, Kernel) else jit(kernel)


cpu_simulate = simulate
