"""Programs of our own behind the measured rows: the same algorithm, shapes and types as the kernel that was measured.

Each module registers builders: a function of the row's parameters that returns a kernel and the specifications of its
arguments. Loads stand where the measured kernel has them, because what its compiler makes of that is part of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["BUILDERS", "builder", "build"]

BUILDERS: dict[str, Callable[..., tuple[Callable[..., Any], tuple[Any, ...]]]] = {}


def builder(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``function`` available to the table of rows under its name."""
    BUILDERS[function.__name__] = function
    return function


def build(name: str, parameters: dict[str, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The kernel and argument specifications of a row."""
    from opentrn.validation.programs import (  # noqa: F401  (they register their builders)
        attention,
        convolution,
        elementwise,
        matmul,
        mlp,
        norms,
        scan,
        single,
    )

    return BUILDERS[name](**parameters)
