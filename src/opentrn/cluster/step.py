"""One training step of many layouts: per-layer times, then the compiled simulation of the whole step.

`StepModel` is what everything else asks: validation for one layout, the search for hundreds of thousands. Layer times
depend on few of a layout's axes, so they are computed once for each distinct combination and looked up after that.
"""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from opentrn.cluster import step_kernel as kernel
from opentrn.cluster.candidates import LayoutTable
from opentrn.cluster.job import Job, host_speed
from opentrn.cluster.layer_schedule import LayerTimes, layer_times
from opentrn.cluster.layout import RECOMPUTE, Layout
from opentrn.cluster.machines import Machine
from opentrn.cluster.memory import GIB, MemoryTable, expert_parameters, memory_table, shared_parameters
from opentrn.cluster.operator_times import OperatorTimes, RooflineTimes
from opentrn.cluster.operators import Operator, Sharding, backward, head_operators, optimizer_operator

__all__ = ["StepModel", "StepTable", "slowest_of"]


def slowest_of(num_chips: int, sigma: float) -> float:
    """Expected slowdown of the slowest of `num_chips` chips whose speeds spread by `sigma` (relative, normal).

    A synchronous step runs at the pace of its slowest chip. Blom's approximation of the largest order statistic.
    """
    if num_chips <= 1:
        return 1.0
    return 1.0 + sigma * NormalDist().inv_cdf((num_chips - 0.375) / (num_chips + 0.25))


@dataclass(frozen=True)
class StepTable:
    """Results, one entry a layout. Times in seconds on the slowest rank; `busy_s` is its passes without any waiting."""

    layouts: LayoutTable
    step_time_s: np.ndarray
    passes_s: np.ndarray
    exchange_s: np.ndarray
    update_s: np.ndarray
    busy_s: np.ndarray
    memory: MemoryTable

    @property
    def memory_gib(self) -> np.ndarray:
        return self.memory.total / GIB


