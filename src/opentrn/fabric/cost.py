"""What a collective costs as a function of its size: a few straight lines and one square root.

Every algorithm here takes `fixed + bytes * slope`; a runtime picks among several, which makes the cost piecewise
linear. Algorithms that stream chunks through a pipeline add a term that grows with the square root of the size. Curves
are computed once for a group and evaluated millions of times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2, sqrt

import numpy as np


@dataclass(frozen=True, slots=True)
class Phase:
    """One stage of an algorithm: `latency_us` for its steps and `us_per_byte` for its transfer."""

    name: str
    latency_us: float
    us_per_byte: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of one algorithm as a function of the collective's size.

    latency_us + size * us_per_byte
      + 2 * sqrt(pipeline_us * min(size * us_per_byte, pipeline_saturation_us))   filling and draining a pipeline
      + channel_us * channels(size)                                               steps of further open channels
    """

    algorithm: str
    phases: tuple[Phase, ...]
    pipeline_us: float = 0.0
    pipeline_saturation_us: float = 0.0
    channel_us: float = 0.0
    channel_min_bytes: float = 0.0
    channel_max_bytes: float = 0.0

    @property
    def latency_us(self) -> float:
        return sum(phase.latency_us for phase in self.phases)

    @property
    def us_per_byte(self) -> float:
        return sum(phase.us_per_byte for phase in self.phases)


class Curve:
    """The cost of a collective on one group: for each size, the alternative that the runtime takes.

    limits: the largest size of each alternative, ascending; None lets the cheapest win.
    """

    __slots__ = ("costs", "limits", "_rows")

    def __init__(self, costs: Sequence[Cost], limits: Sequence[float] | None = None) -> None:
        self.costs = tuple(costs)
        self.limits = None if limits is None else tuple(limits)
        self._rows = tuple(
            (cost.latency_us, cost.us_per_byte, cost if cost.pipeline_us or cost.channel_us else None)
            for cost in self.costs
        )

    def time_us(self, size_bytes: float) -> float:
        """Time for one size, in Python floats (a microsecond or so)."""
        if self.limits is not None:
            return self._one(self._choice(size_bytes), size_bytes)
        best = float("inf")
        for index, (latency, slope, extra) in enumerate(self._rows):
            time = latency + size_bytes * slope if extra is None else self._one(index, size_bytes)
            if time < best:
                best = time
        return best

    def choose(self, size_bytes: float) -> Cost:
        """The alternative taken at a size."""
        return self.costs[self._choice(size_bytes)]

    def times_us(self, sizes_bytes: np.ndarray) -> np.ndarray:
        """Times for an array of sizes (float64, same shape)."""
        sizes = np.asarray(sizes_bytes, dtype=np.float64)
        rows = np.stack([_evaluate(cost, sizes) for cost in self.costs])
        if self.limits is None:
            return rows.min(axis=0)
        index = np.searchsorted(np.asarray(self.limits), sizes, side="left").clip(max=len(self.costs) - 1)
        return np.take_along_axis(rows, index[None], axis=0)[0]

    def _choice(self, size_bytes: float) -> int:
        if self.limits is not None:
            for index, limit in enumerate(self.limits):
                if size_bytes <= limit:
                    return index
            return len(self.costs) - 1
        return min(range(len(self.costs)), key=lambda index: self._one(index, size_bytes))

    def _one(self, index: int, size_bytes: float) -> float:
        latency, slope, cost = self._rows[index]
        time = latency + size_bytes * slope
        if cost is None:
            return time
        if cost.pipeline_us:
            time += 2 * sqrt(cost.pipeline_us * min(size_bytes * slope, cost.pipeline_saturation_us))
        if cost.channel_us and size_bytes > cost.channel_min_bytes:
            span = log2(cost.channel_max_bytes / cost.channel_min_bytes)
            time += cost.channel_us * min(1.0, log2(size_bytes / cost.channel_min_bytes) / span)
        return time


def _evaluate(cost: Cost, sizes: np.ndarray) -> np.ndarray:
    transfer = sizes * cost.us_per_byte
    times = cost.latency_us + transfer
    if cost.pipeline_us:
        times = times + 2 * np.sqrt(cost.pipeline_us * np.minimum(transfer, cost.pipeline_saturation_us))
    if cost.channel_us:
        span = log2(cost.channel_max_bytes / cost.channel_min_bytes)
        opened = np.log2(np.maximum(sizes, cost.channel_min_bytes) / cost.channel_min_bytes) / span
        times = times + cost.channel_us * np.minimum(1.0, opened)
    return times
