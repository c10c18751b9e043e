"""Message-level simulation of a collective: every message, every link, contention included.

The same algorithms as the closed forms, as schedules of messages over the links of a topology. It answers where the
formulas are coarse (irregular placements, several groups that share links, trees) and it is what they are tested
against. Deterministic: equal inputs give equal results, to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from opentrn.errors import OpenTrnError
from opentrn.fabric import algorithms
from opentrn.fabric.closed_form import ring_channels
from opentrn.fabric.collectives import curve_of
from opentrn.fabric.cost import Cost
from opentrn.fabric.geometry import geometry
from opentrn.fabric.group import RankGroup
from opentrn.fabric.network import NO_LINK, Network
from opentrn.fabric.operations import operation
from opentrn.fabric.schedule import Schedule
from opentrn.fabric.topologies import Topology, topology

# About 2 GB of message records; beyond that the closed form is the tool.
_MAX_MESSAGES = 20_000_000
_INNER = {"mesh": algorithms.mesh, "rdh": algorithms.rdh, "torus": algorithms.torus}


@dataclass(frozen=True, slots=True)
class SimulatedCollective:
    """What a message-level run found.

    time_us: launch to the last rank's completion. finish_us: each rank's completion, in group order (groups x ranks).
    link_bytes: bytes carried by every link of the network, for utilisation.
    """

    op: str
    size_bytes: float
    algorithm: str
    time_us: float
    finish_us: np.ndarray
    link_bytes: np.ndarray
    num_messages: int
    num_events: int


def simulate(
    op: str,
    size_bytes: float,
    group: RankGroup | Sequence[RankGroup] | int,
    on: Topology | str,
    *,
    algorithm: str = "auto",
) -> SimulatedCollective:
    """Simulate one collective message by message, with contention on shared links.

    op, size_bytes, on, algorithm: as in `collective_time_us`; "auto" takes what the closed form chooses at that size.
    group: the ranks, or several equal-sized groups that run it at the same time and share links.
    Raises OpenTrnError where an algorithm has no message-level form (irregular groups, NCCL's pipeline).
    """
    op = operation(op)
    if size_bytes < 0:
        raise OpenTrnError(f"the size of a collective cannot be negative, got {size_bytes} bytes")
    if isinstance(on, str):
        on = topology(on)
    if isinstance(group, int):
        group = RankGroup(group)
    groups = [group] if isinstance(group, RankGroup) else list(group)
    first = groups[0]
    if any(other.num_ranks != first.num_ranks for other in groups):
        raise OpenTrnError("groups that are simulated together must have the same number of ranks")
    chosen = curve_of(op, first, on, algorithm, siblings=False).choose(size_bytes)
    if first.num_ranks == 1:
        return SimulatedCollective(op, size_bytes, "none", 0.0, np.zeros((len(groups), 1)), np.zeros(0), 0, 0)
    if op.startswith("all_to_all"):
        _check_count(first.num_ranks**2 * len(groups), first.num_ranks, op)
    schedule = build_schedule(op, size_bytes, first, on, chosen)
    _check_count(schedule.num_messages * len(groups), first.num_ranks, op)
    members = np.concatenate([np.sort(other.members()) for other in groups])
    if len(np.unique(members)) != len(members) or members.max() >= on.num_ranks:
        raise OpenTrnError(f"groups that are simulated together must be disjoint ranks of {on.name}")
    finish, carried, num_events = _run(schedule, members, len(groups), on)
    launch = on.runtime.launch_us
    return SimulatedCollective(
        op,
        size_bytes,
        chosen.algorithm,
        launch + float(finish.max()),
        launch + finish.reshape(len(groups), -1),
        carried,
        schedule.num_messages * len(groups),
        num_events,
    )


def _check_count(num_messages: int, num_ranks: int, op: str) -> None:
    if num_messages > _MAX_MESSAGES:
        raise OpenTrnError(
            f"{op} of {num_ranks} ranks takes {num_messages:,} messages, more than the {_MAX_MESSAGES:,} that a "
            f"message-level run holds; use the closed form (leave --simulate out) or fewer ranks"
        )


def build_schedule(op: str, size_bytes: float, group: RankGroup, on: Topology, chosen: Cost) -> Schedule:
    """The messages of one collective by the algorithm that its cost curve chose."""
    algorithm = chosen.algorithm
    where = geometry(on, group, False)
    grid = algorithms.Grid.of(on, where)
    runtime = on.runtime
    schedule = Schedule(group.num_ranks, runtime.step_us, runtime.message_us)
    if op in ("permute", "send_recv"):
        positions = grid.positions()
        source = positions if op == "permute" else positions[:1]
        target = (source + 1) % group.num_ranks
        schedule.add(0, 0, source, target, size_bytes, algorithms.rank_bytes_per_us(on, 1))
        return schedule
    if op in ("all_to_all", "all_to_all_v") or any(phase.name == "single step" for phase in chosen.phases):
        # A single-step mesh is an all-to-all in which every part is the whole buffer.
        size_bytes *= 1 if op.startswith("all_to_all") else group.num_ranks
        algorithms.exchange(schedule, grid, size_bytes, 0)
        return schedule
    if op == "broadcast" and algorithm == "mesh":
        rate = algorithms.rank_bytes_per_us(on, group.num_ranks - 1)
        others = np.arange(1, group.num_ranks)
        schedule.add(0, 0, np.zeros_like(others), others, size_bytes, rate)
        return schedule
    if algorithm == "tree":
        phase = chosen.phases[1]
        algorithms.tree(
            schedule,
            grid,
            size_bytes,
            reduce=op == "all_reduce",
            latency_us=phase.latency_us,
            transfer_us=phase.us_per_byte * size_bytes,
        )
        return schedule
    if algorithm == "ring" and where.network and grid.local > 1:
        _flat_ring(schedule, grid, op, size_bytes)
        return schedule
    inner, _, outer = algorithm.removeprefix("hier(").removesuffix(")").partition("+")
    if where.network and not outer:
        inner, outer = "none", inner
    if "pipeline" in (inner, outer):
        raise OpenTrnError(
            f"NCCL's pipeline on {on.name} has no message-level form; ask for another algorithm or for the closed form"
        )
    round = 0
    if op in ("all_reduce", "reduce_scatter"):
        round = _inner(schedule, grid, size_bytes, round, inner, gather=False)
        if outer:
            round = algorithms.between(
                schedule, grid, size_bytes, round, outer, _num_colours(schedule, inner), gather=False
            )
    if op in ("all_reduce", "all_gather"):
        if outer:
            colours = _num_colours(schedule, inner) if schedule.batches else _colours_of(inner, grid)
            round = algorithms.between(schedule, grid, size_bytes, round, outer, colours, gather=True)
        _inner(schedule, grid, size_bytes, round, inner, gather=True)
    return schedule


def _inner(schedule: Schedule, grid: algorithms.Grid, size: float, round: int, name: str, *, gather: bool) -> int:
    if name == "none":
        return round
    if name in ("ring", "kangaring"):
        return algorithms.ring(schedule, grid, size, round, pairs=name == "kangaring")
    return _INNER[name](schedule, grid, size, round, gather=gather)


def _num_colours(schedule: Schedule, inner: str) -> int:
    return 1 if inner == "none" else schedule.num_colours


def _colours_of(inner: str, grid: algorithms.Grid) -> int:
    """How many colours an inner algorithm will use, found by building it once."""
    if inner == "none":
        return 1
    trial = Schedule(grid.num_ranks, 0.0, 0.0)
    _inner(trial, grid, 1.0, 0, inner, gather=True)
    return trial.num_colours


def _flat_ring(schedule: Schedule, grid: algorithms.Grid, op: str, size: float) -> None:
    """The ring over all instances; its channels take turns on a rank's collective core, step by step."""
    runtime = grid.topology.runtime
    step_us = runtime.step_us
    if runtime.channel_switch_us and size > runtime.channel_min_bytes:
        span = np.log2(runtime.channel_max_bytes / runtime.channel_min_bytes)
        opened = min(1.0, float(np.log2(size / runtime.channel_min_bytes) / span))
        step_us += opened * (ring_channels(grid.topology, grid.where) - 1) * runtime.channel_switch_us
    round = algorithms.flat_ring(schedule, grid, size, 0, step_us)
    if op == "all_reduce":
        algorithms.flat_ring(schedule, grid, size, round, step_us)


@lru_cache(maxsize=32)
def _network(on: Topology) -> Network:
    return Network(on)


def _run(schedule: Schedule, members: np.ndarray, num_groups: int, on: Topology) -> tuple[np.ndarray, np.ndarray, int]:
    """Lay the schedule out as arrays and run the event loop."""
    from opentrn.fabric.event_loop import run  # numba is imported here, where it is used

    network = _network(on)
    num_ranks = len(members)
    num_colours, num_rounds = schedule.num_colours, schedule.num_rounds
    stride = num_colours * num_ranks
    offsets = schedule.num_ranks * np.arange(num_groups)[:, None]
    out_rate = 2.0 * sum(axis.bandwidth_gb_per_s * 1e3 for axis in on.axes[1:])
    num_expected = np.zeros(num_rounds * stride, dtype=np.int32)
    num_sent = np.zeros(num_rounds * stride, dtype=np.int64)
    parts: list[tuple[np.ndarray, ...]] = []
    routed: dict[tuple[int, int], tuple[np.ndarray, ...]] = {}
    for batch in sorted(schedule.batches, key=lambda batch: (batch.round, batch.colour)):
        key = (id(batch.source), id(batch.target))
        if key not in routed:
            source = (offsets + batch.source).reshape(-1)
            target = (offsets + batch.target).reshape(-1)
            order = np.argsort(source, kind="stable")
            source, target = source[order], target[order]
            routed[key] = (source, target, order, *_routes(network, members[source], members[target]))
        source, target, order, lengths, links, delays, local = routed[key]
        base = (batch.round * num_colours + batch.colour) * num_ranks
        num_sent[base : base + num_ranks] += np.bincount(source, minlength=num_ranks)
        num_expected[base : base + num_ranks] += np.bincount(target, minlength=num_ranks).astype(np.int32)
        sizes = batch.size_bytes
        each = np.tile(sizes, num_groups)[order] if isinstance(sizes, np.ndarray) else np.full(len(source), sizes)
        # An engine that outruns all of its links never delays a message.
        limits = batch.engine_bytes_per_us < out_rate or not links.size
        engine_us = each / batch.engine_bytes_per_us + batch.issue_us if limits else np.full(len(source), -1.0)
        start_us = np.full(len(source), batch.start_us)
        sender = members[source].astype(np.int32)
        arrival = (base + target).astype(np.int32)
        parts.append((base + source, arrival, each, start_us, sender, engine_us, local, lengths, links, delays))
    bucket, *columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    target_bucket, each, start_us, sender, engine_us, local, lengths, links, delays = columns
    if (np.diff(bucket) < 0).any():
        # Batches that share a colour and round interleave by sender.
        order = np.argsort(bucket, kind="stable")
        starts = np.cumsum(lengths) - lengths
        take = np.repeat(starts[order] - (np.cumsum(lengths[order]) - lengths[order]), lengths[order])
        take += np.arange(len(links))
        links, delays = links[take], delays[take]
        target_bucket, each, start_us, sender, engine_us, local, lengths = (
            column[order] for column in (target_bucket, each, start_us, sender, engine_us, local, lengths)
        )
    bucket_start = np.zeros(len(num_sent) + 1, dtype=np.int64)
    np.cumsum(num_sent, out=bucket_start[1:])
    route_start = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=route_start[1:])
    return run(
        num_ranks,
        num_colours,
        num_rounds,
        bucket_start,
        num_expected,
        target_bucket,
        each,
        start_us,
        sender,
        engine_us,
        local,
        route_start,
        links,
        delays,
        network.link_rate,
    )


def _routes(network: Network, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, ...]:
    """(number of links, links, delays, delay within a chip) of many routes, links and delays end to end."""
    links, delays, local = network.routes(source, target)
    used = links != NO_LINK
    return used.sum(axis=1), links[used].astype(np.int32), delays[used], local
