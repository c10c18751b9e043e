"""The collective algorithms as schedules of messages.

Each builder appends the rounds of one half (an all-gather, or with `gather=False` the mirrored reduce-scatter) to a
schedule and returns the next free round. The data is split evenly over colours; a builder keeps every colour's order of
rounds, so that phases can follow one another (inside NeuronLink, then between instances). See `closed_form` for the
sources of the algorithms and for the same costs as formulas.
"""

from dataclasses import dataclass
from math import log2, prod, sqrt

import numpy as np

from opentrn.errors import OpenTrnError
from opentrn.fabric.closed_form import rank_bytes_per_us
from opentrn.fabric.geometry import Geometry
from opentrn.fabric.schedule import Schedule
from opentrn.fabric.topologies import Topology


@dataclass(frozen=True, slots=True)
class Grid:
    """A group's positions as a grid: `counts` members along the core, chip and network axes, the core axis fastest."""

    topology: Topology
    where: Geometry
    counts: tuple[int, ...]  # core, then the NeuronLink axes the group extends along
    num_instances: int

    @classmethod
    def of(cls, topology: Topology, where: Geometry) -> "Grid":
        spans = (where.core, *where.chips)
        counts = tuple(round(span.count) for span in spans)
        instances = round(where.num_instances)
        if prod(counts) * instances != where.num_ranks:
            raise OpenTrnError(
                f"a message-level simulation needs the same number of ranks on every chip and instance; "
                f"{where.num_ranks} ranks on {topology.name} do not divide; use the closed form or a regular group"
            )
        return cls(topology, where, counts, instances)

    @property
    def local(self) -> int:
        """Ranks of one instance."""
        return prod(self.counts)

    @property
    def num_ranks(self) -> int:
        return self.local * self.num_instances

    def positions(self) -> np.ndarray:
        return np.arange(self.num_ranks)

    def along(self, axis: int, coordinate: np.ndarray) -> np.ndarray:
        """Positions equal to every position but with `coordinate` on an axis of `counts`."""
        stride = prod(self.counts[:axis])
        positions = self.positions()
        return positions + (coordinate - self.coordinate(axis)) * stride

    def coordinate(self, axis: int) -> np.ndarray:
        return self.positions() // prod(self.counts[:axis]) % self.counts[axis]


# ---- rings


def cycles(grid: Grid, core_counts: int, core_of) -> list[np.ndarray]:
    """Cycles through every chip; `core_of(index)` is the core that stands at place `index` of its chip."""
    chip_counts = grid.counts[1:]
    chips = [_snake(chip_counts)]
    if len(chip_counts) == 2 and chip_counts[0] == chip_counts[1] > 2 and all(s.wraps for s in grid.where.chips):
        chips = _two_cycles(chip_counts[0])
    cores = np.array([core_of(index) for index in range(core_counts)])
    return [(chip[:, None] * grid.counts[0] + cores[None, :]).reshape(-1) for chip in chips]


def _snake(counts: tuple[int, ...]) -> np.ndarray:
    """A path through a grid that turns round at the end of every row; even outer sizes make it a cycle on a torus."""
    path = np.zeros(1, dtype=np.int64)
    size = 1
    for count in counts:
        path = np.concatenate([(path if index % 2 == 0 else path[::-1]) + index * size for index in range(count)])
        size *= count
    return path


def _two_cycles(count: int) -> list[np.ndarray]:
    """Two edge-disjoint Hamiltonian cycles of a k x k torus, as Lee-distance Gray codes (Bose et al., 1995)."""
    index = np.arange(count * count)
    high, low = index // count, index % count
    turned = (low - high) % count
    return [high * count + turned, turned * count + high]


