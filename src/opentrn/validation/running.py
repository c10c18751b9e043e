"""Running the rows: trace the program without values, schedule it, and compare with what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from opentrn.validation.rows import KernelRow, MicroRow

__all__ = ["Outcome", "order_pairs", "run_kernels", "run_micro", "timeline_of"]


@dataclass(frozen=True)
class Outcome:
    """A row and what the model says: ``error`` is simulated over measured, less one."""

    row: Any
    measured: float
    simulated: float

    @property
    def error(self) -> float:
        return self.simulated / self.measured - 1.0


def timeline_of(program: str, parameters: dict[str, Any], chip: str, api: str = "nki") -> Any:
    """The Timeline of one program of ours."""
    from opentrn import nki
    from opentrn.nki.launch import session
    from opentrn.timing import schedule
    from opentrn.validation.programs import build

    kernel, arguments = build(program, parameters)
    with session(chip=chip, execute=False, record=True) as opened:
        nki.jit(kernel, api=api)(*arguments)
    return schedule(opened.launches[0].programs)


def run_kernels(rows: Iterable[KernelRow], progress: Callable[[], None] | None = None) -> list[Outcome]:
    """Outcomes of all rows that have a program; a program shared by rows runs once."""
    known: dict[tuple, float] = {}
    outcomes = []
    for row in rows:
        if row.program:
            total = 0.0
            for name in row.program.split("+"):
                key = (name, tuple(row.parameters.items()), row.chip, row.api, row.statistic)
                if key not in known:
                    timeline = timeline_of(name, row.parameters, row.chip, row.api)
                    known[key] = timeline.profile_total_us if row.statistic == "profile" else timeline.latency_us
                total += known[key]
            outcomes.append(Outcome(row, row.measured_us, total))
        if progress is not None:
            progress()
    return outcomes


def run_micro(rows: Iterable[MicroRow]) -> list[Outcome]:
    """Outcomes of single instructions: the last few of a run of them, after the start has settled."""
    outcomes = []
    for row in rows:
        timeline = timeline_of(row.program, row.parameters, row.chip)
        start, end = timeline.start_ns, timeline.end_ns
        if row.quantity == "interval":
            value = float(np.median(np.diff(start)[-4:]))
        elif row.program == "transfers":
            value = float(end[0] - start[0])
        else:
            value = float((end - start)[-1])
        outcomes.append(Outcome(row, row.measured_ns, value))
    return outcomes


def order_pairs(outcomes: list[Outcome], least: float = 0.02) -> tuple[int, int]:
    """(pairs in the measured order, all pairs) of versions of a kernel: same source and sizes, times ``least``
    apart.
    """
    groups: dict[tuple, list[Outcome]] = {}
    for outcome in outcomes:
        row = outcome.row
        sizes = {k: v for k, v in row.parameters.items() if k not in ("chunk", "free", "pool")}
        family = row.source.split(":")[0], row.chip, row.statistic, tuple(sorted(sizes.items())), _problem(row.program)
        groups.setdefault(family, []).append(outcome)
    kept = total = 0
    for group in groups.values():
        for n, a in enumerate(group):
            for b in group[n + 1 :]:
                if (a.row.program, a.row.parameters) == (b.row.program, b.row.parameters):
                    continue
                if abs(a.measured / b.measured - 1) < least:
                    continue
                total += 1
                kept += (a.measured < b.measured) == (a.simulated < b.simulated)
    return kept, total


def _problem(program: str) -> str:
    """What a program computes, whichever way: versions of one kernel share it."""
    return program.split("_")[0]
