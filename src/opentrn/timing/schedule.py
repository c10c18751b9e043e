"""From programs to a Timeline: placement, dependencies, costs, and the compiled loop over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.errors import DeadlockError, ValidationError
from opentrn.neuroncore.cost import Cost
from opentrn.timing.timeline import ENGINES, Timeline

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["WHAT_IFS", "schedule"]

WHAT_IFS = {
    "free_dma": "transfers take no time",
    "free_tensor": "the Tensor engine takes no time",
    "free_vector": "the Vector engine takes no time",
    "free_scalar": "the Scalar engine takes no time",
    "free_gpsimd": "the GpSimd engine takes no time",
    "warm_clock": "the Tensor engine always runs at full rate",
    "infinite_sbuf": "every tensor has memory of its own",
    "free_semaphores": "engines see each other's results at once",
    "no_table_loads": "activation tables are never loaded",
}
"""What :func:`schedule` can assume, and what that means."""

_REORDER_WINDOW = 24


def schedule(programs: list[Program], *, reorder: bool | None = None, what_if: str | None = None) -> Timeline:
    """Time the programs of one launch.

    Args:
        programs: instruction streams, as :class:`~opentrn.nki.launch.Launch` holds them. Programs of one core run
        one after
            another; programs of two cores side by side, sharing HBM.
        reorder: let every engine pick any instruction whose operands are there, within a window, as a compiler's list
            scheduler would. None: for kernels of the earlier interface, whose compiler does so.
        what_if: one of ``WHAT_IFS``; the schedule under that assumption.

    Raises:
        ValidationError: an unknown ``what_if``.
        DeadlockError: the cores wait for each other.
    """
    from opentrn.timing import merge

    if what_if is not None and what_if not in WHAT_IFS:
        raise ValidationError(f"what_if={what_if!r} is not one of {', '.join(WHAT_IFS)}")
    cores = merge.by_core(programs)
    if reorder is None:
        reorder = any(p.api == "earlier" for p in cores)
    return _Schedule(cores, reorder, what_if).timeline()


class _Schedule:
    """The columns of one launch, built core by core."""

    def __init__(self, cores: list[Program], reorder: bool, what_if: str | None) -> None:
        self.cores = cores
        self.reorder = reorder
        self.what_if = what_if
        self.offsets = np.concatenate(([0], np.cumsum([len(p) for p in cores]))).astype(np.int64)

    def timeline(self) -> Timeline:
        from opentrn.timing import balance, compiler, engines, placement
        from opentrn.timing.costs import NUM_STREAMS, QUEUES, plan_costs

        hardware = self.cores[0].hardware
        given = self.cores
        compiled = [compiler.compile_earlier(p) if p.api == "earlier" else compiler.unchanged(p) for p in given]
        self.cores = [k.program for k in compiled]
        dropped = np.concatenate([k.dropped for k in compiled])
        costs = [plan_costs(p) for p in self.cores]
        plan_base = np.concatenate(([0], np.cumsum([len(k.costs) for k in costs]))).astype(np.int64)
        plan = np.concatenate(
            [
                balance.choose(p.plan, k.alternative, k.engine, k.busy) + plan_base[c]
                for c, (p, k) in enumerate(zip(self.cores, costs, strict=True))
            ]
        ).astype(np.int64)
        core_of = np.repeat(np.arange(len(self.cores)), np.diff(self.offsets)).astype(np.int64)
        column = {
            name: np.concatenate([getattr(k, name) for k in costs])
            for name in (
                "stream",
                "engine",
                "busy",
                "tail",
                "load",
                "table",
                "ports",
                "tile",
                "num_descriptors",
                "descriptor_ns",
                "first_ns",
                "done_ns",
                "moved",
                "read",
                "written",
                "flops",
            )
        }
        self._assume(column)
        if dropped.any():
            plan = self._drop(plan, dropped, column)
        stream_of = column["stream"][plan] + core_of * NUM_STREAMS
        placements = tuple(placement.place(k.program, unlimited=self.what_if == "infinite_sbuf") for k in compiled)
        for k, (_, byte) in zip(compiled, placements, strict=True):
            byte -= k.origin
        edges = self._edges(column, placements, plan, compiled)
        num_queues = NUM_STREAMS * len(self.cores)
        order = np.argsort(stream_of, kind="stable")
        queue_start = np.searchsorted(stream_of[order], np.arange(num_queues + 1)).astype(np.int64)
        window_ns = hardware.get("pe_didt_window_exact_ns", 0.0) if self.what_if != "warm_clock" else 0.0
        # What the two cores of a stack draw from it together; a core alone is held by its DMA engines.
        hbm_ns_per_byte = 1.0 / hardware.hbm_stack_bandwidth_gb_per_s
        run: Any = engines.run  # compiled: its arguments are columns, too many to check one by one
        result = run(
            plan,
            core_of,
            stream_of.astype(np.int64),
            queue_start,
            order.astype(np.int64),
            *edges,
            column["engine"],
            column["busy"],
            column["tail"],
            column["load"],
            column["table"],
            column["ports"],
            column["tile"],
            column["num_descriptors"],
            column["descriptor_ns"],
            column["first_ns"],
            column["done_ns"],
            column["moved"],
            column["read"] + column["written"],
            self._latency(hardware),
            len(self.cores),
            NUM_STREAMS,
            hardware.num_dma_engines,
            hbm_ns_per_byte,
            float(window_ns),
            float(hardware.get("pe_activity_threshold_ratio", 0.0)),
            float(hardware.get("pe_didt_start_limit_ratio", 1.0)),
            float(hardware.get("pe_cold_pipeline_ns", 0.0)),
            0.0 if self.what_if == "no_table_loads" else float(hardware.scalar_table_load_ns),
            0.0,
            float(hardware.pe_load_stationary_interval_cycles / hardware.tensor_clock_ghz),
            _REORDER_WINDOW if self.reorder else 1,
            self.what_if == "free_dma",
        )
        (
            done,
            start,
            ready,
            free,
            end,
            busy,
            cause,
            blocked,
            wait_latency,
            clock_loss,
            table_load,
            dma_start,
            dma_end,
            dma_busy,
            clock,
        ) = result
        if done < len(plan):
            raise DeadlockError(
                "the cores wait for each other and none can go on; make every core reach the same barriers", None
            )
        engine = column["engine"][plan]
        moving = engine == ENGINES.index("dma")
        queue = np.where(moving, column["stream"][plan], -1)
        issuer = np.where(moving, np.minimum(column["stream"][plan], ENGINES.index("dma")), engine)
        return Timeline(
            programs=tuple(given),
            offsets=self.offsets,
            core=core_of.astype(np.int16),
            engine=engine.astype(np.int8),
            issuer=issuer.astype(np.int8),
            ready_ns=ready,
            start_ns=start,
            free_ns=free,
            end_ns=end,
            busy_ns=busy,
            cause=cause,
            blocked_by=blocked,
            wait_latency_ns=wait_latency,
            clock_loss_ns=clock_loss,
            table_load_ns=table_load,
            queue=queue.astype(np.int16),
            queues=QUEUES,
            dma_start_ns=dma_start,
            dma_end_ns=dma_end,
            read_bytes=column["read"][plan].astype(np.int64),
            written_bytes=column["written"][plan].astype(np.int64),
            moved_bytes=column["moved"][plan].astype(np.int64),
            num_descriptors=column["num_descriptors"][plan],
            flops=column["flops"][plan].astype(np.int64),
            cost_id=plan,
            costs=(*(c for k in costs for c in k.costs), Cost()),
            dma_engine_busy_ns=dma_busy,
            tensor_clock=clock,
            overhead_ns=float(hardware.launch_overhead_ns),
            profile_overhead_ns=float(hardware.profile_overhead_ns),
            placements=placements,
            what_if=self.what_if,
        )

    def _drop(self, plan: np.ndarray, dropped: np.ndarray, column: dict[str, np.ndarray]) -> np.ndarray:
        """Plan numbers with the dropped instructions on a plan that costs nothing."""
        free = len(column["busy"])
        for name, values in column.items():
            column[name] = np.append(values, np.zeros(1, dtype=values.dtype))
        column["stream"][free] = 7
        column["engine"][free] = ENGINES.index("dma")
        return np.where(dropped, free, plan)

    def _assume(self, column: dict[str, np.ndarray]) -> None:
        """Change the costs as ``what_if`` says."""
        what_if = self.what_if
        if what_if in ("free_tensor", "free_vector", "free_scalar", "free_gpsimd"):
            of = column["engine"] == ENGINES.index(what_if.removeprefix("free_"))
            for name in ("busy", "tail", "load"):
                column[name][of] = 0.0
            column["table"][of] = 0

    def _latency(self, hardware: Any) -> np.ndarray:
        """Semaphore latency from queue to queue, in ns."""
        from opentrn.timing.costs import NUM_STREAMS, QUEUES

        table = np.full((NUM_STREAMS, NUM_STREAMS), float(hardware.semaphore_ns))
        if self.what_if == "free_semaphores":
            return np.zeros_like(table)
        for a, source in enumerate(QUEUES):
            for b, target in enumerate(QUEUES):
                if target == "gpsimd":
                    table[a, b] = hardware.get("semaphore_to_gpsimd_ns", hardware.semaphore_ns)
                found = hardware.get(f"semaphore_{source}_to_{target}_ns")
                if found is not None:
                    table[a, b] = found
        return table

    def _edges(self, column: dict[str, np.ndarray], placements: tuple, plan: np.ndarray, compiled: list[Any]) -> tuple:
        """Dependencies of all cores as one CSR."""
        from opentrn.timing import dependencies, meetings, regions
        from opentrn.timing.costs import NUM_STREAMS

        in_order = np.array([True] * 5 + [False] * 3)
        parts = []
        for c, program in enumerate(self.cores):
            found, operand_start, is_write = regions.find_regions(program, placements[c])
            if compiled[c].dropped.any():
                gone = np.repeat(compiled[c].dropped, np.diff(operand_start))
                found.of_operand[gone] = -1
            own = plan[self.offsets[c] : self.offsets[c + 1]]
            streams = column["stream"][own]
            moving = column["engine"][own] == ENGINES.index("dma")
            # A transfer completes on its own time, whichever queue triggered it.
            kind = np.where(moving, np.maximum(streams, 5), streams).astype(np.int64)
            explicit = np.array(
                sorted([*program.dependencies, *compiled[c].order], key=lambda d: (d[1], d[0])), dtype=np.int64
            ).reshape(-1, 2)
            num = max(len(program.allocations), 1)
            begin, producer, sort, reuse = dependencies.find_dependencies(
                operand_start,
                is_write,
                found.of_operand,
                found.start,
                found.other,
                found.covered,
                found.tensor,
                program.operand_allocation % num,
                kind,
                in_order,
                explicit,
                len(found.start) - 1,
            )
            parts.append((begin, producer + self.offsets[c], sort, reuse))
        assert len(in_order) == NUM_STREAMS
        if len(parts) == 1:
            return parts[0]
        base = np.cumsum([0] + [len(p[1]) for p in parts])
        begin = np.concatenate([p[0][:-1] + base[c] for c, p in enumerate(parts)] + [base[-1:]])
        producers, sorts, reuses = (np.concatenate([p[k] for p in parts]) for k in (1, 2, 3))
        joined = (begin, producers, sorts, reuses)
        return meetings.join(self.cores, self.offsets, column["stream"][plan], joined)
