"""Peers run at efficiencies that were measured, nearest first, and say what stands in for what."""

import pytest

from opentrn.cost.break_even import break_even
from opentrn.cost.peers import measured_efficiency, measured_runs
from opentrn.errors import OpenTrnError
from opentrn.hardware import gpu


def test_no_measured_run_beats_the_peak_of_its_gpu():
    for run in measured_runs():
        peak = {"fp4": "peak_fp4_tflops"}.get(run.dtype) or f"peak_{run.dtype}_tflops"
        assert 0.03 < run.tflops_per_gpu / gpu(run.gpu).get(peak) < 0.75, run


def test_every_measured_run_has_a_source():
    assert all(run.id and run.source for run in measured_runs())


def test_the_nearest_runs_decide():
    h100 = measured_efficiency(gpu("h100"), 70e9, 70e9, "bf16", 2048)
    assert any(run.model == "MPT-70b" for run in h100.runs)
    assert h100.low <= h100.fraction <= h100.high
    assert h100.fraction == pytest.approx(0.42, abs=0.02)  # MPT-70b: 41 to 43 % MFU published for 64 to 512 GPUs


def test_dense_and_sparse_models_are_told_apart():
    sparse = measured_efficiency(gpu("h100"), 117e9, 5.1e9, "bf16")
    assert all(run.is_sparse for run in sparse.runs)
    assert sparse.fraction < measured_efficiency(gpu("h100"), 70e9, 70e9, "bf16").fraction


def test_what_stands_in_is_said():
    assert any("NVIDIA H100" in a for a in measured_efficiency(gpu("h200"), 8e9, 8e9).assumptions)
    assert any("no dense training in bf16" in a for a in measured_efficiency(gpu("b200"), 70e9, 70e9).assumptions)


def test_a_gpu_that_nobody_measured_is_refused():
    with pytest.raises(OpenTrnError, match="no published training measurement of"):
        measured_efficiency(gpu("l4"), 8e9, 8e9)


def test_effort_is_paid_back_by_savings():
    found = break_even(80.0, 100.0, 1e9, 50.0)
    assert (found.saving_usd, found.runs, found.tokens) == (20.0, 2.5, 2.5e9)
    assert "paid back after 3 runs" in found.sentence("here", "there")


def test_a_move_to_what_costs_more_does_not_pay():
    found = break_even(120.0, 100.0, 1e9, 50.0)
    assert found.runs == float("inf")
    assert "does not pay" in found.sentence("here", "there")


def test_a_negative_effort_is_refused():
    with pytest.raises(OpenTrnError, match="must not be negative"):
        break_even(1.0, 2.0, 1.0, -1.0)
