"""From an operation and a group to its cost curve: which algorithms apply, and which one the runtime takes at a size.

On the configuration whose ranges are published (16 chips joined by NeuronLink: mesh below 1 MB, RDH to 56 MB,
KangaRing above) those ranges decide. Elsewhere the cheapest algorithm of the runtime's menu wins, which is what a
runtime's tuning tables record. Across instances every collective is hierarchical: one algorithm inside, another
between.
"""

from functools import lru_cache

from opentrn.errors import OpenTrnError
from opentrn.fabric import closed_form as form
from opentrn.fabric.cost import Cost, Curve, Phase
from opentrn.fabric.geometry import Geometry, geometry
from opentrn.fabric.group import RankGroup
from opentrn.fabric.topologies import Topology

ALGORITHMS = ("auto", "ring", "kangaring", "mesh", "rdh", "torus", "tree", "hier", "pipeline")

# Half-based operations and how many halves they take.
_HALVES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
_BETWEEN = ("mesh", "rdh", "ring")
# What an algorithm asked for by name pairs with between instances.
_PARTNER = {"mesh": "mesh", "rdh": "rdh", "kangaring": "ring", "torus": "ring"}


@lru_cache(maxsize=65536)
def curve(op: str, topology: Topology, group: RankGroup, algorithm: str, siblings: bool) -> Curve:
    """The cost curve of an operation on a group; raises OpenTrnError where the algorithm does not apply."""
    if algorithm not in ALGORITHMS:
        raise OpenTrnError(f"unknown algorithm {algorithm!r}; use one of {', '.join(ALGORITHMS)}")
    where = geometry(topology, group, siblings)
    if where.num_ranks == 1:
        return Curve([Cost("none", ())])
    launch = Phase("launch", topology.runtime.launch_us, 0.0)
    if op in _HALVES:
        costs = _half_based(op, topology, where, algorithm, launch)
    else:
        costs = [cost for cost in _others(op, topology, where, launch) if algorithm in ("auto", cost.algorithm)]
    if not costs:
        raise OpenTrnError(
            f"{algorithm} does not apply to {op} over {where.num_ranks} ranks of {topology.name}"
            + (" (it needs a power of two of chips along every axis)" if algorithm == "rdh" and op in _HALVES else "")
            + "; leave the algorithm to the runtime (auto)"
        )
    if costs[0].algorithm == "pipeline" and op in _HALVES and where.network:
        # NCCL changes from its low-latency to its bulk protocol at a size.
        bulk = _pipeline(topology, where, launch, _HALVES[op], "pipeline", topology.runtime.bulk_network_ratio)
        return Curve([costs[0], bulk], [float(topology.runtime.eager_max_bytes), float("inf")])
    if algorithm == "auto":
        limited = _published_ranges(topology, where, costs)
        if limited:
            return limited
    return Curve(costs)


def _others(op: str, topology: Topology, where: Geometry, launch: Phase) -> list[Cost]:
    """The algorithms of the operations that are no halves."""
    if op in ("permute", "send_recv"):
        return [Cost("direct", (launch, _neighbour_phase(topology, where)))]
    if op in ("all_to_all", "all_to_all_v"):
        return [Cost("mesh", (launch, _exchange_phase(topology, where)))]
    return _broadcasts(topology, where, launch)


def _half_based(op: str, topology: Topology, where: Geometry, algorithm: str, launch: Phase) -> list[Cost]:
    halves = _HALVES[op]
    menu = _menu(topology, where) if algorithm == "auto" else (algorithm,)
    costs: list[Cost] = []
    if "pipeline" in menu:
        costs.append(_pipeline(topology, where, launch, halves, "pipeline"))
    if "tree" in menu and op == "all_reduce":
        costs.append(_pipeline(topology, where, launch, halves, "tree"))
    if "ring" in menu and (where.network is None or algorithm == "ring" or menu == ("ring",)):
        costs.append(_flat_ring(topology, where, launch, halves))
    if where.network is None:
        for name in menu:
            costs += _inside(name, op, topology, where, launch, halves)
        return costs
    if algorithm in _PARTNER:
        pairs = [(algorithm, _PARTNER[algorithm])]
    elif algorithm in ("auto", "hier") and topology.runtime.algorithms not in (("ring",), ("pipeline",)):
        small = where.num_instances <= topology.runtime.network_mesh_max_instances
        between_menu = [name for name in _BETWEEN if small or name != "mesh"]
        pairs = [(inner, between) for inner in _menu(topology, where) for between in between_menu]
    else:
        pairs = []
    return costs + _hierarchical(pairs, topology, where, launch, halves)


