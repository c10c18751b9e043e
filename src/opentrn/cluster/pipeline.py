"""Pipeline schedules by simulation: 1F1B, interleaved 1F1B and zero-bubble (ZB-H1).

Each pipeline rank runs its passes in the order that its schedule prescribes; a pass starts when the rank is free and
its input has arrived from the neighbour. The compiled kernels below are what the layout search runs for every
candidate; `trace` runs the same kernel and keeps the spans for pictures.

References: 1F1B and interleaving as in Narayanan et al. (arXiv:2104.04473); ZB-H1 as in Qi et al. (arXiv:2401.10241):
backward splits into the input gradient, which the next rank waits for, and the weight gradient, which fills bubbles
while no more micro-batches are in flight than under 1F1B.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from opentrn.cluster.layout import SCHEDULES
from opentrn.errors import OpenTrnError

__all__ = ["Pass", "PipelineTrace", "pipeline_makespan", "trace"]

FORWARD, BACKWARD, WEIGHT = 0, 1, 2
ONE_F_ONE_B, INTERLEAVED, ZERO_BUBBLE = range(3)


@njit(cache=True)
def _interleaved_item(index: int, num_ranks: int, chunks: int, backward: bool) -> tuple:
    """(chunk, micro-batch) of the index-th pass of a kind on any rank of an interleaved pipeline."""
    period = num_ranks * chunks
    group, inside = index // period, index % period
    chunk = inside // num_ranks
    if backward:
        chunk = chunks - 1 - chunk
    return chunk, group * num_ranks + inside % num_ranks


@njit(cache=True)
def _ordered(num_ranks, chunks, num_micro, forward, backward, send, spans, starts):
    """Schedules with a fixed order (1F1B, interleaved). Durations are per [rank, chunk]; returns the makespan and
    fills the last time that each rank is busy. `spans` records starts of (kind, rank, chunk, micro-batch) if wanted."""
    total = num_micro * chunks
    stages = num_ranks * chunks
    forward_end = np.full((stages, num_micro), -1.0)
    backward_end = np.full((stages, num_micro), -1.0)
    free = np.zeros(num_ranks)
    done = np.zeros(num_ranks, dtype=np.int64)
    remaining = 2 * total * num_ranks
    while remaining:
        progressed = False
        for rank in range(num_ranks):
            if chunks > 1:
                warmup = min(total, (num_ranks - rank - 1) * 2 + (chunks - 1) * num_ranks)
            else:
                warmup = min(total, num_ranks - rank - 1)
            while done[rank] < 2 * total:
                step = done[rank]
                if step < warmup:
                    is_backward, index = False, step
                elif step < 2 * total - warmup:
                    pair = step - warmup
                    is_backward, index = pair % 2 == 1, (warmup + pair // 2 if pair % 2 == 0 else pair // 2)
                else:
                    is_backward, index = True, step - total
                if chunks > 1:
                    chunk, micro = _interleaved_item(index, num_ranks, chunks, is_backward)
                else:
                    chunk, micro = 0, index
                stage = chunk * num_ranks + rank
                if not is_backward:
                    if stage == 0:
                        ready = 0.0
                    else:
                        ready = forward_end[stage - 1, micro]
                        if ready < 0.0:
                            break
                        ready += send
                else:
                    ready = forward_end[stage, micro] if stage == stages - 1 else backward_end[stage + 1, micro]
                    if ready < 0.0:
                        break
                    if stage != stages - 1:
                        ready += send
                begin = max(free[rank], ready)
                end = begin + (backward[rank, chunk] if is_backward else forward[rank, chunk])
                if is_backward:
                    backward_end[stage, micro] = end
                else:
                    forward_end[stage, micro] = end
                if spans:
                    starts[1 if is_backward else 0, rank, chunk, micro] = begin
                free[rank] = end
                done[rank] += 1
                remaining -= 1
                progressed = True
        if not progressed:
            return -1.0, free
    return free.max(), free


@njit(cache=True)
def _next_zero_bubble(rank, num_ranks, num_micro, free, counts, forward_end, backward_end, send):
    """(start, kind) of the pass that a rank runs next under ZB-H1, as far as is known; the start is huge if none is."""
    count_f, count_b, count_w = counts[0, rank], counts[1, rank], counts[2, rank]
    if count_w == num_micro:
        return 1e300, 2
    ready_b, ready_f = 1e300, 1e300
    if count_b < count_f:
        if rank == num_ranks - 1:
            ready_b = forward_end[rank, count_b]
        elif backward_end[rank + 1, count_b] >= 0.0:
            ready_b = backward_end[rank + 1, count_b] + send
    if count_f < num_micro and count_f - count_b < num_ranks - rank:
        if rank == 0:
            ready_f = 0.0
        elif forward_end[rank - 1, count_f] >= 0.0:
            ready_f = forward_end[rank - 1, count_f] + send
    now = free[rank]
    if ready_b <= now:
        return now, 1
    if ready_f <= now:
        return now, 0
    if count_w < count_b:
        return now, 2
    if ready_b <= ready_f:
        return ready_b, 1
    return ready_f, 0


@njit(cache=True)
def _zero_bubble(num_ranks, num_micro, forward, inputs, weights, send, spans, starts):
    """ZB-H1, greedy: a free rank prefers a ready input gradient, then a forward within the in-flight limit of 1F1B,
    then a weight gradient; it waits only if it has none of them."""
    forward_end = np.full((num_ranks, num_micro), -1.0)
    backward_end = np.full((num_ranks, num_micro), -1.0)
    free = np.zeros(num_ranks)
    counts = np.zeros((3, num_ranks), dtype=np.int64)
    begins = np.empty(num_ranks)
    kinds = np.empty(num_ranks, dtype=np.int64)
    for rank in range(num_ranks):
        begins[rank], kinds[rank] = _next_zero_bubble(
            rank, num_ranks, num_micro, free, counts, forward_end, backward_end, send
        )
    for _ in range(3 * num_micro * num_ranks):
        # The rank that can start its next pass earliest goes first; then no later decision can change an earlier one.
        rank = 0
        for other in range(1, num_ranks):
            if begins[other] < begins[rank]:
                rank = other
        begin, kind = begins[rank], kinds[rank]
        if begin >= 1e300:
            return -1.0, free
        micro = counts[kind, rank]
        if kind == 0:
            end = begin + forward[rank, 0]
            forward_end[rank, micro] = end
        elif kind == 1:
            end = begin + inputs[rank, 0]
            backward_end[rank, micro] = end
        else:
            end = begin + weights[rank, 0]
        counts[kind, rank] += 1
        if spans:
            starts[kind, rank, 0, micro] = begin
        free[rank] = end
        # Only the rank itself and the neighbour that waits for it have something new to decide.
        for other in range(max(0, rank - 1), min(num_ranks, rank + 2)):
            begins[other], kinds[other] = _next_zero_bubble(
                other, num_ranks, num_micro, free, counts, forward_end, backward_end, send
            )
    return free.max(), free


@njit(cache=True)
def pipeline_ends(schedule, num_ranks, chunks, num_micro, forward, backward, inputs, weights, send):
    """Time at which each rank finishes its last pass; durations are arrays [rank, chunk] in microseconds.

    Many micro-batches repeat: once the pipeline has filled, `num_ranks` more of them cost the same each time (exactly
    for equal stages, within 3 % for uneven ones), so the middle is extrapolated from two simulations one period apart.
    """
    dummy = np.zeros((1, 1, 1, 1))
    longest = 3 * num_ranks + num_micro % num_ranks
    if num_micro <= longest + num_ranks:
        if schedule == 2:
            return _zero_bubble(num_ranks, num_micro, forward, inputs, weights, send, False, dummy)[1]
        return _ordered(num_ranks, chunks, num_micro, forward, backward, send, False, dummy)[1]
    if schedule == 2:
        _, short = _zero_bubble(num_ranks, longest - num_ranks, forward, inputs, weights, send, False, dummy)
        _, ends = _zero_bubble(num_ranks, longest, forward, inputs, weights, send, False, dummy)
    else:
        _, short = _ordered(num_ranks, chunks, longest - num_ranks, forward, backward, send, False, dummy)
        _, ends = _ordered(num_ranks, chunks, longest, forward, backward, send, False, dummy)
    periods = (num_micro - longest) // num_ranks
    # In the long run the busiest rank sets the pace, also where waiting still hides it in the part that was simulated.
    busiest = 0.0
    for rank in range(num_ranks):
        own = inputs[rank].sum() + weights[rank].sum() if schedule == 2 else backward[rank].sum()
        busiest = max(busiest, num_ranks * (forward[rank].sum() + own))
    if schedule == 2 and send <= 0.5 * forward.min():
        # Weight gradients that were put off make the simulated part uneven; they even out at the busiest rank's pace.
        return ends + busiest * periods
    return ends + np.maximum(ends - short, busiest) * periods


@dataclass(frozen=True)
class Pass:
    """One pass of one micro-batch on one pipeline rank."""

    rank: int
    chunk: int
    micro_batch: int
    kind: str
    start_us: float
    end_us: float


@dataclass(frozen=True)
class PipelineTrace:
    """All passes of a step, in order of start."""

    passes: tuple[Pass, ...]
    makespan_us: float

    def bubble_fraction(self) -> float:
        """Part of the ranks' time until the makespan in which they do nothing."""
        ranks = 1 + max(p.rank for p in self.passes)
        busy = sum(p.end_us - p.start_us for p in self.passes)
        return 1.0 - busy / (ranks * self.makespan_us)


