"""Topologies: how cores, chips, instances and racks are joined, as a product of axes.

Every fabric of this family is a product: the cores of a chip, times the rings of a torus or the levels of a switch
tree, times instances on the network. A rank's number is its position along each axis, innermost first (cores of a
chip, then chips in torus order, then instances). Algorithms and the simulator read axes; nothing else about a
generation is known to them.
"""

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from opentrn.errors import HardwareError, OpenTrnError
from opentrn.fabric.catalogue import FabricFile, fabric_files, read_fabric_file, runtime_table, topology_index


@dataclass(frozen=True, slots=True)
class Axis:
    """One dimension of a topology.

    kind: "chip" (the cores of one chip, through its memory), "ring" (a link to each of two neighbours), "switch" (one
    port a chip), "direct" (a cable to the same position of the other unit) or "network" (EFA).
    bandwidth_gb_per_s: per direction, of one link ("ring") or of one port, already times its efficiency.
    latency_us: one message to a neighbour, without the runtime's own step time.
    routed_hop_us: each further chip a routed message passes.
    chips_per_port: chips that share one port.
    covers_inner: the switch reaches any position of the inner axes at once, so a message needs no inner hop.
    """

    name: str
    kind: str
    size: int
    bandwidth_gb_per_s: float
    latency_us: float
    routed_hop_us: float = 0.0
    chips_per_port: int = 1
    covers_inner: bool = False


@dataclass(frozen=True, slots=True)
class CollectiveRuntime:
    """The software that runs collectives: its menu of algorithms, its thresholds and its overheads.

    The fields are documented, with status and source, in `hardware/collective_runtimes/*.toml`.
    """

    name: str
    algorithms: tuple[str, ...]
    launch_us: float
    step_us: float
    rank_dma_ratio: float
    peer_dma_ratio: float
    mesh_max_bytes: int
    rdh_max_bytes: int
    ranges_num_chips: int
    max_channels: int
    channel_min_bytes: int
    channel_max_bytes: int
    channel_switch_us: float
    pipeline_saturation_us: float
    message_us: float
    rdh_slices: int
    network_mesh_max_instances: int
    parallel_streams: int
    host_dispatch_us: float
    eager_max_bytes: int
    bulk_network_ratio: float
    network_ring_ratio: float
    network_rdh_ratio: float
    network_mesh_ratio: float


# eq=False: topologies are compared and hashed by identity, which keeps cached lookups cheap; `topology` hands out the
# same object for the same arguments.
@dataclass(frozen=True, eq=False)
class Topology:
    """A fabric of `num_ranks` ranks; axes run from the cores of a chip (first) to the network (last)."""

    name: str
    axes: tuple[Axis, ...]
    runtime: CollectiveRuntime
    rank_dma_gb_per_s: float
    num_instances: int = 1
    _curves: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def ranks_per_chip(self) -> int:
        return self.axes[0].size

    @property
    def num_chips(self) -> int:
        return prod(axis.size for axis in self.axes[1:])

    @property
    def num_ranks(self) -> int:
        return self.ranks_per_chip * self.num_chips

    @property
    def rank_bandwidth_gb_per_s(self) -> float:
        """Collective traffic one rank's DMA engines can move to several peers."""
        return self.rank_dma_gb_per_s * self.runtime.rank_dma_ratio

    @property
    def peer_bandwidth_gb_per_s(self) -> float:
        """Collective traffic one rank's DMA engines can move to a single peer."""
        return self.rank_dma_gb_per_s * self.runtime.peer_dma_ratio

    def with_runtime(self, name: str) -> "Topology":
        """The same hardware under another collective runtime."""
        return _with_runtime(self, name)

    def __reduce__(self):
        # Curves hold closures of no interest to another process.
        fields = (self.name, self.axes, self.runtime, self.rank_dma_gb_per_s, self.num_instances)
        return Topology, fields


@lru_cache(maxsize=64)
def _with_runtime(topology: Topology, name: str) -> Topology:
    return replace(topology, runtime=runtime(name), _curves={})


@lru_cache(maxsize=16)
def runtime(name: str) -> CollectiveRuntime:
    """A collective runtime by name; raises HardwareError for an unknown one."""
    table, _ = runtime_table(name)
    table["algorithms"] = tuple(table["algorithms"])
    return CollectiveRuntime(name=name, **table)


def topology_names() -> list[str]:
    """Names that `topology` knows (aliases left out)."""
    return [name for file in fabric_files() for name in file.tables.get("topology", {})]


@lru_cache(maxsize=256)
def topology(
    name: str, num_instances: int = 1, *, cores_per_rank: int | None = None, collectives: str | None = None
) -> Topology:
    """The fabric of an instance, UltraServer or cluster.

    name: one of `topology_names()` or an alias ("trn2", "trn2-ultraserver", "rainier"), a torus of chips such as
        "torus-16x16x16", or the path of a fabric file of your own, followed by ":NAME" if it holds several.
    num_instances: copies of it joined by the network.
    cores_per_rank: physical cores that make one rank (LNC); the chip's default when None.
    collectives: the collective runtime, such as "neuron-2023"; the topology's default when None.
    Raises HardwareError for an unknown name or a count the hardware does not allow.
    """
    if num_instances < 1:
        raise OpenTrnError(f"the number of instances must be at least 1, got {num_instances}")
    if name.startswith("torus-"):
        shape = _torus_shape(name)
        found = torus(shape)
        if num_instances > 1:
            raise HardwareError(f"{name} has no network to join {num_instances} copies; ask for a larger torus")
        return found.with_runtime(collectives) if collectives else found
    file, key = _locate(name)
    table = file.table("topology", key)
    num_copies = num_instances
    if "copies_of" in table:
        num_copies *= table["num_copies"]
        table = file.table("topology", table["copies_of"])
    return _build(key, file, table, num_copies, cores_per_rank, collectives)


