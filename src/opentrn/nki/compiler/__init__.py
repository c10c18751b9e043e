"""``nki.compiler``: hints to the compiler. Nothing is compiled here, so each leaves the kernel as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["enable_stack_allocator", "force_auto_alloc", "skip_middle_end_transformations"]


def _unchanged(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """The kernel itself; usable bare or with options."""
    return (lambda kernel: kernel) if function is None else function


enable_stack_allocator = _unchanged
force_auto_alloc = _unchanged
skip_middle_end_transformations = _unchanged
