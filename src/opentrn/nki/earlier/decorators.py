"""``nki.jit`` and its relatives: ``trace``, ``baremetal``, ``simulate_kernel``, ``benchmark`` and ``profile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentrn.errors import ValidationError
from opentrn.neuroncore.source import caller
from opentrn.nki import launch
from opentrn.nki.earlier.benchmarking import Baremetal, Benchmark, Profile
from opentrn.nki.earlier.launching import Kernel

__all__ = ["baremetal", "benchmark", "jit", "nki_jit", "profile", "simulate_kernel", "trace"]

_MODES = {"auto", "jax", "torchxla", "baremetal", "simulation", "trace"}


def _kernel(function: Any, kind: type[Kernel], options: dict[str, Any]) -> Kernel:
    if isinstance(function, Kernel):
        return kind(function.function, function.grid, function.cores, **{**function.options, **options})
    inner = getattr(function, "function", None)
    if inner is not None and not isinstance(function, type):  # a kernel of the current API
        return kind(inner, tuple(getattr(function, "grid", ())), 1, **options)
    if not callable(function):
        raise ValidationError(f"{function!r} is not a kernel; decorate a function", caller())
    return kind(function, (), 1, **options)


def _decorator(name: str, kind: type[Kernel], doc: str) -> Callable[..., Any]:
    def decorate(func: Any = None, **options: Any) -> Any:
        func = options.pop("kernel", func)
        if func is None:
            return lambda function: _kernel(function, kind, options)
        return _kernel(func, kind, options)

    decorate.__name__ = decorate.__qualname__ = name
    decorate.__doc__ = doc
    return decorate


def jit(func: Any = None, mode: str = "auto", **options: Any) -> Any:
    """Decorator: make a function a kernel.

    All modes but ``benchmark`` and ``profile`` run it and return its results.
    """
    if mode == "benchmark":
        return benchmark(func, **options)
    if mode == "profile":
        return profile(func, **options)
    if mode not in _MODES:
        raise ValidationError(
            f"nki.jit(mode={mode!r}): the modes are {', '.join(sorted(_MODES | {'benchmark', 'profile'}))}", caller()
        )
    if mode == "simulation":
        options["simulation"] = True
    if func is None:
        return lambda function: _kernel(function, Kernel, options)
    return _kernel(func, Kernel, options)


trace = _decorator(
    "trace", Kernel, "Decorator: make a function a kernel, for nki.simulate_kernel or a launch from a framework."
)
nki_jit = _decorator("nki_jit", Kernel, "Decorator: make a function a kernel for PyTorch tensors.")
baremetal = _decorator(
    "baremetal", Baremetal, "Run a kernel and return its results, with a schedule in the files asked for."
)
benchmark = _decorator(
    "benchmark", Benchmark, "Time a kernel: ``benchmark_result`` holds the latencies after the call."
)
profile = _decorator("profile", Profile, "Run a kernel and write a profile of it.")


def simulate_kernel(kernel: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a kernel (or a plain function) and return its results."""
    chosen = _kernel(kernel, Kernel, {"simulation": True})
    if launch.is_running():  # a function under nki.benchmark that simulates its kernel
        return chosen(*args, **kwargs)
    return chosen.run(args, kwargs)
