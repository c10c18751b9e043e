"""Message-level simulation of a collective: every message, every link, contention included.

The same algorithms as the closed forms, as schedules of messages over the links of a topology. It answers where the
formulas are coarse (irregular placements, several groups that share links, trees) and it is what they are tested
against. Deterministic: equal inputs give equal results, to the last bit.
"""

from collections.abc import Iterable, Sequence
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
from opentrn.fabric.schedule import Batch, Schedule
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
    broken_links: Iterable[tuple[int, int]] = (),
) -> SimulatedCollective:
    """Simulate one collective message by message, with contention on shared links.

    op, size_bytes, on, algorithm: as in `collective_time_us`; "auto" takes what the closed form chooses at that size.
    group: the ranks, or several equal-sized groups that run it at the same time and share links.
    broken_links: pairs of chips whose link is out of service; messages take a shortest way round.
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
    network = _network(on, frozenset((min(pair), max(pair)) for pair in broken_links))
    finish, carried, num_events = _run(schedule, members, len(groups), network)
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
def _network(on: Topology, broken: frozenset[tuple[int, int]]) -> Network:
    return Network(on, broken)


def _run(
    schedule: Schedule, members: np.ndarray, num_groups: int, network: Network
) -> tuple[np.ndarray, np.ndarray, int]:
    """Lay the schedule out as arrays and run the event loop."""
    from opentrn.fabric.event_loop import run  # numba is imported here, where it is used

    on = network.topology
    num_ranks = len(members)
    num_colours, num_rounds = schedule.num_colours, schedule.num_rounds
    num_buckets = num_rounds * num_colours * num_ranks
    num_messages = schedule.num_messages * num_groups
    out_rate = 2.0 * sum(axis.bandwidth_gb_per_s * 1e3 for axis in on.axes[1:])
    routes = _Routes(network, members, schedule.num_ranks * np.arange(num_groups)[:, None])
    num_expected = np.zeros(num_buckets, dtype=np.int32)
    num_sent = np.zeros(num_buckets, dtype=np.int64)
    bucket = np.empty(num_messages, dtype=np.int32)
    target_bucket = np.empty(num_messages, dtype=np.int32)
    kind = np.empty(num_messages, dtype=np.int32)
    route = np.empty(num_messages, dtype=np.int32)
    kinds: list[tuple[np.ndarray, float, np.ndarray]] = []
    num_kinds, first, ordered, previous = 0, 0, True, -1
    for batch in sorted(schedule.batches, key=lambda batch: (batch.round, batch.colour)):
        laid = routes.of(batch)
        last = first + len(laid.source)
        base = (batch.round * num_colours + batch.colour) * num_ranks
        ordered &= base > previous
        previous = base
        num_sent[base : base + num_ranks] += laid.num_sent
        num_expected[base : base + num_ranks] += laid.num_received
        np.add(laid.source, base, out=bucket[first:last])
        np.add(laid.target, base, out=target_bucket[first:last])
        route[first:last] = np.arange(laid.first_route, laid.first_route + len(laid.source))
        sizes = batch.size_bytes
        each = np.tile(sizes, num_groups)[laid.order] if isinstance(sizes, np.ndarray) else np.array([sizes])
        kind[first:last] = num_kinds if len(each) == 1 else np.arange(num_kinds, num_kinds + len(each))
        # An engine that outruns all of its links never delays a message.
        limits = batch.engine_bytes_per_us < out_rate or laid.on_chip
        busy_us = each / batch.engine_bytes_per_us + batch.issue_us if limits else np.full(len(each), -1.0)
        kinds.append((each, batch.start_us, busy_us))
        num_kinds += len(each)
        first = last
    if not ordered:
        # Batches that share a colour and round interleave by sender.
        order = np.argsort(bucket, kind="stable")
        target_bucket, kind, route = target_bucket[order], kind[order], route[order]
    bucket_start = np.zeros(num_buckets + 1, dtype=np.int64)
    np.cumsum(num_sent, out=bucket_start[1:])
    return run(
        num_ranks,
        num_colours,
        num_rounds,
        bucket_start,
        num_expected,
        target_bucket,
        kind,
        route,
        np.concatenate([each for each, _, _ in kinds]),
        np.concatenate([np.full(len(each), start_us) for each, start_us, _ in kinds]),
        np.concatenate([busy_us for _, _, busy_us in kinds]),
        *routes.arrays(),
        network.link_rate,
        on.axes[0].latency_us,
    )


@dataclass(frozen=True, slots=True)
class _Laid:
    """The pairs of a batch over all groups, sorted by sender, and where their routes begin in the table."""

    source: np.ndarray
    target: np.ndarray
    order: np.ndarray
    num_sent: np.ndarray
    num_received: np.ndarray
    first_route: int
    on_chip: bool


class _Routes:
    """The routes of a schedule, each stored once: most batches repeat the pairs of an earlier one."""

    def __init__(self, network: Network, members: np.ndarray, offsets: np.ndarray) -> None:
        self._network, self._members, self._offsets = network, members, offsets
        self._known: dict[tuple[int, int], _Laid] = {}
        self._engines: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._links: list[np.ndarray] = []
        self._delays: list[np.ndarray] = []
        self._num_routes = 0

    def of(self, batch: Batch) -> _Laid:
        key = (id(batch.source), id(batch.target))
        if key not in self._known:
            source = (self._offsets + batch.source).reshape(-1)
            target = (self._offsets + batch.target).reshape(-1)
            order = np.argsort(source, kind="stable")
            source, target = source[order], target[order]
            links, delays = self._network.routes(self._members[source], self._members[target])
            used = links != NO_LINK
            num_ranks = len(self._members)
            self._known[key] = _Laid(
                source,
                target,
                order,
                np.bincount(source, minlength=num_ranks),
                np.bincount(target, minlength=num_ranks).astype(np.int32),
                self._num_routes,
                not used.any(),
            )
            self._engines.append(self._members[source].astype(np.int32))
            self._lengths.append(used.sum(axis=1))
            self._links.append(links[used].astype(np.int32))
            self._delays.append(delays[used])
            self._num_routes += len(source)
        return self._known[key]

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(engine, start of the route's links, links, delays), the first two by route."""
        start = np.zeros(self._num_routes + 1, dtype=np.int64)
        np.cumsum(np.concatenate(self._lengths), out=start[1:])
        return np.concatenate(self._engines), start, np.concatenate(self._links), np.concatenate(self._delays)
