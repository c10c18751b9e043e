"""Energy of a kernel follows from counted work, and a busy chip draws what its power figure says."""

from __future__ import annotations

import numpy as np
import pytest

from opentrn import hardware
from opentrn.energy.kernel import unit_energies
from opentrn.energy.rack import chip_tdp, power_figures


@pytest.mark.parametrize("name", ["trn1", "inf2", "trn2", "trn3", "trn4"])
def test_a_chip_at_its_peaks_draws_its_busy_power(name):
    chip = hardware.chip(name)
    units = unit_energies(chip)
    flops = chip.core.peak_tflops("bfloat16") * 1e12 * chip.num_cores
    traffic = chip.hbm_bandwidth_gb_per_s * 1e9
    watts = (
        units.flop_j.value * flops
        + (units.hbm_byte_j.value + units.dma_byte_j.value) * traffic
        + units.static_core_w.value * chip.num_cores
    )
    busy = chip_tdp(chip)[0].value * power_figures().get("chip_use", "busy_ratio").value
    assert watts == pytest.approx(busy, rel=0.15)


def test_ranges_are_ordered():
    units = unit_energies("trn2")
    for unit in (units.flop_j, units.hbm_byte_j, units.sram_byte_j, units.static_core_w, *units.element_j.values()):
        assert 0 < unit.low <= unit.value <= unit.high


def test_the_parts_add_up_to_the_total_and_to_the_power_curve(matmul_profile):
    energy = matmul_profile.energy
    assert energy.total_j.value == pytest.approx(sum(p.value for p in energy.by_level.values()))
    dynamic = energy.total_j.value - energy.by_level["static"].value
    assert energy.joules.sum() == pytest.approx(dynamic, rel=1e-9)
    edges, watts = energy.watts_over_time(100)
    static_w = energy.by_level["static"].value / energy.duration_s
    integral = float(((watts - static_w) * np.diff(edges) * 1e-6).sum())
    assert integral == pytest.approx(dynamic, rel=1e-6)


def test_hbm_energy_is_its_bytes_times_the_figure(matmul_profile):
    unit = unit_energies("trn2").hbm_byte_j.value
    assert matmul_profile.energy.by_level["hbm"].value == pytest.approx(matmul_profile.timeline.hbm_bytes * unit)
