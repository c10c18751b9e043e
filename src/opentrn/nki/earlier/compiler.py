"""``nki.compiler`` of the earlier API: allocators, and directives that only a compiler acts on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from opentrn.nki.earlier.allocation import psum, sbuf

__all__ = [
    "enable_stack_allocator",
    "force_auto_alloc",
    "multi_buffer",
    "no_reorder",
    "psum",
    "sbuf",
    "skip_middle_end_transformations",
]


def _directive(name: str, doc: str) -> Any:
    def decorate(func: Any = None, **_: Any) -> Any:
        return func if func is not None else (lambda f: f)

    decorate.__name__ = decorate.__qualname__ = name
    decorate.__doc__ = doc
    return decorate


def skip_middle_end_transformations(func: Any = None, **_: Any) -> Any:
    """Decorator: leave the kernel as written. The timing model then moves and hoists nothing."""
    if func is None:
        return skip_middle_end_transformations
    options = getattr(func, "options", None)
    if options is not None:
        options["as_written"] = True
    else:
        func.as_written = True
    return func


enable_stack_allocator = _directive(
    "enable_stack_allocator", "Decorator: choose the stack allocator; tiles are placed by live range here."
)
force_auto_alloc = _directive(
    "force_auto_alloc", "Decorator: ignore the kernel's own placement; recorded and without effect."
)


def multi_buffer(tensor: Any, *_: Any, **__: Any) -> Any:
    """Ask for several copies of a tile; each iteration's tile is one of its own here."""
    return tensor


@contextlib.contextmanager
def no_reorder() -> Iterator[None]:
    """Keep the instructions of the block in order."""
    from opentrn.neuroncore import machine
    from opentrn.nki.earlier.operands import flush

    flush()
    core = machine.current()
    if core.recorder is not None:
        core.recorder.mark(core.count, "no_reorder_begin")
    try:
        yield
    finally:
        flush()
        if core.recorder is not None:
            core.recorder.mark(core.count, "no_reorder_end")
