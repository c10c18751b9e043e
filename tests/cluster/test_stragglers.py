"""Slow chips: hidden in bubbles where a pipeline has them, paid in full where nothing waits anyway."""

import pytest

from opentrn.cluster import Job, Layout, StepModel, load_model, machine, software
from opentrn.cluster.step import slowest_of
from opentrn.cluster.stragglers import one_slow_chip, spread_of_speeds
from opentrn.errors import OpenTrnError


@pytest.fixture(scope="module")
def model():
    job = Job(load_model("llama2-7b"), 4096, 128, software("neuronx-distributed"))
    return StepModel(job, machine("trn1.32xlarge", 64))


def test_without_a_pipeline_a_slow_chip_is_paid_in_full(model):
    assert one_slow_chip(model, Layout(dp=16, tp=8), 1.2) == pytest.approx(1.2)


def test_a_pipeline_pays_less_than_the_slowdown_and_more_with_more_micro_batches(model):
    few = one_slow_chip(model, Layout(dp=4, tp=8, pp=4, micro_batch=8), 1.2, rank=1)
    many = one_slow_chip(model, Layout(dp=4, tp=8, pp=4), 1.2, rank=1)
    assert 1.0 < few < many < 1.2


def test_no_spread_costs_nothing(model):
    assert spread_of_speeds(model, Layout(dp=4, tp=8, pp=4), 0.0).mean == pytest.approx(1.0)


def test_without_a_pipeline_the_cost_is_that_of_the_slowest_chip(model):
    drawn = spread_of_speeds(model, Layout(dp=64, tp=2), 0.04, num_draws=200)
    assert drawn.mean == pytest.approx(slowest_of(64, 0.04), abs=0.004)
    assert drawn.p95 > drawn.mean


def test_a_pipeline_stays_below_the_bound_of_the_slowest_chip(model):
    drawn = spread_of_speeds(model, Layout(dp=4, tp=8, pp=4, micro_batch=4), 0.04)
    assert 1.0 < drawn.mean < slowest_of(64, 0.04)


@pytest.mark.parametrize(("slowdown", "rank"), [(0.9, 0), (1.2, 4), (1.2, -1)])
def test_what_does_not_exist_is_refused(model, slowdown, rank):
    with pytest.raises(OpenTrnError):
        one_slow_chip(model, Layout(dp=4, tp=8, pp=4), slowdown, rank)
