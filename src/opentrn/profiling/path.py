"""The critical path: the chain of instructions and waits that the kernel's time consists of.

Walking back from what finished last through what each instruction waited for covers the whole span once, so the
parts add up to the latency. Each stretch is charged to the engine that worked, or to what was waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from opentrn.timing import ENGINES, Cause, Timeline

__all__ = ["CriticalPath", "critical_path"]

_DMA = ENGINES.index("dma")
_BY_ENGINE = int(Cause.ENGINE)


@dataclass(frozen=True)
class CriticalPath:
    """The path, last instruction first.

    Attributes:
        rows: Timeline rows on the path.
        work_ns: time that each row contributed.
        by_cause: microseconds by cause; they add up to the latency.
        waits_us: microseconds of work on the path that was entered through each kind of wait (``Cause`` name).
        edges: one row a step: waiting row, row waited for, Cause.
    """

    rows: np.ndarray
    work_ns: np.ndarray
    by_cause: dict[str, float]
    waits_us: dict[str, float]
    edges: np.ndarray


# Parts of the path that are no engine's work, after the engines in the table of charges.
_EXTRA = (
    "idle",
    "semaphore",
    "dma_latency",
    "dma_issue",
    "act_table_load",
    "clock_warmup",
    "dma_load",
    "dma_store",
    "dma_move",
)
_IDLE, _SEMAPHORE, _LATENCY, _ISSUE, _TABLE, _CLOCK, _LOAD = range(len(ENGINES), len(ENGINES) + 7)
_DIRECTIONS = {"load": 0, "store": 1, "move": 2}


def critical_path(timeline: Timeline) -> CriticalPath:
    """The critical path of a Timeline."""
    overhead_us = timeline.overhead_ns / 1e3
    if not len(timeline):
        return CriticalPath(np.zeros(0, int), np.zeros(0), {"launch_overhead": overhead_us}, {}, np.zeros((0, 3), int))
    direction = np.array([_DIRECTIONS.get(c.transfer.direction, 2) if c.transfer else 0 for c in timeline.costs] or [0])
    rows, work, edges, charges, waits = _walk()(
        timeline.start_ns, timeline.end_ns, timeline.cause.astype(np.int64), timeline.blocked_by.astype(np.int64),
        timeline.engine.astype(np.int64), timeline.clock_loss_ns, timeline.table_load_ns,
        np.maximum(timeline.dma_end_ns - timeline.dma_start_ns, 0.0), direction[timeline.cost_id],
    )  # fmt: skip
    names = (*ENGINES, *_EXTRA)
    order = np.argsort(-charges, kind="stable").tolist()
    by_cause = {names[k]: float(charges[k]) / 1e3 for k in order if charges[k] > 0}
    by_cause["launch_overhead"] = overhead_us
    entered = {c.name.lower(): float(waits[c]) / 1e3 for c in Cause if c and waits[c] > 0}
    return CriticalPath(rows, work, by_cause, entered, edges)


@cache
def _walk() -> Any:
    """The walk, compiled when it is first needed."""
    import numba

    return numba.njit(cache=True)(_walk_back)


def _walk_back(start, end, cause, blocked_by, engine, clock_loss, table_load, moving, direction):
    """(rows, work, edges, charges, waits) of the path, from the last end backwards; times in ns."""
    n = len(start)
    rows, work = np.empty(n, np.int64), np.empty(n)
    edges = np.empty((n, 3), np.int64)
    charges, waits = np.zeros(_LOAD + 3), np.zeros(16)
    row = np.argmax(end)
    cursor = end[row]
    entered, count = 0, 0
    while count < n:
        own = max(cursor - start[row], 0.0)
        rows[count], work[count] = row, own
        lost = min(clock_loss[row], own)
        loading = min(table_load[row], own - lost)
        rest = own - lost - loading
        charges[_CLOCK] += lost
        charges[_TABLE] += loading
        if engine[row] != _DMA:
            charges[engine[row]] += rest
        elif entered == _BY_ENGINE:  # the next transfer waited for the queue, not for this one's data
            charges[_ISSUE] += rest
        else:
            payload = min(moving[row], rest)
            charges[_LOAD + direction[row]] += payload
            charges[_LATENCY] += rest - payload
        waits[entered] += own
        other, begin = blocked_by[row], start[row]
        if cause[row] == 0 or other < 0 or begin <= 0.0 or other == row or start[other] > begin:
            charges[_IDLE] += begin
            count += 1
            break
        edges[count, 0], edges[count, 1], edges[count, 2] = row, other, cause[row]
        count += 1
        entered = cause[row]
        if entered == _BY_ENGINE:
            cursor = begin
        else:  # what lies between the end of the other and the start is the semaphore
            cursor = min(end[other], begin)
            charges[_SEMAPHORE] += begin - cursor
        row = other
    steps = max(count - 1, 0)
    return rows[:count], work[:count], edges[:steps], charges, waits
