"""The step: sharded layers, gradient exchange, the slowest chip, and bounds that hold for every layout."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentrn.cluster import Job, Layout, StepModel, load_model, machine, software
from opentrn.cluster.candidates import LayoutTable, enumerate_layouts
from opentrn.cluster.step import slowest_of
from opentrn.cluster.step_kernel import sharded_pass


def job(name="llama3.2-1b", batch=64, seq_len=2048, **changes):
    return Job(load_model(name), seq_len, batch, replace(software("neuronx-distributed"), **changes))


def step_s(on, layout, **changes):
    return float(StepModel(job(**changes), on).evaluate(LayoutTable.of([layout])).step_time_s[0])


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 40), st.floats(0.1, 10), st.floats(0.0, 10), st.floats(0.0, 10))
def test_sharded_layers_take_no_less_than_either_stream_and_no_more_than_both(layers, compute, gather, reduce):
    found = sharded_pass(layers, compute, gather, reduce)
    assert found >= layers * compute + gather - 1e-9
    assert found >= layers * (gather + reduce) - 1e-9
    assert found <= layers * (compute + gather + reduce) + 1e-9


def test_gathers_shorter_than_a_layer_cost_one_gather():
    assert sharded_pass(10, 5.0, 2.0, 0.0) == 10 * 5.0 + 2.0


def test_gathers_longer_than_a_layer_set_the_pace():
    assert sharded_pass(10, 2.0, 5.0, 0.0) == 10 * 5.0 + 2.0


def test_reductions_beside_backward_shorten_the_step():
    on = machine("trn2.48xlarge", 16)
    layout = Layout(dp=64, zero=1)
    assert step_s(on, layout, overlap_gradients=True) < step_s(on, layout, overlap_gradients=False)


def test_the_slowest_of_many_chips_follows_the_normal_order_statistic():
    rng = np.random.default_rng(1)
    for count in (2, 16, 256):
        measured = 1 + 0.04 * rng.standard_normal((20000, count)).max(axis=1).mean()
        assert slowest_of(count, 0.04) == pytest.approx(measured, abs=0.002)
    assert slowest_of(1, 0.04) == 1.0


def test_more_micro_batches_shrink_the_bubble_as_the_closed_form_says():
    on, layout = machine("trn2.48xlarge", 16), Layout(dp=8, pp=8, zero=0)

    def passes_s(batch):
        return float(StepModel(job("llama2-7b", batch), on).evaluate(LayoutTable.of([layout])).passes_s[0])

    # 8 and 64 micro-batches in 8 nearly equal stages take M + p - 1 of them.
    assert passes_s(512) / passes_s(64) == pytest.approx((64 + 7) / (8 + 7), rel=0.05)


@pytest.mark.parametrize(
    ("name", "chips", "batch"), [("llama3.2-1b", 4, 48), ("mixtral-8x7b", 16, 64), ("t5-3b", 4, 16)]
)
def test_no_layout_beats_its_lower_bound(name, chips, batch):
    on, task = machine("trn2.48xlarge", chips), job(name, batch)
    table = enumerate_layouts(task, on.num_ranks)
    table = table.take(np.random.default_rng(0).permutation(len(table))[:1500])
    model = StepModel(task, on)
    steps, bounds = model.evaluate(table).step_time_s, model.lower_bounds_s(table)
    assert np.all(bounds <= steps * (1 + 1e-9))
    assert np.median(bounds / steps) > 0.5  # and the bound is worth having


def test_enumerated_layouts_divide_the_job():
    from opentrn.cluster.layout import check_layout

    on, task = machine("trn3-ultraserver", 144), job("qwen3-30b-a3b", 576, 4096)
    table = enumerate_layouts(task, on.num_ranks)
    stack = task.model.stacks[0]
    for index in np.random.default_rng(0).integers(0, len(table), 300):
        check_layout(
            table.layout(int(index)),
            num_layers=stack.num_layers,
            num_heads=stack.num_heads,
            num_experts=128,
            seq_len=4096,
            global_batch=576,
            num_ranks=576,
        )


def test_a_hundred_thousand_chips_take_seconds():
    start = time.perf_counter()
    on = machine("trn2.48xlarge", 100_000)
    task = job("llama3-405b", 100_000, 8192)
    layout = Layout(dp=1250, tp=16, pp=20, zero=1, micro_batch=1, recompute="full")
    found = StepModel(task, on).evaluate(LayoutTable.of([layout])).step_time_s[0]
    assert time.perf_counter() - start < 5.0
    ideal = task.flops_per_step / (100_000 * 667e12)
    assert ideal < found < 10 * ideal


def test_operator_times_can_be_replaced():
    class Instant:
        def time_us(self, operator):
            return 0.0

    on, task = machine("trn2.48xlarge", 1), job(batch=4)
    table = LayoutTable.of([Layout(dp=4)])
    assert StepModel(task, on, Instant()).evaluate(table).passes_s[0] == 0.0
