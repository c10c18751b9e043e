"""Goodput: the closed form against simulation, brute force and hand counts."""

from dataclasses import replace

import numpy as np
import pytest

from opentrn.cluster.goodput import best_interval_s, check_goodput_inputs, closed_form, monte_carlo, reliability
from opentrn.errors import OpenTrnError


@pytest.mark.parametrize(
    ("chips", "nodes", "spares"), [(144, 36, 0), (1024, 64, 0), (1024, 64, 1), (4096, 256, 2), (16384, 1024, 8)]
)
def test_simulated_failures_agree_with_the_closed_form(chips, nodes, spares):
    exact = closed_form(chips, nodes, 1000.0, num_spares=spares)
    drawn = monte_carlo(chips, nodes, 1000.0, num_spares=spares, num_runs=120)
    assert exact.fraction == pytest.approx(drawn.fraction, abs=max(0.01, 4 * drawn.standard_error))


def test_simulation_is_reproducible():
    assert monte_carlo(1024, 64, 1000.0, num_runs=5, seed=3) == monte_carlo(1024, 64, 1000.0, num_runs=5, seed=3)


@pytest.mark.parametrize(("save_s", "mtbf_s"), [(10, 3600), (60, 36000), (300, 20000)])
def test_the_best_interval_is_the_one_a_scan_finds(save_s, mtbf_s):
    def loss(interval):
        # Daly's expected time for one second of progress, restarts left out (they do not depend on the interval).
        return mtbf_s * np.expm1((interval + save_s) / mtbf_s) / interval

    scan = np.linspace(1, 4 * np.sqrt(2 * save_s * mtbf_s), 20001)
    assert loss(best_interval_s(save_s, mtbf_s)) == pytest.approx(loss(scan).min(), rel=1e-4)


def test_a_single_node_without_spares_is_up_for_its_mtbf_and_down_for_its_repair():
    figures = replace(reliability(), restart_s=0.0)
    found = closed_form(16, 1, 0.0, num_spares=0, checkpoint_s=0.0, interval_s=1.0, figures=figures)
    mtbf_h = found.job_mtbf_s / 3600
    assert found.fraction == pytest.approx(mtbf_h / (mtbf_h + figures.repair_h), rel=1e-4)


def test_failure_rates_of_parts_add_up():
    figures = reliability()
    per_h = 32 / figures.chip_mtbf_h + 32 / figures.link_mtbf_h + 2 / figures.node_mtbf_h + 1 / figures.switch_mtbf_h
    assert figures.job_mtbf_s(32, 2) == pytest.approx(3600 / per_h)


def test_the_shipped_rates_give_the_failures_of_the_account_they_come_from():
    # 419 unexpected interruptions in 54 days on 16,384 GPUs in 2,048 nodes (arXiv:2407.21783); 12 of them are not of
    # the parts that are modelled.
    failures = 54 * 86400 / reliability().job_mtbf_s(16384, 2048)
    assert failures == pytest.approx(419, rel=0.06)


def test_spares_and_faster_checkpoints_help():
    base = closed_form(4096, 256, 2000.0)
    assert closed_form(4096, 256, 2000.0, num_spares=4).fraction > base.fraction
    assert closed_form(4096, 256, 2000.0, checkpoint_s=0.1).fraction > base.fraction


def test_a_cluster_that_always_fails_makes_no_progress():
    assert closed_form(10**9, 10**8, 1e6).fraction == 0.0


@pytest.mark.parametrize(("spares", "interval"), [(-1, None), (0, 0.0), (0, -5.0)])
def test_impossible_inputs_are_refused(spares, interval):
    with pytest.raises(OpenTrnError):
        check_goodput_inputs(spares, interval)


def test_spares_are_held_as_long_as_they_pay():
    from opentrn.cluster.goodput import best_spares

    spares = best_spares(16384, 1024, 2000.0)
    value = [closed_form(16384, 1024, 2000.0, num_spares=n).fraction / (1024 + n) for n in range(40)]
    assert spares == int(np.argmax(value)) > 0
    assert best_spares(16, 1, 2000.0) == 0  # doubling the price for a machine that fails twice a year