def torus(
    shape: tuple[int, ...],
    *,
    link_bandwidth_gb_per_s: float | None = None,
    latency_us: float | None = None,
    collectives: str | None = None,
) -> Topology:
    """A torus of chips with one rank each, such as (16, 16, 16).

    link_bandwidth_gb_per_s: per direction of one link; NeuronLink-v3 with its efficiency when None.
    latency_us: one hop without the runtime's step; NeuronLink-v3 when None.
    """
    if not shape or any(size < 1 for size in shape):
        raise OpenTrnError(f"a torus needs positive sizes, got {'x'.join(map(str, shape)) or 'none'}")
    return _torus(tuple(shape), link_bandwidth_gb_per_s, latency_us, collectives)


@lru_cache(maxsize=64)
def _torus(
    shape: tuple[int, ...], bandwidth_gb_per_s: float | None, latency_us: float | None, collectives: str | None
) -> Topology:
    file = next(file for file in fabric_files() if "torus" in file.tables)
    template = file.tables["torus"]
    link, chip = file.table("link", template["link"]), file.table("chip", template["chip"])
    bandwidth = bandwidth_gb_per_s or link["bandwidth_gb_per_s"] * link["efficiency_ratio"]
    latency = link["latency_us"] if latency_us is None else latency_us
    core = _axis(file, "core", "chip", 1, chip["link"])
    axes = [core]
    for index, size in enumerate(shape):
        name = "xyzwvu"[index] if index < 6 else f"d{index}"
        axes.append(Axis(name, "ring", size, bandwidth, latency, link["routed_hop_us"]))
    label = "torus-" + "x".join(map(str, shape))
    # One rank a chip uses all the chip's DMA engines.
    return Topology(label, tuple(axes), runtime(collectives or template["runtime"]), chip["dma_bandwidth_gb_per_s"])


def _torus_shape(name: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in name.removeprefix("torus-").split("x"))
    except ValueError:
        raise HardwareError(f"{name!r} is not a torus; write its sizes as in torus-16x16x16") from None


def _locate(name: str) -> tuple[FabricFile, str]:
    index = topology_index()
    if name in index:
        return index[name]
    path, _, key = name.partition(":")
    if path.endswith(".toml"):
        file = read_fabric_file(Path(path))
        known = list(file.tables.get("topology", {}))
        if not key and len(known) == 1:
            key = known[0]
        if key not in known:
            raise HardwareError(f"{path} holds the topologies {', '.join(known) or '(none)'}; name one as {path}:NAME")
        return file, key
    near = get_close_matches(name.lower(), index, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(topology_names())}"
    raise HardwareError(
        f"unknown instance or UltraServer {name!r}: {known} "
        "(a torus is written torus-16x16x16, a file of your own by its path)"
    )


def _build(
    name: str,
    file: FabricFile,
    table: dict[str, Any],
    num_copies: int,
    cores_per_rank: int | None,
    collectives: str | None,
) -> Topology:
    chip = file.table("chip", table["chip"])
    grouped = cores_per_rank or chip["cores_per_rank"]
    if grouped not in (1, chip["cores_per_rank"]) or chip["num_cores"] % grouped:
        raise HardwareError(f"{name} groups 1 or {chip['cores_per_rank']} cores to a rank, not {grouped}")
    ranks_per_chip = chip["num_cores"] // grouped
    axes = [_axis(file, "core", "chip", ranks_per_chip, chip["link"])]
    for entry in table["axes"]:
        axis = _axis(file, entry["name"], entry["kind"], entry["size"], entry["link"])
        axes.append(replace(axis, covers_inner=entry.get("covers_inner", False)))
    if num_copies > 1:
        if "network" not in table:
            raise HardwareError(f"{name} has no network to join {num_copies} of it; collectives stay in one instance")
        axes.append(replace(_axis(file, "network", "network", num_copies, table["network"]), covers_inner=True))
    return Topology(
        name=name,
        axes=tuple(axes),
        runtime=runtime(collectives or table["runtime"]),
        rank_dma_gb_per_s=chip["dma_bandwidth_gb_per_s"] / ranks_per_chip,
        num_instances=num_copies,
    )


def _axis(file: FabricFile, name: str, kind: str, size: int, link_name: str) -> Axis:
    link = file.table("link", link_name)
    return Axis(
        name=name,
        kind=kind,
        size=size,
        bandwidth_gb_per_s=link["bandwidth_gb_per_s"] * link["efficiency_ratio"],
        latency_us=link["latency_us"],
        routed_hop_us=link["routed_hop_us"],
        chips_per_port=link.get("chips_per_port", 1),
    )