class StepModel:
    """The step of `job` on `machine`; `times` replaces the roofline by another source of operator times."""

    def __init__(self, job: Job, machine: Machine, times: OperatorTimes | None = None) -> None:
        self.job, self.machine = job, machine
        c = job.constants
        self._times = times or RooflineTimes(
            machine.chip,
            machine.cores_per_rank,
            job.dtype,
            tensor_instruction_cycles=c.tensor_instruction_cycles,
            hbm_efficiency=c.hbm_efficiency,
            engine_overlap=c.engine_overlap if job.software.engine_overlap is None else job.software.engine_overlap,
            elementwise_scale=job.software.elementwise_scale or c.elementwise_scale,
            launch_us=c.launch_us,
        )
        self.slowdown = slowest_of(machine.num_chips, c.chip_speed_sigma)
        self._layers: dict[tuple[int, ...], list[LayerTimes]] = {}
        self._edges: dict[tuple[int, ...], tuple[float, ...]] = {}
        self._exchanges: dict[tuple[int, ...], np.ndarray] = {}

    @cached_property
    def offsets(self) -> np.ndarray:
        """First layer of each stack in the whole model, and the number of layers at the end."""
        return np.cumsum([0, *(stack.num_layers for stack in self.job.model.stacks)])

    def memory(self, table: LayoutTable) -> MemoryTable:
        return memory_table(self.job, table)

    def evaluate(self, table: LayoutTable) -> StepTable:
        """Simulate a step of every layout in the table."""
        results = kernel.simulate_steps(*self.arrays(table), self.offsets) * 1e-6
        return StepTable(
            table,
            results[:, kernel.STEP],
            results[:, kernel.PASSES],
            results[:, kernel.EXCHANGE],
            results[:, kernel.UPDATE_TIME],
            results[:, kernel.BUSY],
            self.memory(table),
        )

    def lower_bounds_s(self, table: LayoutTable) -> np.ndarray:
        """Seconds that no layout's step can be shorter than; cheaper than simulating it."""
        return kernel.lower_bounds(*self.arrays(table), self.offsets) * 1e-6

    def pass_times_us(self, layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Forward, backward and weight-gradient times [rank, chunk] of one layout and the time to the next stage."""
        ints, layer, edge = self.arrays(LayoutTable.of([layout]))
        shape = (layout.pp, layout.chunks)
        f, b, i, w = (np.zeros(shape) for _ in range(4))
        kernel.chunk_times(ints[0], layer[0], edge[0], self.offsets, f, b, i, w)
        if layout.schedule == "zero-bubble":
            b = i + w
        return f, b, w, float(edge[0, kernel.SEND])

    def arrays(self, table: LayoutTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Integer, per-layer and edge columns of the compiled kernel."""
        count, stacks = len(table), len(self.job.model.stacks)
        ints = np.empty((count, kernel.NUM_INT), dtype=np.int64)
        micro = self.job.global_batch // (table.column("dp") * table.column("micro_batch"))
        for column, values in (
            (kernel.SCHEDULE, table.column("schedule")),
            (kernel.PP, table.column("pp")),
            (kernel.CHUNKS, table.column("chunks")),
            (kernel.MICRO, micro),
            (kernel.ZERO, table.column("zero")),
            (kernel.OVERLAP, int(self.job.software.overlap_gradients)),
        ):
            ints[:, column] = values
        layer = np.zeros((count, stacks, kernel.NUM_LAYER))
        edge = np.zeros((count, kernel.NUM_EDGE))
        self._fill_compute(table, micro, layer, edge)
        self._fill_exchange(table, layer, edge)
        return ints, layer, edge

    def _fill_compute(self, table: LayoutTable, micro: np.ndarray, layer: np.ndarray, edge: np.ndarray) -> None:
        names = ("tp", "cp", "ep", "sp", "micro_batch", "recompute")
        keys = np.stack(
            [*(table.column(n) for n in names), np.minimum(micro, 2), table.column("dp"), table.column("pp") > 1], 1
        )
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        rows = np.empty((len(unique), layer.shape[1], 4))
        edges = np.empty((len(unique), 7))
        for index, key in enumerate(unique):
            tp, cp, ep, sp, mb, recompute, accumulates, dp, piped = (int(v) for v in key)
            # Within a layer dp only matters to the placement of expert groups.
            layer_key = (tp, cp, ep, sp, mb, recompute, accumulates)
            for stack, times in enumerate(self._layer_times(layer_key)):
                rows[index, stack] = (times.forward_us, times.backward_us, times.input_us, times.weight_us)
            edges[index] = (
                *self._edge_times((tp, cp, ep, sp, mb)),
                self._send_us(tp, cp, sp, mb, dp) if piped else 0.0,
                self._host_us(mb),
            )
        inverse = inverse.reshape(-1)
        layer[:, :, :4] = rows[inverse] * 1.0
        edge[:, kernel.FIRST_FORWARD : kernel.LAST_WEIGHT + 1] = edges[inverse][:, :5]
        edge[:, kernel.SEND], edge[:, kernel.HOST] = edges[inverse][:, 5], edges[inverse][:, 6]
        edge[:, kernel.DISPATCH] = self.job.software.dispatch_us_per_graph

    def _fill_exchange(self, table: LayoutTable, layer: np.ndarray, edge: np.ndarray) -> None:
        keys = np.stack([table.column(n) for n in ("tp", "cp", "ep", "dp", "zero")], 1)
        unique, inverse = np.unique(keys, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        rows = np.stack([self._exchange_times(tuple(int(v) for v in key)) for key in unique])[inverse]
        layer[:, :, kernel.GATHER :] = rows[:, :-1, :]
        edge[:, kernel.EDGE_REDUCE], edge[:, kernel.EDGE_UPDATE], edge[:, kernel.EDGE_REFRESH] = (
            rows[:, -1, kernel.REDUCE - kernel.GATHER],
            rows[:, -1, kernel.UPDATE - kernel.GATHER],
            rows[:, -1, kernel.REFRESH - kernel.GATHER],
        )

    def _part(self, tp: int, cp: int, ep: int, sp: int, mb: int) -> Sharding:
        job = self.job
        return Sharding(
            mb,
            job.seq_len,
            tp,
            cp,
            ep,
            bool(sp),
            job.software.attention,
            4 if job.dtype == "fp32" else 2,
            frozen_weights=job.tuning == "lora",
            quantised=job.dtype == "fp8",
        )

    def _layer_times(self, key: tuple[int, ...]) -> list[LayerTimes]:
        found = self._layers.get(key)
        if found is None:
            tp, cp, ep, sp, mb, recompute, accumulates = key
            layout = Layout(tp=tp, cp=cp, ep=ep, sp=bool(sp), micro_batch=mb, recompute=RECOMPUTE[recompute])
            part, machine = self._part(tp, cp, ep, sp, mb), self.machine
            axes = {"tp": (tp, 1), "cp": (cp, tp), "ep": (ep, tp)}

            def collective(operation: str, num_bytes: float, axis: str) -> float:
                return machine.collective_us(operation, num_bytes, axes[axis])

            found, encoder = [], 0.0
            for stack in self.job.model.stacks:
                weights = float(shared_parameters(stack, tp) + expert_parameters(stack, tp, ep))
                # Adding a micro-batch's gradients to the accumulated ones reads both and writes the sum.
                add = Operator(
                    "accumulate", sbuf_elements=weights, hbm_bytes=weights * (2.0 + 2.0 * self.job.software.grad_bytes)
                )
                found.append(
                    layer_times(
                        stack,
                        part,
                        layout,
                        _Slowed(self._times, self.slowdown),
                        collective,
                        encoder,
                        add if accumulates > 1 else None,
                    )
                )
                encoder = float(stack.seq_len(self.job.seq_len))
            self._layers[key] = found
        return found

    def _edge_times(self, key: tuple[int, ...]) -> tuple[float, ...]:
        """Embedding forward and backward; head forward, backward and the weight-gradient part of it."""
        found = self._edges.get(key)
        if found is None:
            tp, cp, ep, sp, mb = key
            part, model = self._part(tp, cp, ep, sp, mb), self.job.model
            tokens = part.tokens(model.stacks[0])
            lookup = Operator("embedding", hbm_bytes=3.0 * tokens * model.stacks[0].hidden * part.element_bytes)
            times = _Slowed(self._times, self.slowdown)
            embedding = times.time_us(lookup)
            head = head_operators(model, part)
            forward = sum(times.time_us(op) for op in head)
            gradients = [backward(op) for op in head]
            data = sum(times.time_us(d) for d, _ in gradients)
            weight = 0.0 if part.frozen_weights else sum(times.time_us(w) for _, w in gradients if w is not None)
            comm = self.machine.collective_us("all_reduce", tokens * model.hidden * part.element_bytes, (tp, 1))
            found = (embedding, 2.0 * embedding, forward, data + weight + comm, weight)
            self._edges[key] = found
        return found

    def _send_us(self, tp: int, cp: int, sp: int, mb: int, dp: int) -> float:
        stack = self.job.model.stacks[-1]
        tokens = mb * stack.seq_len(self.job.seq_len) / cp
        width = 4 if self.job.dtype == "fp32" else 2
        return self.machine.collective_us(
            "permute", tokens * stack.hidden * width / (tp if sp else 1), (2, tp * cp * dp)
        )

    def _host_us(self, mb: int) -> float:
        """Host time to trace one micro-batch's graph, whatever its size; 0 for compiled graphs."""
        each = self.job.software.tracing_us_per_operation
        return each / host_speed(self.machine.name) * traced_operations(self.job) if each else 0.0

    def _exchange_times(self, key: tuple[int, ...]) -> np.ndarray:
        """[stack and edge, (gather, reduce, update, refresh)] of one layer on one rank."""
        found = self._exchanges.get(key)
        if found is not None:
            return found
        tp, cp, ep, dp, zero = key
        job, model = self.job, self.job.model
        out = np.zeros((len(model.stacks) + 1, 4))
        from opentrn.cluster.memory import _trained_fraction

        trained = _trained_fraction(job)
        width = 4.0 if job.dtype == "fp32" else 2.0
        replicas, expert_replicas = dp * cp, max(1, dp * cp // ep)
        parts = [(float(shared_parameters(s, tp)), float(expert_parameters(s, tp, ep))) for s in model.stacks]
        parts.append(((model.embedding_parameters + model.stem_parameters) / tp, 0.0))
        # Replicas of a weight: every cp x dp neighbour of the same tp position; experts repeat every ep of them.
        groups = (((cp, tp), (dp, tp * cp)), ((expert_replicas, tp * ep),))
        times = _Slowed(self._times, self.slowdown)
        for row, sizes in enumerate(parts):
            for size, group, copies in zip(sizes, groups, (replicas, expert_replicas), strict=True):
                if size == 0.0:
                    continue
                grads = size * trained * job.software.grad_bytes
                gather = self.machine.collective_us("all_gather", size * width, *group)
                out[row, 0] += gather
                out[row, 1] += self.machine.collective_us(
                    "all_reduce" if zero == 0 else "reduce_scatter", grads, *group
                )
                held = size * trained / (copies if zero >= 1 else 1)
                out[row, 2] += times.time_us(optimizer_operator(held, job.optimizer, job.software.master_weights))
                out[row, 3] += gather * trained if zero in (1, 2) else 0.0
        self._exchanges[key] = out
        return out


@dataclass(frozen=True)
class _Slowed:
    """Operator times of the slowest chip of the job."""

    times: OperatorTimes
    factor: float

    def time_us(self, operator: Operator) -> float:
        return self.times.time_us(operator) * self.factor


def traced_operations(job: Job) -> float:
    """Framework operations that a lazy-tensor trainer traces for one micro-batch, forward and backward.

    Counted from the modules of a decoder layer as its Python code runs them: two norms of 8, seven linear layers of 2
    and their tensor-parallel regions (4), 8 reshapes and transposes, rotary embedding (14), repeated key/value heads
    (4), attention (10), activation (2) and residuals (2) make 66 for a gated layer; query/key norms add 16 and adapters
    7 to each linear layer. Backward traces twice as many.
    """
    total = 0.0
    for stack in job.model.stacks:
        linear = 7 if stack.gated else 6
        operations = 16 + 2 * linear + 4 + 8 + 10 + 2 + 2
        operations += 14 if stack.positions == "rope" else 0
        operations += 4 if stack.num_kv_heads < stack.num_heads else 0
        operations += 16 if stack.qk_norm else 0
        operations += 7 * linear if job.tuning == "lora" else 0
        total += stack.num_layers * operations
    return 3.0 * total