def ring(schedule: Schedule, grid: Grid, size: float, round: int, *, pairs: bool = False) -> int:
    """Ring, or KangaRing over pairs of a chip's ranks: both directions of each cycle carry a colour.

    Both halves send one chunk a round to the next rank.
    """
    paths: list[np.ndarray] = []
    if pairs:
        half = grid.counts[0] // 2
        for primary in (0, 1):
            paths += cycles(grid, half, lambda index, primary=primary: 2 * index + primary)
    else:
        paths = cycles(grid, grid.counts[0], lambda index: index)
    num_nodes = len(paths[0])
    colours = [(path, direction) for path in paths for direction in (1, -1)]
    rate = rank_bytes_per_us(grid.topology, grid.num_ranks - 1)
    if pairs:
        # A primary writes for itself and its secondary, and the pair exchanges its own part once.
        rate *= (1 - 1 / num_nodes) / (1 - 1 / grid.local) / 2
    instances = np.arange(grid.num_instances)[:, None] * grid.local
    for colour, (path, direction) in enumerate(colours):
        order = np.argsort(path)
        source, target = path[order], np.roll(path, -direction)[order]
        source, target = (instances + source).reshape(-1), (instances + target).reshape(-1)
        chunk = size / len(colours) / num_nodes
        for step in range(num_nodes - 1):
            schedule.add(_stream(grid.topology, colour), round + step, source, target, chunk, rate)
    return round + num_nodes - 1


def _stream(topology: Topology, colour: int) -> int:
    """The schedule's colour for a colour of a ring.

    With one stream a rank's collective core starts a step of all its colours together and waits for all of them.
    """
    return colour if topology.runtime.parallel_streams > 1 else 0


def num_channels(grid: Grid) -> int:
    """Channels of a ring over several instances: one an EFA device, at least one each way."""
    return max(2, grid.topology.runtime.max_channels)


def flat_ring(schedule: Schedule, grid: Grid, size: float, round: int, step_us: float) -> int:
    """One ring over all ranks of all instances, in several channels that leave an instance at different chips."""
    topology = grid.topology
    path = cycles(grid, grid.counts[0], lambda index: index)[0]
    channels = num_channels(grid)
    rate = rank_bytes_per_us(topology, grid.num_ranks - 1)
    num_chips = prod(grid.counts[1:])
    # Channels cross the network at different chips and advance by themselves, sharing a rank's collective core.
    issue_us = step_us / channels + topology.runtime.message_us
    for channel in range(channels):
        turn = channel // 2 * 2 * num_chips // channels * grid.counts[0]
        inside = np.roll(path, turn)
        whole = np.concatenate([inside + instance * grid.local for instance in range(grid.num_instances)])
        order = np.argsort(whole)
        source, target = whole[order], np.roll(whole, -1 if channel % 2 == 0 else 1)[order]
        for step in range(grid.num_ranks - 1):
            chunk = size / channels / grid.num_ranks
            schedule.add(channel, round + step, source, target, chunk, rate, 0.0, issue_us)
    return round + grid.num_ranks - 1


# ---- mesh


def mesh(schedule: Schedule, grid: Grid, size: float, round: int, *, gather: bool) -> int:
    """One round between chips, in which a chip's ranks divide the other chips, and one within chips."""
    stages = [_mesh_between, _mesh_within] if gather else [_mesh_within, _mesh_between]
    for stage in stages:
        round = stage(schedule, grid, size, round)
    return round


def _mesh_between(schedule: Schedule, grid: Grid, size: float, round: int) -> int:
    cores, chips = grid.counts[0], prod(grid.counts[1:])
    if chips == 1:
        return round
    source_chip, ahead = np.repeat(np.arange(chips), chips), np.tile(np.arange(chips), chips)
    target_chip = (source_chip + ahead) % chips  # each chip starts with another target, so that none is flooded
    sender = (target_chip + source_chip) % cores  # spreads every chip's work over its ranks
    receiver = (source_chip + target_chip) % cores
    instances = np.arange(grid.num_instances)[:, None] * grid.local
    source = (instances + source_chip * cores + sender).reshape(-1)
    target = (instances + target_chip * cores + receiver).reshape(-1)
    schedule.add(0, round, source, target, size / chips, rank_bytes_per_us(grid.topology, chips - 1))
    return round + 1


def _mesh_within(schedule: Schedule, grid: Grid, size: float, round: int) -> int:
    cores = grid.counts[0]
    if cores == 1:
        return round
    source, target = _within_pairs(grid)
    schedule.add(0, round, source, target, size / cores, rank_bytes_per_us(grid.topology, cores - 1))
    return round + 1


