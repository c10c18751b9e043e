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
    """One stage of an algorithm: `latency_us` for its steps and `us_per_byte` for its transfer.

    hiding_us_per_byte: how much of the transfer time can hide latency: a rank that works on several independent parts
    of the data moves one while another waits for a hop. Zero where latency and transfer add up.
    """

    name: str
    latency_us: float
    us_per_byte: float
    hiding_us_per_byte: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Time of one algorithm as a function of the collective's size.

    latency_us + size * us_per_byte
      - for each stage, the part of its latency that hides behind its transfer
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

    @property
    def hiding(self) -> tuple[tuple[float, float], ...]:
        """(latency that can hide, microseconds a byte that it can hide behind) of the stages where some can."""
        merged: dict[Phase, int] = {}
        for phase in self.phases:
            if phase.hiding_us_per_byte:
                merged[phase] = merged.get(phase, 0) + 1
        return tuple((times * phase.latency_us, times * phase.hiding_us_per_byte) for phase, times in merged.items())


class Curve:
    """The cost of a collective on one group: for each size, the alternative that the runtime takes.

    limits: the largest size of each alternative, ascending; None lets the cheapest win.
    """

    __slots__ = ("costs", "limits", "_rows")

    def __init__(self, costs: Sequence[Cost], limits: Sequence[float] | None = None) -> None:
        self.costs = tuple(costs) if limits is not None else _undominated(costs)
        self.limits = None if limits is None else tuple(limits)
        self._rows = tuple(
            (cost.latency_us, cost.us_per_byte, cost.hiding, cost if cost.pipeline_us or cost.channel_us else None)
            for cost in self.costs
        )

    def time_us(self, size_bytes: float) -> float:
        """Time for one size, in Python floats (a microsecond or so)."""
        if self.limits is not None:
            return self._one(self._choice(size_bytes), size_bytes)
        best = float("inf")
        for index in range(len(self._rows)):
            time = self._one(index, size_bytes)
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
        latency, slope, hiding, cost = self._rows[index]
        time = latency + size_bytes * slope
        for hidden_us, per_byte in hiding:
            time -= min(hidden_us, size_bytes * per_byte)
        if cost is None:
            return time
        if cost.pipeline_us:
            time += 2 * sqrt(cost.pipeline_us * min(size_bytes * slope, cost.pipeline_saturation_us))
        if cost.channel_us and size_bytes > cost.channel_min_bytes:
            span = log2(cost.channel_max_bytes / cost.channel_min_bytes)
            time += cost.channel_us * min(1.0, log2(size_bytes / cost.channel_min_bytes) / span)
        return time


def _undominated(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    """The alternatives that are the cheapest at some size, as far as their straight lines tell; the first of equals."""
    kept: list[Cost] = []
    for cost in costs:
        lines = [other for other in kept if not other.pipeline_us and not other.channel_us]
        beaten = not cost.hiding and any(
            other.latency_us <= cost.latency_us and other.us_per_byte <= cost.us_per_byte for other in lines
        )
        if not beaten:
            kept.append(cost)
    return tuple(kept)


def _evaluate(cost: Cost, sizes: np.ndarray) -> np.ndarray:
    transfer = sizes * cost.us_per_byte
    times = cost.latency_us + transfer
    for hidden_us, per_byte in cost.hiding:
        times = times - np.minimum(hidden_us, sizes * per_byte)
    if cost.pipeline_us:
        times = times + 2 * np.sqrt(cost.pipeline_us * np.minimum(transfer, cost.pipeline_saturation_us))
    if cost.channel_us:
        span = log2(cost.channel_max_bytes / cost.channel_min_bytes)
        opened = np.log2(np.maximum(sizes, cost.channel_min_bytes) / cost.channel_min_bytes) / span
        times = times + cost.channel_us * np.minimum(1.0, opened)
    return times
