"""Closed forms of the collective algorithms: steps x hop + bytes / bandwidth, on a group's geometry.

A "half" is an all-gather or, mirrored, a reduce-scatter of `size` bytes on its full side; an all-reduce is two halves.
Transfer is limited by the busiest link (counted from the routes, dimension by dimension) or by the DMA engines of a
rank, whichever is slower. The algorithms are those of the Neuron runtime's published descriptions
(neuron-runtime/explore/intranode-collective-comm.rst and internode-collective-comm.rst), the multi-dimensional bucket
algorithm of tori (Jain & Sabharwal, ICS 2010; Sack & Gropp, SC 2012) and pipelined trees (Sanders et al., 2009).
Each is checked against the message-level simulation in the tests.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import ceil, isclose, log2, prod

from opentrn.fabric.cost import Phase
from opentrn.fabric.geometry import Geometry, Span
from opentrn.fabric.topologies import Topology


def step_us(topology: Topology, span: Span, hops: float = 1.0) -> float:
    """One step of an algorithm whose messages travel `hops` members along a span."""
    routed = max(0.0, hops * span.spacing - 1)
    return topology.runtime.step_us + span.axis.latency_us + routed * span.axis.routed_hop_us


def rank_bytes_per_us(topology: Topology, num_peers: float) -> float:
    """What the DMA engines of a rank move when it sends to `num_peers` others."""
    limit = min(topology.rank_bandwidth_gb_per_s, topology.peer_bandwidth_gb_per_s * max(1.0, num_peers))
    return limit * 1e3


def ring_half(topology: Topology, where: Geometry, *, pairs: bool = False) -> Phase:
    """A ring over all ranks that crosses each axis as seldom as it can.

    pairs: KangaRing, which joins pairs of a chip's ranks in the ring and so halves its steps.
    """
    per_node = 2.0 if pairs else 1.0
    nodes = where.num_ranks / per_node
    moved = 1 - 1 / where.num_ranks
    engine = moved / rank_bytes_per_us(topology, where.num_ranks - 1)
    # Both directions (of two cycles, where there are two) share a rank's engines but not its links.
    streams = min(topology.runtime.parallel_streams, 4 if _has_two_cycles(where) else 2) if where.num_ranks > 2 else 1
    edges: list[tuple[float, float, float]] = []  # (how many on the way round, microseconds a step, link time a byte)
    reached = nodes
    if where.core.count > per_node:
        inside = where.core.count / per_node
        edges.append((reached * (1 - 1 / inside), step_us(topology, where.core), 0.0))
        reached /= inside
    for depth, span in enumerate(where.chips):
        # link_bytes_per_us is a rank's share; the rings cross once for all ranks of a chip.
        capacity = span.link_bytes_per_us * where.ranks_per_chip * ring_capacity(where, span, innermost=depth == 0)
        edges.append((reached * (1 - 1 / span.count), step_us(topology, span), moved / capacity))
        reached /= span.count
    if where.network:
        channels = ring_channels(topology, where)
        port = where.network.axis.bandwidth_gb_per_s * 1e3 * where.ranks_per_chip / where.core.sharing
        link = moved / (port * channels)
        edges.append((reached * (1 - 1 / where.network.count), step_us(topology, where.network), link))
    latency = sum(count * step for count, step, _ in edges)
    slowest = max(engine, *(link for _, _, link in edges))
    # A chunk on its way waits at each edge for its own transfer alone; the busiest edge or engine sets the pace.
    along = sum(count * max(link, engine / streams) for count, _, link in edges) / (nodes - 1)
    return Phase("kangaring" if pairs else "ring", latency, slowest, max(0.0, slowest - along))


def ring_channels(topology: Topology, where: Geometry) -> float:
    """Rings that leave an instance side by side: at most one a network port that the group reaches."""
    assert where.network is not None
    ports = max(1.0, where.chips_per_instance / where.network.axis.chips_per_port)
    return min(float(max(1, topology.runtime.max_channels)), ports)


def _has_two_cycles(where: Geometry) -> bool:
    return len(where.chips) == 2 and all(span.wraps and span.count == where.chips[0].count for span in where.chips)


def ring_capacity(where: Geometry, span: Span, innermost: bool) -> float:
    """How many link bandwidths the rings through one chip have together along a span.

    Two directions of one Hamiltonian cycle; two edge-disjoint cycles on a whole k x k torus (Bose et al., 1995). On an
    open line the return path doubles every link's load, and on a switch both directions leave through one port.
    """
    if _has_two_cycles(where):
        return 4.0
    if span.axis.kind in ("switch", "direct", "network"):
        return 1.0 if innermost else 2.0
    if len(where.chips) == 1:
        return 2.0 if span.wraps else 1.0
    return 2.0


def mesh_half(topology: Topology, where: Geometry) -> list[Phase]:
    """Direct writes between chips in one step, then an exchange inside each chip in another."""
    phases = []
    num_chips = where.chips_per_instance
    if num_chips > 1:
        latency = topology.runtime.step_us + mesh_latency_us(where.chips)
        per_rank = (1 - 1 / num_chips) / where.ranks_per_chip / rank_bytes_per_us(topology, num_chips - 1)
        # link_bytes_per_us is one rank's share; a chunk crosses once for all members on its chip.
        loads = [
            load / (span.link_bytes_per_us * where.ranks_per_chip)
            for span, load in zip(where.chips, mesh_loads(where.chips), strict=True)
        ]
        latency += (num_chips - 1) / where.ranks_per_chip * topology.runtime.message_us
        phases.append(Phase("between chips", latency, max(per_rank, *loads)))
    if where.ranks_per_chip > 1:
        rate = rank_bytes_per_us(topology, where.ranks_per_chip - 1)
        phases.append(Phase("within chips", step_us(topology, where.core), (1 - 1 / where.ranks_per_chip) / rate))
    return phases


def mesh_latency_us(spans: Iterable[Span]) -> float:
    """The longest route of an exchange among all members: the first hop, then routed ones."""
    spans = tuple(spans)
    covering = [index for index, span in enumerate(spans) if span.axis.covers_inner]
    used = spans[max(covering) :] if covering else spans
    hops = [(span.count // 2 if span.wraps else span.count - 1) if _is_line(span) else 1 for span in used]
    routed = sum(hop * span.spacing * span.axis.routed_hop_us for hop, span in zip(hops, used, strict=True))
    return max(span.axis.latency_us for span in used) + max(0.0, routed - used[0].axis.routed_hop_us)


def mesh_loads(spans: Iterable[Span]) -> list[float]:
    """Bytes on the busiest link of each span when every chip sends a chunk to every other, over the sum of chunks.

    Minimal routing, one axis after the other; a switch that covers the inner axes takes their traffic too.
    """
    spans = tuple(spans)
    loads = []
    for index, span in enumerate(spans):
        count = span.count
        reach = 1 / prod(outer.count for outer in spans[index + 1 :] if outer.axis.covers_inner)
        if _is_line(span):
            # Sum of ring distances is k*k/4 over two directions; an open line's middle link carries k*k/4 of k flows.
            flows = _ring_distance_sum(count) / 2 if span.wraps else (count // 2) * ((count + 1) // 2)
            loads.append(flows / count * reach)
        else:
            loads.append((1 - 1 / count) * reach)
    return loads


def _is_line(span: Span) -> bool:
    return span.axis.kind == "ring"


def _ring_distance_sum(count: float) -> float:
    return count * count / 4 if count % 2 == 0 else (count * count - 1) / 4


def rdh_half(topology: Topology, where: Geometry) -> Phase | None:
    """Pairwise exchanges that double (or halve) the data, one bit of the chip's position a step.

    Slices of the data follow each other, so the exchange inside a chip hides behind the one between chips, but for
    one slice.
    None where the group's chips are no power of two along every axis.
    """
    if not where.chips or not all(_is_power_of_two(span.count) for span in where.chips):
        return None
    latency, transfer, remaining = 0.0, 0.0, 1.0 / where.ranks_per_chip
    # Slices in different steps talk to different partners at once.
    rank_rate = rank_bytes_per_us(topology, log2(where.chips_per_instance))
    for span in where.chips:  # halving order: the innermost axis carries the largest part
        for bit in reversed(range(round(log2(span.count)))):
            hops, contention = (1.0, 1.0)
            if _is_line(span):
                hops, contention = gray_exchange(round(span.count), bit, span.wraps)
            latency += step_us(topology, span, hops)
            remaining /= 2
            transfer += remaining / min(span.link_bytes_per_us / contention, rank_rate)
    rank_limit = (1 - 1 / where.chips_per_instance) / where.ranks_per_chip / rank_rate
    if where.ranks_per_chip > 1:
        latency += step_us(topology, where.core)
        inside = (1 - 1 / where.ranks_per_chip) / rank_bytes_per_us(topology, where.ranks_per_chip - 1)
        transfer += inside / topology.runtime.rdh_slices
        rank_limit += inside
    return Phase("rdh", latency, max(transfer, rank_limit))


@lru_cache(maxsize=256)
def gray_exchange(count: int, bit: int, wraps: bool) -> tuple[float, float]:
    """(hops, busiest link's flows) when members `2**bit` apart in Gray order exchange along a ring or line.

    Gray order keeps the partners of both lowest bits adjacent, which makes a ring of four a square of the hypercube.
    """
    position = {index ^ (index >> 1): index for index in range(count)}
    flows: dict[tuple[int, int], int] = {}
    longest = 0
    for code, start in position.items():
        end = position[code ^ (1 << bit)]
        distance = (end - start) % count if wraps else abs(end - start)
        forward = end > start if not wraps else distance < count - distance
        if wraps and 2 * distance == count:
            forward = start % 2 == 0
        hops = min(distance, count - distance) if wraps else distance
        longest = max(longest, hops)
        for hop in range(hops):
            link = ((start + hop) % count, 1) if forward else ((start - hop) % count, -1)
            flows[link] = flows.get(link, 0) + 1
    return float(longest), float(max(flows.values()))


def _is_power_of_two(count: float) -> bool:
    return count >= 1 and isclose(count, 2 ** round(log2(count)))


def torus_half(topology: Topology, where: Geometry) -> Phase | None:
    """Multi-dimensional buckets: two colours of data an axis (one a direction) visit the axes in rotated order.

    At any moment every link carries one colour, so all of a chip's links work at once. None without two chips.
    """
    spans = where.chips
    if not spans:
        return None
    num_axes = len(spans)
    # Every colour walks every axis once.
    latency, transfer = sum((span.count - 1) * step_us(topology, span) for span in spans), 0.0
    share = 1.0 / where.ranks_per_chip / num_axes
    for stage in range(num_axes):
        times = []
        for colour in range(num_axes):
            span = spans[(colour + stage) % num_axes]
            done = prod(spans[(colour + earlier) % num_axes].count for earlier in range(stage))
            times.append(share / done * (1 - 1 / span.count) / span.both_links_bytes_per_us)
        transfer += max(times)
    peers = 2 * num_axes
    rank_limit = (1 - 1 / where.chips_per_instance) / where.ranks_per_chip / rank_bytes_per_us(topology, peers)
    transfer = max(transfer, rank_limit)
    if where.ranks_per_chip > 1:
        latency += step_us(topology, where.core)
        transfer += (1 - 1 / where.ranks_per_chip) / rank_bytes_per_us(topology, where.ranks_per_chip - 1)
    return Phase("torus", latency, transfer)


def network_half(topology: Topology, where: Geometry, algorithm: str) -> Phase:
    """One half among the same-position ranks of all instances, `size` being the whole of what they hold together.

    algorithm: "mesh" (one step), "rdh" (log2 steps; a fold before and after where the count is no power of two) or
    "ring" (count - 1 steps).
    """
    span = where.network
    assert span is not None
    count = span.count
    runtime = topology.runtime
    moved = 1 - 1 / count
    if algorithm == "mesh":
        steps, ratio = 1.0, runtime.network_mesh_ratio
    elif algorithm == "rdh":
        steps, ratio = float(ceil(log2(count))), runtime.network_rdh_ratio
        if not _is_power_of_two(count):
            moved += 1.0  # the ranks beyond the power of two hand their data to a partner
            steps += 1.0
    else:
        steps, ratio = count - 1, runtime.network_ring_ratio
    rate = min(span.link_bytes_per_us * ratio, rank_bytes_per_us(topology, 1 if algorithm != "mesh" else count - 1))
    issue = (count - 1) * runtime.message_us if algorithm == "mesh" else 0.0
    return Phase(f"network {algorithm}", steps * step_us(topology, span) + issue, moved / rate)


def tree_depth_us(topology: Topology, where: Geometry) -> float:
    """The latency of one message from the root of a tree to its furthest leaf."""
    return sum(ceil(log2(span.count)) * step_us(topology, span) for span in where.spans)


def tree_us_per_byte(topology: Topology, where: Geometry) -> float:
    """Transfer time of one half through a double binary tree.

    A rank that is inner in one tree and leaf in the other sends the data up once and down once, some five quarters of
    it per half where trees are not perfect; on links, edges of several ranks of a chip meet, twice on a switch's port.
    """
    crowding = 1.25
    slowest = crowding / rank_bytes_per_us(topology, min(4, where.num_ranks - 1))
    for depth, span in enumerate(where.chips):
        # Outer axes are crossed by the few edges near the root.
        edges = (crowding if _is_line(span) else 2.0) / (1 if depth == 0 else 2)
        slowest = max(slowest, edges / (span.link_bytes_per_us * where.ranks_per_chip))
    if where.network:
        slowest = max(slowest, 2.0 / (where.network.link_bytes_per_us * where.ranks_per_chip))
    return slowest


def switch_pipeline_us(topology: Topology, where: Geometry, network_ratio: float) -> float:
    """NCCL's steps for one half: a ring's hand-overs in the switch, two messages a tree level on the network.

    network_ratio: a network step of the protocol in use over one of the low-latency protocol.
    """
    inside = sum((span.count - 1) * step_us(topology, span) for span in where.chips)
    if where.network is None:
        return inside
    return inside + 2 * ceil(log2(where.network.count)) * step_us(topology, where.network) * network_ratio


def pipeline_us_per_byte(topology: Topology, where: Geometry) -> float:
    """Transfer time of one half when every level streams at once: the slowest level decides."""
    slowest = (1 - 1 / where.num_ranks) / rank_bytes_per_us(topology, where.num_ranks - 1)
    for span in where.chips:
        slowest = max(slowest, (1 - 1 / span.count) / (span.link_bytes_per_us * where.ranks_per_chip))
    if where.network:
        # Every rank of an instance carries its share of the instance's traffic.
        local = where.num_ranks / where.num_instances
        slowest = max(slowest, (1 - 1 / where.num_instances) / (where.network.link_bytes_per_us * local))
    return slowest
