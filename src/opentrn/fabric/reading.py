"""From a row of published collective timings to a collective that the model can predict.

Rows come as people published them: hardware in words, bandwidth in GiB/s or GB/s, ranks with remarks. What a row leaves
out is settled by rules that hold for every row alike (below, in one place), never by the row's number.
"""

import re
from dataclasses import dataclass

from opentrn.errors import OpenTrnError
from opentrn.fabric.group import RankGroup
from opentrn.fabric.operations import bus_bandwidth_factor, operation
from opentrn.fabric.topologies import Topology, topology

_GIB_PER_GB = 1.073741824  # nccom-test prints GiB/s under the heading GB/s
_SWEEP_PEAK_BYTES = 2**28  # the size that stands for "best size in sweep"
_INSTANCE = re.compile(r"\b((?:trn|inf|p)\d\w*(?:-b\d+)?\.\w+)\b")
_COUNT = re.compile(r"\b(\d+)\s*(?:x\b|instances?\b|nodes?\b|Neuron instances\b)")


class UnusableRow(Exception):
    """A row that does not say enough, or that is no collective; the message says why."""


@dataclass(frozen=True, slots=True)
class CollectiveMeasurement:
    """One published timing. `host_us` is host time that the measurement includes besides the collective."""

    id: str
    op: str
    size_bytes: int
    group: RankGroup
    on: Topology
    measured_us: float
    host_us: float
    fitted: bool
    source: str


def read_measurement(row: dict[str, str]) -> CollectiveMeasurement:
    """Read a row with the columns of `validation/collectives.csv`; raises UnusableRow with the reason."""
    try:
        op = operation(row["op"].split()[0] if row["op"] else "")
    except (OpenTrnError, IndexError):
        raise UnusableRow(f"{row['op']} is not a collective operation") from None
    if op != row["op"].strip() and " " in row["op"].strip():
        raise UnusableRow(f"{row['op']!r} is a sum over several collectives")
    ranks = re.match(r"\d+", row["ranks"])
    if not ranks:
        raise UnusableRow("the number of ranks is not given")
    num_ranks = int(ranks.group())
    size_bytes = _size(row["size_bytes"])
    text = f"{row['topology']} {row['hardware']}"
    counts = [int(count) for count in _COUNT.findall(text)]
    num_instances = max([1, *counts]) if "EFA" in text or "instances" in text or "nodes" in text else 1
    on = _topology(row, num_instances)
    group = _group(num_ranks, num_instances, on)
    measured = _measured_us(row, op, size_bytes, num_ranks)
    # Eager timings say that host dispatch is in them; those of one source do even where a row does not repeat it.
    host_us = on.runtime.host_dispatch_us if row["latency_us"] and "launch" in row["notes"] else 0.0
    return CollectiveMeasurement(
        row["id"], op, size_bytes, group, on, measured, host_us, row.get("fitted", "") == "yes", row["source"]
    )


def _size(text: str) -> int:
    if text.isdigit():
        return int(text)
    if text.startswith("best size"):
        return _SWEEP_PEAK_BYTES
    raise UnusableRow(f"no size: {text or 'empty'}")


def _topology(row: dict[str, str], num_instances: int) -> Topology:
    """The instance a row names; where it names none, the one that the page's date stands for."""
    hardware, date = row["hardware"], row["date"]
    named = _INSTANCE.search(hardware)
    if named:
        name = named.group(1)
    elif "H100" in hardware:
        name = "p5.48xlarge"
    elif "A100" in hardware:
        name = "p4de.24xlarge"
    elif "trn1" in hardware or num_instances > 1:
        name = "trn1.32xlarge"
    elif "not stated" in hardware or "trn2" in hardware:
        name = "trn2.48xlarge"
    else:
        raise UnusableRow(f"unknown hardware: {hardware}")
    try:
        # Trn1 has two sets of collectives; a measurement of 2025 or later is of the newer one.
        newer = name.startswith(("trn1", "inf2")) and date >= "2025"
        return topology(name, num_instances, collectives="neuron-2025" if newer else None)
    except OpenTrnError as problem:
        raise UnusableRow(str(problem)) from None


def _group(num_ranks: int, num_instances: int, on: Topology) -> RankGroup:
    per_instance, rest = divmod(num_ranks, num_instances)
    if rest:
        raise UnusableRow(f"{num_ranks} ranks do not divide over {num_instances} instances")
    whole = on.num_ranks // num_instances
    if per_instance > whole:
        raise UnusableRow(f"{num_ranks} ranks do not fit on {on.name}")
    if num_instances == 1 or per_instance == whole:
        return RankGroup(num_ranks)
    return RankGroup.product((per_instance, 1), (num_instances, whole))


def _measured_us(row: dict[str, str], op: str, size_bytes: int, num_ranks: int) -> float:
    if row["latency_us"]:
        return float(row["latency_us"])
    if not row["busbw_GBps"]:
        raise UnusableRow("neither a time nor a bandwidth")
    unit = _GIB_PER_GB if row["software"] == "nccom-test" else 1.0
    bandwidth_gb_per_s = float(row["busbw_GBps"]) * unit
    return size_bytes * bus_bandwidth_factor(op, num_ranks) / bandwidth_gb_per_s / 1e3
