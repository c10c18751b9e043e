"""How long a collective takes: the calls that cluster models, compilers and the command line make.

`collective_time_us` costs a dictionary lookup and a few multiplications once a group has been seen, so a layout search
may call it many thousands of times a second, with one size or an array of sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from opentrn.errors import OpenTrnError
from opentrn.fabric.cost import Curve, Phase
from opentrn.fabric.group import RankGroup
from opentrn.fabric.operations import bus_bandwidth_factor, operation
from opentrn.fabric.selection import curve
from opentrn.fabric.topologies import Topology, topology


@dataclass(frozen=True, slots=True)
class Estimate:
    """One collective: what was asked, the algorithm taken, its time and its bandwidths (GB = 1e9 bytes)."""

    op: str
    size_bytes: int
    ranks: int
    algorithm: str
    latency_us: float
    phases: tuple[Phase, ...] = ()

    @property
    def algbw_gb_per_s(self) -> float:
        return self.size_bytes / self.latency_us / 1e3 if self.latency_us else 0.0

    @property
    def busbw_gb_per_s(self) -> float:
        return self.algbw_gb_per_s * bus_bandwidth_factor(self.op, self.ranks)

    def row(self) -> dict[str, str | int | float]:
        """The row of `trn collectives --json`."""
        return {
            "op": self.op,
            "size_bytes": self.size_bytes,
            "ranks": self.ranks,
            "algorithm": self.algorithm,
            "latency_us": round(self.latency_us, 4),
            "algbw_gb_per_s": round(self.algbw_gb_per_s, 6),
            "busbw_gb_per_s": round(self.busbw_gb_per_s, 6),
        }


@overload
def collective_time_us(
    op: str,
    size_bytes: float,
    group: RankGroup | int,
    on: Topology | str,
    *,
    algorithm: str = ...,
    siblings: bool = ...,
) -> float: ...
@overload
def collective_time_us(
    op: str,
    size_bytes: Sequence[float] | np.ndarray,
    group: RankGroup | int,
    on: Topology | str,
    *,
    algorithm: str = ...,
    siblings: bool = ...,
) -> np.ndarray: ...
def collective_time_us(
    op: str,
    size_bytes: ArrayLike,
    group: RankGroup | int,
    on: Topology | str,
    *,
    algorithm: str = "auto",
    siblings: bool = True,
) -> float | np.ndarray:
    """Time of one collective in microseconds, from launch to the last rank's completion.

    op: a name of `opentrn.fabric.OPS` or an nccom-test alias.
    size_bytes: one size, or an array of them (then an array of the same shape is returned). It is the buffer of an
        all-reduce, broadcast, permute or send; the gathered output of an all-gather; the input of a reduce-scatter or
        of an all-to-all (per rank).
    group: the ranks that take part; an int means that many consecutive ranks from 0.
    on: a topology or its name.
    algorithm: "auto" for the runtime's choice, or one of "ring", "kangaring", "mesh", "rdh", "torus", "tree", "hier".
    siblings: whether the other ranks of the topology form groups like this one and run the same collective at the same
        time (the rule in SPMD training), sharing links; False for this group alone.
    Raises OpenTrnError for an unknown operation, a negative size or a group that does not fit.
    """
    found = curve_of(op, group, on, algorithm, siblings)
    if isinstance(size_bytes, (int, float, np.number)):
        size_bytes = float(size_bytes)
        if size_bytes < 0:
            raise OpenTrnError(f"the size of a collective cannot be negative, got {size_bytes} bytes")
        return found.time_us(size_bytes)
    sizes = np.asarray(size_bytes, dtype=np.float64)
    if sizes.size and sizes.min() < 0:
        raise OpenTrnError(f"the size of a collective cannot be negative, got {sizes.min():g} bytes")
    return found.times_us(sizes)


def curve_of(
    op: str, group: RankGroup | int, on: Topology | str, algorithm: str = "auto", siblings: bool = True
) -> Curve:
    """The cost curve behind `collective_time_us`, for callers that evaluate one group at many sizes."""
    if isinstance(on, str):
        on = topology(on)
    if isinstance(group, int):
        group = RankGroup(group)
    key = (op, group, algorithm, siblings)
    found = on._curves.get(key)
    if found is None:
        found = on._curves[key] = curve(operation(op), on, group, algorithm, siblings)
    return found


def collective_estimate(
    op: str,
    size_bytes: int,
    group: RankGroup | int,
    on: Topology | str,
    *,
    algorithm: str = "auto",
    siblings: bool = True,
) -> Estimate:
    """`collective_time_us` with the algorithm taken, the bandwidths and the phases."""
    time = collective_time_us(op, size_bytes, group, on, algorithm=algorithm, siblings=siblings)
    found = curve_of(op, group, on, algorithm, siblings).choose(size_bytes)
    ranks = group if isinstance(group, int) else group.num_ranks
    return Estimate(operation(op), size_bytes, ranks, found.algorithm, time, found.phases)


def send_time_us(size_bytes: float, source: int, target: int, on: Topology | str, *, siblings: bool = True) -> float:
    """Time of one point-to-point transfer, such as an activation between two pipeline stages.

    siblings: whether every rank of the source's chip sends at the same time, as the ranks of a pipeline stage do.
    """
    group = RankGroup(2, abs(target - source), min(source, target)) if source != target else RankGroup(1, 1, source)
    return collective_time_us("send_recv", size_bytes, group, on, siblings=siblings)


def all_to_all_v_time_us(
    send_bytes: ArrayLike, group: RankGroup | int, on: Topology | str, *, siblings: bool = True
) -> float:
    """Time of an all-to-all of unequal parts; `send_bytes[i, j]` is what rank i of the group sends to rank j.

    The rank with the most to send or to receive decides; what a rank keeps costs nothing.
    """
    matrix = np.asarray(send_bytes, dtype=np.float64)
    ranks = group if isinstance(group, int) else group.num_ranks
    if matrix.shape != (ranks, ranks) or matrix.min(initial=0.0) < 0:
        raise OpenTrnError(
            f"an all-to-all-v of {ranks} ranks needs a {ranks} x {ranks} matrix of non-negative byte counts, "
            f"got shape {matrix.shape}"
        )
    moved = matrix - np.diag(np.diag(matrix))
    busiest = max(moved.sum(axis=0).max(), moved.sum(axis=1).max())
    return collective_time_us("all_to_all_v", float(busiest * ranks / max(1, ranks - 1)), group, on, siblings=siblings)