def _durations(
    forward_us: Any, backward_us: Any, weight_us: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    forward, backward, weights = (
        np.atleast_2d(np.asarray(a, dtype=float)) for a in (forward_us, backward_us, weight_us)
    )
    return forward, backward, np.maximum(backward - weights, 0.0), weights


def _check(schedule: str, num_ranks: int, chunks: int, num_micro: int) -> int:
    if schedule not in SCHEDULES:
        raise OpenTrnError(f"unknown pipeline schedule {schedule!r}, known: {', '.join(SCHEDULES)}")
    if schedule == "interleaved" and chunks > 1 and num_micro % num_ranks:
        raise OpenTrnError(
            f"the interleaved schedule needs micro-batches in multiples of pp={num_ranks}, got {num_micro}"
        )
    if schedule != "interleaved" and chunks > 1:
        raise OpenTrnError(f"schedule {schedule!r} holds one chunk a rank, got {chunks}")
    return SCHEDULES.index(schedule)


def pipeline_makespan(
    schedule: str, num_micro: int, forward_us: Any, backward_us: Any, weight_us: Any = 0.0, send_us: float = 0.0
) -> float:
    """Time of one step's passes in microseconds.

    `forward_us` and `backward_us` are arrays [rank, chunk] (or [rank, 1]); `weight_us` is the part of backward that
    computes weight gradients, which only the zero-bubble schedule moves.
    """
    forward, backward, inputs, weights = _durations(forward_us, backward_us, weight_us)
    weights = np.broadcast_to(weights, forward.shape).copy()
    num_ranks, chunks = forward.shape
    code = _check(schedule, num_ranks, chunks, num_micro)
    ends = pipeline_ends(code, num_ranks, chunks, num_micro, forward, backward, inputs, weights, send_us)
    return float(ends.max())


def trace(
    schedule: str, num_micro: int, forward_us: Any, backward_us: Any, weight_us: Any = 0.0, send_us: float = 0.0
) -> PipelineTrace:
    """Every pass of a step, simulated in full (no extrapolation)."""
    forward, backward, inputs, weights = _durations(forward_us, backward_us, weight_us)
    weights = np.broadcast_to(weights, forward.shape).copy()
    num_ranks, chunks = forward.shape
    code = _check(schedule, num_ranks, chunks, num_micro)
    starts = np.full((3, num_ranks, chunks, num_micro), np.nan)
    if code == ZERO_BUBBLE:
        makespan, _ = _zero_bubble(num_ranks, num_micro, forward, inputs, weights, send_us, True, starts)
        lengths = (forward, inputs, weights)
    else:
        makespan, _ = _ordered(num_ranks, chunks, num_micro, forward, backward, send_us, True, starts)
        lengths = (forward, backward, weights)
    passes = [
        Pass(
            rank,
            chunk,
            micro,
            ("forward", "backward", "weight")[kind],
            float(starts[kind, rank, chunk, micro]),
            float(starts[kind, rank, chunk, micro] + lengths[kind][rank, chunk]),
        )
        for kind in range(3)
        for rank in range(num_ranks)
        for chunk in range(chunks)
        for micro in range(num_micro)
        if not np.isnan(starts[kind, rank, chunk, micro])
    ]
    return PipelineTrace(tuple(sorted(passes, key=lambda p: (p.start_us, p.rank))), float(makespan))