def _menu(topology: Topology, where: Geometry) -> tuple[str, ...]:
    """The runtime's algorithms for a group: KangaRing replaces the ring wherever it applies."""
    names = topology.runtime.algorithms
    if "kangaring" in names and _has_pairs(topology, where):
        return tuple(name for name in names if name != "ring")
    return names


def _has_pairs(topology: Topology, where: Geometry) -> bool:
    """Whether KangaRing applies: all ranks of every chip take part, in pairs, and there is more than one pair."""
    whole_chips = where.ranks_per_chip == topology.ranks_per_chip
    return whole_chips and where.ranks_per_chip % 2 == 0 and where.num_ranks / where.num_instances > 2


def _inside(name: str, op: str, topology: Topology, where: Geometry, launch: Phase, halves: int) -> list[Cost]:
    """An algorithm within NeuronLink; empty where it does not apply."""
    phases = _inner_half(name, topology, where)
    if not phases:
        return []
    costs = [Cost(name, (launch, *phases * halves))]
    if name == "mesh" and op == "all_reduce":
        costs.append(_single_step_mesh(topology, where, launch))
    return costs


def _inner_half(name: str, topology: Topology, where: Geometry) -> list[Phase]:
    if name == "mesh":
        return form.mesh_half(topology, where)
    if name == "rdh":
        phase = form.rdh_half(topology, where)
    elif name == "torus":
        phase = form.torus_half(topology, where)
    elif name == "kangaring":
        phase = form.ring_half(topology, where, pairs=True) if _has_pairs(topology, where) else None
    else:
        phase = None
    return [phase] if phase else []


def _single_step_mesh(topology: Topology, where: Geometry, launch: Phase) -> Cost:
    """Every rank sends its whole buffer to every other: one step, (n - 1) times the data."""
    num_ranks = where.num_ranks
    transfer = (num_ranks - 1) / form.rank_bytes_per_us(topology, num_ranks - 1)
    for span, load in zip(where.chips, form.mesh_loads(where.chips), strict=True):
        transfer = max(transfer, num_ranks * load / span.link_bytes_per_us)
    hop = form.mesh_latency_us(where.chips) if where.chips else where.core.axis.latency_us
    latency = topology.runtime.step_us + hop + (num_ranks - 1) * topology.runtime.message_us
    return Cost("mesh", (launch, Phase("single step", latency, transfer)))


def _flat_ring(topology: Topology, where: Geometry, launch: Phase, halves: int) -> Cost:
    phase = form.ring_half(topology, where)
    runtime = topology.runtime
    steps = halves * (where.num_ranks - 1)
    further = form.ring_channels(topology, where) - 1 if where.network else 0.0
    switching = steps * further * runtime.channel_switch_us
    return Cost(
        "ring",
        (launch, *[phase] * halves),
        channel_us=switching,
        channel_min_bytes=runtime.channel_min_bytes,
        channel_max_bytes=runtime.channel_max_bytes,
    )


def _hierarchical(
    pairs: list[tuple[str, str]], topology: Topology, where: Geometry, launch: Phase, halves: int
) -> list[Cost]:
    local = where.num_ranks / where.num_instances
    inside = Geometry(round(local), where.core, where.chips, None)
    costs: list[Cost] = []
    seen: set[str] = set()
    for inner, between in pairs:
        phases = [] if local <= 1 else _inner_half(inner, topology, inside)
        if local > 1 and not phases:
            if inner != "ring":
                continue
            phases = [form.ring_half(topology, inside)]
        outer = form.network_half(topology, where, between)
        outer = Phase(outer.name, outer.latency_us, outer.us_per_byte / local)
        label = between if local <= 1 else f"hier({inner}+{between})"
        if label not in seen:
            seen.add(label)
            costs.append(Cost(label, (launch, *[*phases, outer] * halves)))
    return costs


