"""Time by source line: which statement of the kernel the engines worked for, and which the kernel waited for."""

from __future__ import annotations

import linecache
from dataclasses import dataclass

import numpy as np

from opentrn.profiling.path import CriticalPath
from opentrn.timing import ENGINES, Timeline

__all__ = ["LineTime", "by_line"]


@dataclass(frozen=True)
class LineTime:
    """What one line of source cost.

    Attributes:
        file, line, text: where, and what stands there.
        instructions: names of the instructions that it issues.
        count: how many were issued.
        busy_us: busy time by engine.
        critical_us: time on the critical path.
        hbm_bytes: HBM traffic.
    """

    file: str
    line: int
    text: str
    instructions: tuple[str, ...]
    count: int
    busy_us: dict[str, float]
    critical_us: float
    hbm_bytes: int

    @property
    def engine(self) -> str:
        """Engine that worked most for it."""
        return max(self.busy_us, key=lambda name: self.busy_us[name], default="")


def by_line(timeline: Timeline, path: CriticalPath) -> list[LineTime]:
    """Every line that issued instructions, the most critical first."""
    critical = np.zeros(len(timeline))
    np.add.at(critical, path.rows, path.work_ns)
    merged: dict[tuple[str, int], list] = {}
    for c, program in enumerate(timeline.programs):
        rows = slice(int(timeline.offsets[c]), int(timeline.offsets[c + 1]))
        num_sites = len(program.sites)
        if not num_sites:
            continue
        site = program.site
        counts = np.bincount(site, minlength=num_sites)
        crit = np.bincount(site, critical[rows], num_sites)
        traffic = np.bincount(site, (timeline.read_bytes + timeline.written_bytes)[rows], num_sites)
        pair = np.bincount(
            site.astype(np.int64) * len(ENGINES) + timeline.engine[rows],
            timeline.busy_ns[rows],
            num_sites * len(ENGINES),
        ).reshape(num_sites, len(ENGINES))
        names: dict[int, set[str]] = {}
        for s, p in np.unique(np.stack([site, program.plan]), axis=1).T.tolist():
            names.setdefault(s, set()).add(program.plans[p].instruction.name)
        for s in range(num_sites):
            if not counts[s]:
                continue
            key = program.line(s) or ("?", 0)
            entry = merged.setdefault(key, [set(), 0, np.zeros(len(ENGINES)), 0.0, 0.0])
            entry[0] |= names.get(s, set())
            entry[1] += int(counts[s])
            entry[2] += pair[s]
            entry[3] += crit[s]
            entry[4] += traffic[s]
    result = [
        LineTime(
            file, line, linecache.getline(file, line).strip(), tuple(sorted(names)), count,
            {ENGINES[k]: float(v) / 1e3 for k, v in enumerate(busy) if v > 0}, float(crit) / 1e3, int(traffic),
        )
        for (file, line), (names, count, busy, crit, traffic) in merged.items()
    ]  # fmt: skip
    result.sort(key=lambda entry: (-entry.critical_us, entry.file, entry.line))
    return result
