"""Power and heat: sums, energy conservation, the control loop, and ranges that carry on."""

import pytest

from opentrn.energy.rack import chip_tdp, energy_kwh, power_figures, rack_power
from opentrn.energy.thermal import POLICIES, simulate_cooling, what_if
from opentrn.errors import OpenTrnError
from opentrn.hardware import chip, chips, gpu, region


def test_parts_add_up_to_what_the_meter_sees():
    power = rack_power(chip("trn2"), 16, 0.8)
    parts = sum(watts.value for _, watts in power.rows())
    assert power.total.value == pytest.approx(parts)
    assert power.it.value == pytest.approx(parts - power.facility.value)


def test_pue_is_the_ratio_of_the_meter_to_the_racks():
    power = rack_power(chip("trn2"), 16, 0.8, where="eu-north-1")
    assert power.total.value / power.it.value == pytest.approx(region("eu-north-1").pue_ratio)


def test_chip_power_runs_from_idle_to_busy_share_of_tdp():
    figures, tdp = power_figures(), chip_tdp(chip("trn2"))[0].value
    for activity, name in ((0.0, "idle_ratio"), (1.0, "busy_ratio")):
        watts = rack_power(chip("trn2"), 1, activity).chips.value
        assert watts == pytest.approx(tdp * figures.get("chip_use", name).value)


def test_every_power_figure_carries_an_ordered_range():
    for group in power_figures().groups.values():
        for name, figure in group.items():
            assert figure.low <= figure.value <= figure.high, name


def test_ranges_carry_on_to_the_energy():
    energy = energy_kwh(rack_power(chip("trn3"), 144, 0.9, cooling="liquid"), 10.0)
    assert 0.8 * energy.value > energy.low > 0
    assert energy.high > 1.2 * energy.value


def test_a_published_gpu_power_is_taken_from_its_data_sheet():
    watts, status = chip_tdp(gpu("h100"))
    assert (watts.value, status) == (700.0, "published")


@pytest.mark.parametrize("name", [c.name for c in chips() if c.name.startswith("trn")])
def test_every_trainium_has_a_power_and_says_it_is_not_published(name):
    assert chip_tdp(chip(name))[1] in ("estimated", "projected")


@pytest.mark.parametrize("cooling", ["air", "liquid"])
def test_settled_heat_balances(cooling):
    run = simulate_cooling(chip("trn2"), 0.7, cooling=cooling, policy="full")
    figures = power_figures()
    stream = "air" if cooling == "air" else "coolant"
    # The junction is above the inlet by the watts through both resistances and half of the stream's warming.
    resistance = (
        figures.get(cooling, "junction_to_sink_k_per_w").value + figures.get(cooling, f"sink_to_{stream}_k_per_w").value
    )
    resistance += 1 / (2 * figures.get(cooling, f"{stream}_w_per_k_per_chip").value)
    rise = run.settled(run.chip_w) * resistance
    assert run.settled(run.junction_c) == pytest.approx(figures.get(cooling, "inlet_c").value + rise, abs=0.1)


def test_the_loop_holds_its_target_where_it_can():
    run = simulate_cooling(chip("trn2"), 0.8)
    assert run.settled(run.junction_c) == pytest.approx(power_figures().get("control", "target_c").value, abs=0.5)
    assert 0.2 < run.settled(run.flow) < 1.0
    assert run.speed == 1.0


def test_hotter_air_makes_fans_work_harder():
    cool, hot = (simulate_cooling(chip("trn2"), 0.8, inlet_c=t) for t in (20.0, 32.0))
    assert hot.settled(hot.mover_w) > cool.settled(cool.mover_w)


def test_a_chip_that_air_cannot_cool_throttles_and_liquid_keeps_its_clock():
    air = simulate_cooling(chip("trn3"), 1.0, cooling="air", policy="full", inlet_c=35.0)
    liquid = simulate_cooling(chip("trn3"), 1.0, cooling="liquid")
    assert air.speed < 0.99
    assert air.junction_c.max() < power_figures().get("control", "throttle_c").value + 5
    assert liquid.speed == 1.0


def test_what_if_covers_every_cooling_and_policy():
    options = what_if(chip("trn2"), 0.9)
    assert {(o.cooling, o.policy) for o in options} == {(c, p) for c in ("air", "liquid") for p in POLICIES}
    holding = {o.cooling: o for o in options if o.policy == "hold-temperature"}
    full = {o.cooling: o for o in options if o.policy == "full"}
    assert holding["air"].mover_w < full["air"].mover_w
    assert holding["liquid"].total_w < holding["air"].total_w


@pytest.mark.parametrize(
    "call",
    [
        lambda: rack_power(chip("trn2"), 1, 1.5),
        lambda: rack_power(chip("trn2"), 1, 0.5, cooling="ice"),
        lambda: rack_power(chip("trn2"), 1, 0.5, flow=0.0),
        lambda: simulate_cooling(chip("trn2"), 0.5, policy="loud"),
        lambda: simulate_cooling(chip("trn2"), -0.1),
    ],
)
def test_values_outside_their_meaning_are_refused(call):
    with pytest.raises(OpenTrnError):
        call()
