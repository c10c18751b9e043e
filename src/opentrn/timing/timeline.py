"""A Timeline: when every instruction of a launch ran, on what, and what it waited for.

Columns, one entry an instruction, the programs of the cores one after another. Everything a profiler shows and an
energy
model prices is computed from these columns and the programs; nothing here knows how they were found.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["ENGINES", "Cause", "Timeline"]

ENGINES = ("tensor", "vector", "scalar", "gpsimd", "sync", "dma")
"""Names that ``Timeline.engine`` indexes."""


class Cause(enum.IntEnum):
    """What decided when an instruction started. ``blocked_by`` names the instruction concerned, where there is one."""

    LAUNCH = 0
    """Nothing: it started with the kernel."""
    ENGINE = 1
    """The instruction before it on the same engine."""
    DATA = 2
    """A compute instruction had to write what it reads."""
    DMA = 3
    """A transfer had to bring what it reads."""
    OVERWRITE = 4
    """Another instruction still used, or had to write first, the place it writes, in the same tensor."""
    BUFFER_REUSE = 5
    """The same, but in another tensor that held the same bytes of SBUF or PSUM before."""
    PORT = 6
    """Another engine held the memory port that the two share."""
    BARRIER = 7
    """A barrier, a message from another core, or the edge of a block that may not be reordered."""
    EXPLICIT = 8
    """A dependency that the kernel asked for."""


@dataclass(frozen=True)
class Timeline:
    """Times are nanoseconds from the start of the first instruction of the launch.

    Attributes:
        programs: the scheduled programs, one a core; row ``offsets[c] + k`` is instruction ``k`` of program ``c``.
        core: index into ``programs``.
        engine: index into ``ENGINES``: what executes it; transfers are on ``dma``.
        issuer: index into ``ENGINES``: the queue that issues it; differs from ``engine`` for transfers only.
        ready_ns: when everything it waits for was there, the engine apart.
        start_ns: when the engine took it (a transfer: when it was triggered).
        free_ns: when the issuing engine could take the next instruction.
        end_ns: when its result was there (a transfer: when its completion was signalled).
        busy_ns: time that it occupied ``engine``; for a transfer, its service time at a DMA engine.
        cause: :class:`Cause` of ``start_ns``; ``blocked_by`` the row concerned, or -1.
        wait_latency_ns: part of the wait that is the latency of the semaphore, not the work of ``blocked_by``.
        clock_loss_ns: time lost because the Tensor engine's clock was at half rate.
        table_load_ns: time spent loading an activation table before it.
        queue: DMA queue of a transfer, -1 otherwise; ``queues`` names them.
        dma_start_ns, dma_end_ns: first and last payload of a transfer, 0 for others.
        read_bytes, written_bytes: HBM traffic.
        moved_bytes: payload of a transfer, wherever it lies.
        num_descriptors: of a transfer.
        flops: of a matmul.
        cost_id: rows with the same value have the same :class:`~opentrn.neuroncore.cost.Cost`, ``costs[cost_id]``.
        dma_engine_busy_ns: (cores, DMA engines) busy time.
        tensor_clock: (n, 2) rows ``(from_ns, full)``: the Tensor engine's clock states of core 0.
        overhead_ns: what the chip adds to the span before the first and after the last instruction, as
            ``nki.benchmark`` counts it; ``profile_overhead_ns`` as a profile's total does.
        placements: (core, allocation index) -> (partition, byte) where the allocator put a tensor.
    """

    programs: tuple[Program, ...]
    offsets: np.ndarray
    core: np.ndarray
    engine: np.ndarray
    issuer: np.ndarray
    ready_ns: np.ndarray
    start_ns: np.ndarray
    free_ns: np.ndarray
    end_ns: np.ndarray
    busy_ns: np.ndarray
    cause: np.ndarray
    blocked_by: np.ndarray
    wait_latency_ns: np.ndarray
    clock_loss_ns: np.ndarray
    table_load_ns: np.ndarray
    queue: np.ndarray
    queues: tuple[str, ...]
    dma_start_ns: np.ndarray
    dma_end_ns: np.ndarray
    read_bytes: np.ndarray
    written_bytes: np.ndarray
    moved_bytes: np.ndarray
    num_descriptors: np.ndarray
    flops: np.ndarray
    cost_id: np.ndarray
    costs: tuple[Any, ...]
    dma_engine_busy_ns: np.ndarray
    tensor_clock: np.ndarray
    overhead_ns: float
    profile_overhead_ns: float
    placements: tuple[tuple[np.ndarray, np.ndarray], ...] = field(default=())
    what_if: str | None = None

    def __len__(self) -> int:
        return len(self.start_ns)

    @cached_property
    def span_us(self) -> float:
        """First start to last end."""
        return float(self.end_ns.max()) / 1e3 if len(self) else 0.0

    @cached_property
    def latency_us(self) -> float:
        """What ``nki.benchmark`` would report: the span and the launch's fixed overhead."""
        return self.span_us + self.overhead_ns / 1e3

    @cached_property
    def profile_total_us(self) -> float:
        """What a profile's total time would be; it counts more of the launch than a benchmark does."""
        return self.span_us + self.profile_overhead_ns / 1e3

    @cached_property
    def engine_busy_us(self) -> dict[str, float]:
        """Busy time an engine, summed over cores; DMA apart."""
        compute = self.engine != ENGINES.index("dma")
        busy = np.bincount(self.engine[compute], self.busy_ns[compute], len(ENGINES))
        # A trigger occupies the engine whose queue it stands in.
        triggers = ~compute
        busy += np.bincount(self.issuer[triggers], (self.free_ns - self.start_ns)[triggers], len(ENGINES))
        return {name: float(busy[k]) / 1e3 for k, name in enumerate(ENGINES) if name != "dma"}

    @cached_property
    def dma_busy_us(self) -> float:
        """Time during which at least one transfer was in flight, summed over cores."""
        total = 0.0
        for c in range(len(self.programs)):
            rows = slice(self.offsets[c], self.offsets[c + 1])
            moving = self.queue[rows] >= 0
            total += _covered(self.dma_start_ns[rows][moving], self.dma_end_ns[rows][moving])
        return total / 1e3

    @cached_property
    def hbm_bytes(self) -> int:
        """HBM bytes read and written."""
        return int(self.read_bytes.sum() + self.written_bytes.sum())

    @cached_property
    def total_flops(self) -> int:
        """Multiplications and additions of the matmuls."""
        return int(self.flops.sum())


def _covered(start: np.ndarray, end: np.ndarray) -> float:
    """Length of the union of intervals."""
    if not len(start):
        return 0.0
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    gaps = np.maximum(start[1:] - end[:-1], 0.0)
    return float(end[-1] - start[0] - gaps.sum())
