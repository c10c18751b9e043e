"""The time of one layer, forward and backward, by simulating its operators and its collectives on their streams.

A rank has a compute stream and a communication stream. Work on a stream runs in order; work on different streams
overlaps as far as the data allow: a weight gradient hides the reduce-scatter of the input gradient, the blocks of ring
attention hide the passing of keys and values, and what nothing hides is paid in full.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opentrn.cluster.layout import Layout
from opentrn.cluster.models import Stack
from opentrn.cluster.operator_times import OperatorTimes
from opentrn.cluster.operators import Operator, Sharding, backward, layer_operators

__all__ = ["LayerTimes", "Node", "layer_times", "run_streams"]

# (operation, bytes, axis) -> microseconds; sizes as the fabric counts them.
CollectiveTimes = Callable[[str, float, str], float]

COMPUTE, COMM = 0, 1


@dataclass(frozen=True)
class Node:
    """Something that occupies a stream for a while, after other nodes (by index) are done."""

    name: str
    stream: int
    duration_us: float
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class LayerTimes:
    """Wall time of one layer for one micro-batch, in microseconds, communication inside the layer included.

    `backward_us` is input and weight gradients together with what overlap there is; `input_us` and `weight_us` are the
    same work split for schedules that move weight gradients. `exposed_comm_us` is the part of forward plus backward in
    which only the communication stream works.
    """

    forward_us: float
    backward_us: float
    input_us: float
    weight_us: float
    exposed_comm_us: float
    compute_us: float


def run_streams(nodes: Sequence[Node], num_streams: int = 2) -> tuple[float, list[tuple[float, float]]]:
    """Run nodes in the given order, each on its stream: (makespan, [(start, end) of each node]) in microseconds."""
    free = [0.0] * num_streams
    spans: list[tuple[float, float]] = []
    for node in nodes:
        start = max(free[node.stream], max((spans[i][1] for i in node.after), default=0.0))
        end = start + node.duration_us
        free[node.stream] = end
        spans.append((start, end))
    return max((end for _, end in spans), default=0.0), spans


class _Program:
    """Collects nodes; every compute node also waits for the last collective that it was told to wait for."""

    def __init__(self, times: OperatorTimes, collectives: CollectiveTimes) -> None:
        self.nodes: list[Node] = []
        self._times, self._collectives = times, collectives

    def compute(self, operator: Operator, after: tuple[int, ...] = ()) -> int:
        self.nodes.append(Node(operator.name, COMPUTE, self._times.time_us(operator), after))
        return len(self.nodes) - 1

    def compute_all(self, operators: Sequence[Operator], after: tuple[int, ...] = ()) -> int:
        last = -1
        for index, operator in enumerate(operators):
            last = self.compute(operator, after if index == 0 else (last,))
        return last

    def comm(self, name: str, num_bytes: float, axis: str, after: tuple[int, ...] = ()) -> int:
        self.nodes.append(Node(f"{axis} {name}", COMM, self._collectives(name, num_bytes, axis), after))
        return len(self.nodes) - 1

    @property
    def duration_us(self) -> float:
        return run_streams(self.nodes)[0]


def layer_times(
    stack: Stack,
    part: Sharding,
    layout: Layout,
    times: OperatorTimes,
    collectives: CollectiveTimes,
    encoder_tokens: float = 0.0,
    extra_weight: Operator | None = None,
) -> LayerTimes:
    """Times of one layer of `stack` on one rank.

    `extra_weight` is work that each micro-batch's weight gradients bring along (adding them to the accumulated
    gradients). Recomputation in backward follows `layout.recompute`.
    """
    attention, feed_forward = layer_operators(stack, part, encoder_tokens)
    forward = _Program(times, collectives)
    _forward(forward, stack, part, attention, feed_forward)
    recompute = _recompute_us(layout.recompute, forward, (*attention, *feed_forward), part, times)

    both = _Program(times, collectives)
    _backward(both, stack, part, attention, feed_forward, weight_gradients=not part.frozen_weights)
    inputs = _Program(times, collectives)
    _backward(inputs, stack, part, attention, feed_forward, weight_gradients=False)
    extra = times.time_us(extra_weight) if extra_weight and not part.frozen_weights else 0.0
    weight = extra + sum(
        times.time_us(dw) for op in (*attention, *feed_forward) if (dw := backward(op)[1]) and not part.frozen_weights
    )

    forward_us, backward_us = forward.duration_us, both.duration_us + extra + recompute
    compute = sum(n.duration_us for n in (*forward.nodes, *both.nodes) if n.stream == COMPUTE) + extra + recompute
    return LayerTimes(
        forward_us=forward_us,
        backward_us=backward_us,
        input_us=inputs.duration_us + recompute,
        weight_us=weight,
        exposed_comm_us=max(0.0, forward_us + backward_us - compute),
        compute_us=compute,
    )


# Operators with an activation function, whose results the selective policy computes again.
_ACTIVATED = ("up", "experts_up", "shared_up")


def _recompute_us(
    policy: str, forward: _Program, operators: Sequence[Operator], part: Sharding, times: OperatorTimes
) -> float:
    """Extra forward work in backward.

    The full policy repeats the layer, collectives included. The selective policy repeats norms, activation functions
    and materialised scores; flash attention recomputes its scores in its own backward anyway.
    """
    if policy == "none":
        return 0.0
    if policy == "full":
        return forward.duration_us
    total = 0.0
    for op in operators:
        if op.name in ("norm", "cross_norm") or (op.is_attention and part.attention != "flash"):
            total += times.time_us(op)
        elif op.name in _ACTIVATED:
            total += times.time_us(
                Operator("activation", sbuf_elements=op.sbuf_elements, scalar_elements=op.scalar_elements)
            )
    return total


def _width_bytes(stack: Stack, part: Sharding) -> float:
    """Bytes of the residual stream of a micro-batch on one context-parallel rank."""
    return part.tokens(stack) * stack.hidden * part.element_bytes


def _forward(
    program: _Program, stack: Stack, part: Sharding, attention: Sequence[Operator], feed_forward: Sequence[Operator]
) -> None:
    stream = _width_bytes(stack, part)
    split = part.tp > 1 and part.sp
    head, core, tail = _around_attention(attention)
    last = program.compute(head[0])
    if split:
        last = program.comm("all_gather", stream, "tp", (last,))
    last = program.compute_all(head[1:], (last,))
    last = _ring(program, stack, part, core, last, passes=1)
    last = program.compute_all(tail, (last,))
    if part.tp > 1:
        last = program.comm("reduce_scatter" if split else "all_reduce", stream, "tp", (last,))
    last = program.compute(feed_forward[0], (last,))
    if split and not stack.num_experts:
        last = program.comm("all_gather", stream, "tp", (last,))
    last = _experts_or_dense(program, stack, part, feed_forward[1:-1], last)
    if part.tp > 1 and not stack.num_experts:
        last = program.comm("reduce_scatter" if split else "all_reduce", stream, "tp", (last,))
    program.compute(feed_forward[-1], (last,))


def _around_attention(attention: Sequence[Operator]) -> tuple[list[Operator], Operator, list[Operator]]:
    """The block before, at and after its first attention operator."""
    index = next(i for i, op in enumerate(attention) if op.is_attention)
    return list(attention[:index]), attention[index], list(attention[index + 1 :])


def _ring(program: _Program, stack: Stack, part: Sharding, core: Operator, last: int, passes: int) -> int:
    """Attention over `cp` blocks of keys and values that travel round a ring; `passes` blocks of traffic each step."""
    if part.cp == 1:
        return program.compute(core, (last,))
    kv_width = (
        (stack.kv_lora_rank + stack.rope_head_dim)
        if stack.kv_lora_rank
        else (max(1.0, stack.num_kv_heads / part.tp) * (stack.head_dim + stack.v_head_dim))
    )
    block_bytes = part.tokens(stack) * kv_width * part.element_bytes * passes
    piece = program._times.time_us(core) / part.cp
    arrived = last
    for step in range(part.cp):
        program.nodes.append(Node("attention block", COMPUTE, piece, (last, arrived)))
        last = len(program.nodes) - 1
        if step < part.cp - 1:
            arrived = program.comm("permute", block_bytes, "cp", (arrived,))
    return last


def _experts_or_dense(program: _Program, stack: Stack, part: Sharding, operators: Sequence[Operator], last: int) -> int:
    if not stack.num_experts:
        return program.compute_all(operators, (last,))
    routed = _width_bytes(stack, part) * stack.experts_per_token * part.expert_imbalance
    per_rank = routed / (part.tp if part.sp else 1)
    router, dispatch, *experts = operators
    last = program.compute(router, (last,))
    last = program.compute(dispatch, (last,))
    if part.ep > 1:
        last = program.comm("all_to_all", per_rank, "ep", (last,))
    if part.tp > 1 and part.sp:
        last = program.comm("all_gather", routed, "tp", (last,))
    shared = [op for op in experts if op.name.startswith("shared")]
    last = program.compute_all([op for op in experts if not op.name.startswith("shared")], (last,))
    if part.tp > 1:
        last = program.comm("reduce_scatter" if part.sp else "all_reduce", routed, "tp", (last,))
    if part.ep > 1:
        last = program.comm("all_to_all", per_rank, "ep", (last,))
    # The shared expert does not wait for the exchange; it hides part of it.
    hidden = program.compute_all(shared) if shared else last
    return program.compute(Operator("combine", sbuf_elements=routed / part.element_bytes), (last, hidden))


def _backward(
    program: _Program,
    stack: Stack,
    part: Sharding,
    attention: Sequence[Operator],
    feed_forward: Sequence[Operator],
    *,
    weight_gradients: bool,
) -> None:
    stream = _width_bytes(stack, part)
    split = part.tp > 1 and part.sp
    reduce = "reduce_scatter" if split else "all_reduce"

    def gradients(operators: Sequence[Operator], last: int, deferred: list[Operator]) -> int:
        for operator in reversed(operators):
            data, weight = backward(operator)
            last = program.compute(data, (last,) if last >= 0 else ())
            if weight is not None:
                deferred.append(weight)
        return last

    def flush(deferred: list[Operator]) -> None:
        if weight_gradients:
            for weight in deferred:
                program.compute(weight)
        deferred.clear()

    deferred: list[Operator] = []
    last = -1
    if split and not stack.num_experts:
        last = program.comm("all_gather", stream, "tp")
    if stack.num_experts:
        last = _experts_backward(program, stack, part, feed_forward[1:-1], gradients, deferred, last)
    else:
        last = gradients(feed_forward[1:-1], last, deferred)
        if part.tp > 1:
            last = program.comm(reduce, stream, "tp", (last,))
    flush(deferred)
    last = gradients([feed_forward[0], feed_forward[-1]], last, deferred)
    if split:
        last = program.comm("all_gather", stream, "tp", (last,))
    head, core, tail = _around_attention(attention)
    last = gradients(tail, last, deferred)
    last = _ring(program, stack, part, backward(core)[0], last, passes=2)
    last = gradients(head[1:], last, deferred)
    if part.tp > 1:
        last = program.comm(reduce, stream, "tp", (last,))
    flush(deferred)
    gradients(head[:1], last, deferred)


def _experts_backward(
    program: _Program,
    stack: Stack,
    part: Sharding,
    operators: Sequence[Operator],
    gradients: Callable[[Sequence[Operator], int, list[Operator]], int],
    deferred: list[Operator],
    last: int,
) -> int:
    routed = _width_bytes(stack, part) * stack.experts_per_token * part.expert_imbalance
    per_rank = routed / (part.tp if part.sp else 1)
    router, dispatch, *experts = operators

    def exchange(last: int) -> int:
        return program.comm("all_to_all", per_rank, "ep", (last,) if last >= 0 else ()) if part.ep > 1 else last

    last = exchange(last)
    if part.tp > 1 and part.sp:
        last = program.comm("all_gather", routed, "tp", (last,) if last >= 0 else ())
    last = gradients(experts, last, deferred)
    if part.tp > 1:
        last = program.comm("reduce_scatter" if part.sp else "all_reduce", routed, "tp", (last,))
    last = exchange(last)
    return gradients([router, dispatch], last, deferred)
