"""Pipeline schedules against their closed forms and against the rules that any schedule obeys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentrn.cluster.pipeline import pipeline_makespan, trace
from opentrn.errors import OpenTrnError


def equal(ranks, chunks=1, forward=1.0):
    return np.full((ranks, chunks), forward)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 80), st.floats(0.5, 3.0))
def test_1f1b_of_equal_stages_takes_micro_batches_plus_depth_minus_one(ranks, micro, backward):
    found = pipeline_makespan("1f1b", micro, equal(ranks), backward * equal(ranks))
    assert found == pytest.approx((micro + ranks - 1) * (1.0 + backward))


@pytest.mark.parametrize("chunks", [2, 4])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_interleaving_divides_the_bubble_by_the_chunks(ranks, chunks):
    micro = 4 * ranks
    found = pipeline_makespan(
        "interleaved", micro, equal(ranks, chunks, 1 / chunks), 2 * equal(ranks, chunks, 1 / chunks)
    )
    assert found == pytest.approx(micro * 3 + (ranks - 1) * 3 / chunks)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_zero_bubble_reaches_the_bubble_of_its_paper(ranks):
    # ZB-H1 with F = B = W = 1 leaves (p - 1)(F + B - W) of idle time (arXiv:2401.10241, table 1), on any rank.
    micro = 4 * ranks
    found = pipeline_makespan("zero-bubble", micro, equal(ranks), 2 * equal(ranks), equal(ranks))
    assert found == pytest.approx(3 * micro + (ranks - 1) * 1.0)


cases = st.tuples(
    st.sampled_from(["1f1b", "interleaved", "zero-bubble"]), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31)
)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_any_schedule_keeps_dependencies_and_runs_one_pass_at_a_time(case):
    schedule, ranks, groups, seed = case
    rng = np.random.default_rng(seed)
    chunks = 2 if schedule == "interleaved" else 1
    micro, send = ranks * groups, float(rng.uniform(0, 0.5))
    forward, backward = rng.uniform(0.5, 2, (ranks, chunks)), rng.uniform(1, 3, (ranks, chunks))
    run = trace(schedule, micro, forward, backward, 0.4 * backward, send)
    ends = {(p.kind, p.rank, p.chunk, p.micro_batch): p.end_us for p in run.passes}
    kinds = 3 if schedule == "zero-bubble" else 2
    assert len(ends) == kinds * ranks * chunks * micro
    for p in run.passes:
        stage = p.chunk * ranks + p.rank
        before = stage - 1 if p.kind == "forward" else stage + 1
        if p.kind == "weight":
            assert p.start_us >= ends["backward", p.rank, p.chunk, p.micro_batch] - 1e-9
        elif 0 <= before < ranks * chunks:
            other = ends[p.kind, before % ranks, before // ranks, p.micro_batch]
            assert p.start_us >= other + send - 1e-9
        elif p.kind == "backward":
            assert p.start_us >= ends["forward", p.rank, p.chunk, p.micro_batch] - 1e-9
    for rank in range(ranks):
        own = sorted((p.start_us, p.end_us) for p in run.passes if p.rank == rank)
        assert all(a[1] <= b[0] + 1e-9 for a, b in zip(own, own[1:], strict=False))
    assert run.makespan_us == pytest.approx(max(ends.values()))


@pytest.mark.parametrize("schedule", ["1f1b", "zero-bubble"])
def test_no_more_micro_batches_are_in_flight_than_ranks_follow(schedule):
    ranks, micro = 4, 12
    run = trace(schedule, micro, equal(ranks), 2 * equal(ranks), equal(ranks))
    for rank in range(ranks):
        events = [(p.start_us, 1) for p in run.passes if p.rank == rank and p.kind == "forward"]
        events += [(p.end_us, -1) for p in run.passes if p.rank == rank and p.kind == "backward"]
        held = np.cumsum([change for _, change in sorted(events)])
        assert held.max() <= ranks - rank


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["1f1b", "interleaved", "zero-bubble"]),
    st.integers(2, 6),
    st.integers(8, 40),
    st.integers(0, 2**31),
)
def test_many_micro_batches_are_extrapolated_closely(schedule, ranks, groups, seed):
    rng = np.random.default_rng(seed)
    chunks = 2 if schedule == "interleaved" else 1
    forward = rng.uniform(0.8, 1.25, (ranks, chunks))
    backward = 2 * forward
    quick = pipeline_makespan(schedule, ranks * groups, forward, backward, forward, 0.05)
    assert quick == pytest.approx(
        trace(schedule, ranks * groups, forward, backward, forward, 0.05).makespan_us, rel=0.035
    )


def test_interleaving_needs_whole_rounds_of_micro_batches():
    with pytest.raises(OpenTrnError, match="multiples of pp=4, got 6"):
        pipeline_makespan("interleaved", 6, equal(4, 2), equal(4, 2))
