"""SBUF and PSUM over time: how many bytes of a partition are in use while the kernel runs."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore import capacity
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.timing import Timeline

__all__ = ["occupancy", "peak_bytes"]


def occupancy(timeline: Timeline, region: MemoryRegion, core: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(times in us, bytes of a partition in use from then on) of one core's SBUF or PSUM."""
    if not timeline.programs:
        return np.zeros(1), np.zeros(1)
    program = timeline.programs[core]
    first_row = int(timeline.offsets[core])
    used = [a for a in program.allocations if a.region is region and a.first_use >= 0]
    if not used:
        return np.zeros(1), np.zeros(1)
    begin = timeline.start_ns[[first_row + a.first_use for a in used]]
    end = timeline.end_ns[[first_row + a.last_use for a in used]]
    size = np.array([capacity.weight(a) for a in used])
    times = np.concatenate([begin, end]) / 1e3
    change = np.concatenate([size, -size])
    order = np.lexsort((change, times))
    return times[order], np.cumsum(change[order])


def peak_bytes(timeline: Timeline, region: MemoryRegion) -> int:
    """Most bytes in use at once over all partitions, in program order, on the fullest core."""
    peaks = [0]
    for program in timeline.programs:
        needed, _ = capacity.peak(program.allocations, region, len(program))
        peaks.append(int(needed) * program.hardware.num_partitions)
    return max(peaks)
