"""Advice: what would make the kernel faster, with the lines to change and the time that is at stake.

Each rule looks at the Timeline for one mechanism that a kernel writer can act on. Savings are upper bounds taken from the
critical path or from a rerun of the schedule; a rule that finds nothing worth at least 2 % of the latency says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from opentrn.profiling.profile import Profile
from opentrn.timing import Cause

__all__ = ["Advice", "advice"]

_WORTH = 0.02


@dataclass(frozen=True)
class Advice:
    """One suggestion.

    Attributes:
        saving_us: at most this much time.
        line: ``file:line`` to change, or "".
        text: what is slow and what to do.
    """

    saving_us: float
    line: str
    text: str


def advice(profile: Profile) -> list[Advice]:
    """Suggestions, the largest saving first."""
    if not len(profile.timeline):
        return []
    found = [
        a
        for rule in (_reloads, _small_transfers, _issue, _clock, _tables, _buffers, _engine_bound, _semaphores)
        for a in rule(profile)
        if a.saving_us >= _WORTH * profile.latency_us
    ]
    return sorted(found, key=lambda a: (-a.saving_us, a.line, a.text))


def _reloads(p: Profile) -> Iterator[Advice]:
    """The same HBM bytes loaded again and again."""
    timeline = p.timeline
    for c, program in enumerate(timeline.programs):
        operands = program.operands
        first = int(timeline.offsets[c])
        loads = np.flatnonzero(timeline.read_bytes[first : first + len(program)] > 0)
        source = operands.start[loads + 1] - 1  # the last operand of a transfer is what it reads
        places = np.stack([program.site[loads], operands.allocation[source], operands.byte_start[source]], axis=1)
        distinct = np.unique(places, axis=0)
        issued = np.bincount(places[:, 0], minlength=len(program.sites))
        different = np.bincount(distinct[:, 0], minlength=len(program.sites))
        critical = {(entry.file, entry.line): entry for entry in p.lines}
        for site in np.flatnonzero(issued >= 2 * np.maximum(different, 1)).tolist():
            total, once = int(issued[site]), int(different[site])
            where = program.line(site)
            entry = critical.get(where) if where else None
            if entry is None:
                continue
            saving = entry.critical_us * (1 - once / total)
            yield Advice(
                saving,
                f"{entry.file}:{entry.line}",
                f"{entry.critical_us:.1f} us on the critical path reloading the same data {total / once:.0f} times "
                f"(`{_shorten(entry.text)}`): hoist the load out of the loop, or block the loop so that a tile is used "
                "more often while it is in SBUF",
            )


def _small_transfers(p: Profile) -> Iterator[Advice]:
    """Transfers whose descriptors are too small for the DMA engines."""
    for entry in p.lines:
        if entry.engine != "dma" or not entry.critical_us:
            continue
        sizes = _descriptor_bytes(p, entry.file, entry.line)
        if not sizes or sizes >= 512:
            continue
        yield Advice(
            entry.critical_us * (1 - sizes / 512),
            f"{entry.file}:{entry.line}",
            f"{entry.critical_us:.1f} us on the critical path in transfers of {sizes:.0f}-byte pieces "
            f"(`{_shorten(entry.text)}`): move at least 512 bytes, better 2 KiB, of contiguous data a partition",
        )


def _descriptor_bytes(p: Profile, file: str, line: int) -> float:
    timeline = p.timeline
    total, count = 0.0, 0
    for c, program in enumerate(timeline.programs):
        sites = [s for s in range(len(program.sites)) if program.line(s) == (file, line)]
        rows = np.flatnonzero(np.isin(program.site, sites)) + int(timeline.offsets[c])
        total += float(timeline.moved_bytes[rows].sum())
        count += int(timeline.num_descriptors[rows].sum())
    return total / count if count else 0.0


def _issue(p: Profile) -> Iterator[Advice]:
    us = p.path.by_cause.get("dma_issue", 0.0)
    count = p.metrics["dma_transfer_count"]
    yield Advice(
        us, "", f"{us:.1f} us because {count:,} transfers are triggered one after another, at a fixed cost each: move more with "
        "each dma_copy (several tiles in one access pattern), or trigger them from several engines",
    )  # fmt: skip


def _clock(p: Profile) -> Iterator[Advice]:
    lost = p.path.by_cause.get("clock_warmup", 0.0)
    yield Advice(
        lost, "", f"{lost:.1f} us lost because the Tensor engine ran at half clock: it warms up after about 3 us of "
        "steady matmuls and cools down when they pause; keep matmuls back to back",
    )  # fmt: skip


def _tables(p: Profile) -> Iterator[Advice]:
    lost = p.path.by_cause.get("act_table_load", 0.0)
    timeline = p.timeline
    count = int((timeline.table_load_ns > 0).sum())
    yield Advice(
        lost, "", f"{lost:.1f} us in {count} activation table loads: group activations that share a table, "
        "or move one function to the Vector engine",
    )  # fmt: skip


def _buffers(p: Profile) -> Iterator[Advice]:
    for cause, what in (
        (Cause.BUFFER_REUSE, "another tensor's bytes"),
        (Cause.OVERWRITE, "a tensor that is still in use"),
    ):
        rows = p.path.edges[p.path.edges[:, 2] == cause, 0].tolist()
        us = p.path.waits_us.get(cause.name.lower(), 0.0)
        if not rows:
            continue
        sites = [_line(p, row) for row in rows[:5000]]
        line = max(sorted(set(sites)), key=sites.count)
        yield Advice(
            us, line, f"{us:.1f} us waited to write into {what}: allocate the tile inside the loop, or keep "
            "two or more buffers, so that the next step can start while the last one is read",
        )  # fmt: skip


def _engine_bound(p: Profile) -> Iterator[Advice]:
    """An engine other than the Tensor engine that holds everything up."""
    for name in ("vector", "scalar", "gpsimd"):
        us = p.path.by_cause.get(name, 0.0)
        if us < 0.3 * p.latency_us:
            continue
        entry = next((e for e in p.lines if e.engine == name), None)
        others = {
            n: b for n, b in p.timeline.engine_busy_us.items() if n in ("vector", "scalar", "gpsimd") and n != name
        }
        idle = min(others, key=lambda n: others[n])
        where = f"{entry.file}:{entry.line}" if entry else ""
        text = f" (`{_shorten(entry.text)}` is the longest)" if entry else ""
        yield Advice(
            us / 2, where, f"{us:.1f} us on the {name} engine{text}: move part of the work to the {idle} engine, "
            f"which is busy for only {others[idle]:.1f} us, or use narrower types and larger tiles",
        )  # fmt: skip


def _semaphores(p: Profile) -> Iterator[Advice]:
    us = p.path.by_cause.get("semaphore", 0.0) + p.path.by_cause.get("dma_latency", 0.0)
    yield Advice(
        us, "", f"{us:.1f} us of fixed latency (semaphores and DMA start-up) on the critical path: use larger tiles, "
        "or overlap independent steps so that nobody waits for a single transfer",
    )  # fmt: skip


def _line(p: Profile, row: int) -> str:
    core = int(p.timeline.core[row])
    program = p.timeline.programs[core]
    where = program.line(int(program.site[row - int(p.timeline.offsets[core])]))
    return f"{where[0]}:{where[1]}" if where else ""


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
