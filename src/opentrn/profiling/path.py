"""The critical path: the chain of instructions and waits that the kernel's time consists of.

Walking back from what finished last through what each instruction waited for covers the whole span once, so the
parts add up to the latency. Each stretch is charged to the engine that worked, or to what was waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from opentrn.timing import ENGINES, Cause, Timeline

__all__ = ["CriticalPath", "critical_path"]


@dataclass(frozen=True)
class CriticalPath:
    """The path, last instruction first.

    Attributes:
        rows: Timeline rows on the path.
        work_ns: time that each row contributed.
        by_cause: microseconds by cause; they add up to the latency.
        waits_us: microseconds of work on the path that was entered through each kind of wait (``Cause`` name).
        edges: (waiting row, row waited for, Cause) of every step.
    """

    rows: np.ndarray
    work_ns: np.ndarray
    by_cause: dict[str, float]
    waits_us: dict[str, float]
    edges: tuple[tuple[int, int, int], ...]


def critical_path(timeline: Timeline) -> CriticalPath:
    """The critical path of a Timeline."""
    if not len(timeline):
        return CriticalPath(np.zeros(0, int), np.zeros(0), {"launch_overhead": timeline.overhead_ns / 1e3}, {}, ())
    start, end = timeline.start_ns.tolist(), timeline.end_ns.tolist()
    cause, blocked_by = timeline.cause.tolist(), timeline.blocked_by.tolist()
    engine = timeline.engine.tolist()
    clock_loss, table_load = timeline.clock_loss_ns, timeline.table_load_ns
    latency = timeline.wait_latency_ns
    dma = ENGINES.index("dma")
    totals: dict[str, float] = {}
    waits: dict[str, float] = {}
    rows, work, edges = [], [], []
    row = int(np.argmax(timeline.end_ns))
    cursor = end[row]
    entered = Cause.LAUNCH

    def charge(name: str, ns: float) -> None:
        if ns > 0:
            totals[name] = totals.get(name, 0.0) + ns

    while True:
        own = max(cursor - start[row], 0.0)
        rows.append(row)
        work.append(own)
        rest = own
        if own:
            lost = min(float(clock_loss[row]), rest)
            charge("clock_warmup", lost)
            rest -= lost
            loading = min(float(table_load[row]), rest)
            charge("act_table_load", loading)
            rest -= loading
            if engine[row] == dma and entered is Cause.ENGINE:
                charge("dma_issue", rest)  # the next transfer waited for the queue, not for this one's data
            elif engine[row] == dma:
                moving = min(max(float(timeline.dma_end_ns[row] - timeline.dma_start_ns[row]), 0.0), rest)
                charge(_direction(timeline, row), moving)
                charge("dma_latency", rest - moving)
            else:
                charge(ENGINES[engine[row]], rest)
        if entered is not Cause.LAUNCH:
            waits[entered.name.lower()] = waits.get(entered.name.lower(), 0.0) + own / 1e3
        why, other = Cause(cause[row]), blocked_by[row]
        if why is Cause.LAUNCH or other < 0 or start[row] <= 0 or other == row:
            charge("idle", start[row])
            break
        edges.append((row, other, int(why)))
        begin = start[row]
        if why is Cause.ENGINE:
            cursor = begin
        else:
            wait = min(float(latency[row]), begin)
            cursor = min(end[other], begin)
            # What lies between the end of the other and the start is the semaphore, and for the rest nothing we know of.
            charge("semaphore", min(begin - cursor, max(wait, begin - cursor)))
        if start[other] >= begin and end[other] >= begin and cursor >= begin and start[other] > begin:
            charge("idle", begin)
            break
        entered = why
        row = other
    by_cause = {name: ns / 1e3 for name, ns in sorted(totals.items(), key=lambda item: -item[1])}
    by_cause["launch_overhead"] = timeline.overhead_ns / 1e3
    return CriticalPath(np.array(rows), np.array(work), by_cause, waits, tuple(edges))


def _direction(timeline: Timeline, row: int) -> str:
    transfer = timeline.costs[timeline.cost_id[row]].transfer
    return f"dma_{transfer.direction}" if transfer is not None else "dma"
