"""Communication hides behind independent compute, and only there."""

import pytest

from opentrn.cluster.layer_schedule import COMM, COMPUTE, Node, layer_times, run_streams
from opentrn.cluster.layout import Layout
from opentrn.cluster.models import load_model
from opentrn.cluster.operators import Sharding, backward, layer_operators


class EachTakes:
    """Every operator takes the same time."""

    def __init__(self, microseconds):
        self.microseconds = microseconds

    def time_us(self, operator):
        return self.microseconds


STACK = load_model("llama3-8b").stacks[0]


def times(tp=1, cp=1, comm_us=0.0, recompute="none", ep=1, stack=STACK):
    layout = Layout(tp=tp, cp=cp, ep=ep, recompute=recompute)
    return layer_times(
        stack, Sharding(1, 4096, tp=tp, cp=cp, ep=ep), layout, EachTakes(10.0), lambda op, size, axis: comm_us
    )


def test_streams_run_in_order_and_beside_each_other():
    nodes = [Node("a", COMPUTE, 5), Node("c", COMM, 4, (0,)), Node("b", COMPUTE, 3), Node("d", COMPUTE, 1, (1,))]
    makespan, spans = run_streams(nodes)
    assert spans == [(0, 5), (5, 9), (5, 8), (9, 10)]
    assert makespan == 10


def test_without_parallelism_a_layer_is_the_sum_of_its_operators():
    attention, feed_forward = layer_operators(STACK, Sharding(1, 4096))
    operators = [*attention, *feed_forward]
    weights = sum(backward(op)[1] is not None for op in operators)
    found = times()
    assert found.forward_us == 10 * len(operators)
    assert found.backward_us == 10 * (len(operators) + weights)
    assert found.weight_us == 10 * weights
    assert found.exposed_comm_us == 0


def test_forward_pays_all_four_tensor_parallel_collectives():
    # all-gather and reduce-scatter around attention and around the feed-forward block: nothing is independent of them
    assert times(tp=2, comm_us=7).forward_us == times(tp=2).forward_us + 4 * 7


def test_weight_gradients_hide_a_collective_of_their_length():
    slow = times(tp=2, comm_us=10.0)
    # Backward holds six collectives; those that run while weight gradients are computed cost nothing.
    assert slow.backward_us < times(tp=2).backward_us + 6 * 10.0
    assert slow.exposed_comm_us > 0


def test_ring_attention_hides_transfers_shorter_than_its_blocks():
    # Attention takes 10 us, four blocks of 2.5; a transfer of 2 us hides, one of 20 does not.
    assert times(cp=4, comm_us=2.0).forward_us == pytest.approx(times(cp=4).forward_us)
    assert times(cp=4, comm_us=20.0).forward_us > times(cp=4).forward_us + 3 * 15


def test_full_recompute_repeats_the_forward():
    assert times(recompute="full").backward_us == times().backward_us + times().forward_us


def test_input_and_weight_gradients_together_are_no_shorter_than_backward():
    found = times(tp=2, comm_us=7.0)
    assert found.input_us + found.weight_us >= found.backward_us


def test_expert_exchange_is_paid_twice_each_way_where_nothing_hides_it():
    stack = load_model("mixtral-8x7b").stacks[0]
    assert times(ep=4, comm_us=9.0, stack=stack).forward_us == times(ep=4, stack=stack).forward_us + 2 * 9.0
