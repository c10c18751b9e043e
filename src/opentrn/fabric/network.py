"""The links of a topology, numbered, and the route of a message over them: what the message-level simulation shares.

Every rank has one outgoing DMA engine. A ring axis has a link in each direction at every chip; a switch, direct cable
or network has one sending and one receiving port a chip (or a group of chips). Routes go one axis after the other,
innermost first, the shorter way round a ring, and straight to the target through a switch that covers the inner axes.
"""

from functools import cached_property

import numpy as np

from opentrn.errors import OpenTrnError
from opentrn.fabric.topologies import Topology

NO_LINK = -1


class Network:
    """Link numbers, rates (bytes a microsecond) and latencies of a topology's chips, and routes between its ranks.

    Links 0 to num_ranks - 1 are the ranks' DMA engines, whose rate an algorithm sets.

    broken: pairs of chips whose direct link is out of service; routes that used it take a shortest way round.
    Raises OpenTrnError for chips that have no direct link.
    """

    def __init__(self, topology: Topology, broken: frozenset[tuple[int, int]] = frozenset()) -> None:
        self.topology = topology
        self.broken = broken
        self.axes = topology.axes[1:]
        sizes = [axis.size for axis in self.axes]
        self.strides = np.cumprod([1, *sizes])[:-1].astype(np.int64)
        self.first_link = topology.num_ranks + 2 * topology.num_chips * np.arange(len(self.axes) + 1)
        self.num_links = int(self.first_link[-1])
        self._broken_links = np.array(
            [self._direct_link(*pair) for a, b in sorted(broken) for pair in ((a, b), (b, a))]
        )

    @cached_property
    def link_rate(self) -> np.ndarray:
        """Bytes a microsecond of every link; the engines' entries are infinite until an algorithm sets them."""
        rates = np.full(self.num_links, np.inf)
        for index, axis in enumerate(self.axes):
            rates[self.first_link[index] : self.first_link[index + 1]] = axis.bandwidth_gb_per_s * 1e3
        return rates

    def routes(self, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Routes between pairs of ranks: (links, delays).

        links: (pairs, hops) link numbers after the sender's engine, NO_LINK where a route is shorter; pairs on one chip
            cross none.
        delays: (pairs, hops) microseconds the head of a message takes over each link.
        """
        ranks_per_chip = self.topology.ranks_per_chip
        here, there = source // ranks_per_chip, target // ranks_per_chip
        columns: list[np.ndarray] = []
        waits: list[np.ndarray] = []
        started = np.zeros(len(source), dtype=bool)
        here = here.copy()
        for index in self._axis_order():
            axis, stride = self.axes[index], self.strides[index]
            at, goal = here // stride % axis.size, there // stride % axis.size
            if axis.kind == "ring":
                self._ring_hops(index, here, at, goal, started, columns, waits)
            else:
                self._port_hops(index, here, there, at != goal, started, columns, waits)
            moved = at != goal
            started |= moved
            here = here + np.where(moved, (goal - at) * stride, 0)
            if axis.covers_inner:
                # The switch sets the inner coordinates as well.
                inner = stride
                here = np.where(moved, here - here % inner + there % inner, here)
        if not columns:
            empty = np.full((len(source), 0), NO_LINK)
            return empty, empty.astype(float)
        links, delays = _pack_left(np.stack(columns, axis=1), np.stack(waits, axis=1))
        if len(self._broken_links):
            links, delays = self._way_round(source // ranks_per_chip, target // ranks_per_chip, links, delays)
        return links, delays

    def _direct_link(self, here: int, there: int) -> int:
        """The link from one chip to a neighbour on a ring or direct axis."""
        chips = self.topology.num_chips
        for index, (axis, stride) in enumerate(zip(self.axes, self.strides, strict=True)):
            if axis.kind not in ("ring", "direct") or not (0 <= here < chips and 0 <= there < chips):
                continue
            at, goal = here // stride % axis.size, there // stride % axis.size
            ahead = (goal - at) % axis.size
            if there - here == (goal - at) * stride and ahead in (1, axis.size - 1):
                backward = axis.kind == "ring" and axis.size > 2 and ahead != 1
                return int(self.first_link[index] + 2 * here + backward)
        raise OpenTrnError(f"chips {here} and {there} of {self.topology.name} have no direct link that could break")

    def _way_round(self, here: np.ndarray, there: np.ndarray, links: np.ndarray, delays: np.ndarray):
        """Routes that avoid the broken links: shortest paths of the graph without them."""
        import rustworkx

        from opentrn.fabric.graph import topology_graph

        graph = topology_graph(self.topology)
        for pair in sorted(self.broken):
            graph.remove_edge(*pair)
        rows = np.flatnonzero(np.isin(links, self._broken_links).any(axis=1))
        paths: dict[tuple[int, int], list[tuple[int, float]]] = {}
        for row in rows:
            pair = int(here[row]), int(there[row])
            if pair not in paths:
                found = rustworkx.dijkstra_shortest_paths(graph, pair[0], target=pair[1])
                if pair[1] not in found:
                    raise OpenTrnError(f"without its broken links chip {pair[0]} cannot reach chip {pair[1]}")
                paths[pair] = self._hops(graph, list(found[pair[1]]))
        width = max([links.shape[1], *(len(hops) for hops in paths.values())])
        grow = ((0, 0), (0, width - links.shape[1]))
        links, delays = np.pad(links, grow, constant_values=NO_LINK), np.pad(delays, grow)
        for row in rows:
            hops = paths[int(here[row]), int(there[row])]
            links[row], delays[row] = NO_LINK, 0.0
            links[row, : len(hops)] = [link for link, _ in hops]
            delays[row, : len(hops)] = [delay for _, delay in hops]
        return links, delays

    def _hops(self, graph, path: list[int]) -> list[tuple[int, float]]:
        """(link, delay) along a path of chips and switches."""
        names = [axis.name for axis in self.axes]
        hops: list[tuple[int, float]] = []
        for here, there in zip(path, path[1:], strict=False):
            index = names.index(graph.get_edge_data(here, there).axis)
            axis = self.axes[index]
            delay = axis.routed_hop_us if hops else axis.latency_us
            if axis.kind in ("ring", "direct"):
                hops.append((self._direct_link(here, there), delay))
                continue
            leaving = here < self.topology.num_chips  # into the switch through the sender's port, out through another
            chip = (here if leaving else there) // axis.chips_per_port * axis.chips_per_port
            hops.append((int(self.first_link[index] + 2 * chip + (not leaving)), delay if leaving else 0.0))
        return hops

    def _axis_order(self) -> list[int]:
        """Covering switches first (they settle the axes inside them), then the others from the inside out."""
        covering = [index for index, axis in enumerate(self.axes) if axis.covers_inner]
        return covering[::-1] + [index for index in range(len(self.axes)) if index not in covering]

    def _link(self, index: int, chip: np.ndarray, side: np.ndarray | int) -> np.ndarray:
        return self.first_link[index] + 2 * chip + side

    def _ring_hops(self, index, here, at, goal, started, columns, waits) -> None:
        axis, stride = self.axes[index], self.strides[index]
        size = axis.size
        ahead = (goal - at) % size
        # Opposite members are reached both ways; alternating by position balances the two directions.
        forward = (2 * ahead < size) | ((2 * ahead == size) & (at % 2 == 0))
        if size == 2:
            forward = np.ones_like(forward)
        num_hops = np.where(forward, ahead, size - ahead) * (ahead > 0)
        step = np.where(forward, 1, -1)
        base = here - at * stride
        for hop in range(int(num_hops.max(initial=0))):
            used = hop < num_hops
            chip = base + (at + step * hop) % size * stride
            columns.append(np.where(used, self._link(index, chip, np.where(forward, 0, 1)), NO_LINK))
            first = ~started & (hop == 0)
            waits.append(np.where(used, np.where(first, axis.latency_us, axis.routed_hop_us), 0.0))

    def _port_hops(self, index, here, there, used, started, columns, waits) -> None:
        axis, stride = self.axes[index], self.strides[index]
        if not used.any():
            return
        across = (there // stride % axis.size - here // stride % axis.size) * stride
        receiver = there if axis.covers_inner else here + across
        shared = axis.chips_per_port
        columns.append(np.where(used, self._link(index, here // shared * shared, 0), NO_LINK))
        waits.append(np.where(used, np.where(started, axis.routed_hop_us, axis.latency_us), 0.0))
        if axis.kind != "direct":  # a direct cable has one sender and one receiver
            columns.append(np.where(used, self._link(index, receiver // shared * shared, 1), NO_LINK))
            waits.append(np.zeros(len(used)))


def _pack_left(links: np.ndarray, delays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move each row's links to its left, in order, and drop columns that no row uses."""
    order = np.argsort(links == NO_LINK, axis=1, kind="stable")
    links, delays = np.take_along_axis(links, order, axis=1), np.take_along_axis(delays, order, axis=1)
    width = int((links != NO_LINK).sum(axis=1).max(initial=0))
    return links[:, :width], delays[:, :width]