def _within_pairs(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    cores = grid.counts[0]
    positions = grid.positions()
    source, ahead = np.repeat(positions, cores), np.tile(np.arange(cores), len(positions))
    return source, source // cores * cores + (source + ahead) % cores


def exchange(schedule: Schedule, grid: Grid, size: float, round: int) -> int:
    """All-to-all: one round of direct writes between all pairs."""
    positions = grid.positions()
    source, ahead = np.repeat(positions, grid.num_ranks), np.tile(positions, grid.num_ranks)
    target = (source + ahead) % grid.num_ranks  # each rank starts with another target, so that none is flooded
    schedule.add(0, round, source, target, size / grid.num_ranks, rank_bytes_per_us(grid.topology, grid.num_ranks - 1))
    return round + 1


# ---- recursive doubling and halving


def rdh(schedule: Schedule, grid: Grid, size: float, round: int, *, gather: bool) -> int:
    """Pairwise exchanges along Gray-coded axes, in slices; the exchange within chips is first (halving) or last."""
    counts = grid.counts
    if prod(counts[1:]) < 2 or any(count & (count - 1) for count in counts[1:]):
        raise OpenTrnError("rdh needs a power of two of chips along every axis; use mesh or ring")
    topology, num_slices = grid.topology, grid.topology.runtime.rdh_slices
    share = size / num_slices
    stages: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    if counts[0] > 1:
        source, target = _within_pairs(grid)
        stages.append((source, target, share / counts[0], rank_bytes_per_us(topology, counts[0] - 1)))
    remaining = share / counts[0]
    positions = grid.positions()
    rate = rank_bytes_per_us(topology, log2(prod(counts[1:])))
    for axis in range(1, len(counts)):
        code = np.arange(counts[axis]) ^ (np.arange(counts[axis]) >> 1)
        place = np.argsort(code)
        for bit in reversed(range(int(log2(counts[axis])))):
            partner = place[code[grid.coordinate(axis)] ^ (1 << bit)]
            remaining /= 2
            stages.append((positions, grid.along(axis, partner), remaining, rate))
    if gather:
        stages.reverse()
    for source, target, bytes_each, rate in stages:
        for colour in range(num_slices):
            schedule.add(colour, round, source, target, bytes_each, rate)
        round += 1
    return round


# ---- torus


def torus(schedule: Schedule, grid: Grid, size: float, round: int, *, gather: bool) -> int:
    """Multi-dimensional buckets: colour = (first axis, direction); each rotates through the axes."""
    counts = grid.counts
    num_axes = len(counts) - 1
    if num_axes < 1:
        raise OpenTrnError("the torus algorithm needs at least two chips; use mesh or ring")
    topology = grid.topology
    positions = grid.positions()
    next_along = {}
    for axis in range(1, num_axes + 1):
        for direction in (1, -1):
            next_along[axis, direction] = grid.along(axis, (grid.coordinate(axis) + direction) % counts[axis])
    within = _within_pairs(grid) if counts[0] > 1 else None
    rate = rank_bytes_per_us(topology, 2 * num_axes)
    share = size / counts[0] / num_axes / 2
    last = round
    for colour in range(2 * num_axes):
        direction = 1 if colour % 2 == 0 else -1
        stages: list[tuple[np.ndarray, np.ndarray, float, float, int]] = []
        if within:
            inner_rate = rank_bytes_per_us(topology, counts[0] - 1)
            stages.append((*within, size / counts[0] / num_axes / 2, inner_rate, 1))
        remaining = share
        for stage in range(num_axes):
            axis = (colour // 2 + stage) % num_axes + 1
            remaining /= counts[axis]
            stages.append((positions, next_along[axis, direction], remaining, rate, counts[axis] - 1))
        if gather:
            stages.reverse()
        step = round
        for source, target, chunk, engine, num_steps in stages:
            for _ in range(num_steps):
                schedule.add(colour, step, source, target, chunk, engine)
                step += 1
        last = max(last, step)
    return last


# ---- between instances


def between(
    schedule: Schedule, grid: Grid, size: float, round: int, algorithm: str, num_colours: int, *, gather: bool
) -> int:
    """One half among the same-position ranks of all instances; `size` is the instance's whole buffer."""
    runtime, count, local = grid.topology.runtime, grid.num_instances, grid.local
    ratios = {"mesh": runtime.network_mesh_ratio, "rdh": runtime.network_rdh_ratio, "ring": runtime.network_ring_ratio}
    ratio = ratios[algorithm]
    positions = grid.positions()
    instance, place = positions // local, positions % local
    share = size / local / num_colours / ratio  # what the wire loses counts as bytes on it
    rounds: list[tuple[np.ndarray, np.ndarray, float]] = []
    if algorithm == "mesh":
        source, ahead = np.repeat(positions, count), np.tile(np.arange(count), len(positions))
        target = (source + ahead * local) % grid.num_ranks
        rounds.append((source, target, share / count))
    elif algorithm == "rdh":
        if count & (count - 1):
            raise OpenTrnError(f"a message-level rdh needs a power of two of instances, not {count}; use ring")
        remaining = share
        for bit in reversed(range(int(log2(count)))):
            remaining /= 2
            rounds.append((positions, (instance ^ (1 << bit)) * local + place, remaining))
        if gather:
            rounds.reverse()
    else:
        target = (instance + 1) % count * local + place
        rounds += [(positions, target, share / count)] * (count - 1)
    peers = count - 1 if algorithm == "mesh" else 1
    rate = rank_bytes_per_us(grid.topology, peers) / ratio
    for source, target, bytes_each in rounds:
        for colour in range(num_colours):
            schedule.add(colour, round, source, target, bytes_each, rate)
        round += 1
    return round


# ---- trees


def tree(schedule: Schedule, grid: Grid, size: float, *, reduce: bool, latency_us: float, transfer_us: float) -> None:
    """A double binary tree: in two trees, each with half the data in chunks, every rank is inner in at most one."""
    num_ranks = grid.num_ranks
    height_limit = max(1, num_ranks.bit_length())
    num_chunks = int(min(64, max(1, round_half_up(sqrt(height_limit * transfer_us / max(latency_us, 1e-9))))))
    path = np.concatenate([_snake(grid.counts) + index * grid.local for index in range(grid.num_instances)])
    rate = rank_bytes_per_us(grid.topology, min(4, num_ranks - 1))  # a parent and children in two trees
    parent = _in_order_parents(num_ranks)
    for which in range(2):
        order = path if which == 0 else np.roll(path[::-1], num_ranks % 2)
        height, depth = _heights(parent), _depths(parent)
        child = np.flatnonzero(parent >= 0)
        top = int(height.max())
        for chunk in range(num_chunks):
            colour = which * num_chunks + chunk
            bytes_each = size / 2 / num_chunks
            offset = 0
            if reduce:
                for level in range(top):
                    at = child[height[child] == level]
                    schedule.add(colour, level, order[at], order[parent[at]], bytes_each, rate)
                offset = top
            for level in range(top):
                at = child[depth[child] == level + 1]
                schedule.add(colour, offset + level, order[parent[at]], order[at], bytes_each, rate)


def round_half_up(value: float) -> int:
    return int(value + 0.5)


def _in_order_parents(count: int) -> np.ndarray:
    """Parents in the binary tree whose in-order walk is 0, 1, 2, ...; the root has -1."""
    parents = np.full(count, -1, dtype=np.int64)
    stack = [(0, count, -1)]
    while stack:
        low, high, above = stack.pop()
        if low >= high:
            continue
        middle = (low + high) // 2
        parents[middle] = above
        stack += [(low, middle, middle), (middle + 1, high, middle)]
    return parents


def _depths(parent: np.ndarray) -> np.ndarray:
    depth = np.zeros(len(parent), dtype=np.int64)
    at = parent.copy()
    while (at >= 0).any():
        depth += at >= 0
        at = np.where(at >= 0, parent[np.maximum(at, 0)], -1)
    return depth


def _heights(parent: np.ndarray) -> np.ndarray:
    height = np.zeros(len(parent), dtype=np.int64)
    for node in np.argsort(-_depths(parent), kind="stable"):
        if parent[node] >= 0:
            height[parent[node]] = max(height[parent[node]], height[node] + 1)
    return height
