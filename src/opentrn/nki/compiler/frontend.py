"""``nki.compiler.frontend``: tracing a kernel without running it, under the interface of AWS's compiler front end.

There is no compiler here. :meth:`NKIFrontend.compile` runs the kernel's Python on shapes alone, which makes every
check that a run
makes except those of values, and keeps the recorded instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentrn.nki import launch
from opentrn.nki.kernel import jit

__all__ = ["FrontendResult", "NKIFrontend", "ParserFrontend", "TracerFrontend"]


@dataclass(frozen=True)
class FrontendResult:
    """A traced kernel: ``programs`` holds the instructions of each physical core, ``outputs`` shapes and types."""

    programs: list[Any]
    outputs: Any


class NKIFrontend:
    """Turns a kernel and example arguments into a :class:`FrontendResult`."""

    def compile(
        self, kernel: Callable[..., Any], inputs: Mapping[str, Any], target: str | None = None, lnc: int = 1,
        artifacts_dir: str | None = None, dump_python_ast: bool = False, output_names: Sequence[str] | None = None,
    ) -> FrontendResult:  # fmt: skip
        """Trace ``kernel`` with the named ``inputs`` (arrays count by shape and type) for ``lnc`` cores of ``target``.

        ``artifacts_dir``, ``dump_python_ast`` and ``output_names`` concern files that a compiler would write; there
        are none.
        """
        with launch.session(chip=target, execute=False, record=True) as opened:
            outputs = jit(kernel)[lnc](**inputs)
        return FrontendResult([p for one in opened.launches for p in one.programs], outputs)


class ParserFrontend(NKIFrontend):
    """The front end that AWS's parser provides; the same tracing here."""


class TracerFrontend(NKIFrontend):
    """The front end that AWS's tracer provides; the same tracing here."""
