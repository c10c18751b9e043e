"""Where a rank group lies on a topology: how far it extends along each axis and with whom it shares links.

Closed forms need no list of links: a regular group is a product of extents, so its traffic on an axis follows from the
extent, the spacing between its members and the number of ranks whose traffic meets on one link or port.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

import numpy as np

from opentrn.errors import OpenTrnError
from opentrn.fabric.group import RankGroup
from opentrn.fabric.topologies import Axis, Topology


@dataclass(frozen=True, slots=True)
class Span:
    """A group's extent along one axis.

    count: members along it (a mean, so not always whole, for irregular groups).
    spacing: positions between neighbouring members.
    sharing: ranks, of this group and its siblings, whose traffic meets on one chip's link or port of this axis.
    """

    axis: Axis
    count: float
    spacing: int
    sharing: float

    @property
    def wraps(self) -> bool:
        """Whether the members close a ring, so that both directions carry them."""
        return self.axis.kind == "ring" and self.axis.size > 2 and self.count * self.spacing >= self.axis.size

    @property
    def link_bytes_per_us(self) -> float:
        """One direction of one link or port, divided among the ranks that share it."""
        return self.axis.bandwidth_gb_per_s * 1e3 / self.sharing

    @property
    def both_links_bytes_per_us(self) -> float:
        """What a member can send along the axis when both directions of a ring are used."""
        return self.link_bytes_per_us * (2 if self.wraps else 1)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A group's extents: `core` within a chip, `chips` along the NeuronLink axes, `network` between instances."""

    num_ranks: int
    core: Span
    chips: tuple[Span, ...]
    network: Span | None

    @property
    def ranks_per_chip(self) -> float:
        """Members of the group on each of its chips."""
        return self.core.count

    @property
    def chips_per_instance(self) -> float:
        return prod(span.count for span in self.chips)

    @property
    def num_instances(self) -> float:
        return self.network.count if self.network else 1.0

    @property
    def spans(self) -> tuple[Span, ...]:
        """Every axis the group extends along, innermost first."""
        spans = (self.core, *self.chips) + ((self.network,) if self.network else ())
        return tuple(span for span in spans if span.count > 1)


@lru_cache(maxsize=65536)
def geometry(topology: Topology, group: RankGroup, siblings: bool) -> Geometry:
    """The extents of `group` on `topology`.

    siblings: the topology's other ranks form groups like this one and run the same collective at the same time.
    Raises OpenTrnError when the group does not fit.
    """
    if group.last_rank >= topology.num_ranks:
        raise OpenTrnError(
            f"a group of {group.num_ranks} ranks reaching rank {group.last_rank} does not fit on {topology.name}, "
            f"which has ranks 0 to {topology.num_ranks - 1}; use a smaller group or more instances"
        )
    extents = _extents(topology, group)
    core_count, _ = extents[0]
    active = topology.ranks_per_chip if siblings else core_count
    core = Span(topology.axes[0], core_count, 1, active)
    chips: list[Span] = []
    network: Span | None = None
    for axis, (count, spacing) in zip(topology.axes[1:], extents[1:], strict=True):
        if count <= 1:
            continue
        sharing = active
        if axis.kind == "ring" and siblings:
            sharing *= spacing
        if axis.chips_per_port > 1:
            neighbours = axis.chips_per_port if siblings else prod(count for count, _ in extents[1:-1])
            sharing *= min(axis.chips_per_port, neighbours)
        span = Span(axis, count, spacing, sharing)
        if axis.kind == "network":
            network = span
        else:
            chips.append(span)
    return Geometry(group.num_ranks, core, tuple(chips), network)


def _extents(topology: Topology, group: RankGroup) -> list[tuple[float, int]]:
    """(count, spacing) along every axis; the counts multiply to the size of the group."""
    members = np.unique(group.members())
    extents: list[tuple[float, int]] = []
    for axis in topology.axes:
        outer = np.unique(members // axis.size)
        count = len(members) / len(outer)
        spacing = 1
        if 1 < count < axis.size:
            positions = np.unique(members[members // axis.size == outer[0]] % axis.size)
            if len(positions) > 1:
                spacing = gcd(*np.diff(positions).tolist())
        extents.append((count, spacing))
        members = outer
    return extents
