"""The cost of every plan of a program in nanoseconds, as columns for the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.neuroncore.cost import Cost, streamed
from opentrn.neuroncore.instruction import Engine
from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.timing.timeline import ENGINES

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["NUM_STREAMS", "QUEUES", "PlanCosts", "cost_of", "plan_costs"]

# Issue queues of a core: the five engines, then the queues of transfers that the kernel leaves to the compiler.
QUEUES = ("tensor", "vector", "scalar", "gpsimd", "sync", "loads", "stores", "moves")
NUM_STREAMS = len(QUEUES)
_DIRECTION = {"load": 5, "store": 6, "move": 7}
_DMA = ENGINES.index("dma")
_PORT_SBUF_SHARED, _PORT_PSUM_SHARED, _DESCRIPTORS = 1, 2, 4


@dataclass(frozen=True)
class PlanCosts:
    """One entry a plan; times in ns.

    Attributes:
        alternative: entry that may stand for a plan's, or -1; the entries beyond the program's plans are alternatives.
        stream: index into ``QUEUES``; engine: index into ``ENGINES``.
        busy, tail, load: see :class:`~opentrn.neuroncore.cost.Cost`.
        table: number of the activation table, 0 for any.
        ports: bit 1 for the SBUF port that Vector and GpSimd share, bit 2 for the PSUM port of Vector and Scalar,
        bit 4 for the
            generator of descriptors.
        tile: 16 bits, one for each 32 x 32 block of the array that a matmul occupies.
        num_descriptors, descriptor_ns: of a transfer; first_engine, num_engines: the DMA engines that carry it.
        first_ns: trigger to first payload; done_ns: last payload to completion.
    """

    costs: list[Cost]
    alternative: np.ndarray
    stream: np.ndarray
    engine: np.ndarray
    busy: np.ndarray
    tail: np.ndarray
    load: np.ndarray
    table: np.ndarray
    ports: np.ndarray
    tile: np.ndarray
    num_descriptors: np.ndarray
    descriptor_ns: np.ndarray
    first_ns: np.ndarray
    done_ns: np.ndarray
    moved: np.ndarray
    read: np.ndarray
    written: np.ndarray
    flops: np.ndarray


def cost_of(plan: Any, engine: Engine) -> Cost:
    """The cost of a plan on an engine: what its declaration says, or a plain stream where it says nothing."""
    declared = plan.instruction.cost
    return declared(plan.issue, engine) if declared is not None else streamed(plan.issue, engine)


def plan_costs(program: Program) -> PlanCosts:
    """Costs of ``program``'s plans, and after them those of the alternatives to plans in ``alternatives``.

    The earlier compiler gives copies, and sums and products with a column or number, to whichever of Vector and
    Scalar has
    less to do.
    """
    core = program.hardware
    plans = [(p, p.engine) for p in program.plans]
    alternative = np.full(len(plans), -1, dtype=np.int64)
    if program.api == "earlier":
        for k, p in enumerate(program.plans):
            if p.engine is Engine.vector and _scalar_can(p):
                alternative[k] = len(plans)
                plans.append((p, Engine.scalar))
    costs = [cost_of(p, engine) for p, engine in plans]
    n = len(costs)
    tables: dict[str, int] = {"": 0}
    out = {
        name: np.zeros(n)
        for name in (
            "busy",
            "tail",
            "load",
            "descriptor_ns",
            "first_ns",
            "done_ns",
            "moved",
            "read",
            "written",
            "flops",
        )
    }
    ints = {
        name: np.zeros(n, dtype=np.int64) for name in ("stream", "engine", "table", "ports", "tile", "num_descriptors")
    }
    for k, ((plan, on), cost) in enumerate(zip(plans, costs, strict=True)):
        t = cost.transfer
        if t is None:
            name = on.name if on.name in ENGINES else "vector"
            clock = core.get(f"{name}_clock_ghz", core.scalar_clock_ghz)
            ints["engine"][k] = ints["stream"][k] = ENGINES.index(name)
            out["busy"][k], out["tail"][k], out["load"][k] = (
                cost.busy_cycles / clock,
                cost.tail_cycles / clock,
                cost.load_cycles / clock,
            )
            ints["table"][k] = tables.setdefault(cost.table, len(tables))
            ints["ports"][k] = _ports(core, plan, name)
            ints["tile"][k] = _tile(cost.tile)
            out["flops"][k] = cost.flops
            continue
        ints["engine"][k] = _DMA
        ints["stream"][k] = QUEUES.index(t.issuer) if t.issuer else _DIRECTION[t.direction]
        ints["num_descriptors"][k] = t.num_descriptors
        rate = core.dma_engine_rate_gb_per_s * t.rate_ratio
        out["descriptor_ns"][k] = core.dma_packet_overhead_ns + t.descriptor_bytes / rate
        mode = _mode(core, program.api) if t.mode == "default" else t.mode
        if mode == "swdge":
            out["descriptor_ns"][k] += core.dma_swdge_descriptor_ns
        out["busy"][k] = core.get(f"dma_{mode}_issue_ns")
        if mode == "hwdge" and not t.issuer:
            ints["ports"][k] = _DESCRIPTORS  # one generator makes the descriptors of all that nobody spread
        out["first_ns"][k] = core.get(f"dma_{mode}_start_ns")
        out["done_ns"][k] = core.dma_completion_ns + (
            core.get("dma_load_latency_ns", 0) if t.direction == "load" else 0
        )
        out["moved"][k], out["read"][k], out["written"][k] = t.total_bytes, t.read_bytes, t.written_bytes
    return PlanCosts(costs=costs, alternative=alternative, **out, **ints)


def _scalar_can(plan: Any) -> bool:
    """Whether a plan that nobody gave an engine is an affine map of its input, which the Scalar engine computes as
    well.
    """
    issue = plan.issue
    if plan.instruction.name == "tensor_copy":
        return issue.engine is Engine.unknown
    if plan.instruction.name != "tensor_scalar" or issue.engine is not Engine.unknown:
        return False
    names = [getattr(op, "__name__", str(op)) for op in (issue.op0, issue.op1) if op is not None]
    return all(name in ("add", "subtract", "multiply") for name in names)


def _mode(core: Any, api: str) -> str:
    """How transfers are triggered that the kernel leaves to its compiler.

    From NeuronCore-v3 on the current interface uses hardware descriptors; the earlier compiler spreads them over all
    queues.
    """
    if core.generation < 3:
        return "static"
    return "spread" if api == "earlier" else "hwdge"


def _ports(core: Any, plan: Any, engine: str) -> int:
    """Which shared memory ports the plan holds while it streams."""
    if engine not in ("vector", "gpsimd", "scalar"):
        return 0
    regions = {x.region for x in plan.layouts if isinstance(x, Layout)}
    ports = 0
    if core.get("vector_gpsimd_share_sbuf_port") and engine in ("vector", "gpsimd") and MemoryRegion.sbuf in regions:
        ports |= _PORT_SBUF_SHARED
    if core.get("vector_scalar_share_psum_port") and engine in ("vector", "scalar") and MemoryRegion.psum in regions:
        ports |= _PORT_PSUM_SHARED
    return ports


def _tile(tile: tuple[int, ...]) -> int:
    """The 32 x 32 blocks of the array that a matmul uses, as bits."""
    if not tile:
        return 0xFFFF
    row, rows, column, columns = tile
    mask = 0
    for r in range(row // 32, -(-(row + rows) // 32)):
        for c in range(column // 32, -(-(column + columns) // 32)):
            mask |= 1 << (4 * r + c)
    return mask
