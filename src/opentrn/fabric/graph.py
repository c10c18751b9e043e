"""A topology as a graph: for questions about its shape, never in the path of a simulation.

Nodes are chips and switches, edges are links with their bandwidth. rustworkx answers reachability, distance and cuts.
"""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from opentrn.fabric.topologies import Topology

if TYPE_CHECKING:
    from rustworkx import PyGraph


@dataclass(frozen=True, slots=True)
class Link:
    """An edge: the axis it belongs to and its bandwidth in each direction."""

    axis: str
    bandwidth_gb_per_s: float


def topology_graph(topology: Topology) -> "PyGraph":
    """The graph of a topology: chips are nodes 0 to num_chips - 1, holding their number; switches hold a name."""
    import rustworkx

    graph = rustworkx.PyGraph(multigraph=True)
    graph.add_nodes_from(range(topology.num_chips))
    stride = 1
    for index, axis in enumerate(topology.axes[1:], start=1):
        inner = prod(other.size for other in topology.axes[1:index]) if axis.covers_inner else 1
        link = Link(axis.name, axis.bandwidth_gb_per_s)
        if axis.kind == "ring":
            _add_rings(graph, topology.num_chips, stride, axis.size, link)
        elif axis.kind == "direct":
            for chip in range(topology.num_chips):
                if chip // stride % axis.size == 0:
                    graph.add_edge(chip, chip + stride, link)
        else:
            _add_switches(graph, topology.num_chips, stride, axis.size, inner, link)
        stride *= axis.size
    return graph


def _add_rings(graph: "PyGraph", num_chips: int, stride: int, size: int, link: Link) -> None:
    for chip in range(num_chips):
        at = chip // stride % size
        if size > 2 or at == 0:
            graph.add_edge(chip, chip + ((at + 1) % size - at) * stride, link)


def _add_switches(graph: "PyGraph", num_chips: int, stride: int, size: int, inner: int, link: Link) -> None:
    """One switch for each set of chips that differ along the axis (and inside it, where the switch covers that)."""
    switches: dict[tuple[int, int], int] = {}
    for chip in range(num_chips):
        within = 0 if inner == stride else chip % stride
        key = (chip // (stride * size), within)
        if key not in switches:
            switches[key] = graph.add_node(f"{link.axis}-switch-{len(switches)}")
        graph.add_edge(chip, switches[key], link)


def diameter_hops(topology: Topology) -> int:
    """Links on the longest shortest route between two chips."""
    import rustworkx

    distances = rustworkx.distance_matrix(topology_graph(topology))
    chips = topology.num_chips
    return int(distances[:chips, :chips].max())


def cut_bandwidth_gb_per_s(topology: Topology) -> float:
    """Bandwidth, in each direction, of the links that leave the half of the chips with the lower numbers.

    Chips are numbered so that this cuts the outermost axis in two: the bisection of every topology that ships.
    """
    import rustworkx

    graph = topology_graph(topology)
    half = topology.num_chips // 2
    source, sink = graph.add_node("source"), graph.add_node("sink")
    huge = Link("all", 1e15)
    for chip in range(topology.num_chips):
        graph.add_edge(source if chip < half else sink, chip, huge)
    value, _ = _minimum_cut(rustworkx, graph, source, sink)
    return value


def _minimum_cut(rustworkx, graph: "PyGraph", source: int, sink: int) -> tuple[float, list[int]]:
    """Maximum flow between two nodes by augmenting shortest paths (rustworkx has global cuts only)."""
    capacity: dict[tuple[int, int], float] = {}
    residual = rustworkx.PyDiGraph()
    residual.add_nodes_from(range(graph.num_nodes()))
    for a, b, link in graph.weighted_edge_list():
        for pair in ((a, b), (b, a)):
            if pair not in capacity:
                residual.add_edge(*pair, None)
            capacity[pair] = capacity.get(pair, 0.0) + link.bandwidth_gb_per_s
    total = 0.0
    while True:
        paths = rustworkx.dijkstra_shortest_paths(residual, source, target=sink)
        if sink not in paths:
            return total, list(rustworkx.descendants(residual, source))
        path = list(paths[sink])
        hops = list(zip(path, path[1:], strict=False))
        flow = min(capacity[hop] for hop in hops)
        total += flow
        for a, b in hops:
            capacity[a, b] -= flow
            if capacity[a, b] <= 1e-9:
                residual.remove_edge(a, b)
            if capacity[b, a] <= 1e-9:
                residual.add_edge(b, a, None)
            capacity[b, a] += flow
