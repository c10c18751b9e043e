"""Layouts as columns: many candidates at once, for the vectorised parts of the planner.

`LayoutTable` holds one NumPy array per axis, and converts from and to `Layout`. `enumerate_layouts` lists every layout
of a job on a number of ranks that divides what it must divide.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from opentrn.cluster.job import Job
from opentrn.cluster.layout import RECOMPUTE, SCHEDULES, Layout

__all__ = ["LayoutTable", "enumerate_layouts"]

COLUMNS = ("dp", "tp", "pp", "cp", "ep", "sp", "zero", "micro_batch", "schedule", "chunks", "recompute")


@dataclass(frozen=True)
class LayoutTable:
    """A table of layouts, `rows` int64 [num_layouts, axes]; `schedule` and `recompute` are indices."""

    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, axis: str) -> np.ndarray:
        return self.rows[:, COLUMNS.index(axis)]

    def take(self, index: np.ndarray) -> "LayoutTable":
        return LayoutTable(self.rows[index])

    def layout(self, index: int) -> Layout:
        values = dict(zip(COLUMNS, (int(v) for v in self.rows[index]), strict=True))
        return Layout(
            **{
                **values,
                "sp": bool(values["sp"]),
                "schedule": SCHEDULES[values["schedule"]],
                "recompute": RECOMPUTE[values["recompute"]],
            }
        )  # type: ignore[arg-type]

    @classmethod
    def of(cls, layouts: Iterable[Layout]) -> "LayoutTable":
        rows = [
            [
                layout.dp,
                layout.tp,
                layout.pp,
                layout.cp,
                layout.ep,
                int(layout.sp),
                layout.zero,
                layout.micro_batch,
                SCHEDULES.index(layout.schedule),
                layout.chunks,
                RECOMPUTE.index(layout.recompute),
            ]
            for layout in layouts
        ]
        return cls(np.array(rows, dtype=np.int64).reshape(-1, len(COLUMNS)))


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def enumerate_layouts(
    job: Job,
    num_ranks: int,
    *,
    max_pp: int = 64,
    max_cp: int = 64,
    max_micro_batch: int = 16,
    zero: Sequence[int] = (0, 1, 2, 3),
) -> LayoutTable:
    """Every layout over all axes that fills `num_ranks` ranks and divides heads, tokens, experts and batch.

    Tensor parallelism stays within what heads allow; context parallelism needs blocks of at least 512 tokens (a smaller
    block cannot fill the moving operand of the Tensor engine); pipeline stages hold at least one layer.
    """
    model, ranks = job.model, num_ranks
    heads = min(stack.num_heads for stack in model.stacks)
    experts = max((stack.num_experts for stack in model.stacks), default=0)
    causal_only = all(stack.causal for stack in model.stacks)
    blocks: list[np.ndarray] = []
    for tp in (d for d in _divisors(ranks) if heads % d == 0):
        for pp in (d for d in _divisors(ranks // tp) if d <= min(max_pp, model.num_layers)):
            for cp in (
                d
                for d in _divisors(ranks // (tp * pp))
                if d <= max_cp and job.seq_len % d == 0 and (d == 1 or job.seq_len // d >= 512)
            ):
                if cp > 1 and not causal_only:
                    continue
                dp = ranks // (tp * pp * cp)
                if job.global_batch % dp:
                    continue
                per_replica = job.global_batch // dp
                micro = [m for m in _divisors(per_replica) if m <= max_micro_batch]
                eps = [d for d in _divisors(dp * cp) if experts % d == 0] if experts else [1]
                for mb in micro:
                    schedules = _schedules(pp, per_replica // mb, model.num_layers)
                    stages = [z for z in zero if z == 0 or dp * cp > 1] or [0]
                    # Sharding gradients or weights between micro-batches means gathering them again for each; it is
                    # only offered where one pipeline stage keeps that to one place.
                    grid = [
                        (dp, tp, pp, cp, ep, sp, z, mb, schedule, chunks, recompute)
                        for ep in eps
                        for sp in ((1,) if tp > 1 else (0,))
                        for z in stages
                        for schedule, chunks in schedules
                        for recompute in range(len(RECOMPUTE))
                    ]
                    blocks.append(np.array(grid, dtype=np.int64))
    rows = np.concatenate(blocks) if blocks else np.empty((0, len(COLUMNS)), dtype=np.int64)
    return LayoutTable(rows)


def _schedules(pp: int, num_micro: int, num_layers: int) -> list[tuple[int, int]]:
    """(schedule, chunks) that a pipeline of `pp` ranks and `num_micro` micro-batches can run."""
    if pp == 1:
        return [(0, 1)]
    found = [(0, 1), (2, 1)]
    if num_micro % pp == 0:
        found += [(1, chunks) for chunks in (2, 4, 8) if pp * chunks <= num_layers]
    return found