def _pipeline(
    topology: Topology, where: Geometry, launch: Phase, halves: int, name: str, network_ratio: float = 1.0
) -> Cost:
    if name == "tree":
        latency, transfer = form.tree_depth_us(topology, where), form.tree_us_per_byte(topology, where)
    else:
        latency, transfer = (
            form.switch_pipeline_us(topology, where, network_ratio),
            form.pipeline_us_per_byte(topology, where),
        )
    latency, transfer = halves * latency, halves * transfer
    return Cost(
        name,
        (launch, Phase(name, latency, transfer)),
        pipeline_us=latency,
        pipeline_saturation_us=topology.runtime.pipeline_saturation_us,
    )


def _broadcasts(topology: Topology, where: Geometry, launch: Phase) -> list[Cost]:
    """A pipelined tree, or direct writes from the root to every chip and an exchange inside each."""
    costs = [_pipeline(topology, where, launch, 1, "tree")]
    if where.network is None:
        num_peers = where.num_ranks - 1
        rate = form.rank_bytes_per_us(topology, num_peers)
        hop = form.mesh_latency_us(where.chips) if where.chips else where.core.axis.latency_us
        latency = topology.runtime.step_us + hop + num_peers * topology.runtime.message_us
        link = min((span.both_links_bytes_per_us for span in where.chips), default=rate)
        remote = where.num_ranks - where.ranks_per_chip
        costs.append(Cost("mesh", (launch, Phase("direct", latency, max(num_peers / rate, remote / link)))))
    return costs


def _exchange_phase(topology: Topology, where: Geometry) -> Phase:
    """All-to-all: every rank writes its part to every other rank directly."""
    spans = where.chips + ((where.network,) if where.network else ())
    num_peers = where.num_ranks - 1
    transfer = (num_peers / where.num_ranks) / form.rank_bytes_per_us(topology, num_peers)
    for span, load in zip(spans, form.mesh_loads(spans), strict=True):
        ratio = topology.runtime.network_mesh_ratio if span is where.network else 1.0
        transfer = max(transfer, load / (span.link_bytes_per_us * ratio))
    hop = form.mesh_latency_us(spans) if spans else where.core.axis.latency_us
    latency = topology.runtime.step_us + hop + num_peers * topology.runtime.message_us
    return Phase("direct", latency, transfer)


def _neighbour_phase(topology: Topology, where: Geometry) -> Phase:
    """A circular shift: each rank sends to the next of the group; the slowest pair decides."""
    transfer = 1 / form.rank_bytes_per_us(topology, 1)
    latency = 0.0
    inner = 1.0
    for span in where.spans:
        latency = max(latency, form.step_us(topology, span))
        if span.axis.kind != "chip":
            # Of the members inside one position of this axis only the last sends out of it.
            alone = inner > 1
            share = where.core.sharing / where.ranks_per_chip if alone else span.sharing
            transfer = max(transfer, share / (span.axis.bandwidth_gb_per_s * 1e3))
        inner *= span.count
    return Phase("direct", latency, transfer)


def _published_ranges(topology: Topology, where: Geometry, costs: list[Cost]) -> Curve | None:
    """The curve under the runtime's published size ranges, where the group is the one they were published for."""
    runtime = topology.runtime
    if where.network or not runtime.rdh_max_bytes or where.chips_per_instance != runtime.ranges_num_chips:
        return None
    by_name = {cost.algorithm: cost for cost in reversed(costs)}  # the first of both mesh variants stays
    if not {"mesh", "rdh", "kangaring"} <= by_name.keys():
        return None
    chosen = [by_name["mesh"], by_name["rdh"], by_name["kangaring"]]
    limits = [float(runtime.mesh_max_bytes), float(runtime.rdh_max_bytes), float("inf")]
    single = next((cost for cost in costs if cost.algorithm == "mesh" and cost is not by_name["mesh"]), None)
    if single and single.us_per_byte > chosen[0].us_per_byte:
        crossing = (chosen[0].latency_us - single.latency_us) / (single.us_per_byte - chosen[0].us_per_byte)
        if 0 < crossing < limits[0]:
            chosen.insert(0, single)
            limits.insert(0, crossing)
    return Curve(chosen, limits)
