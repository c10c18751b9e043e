"""A plan joins layout, goodput, price and energy, and refuses what means nothing."""

import datetime
import json

import pytest

from opentrn.cluster.planning import plan
from opentrn.errors import OpenTrnError

FIELDS = {
    "hardware",
    "num_chips",
    "layout",
    "step_time_s",
    "tokens_per_s",
    "mfu",
    "memory_gib_per_core",
    "time_h",
    "cost_usd",
    "energy_kwh",
    "co2_kg",
    "goodput",
    "assumptions",
}
TODAY = datetime.date(2026, 2, 10)


@pytest.fixture(scope="module")
def small():
    return plan("llama3-8b", 1e10, ["trn2.48xlarge", "p5.48xlarge"], chips=16, today=TODAY)


def test_candidates_have_exactly_the_published_fields(small):
    found = json.loads(json.dumps(small.as_json(), allow_nan=False))
    assert found["candidates"]
    for candidate in found["candidates"]:
        assert set(candidate) == FIELDS
        assert all(isinstance(degree, int) for degree in candidate["layout"].values())
        assert candidate["assumptions"]


def test_a_candidates_figures_agree_with_each_other(small):
    for c in small.candidates:
        assert c.job is not None
        assert c.tokens_per_s == pytest.approx(c.job.tokens_per_step / c.step_time_s)
        assert c.time_h == pytest.approx(1e10 / (c.tokens_per_s * c.goodput) / 3600)
        assert 0 < c.mfu < 1
        assert 0.9 < c.goodput < 1
        assert c.co2_kg == pytest.approx(0.379 * c.energy_kwh)
        assert c.energy_range_kwh[0] <= c.energy_kwh <= c.energy_range_kwh[1]


def test_cost_is_chip_hours_at_the_list_price(small):
    trn2 = next(c for c in small.candidates if c.hardware == "trn2.48xlarge")
    assert trn2.cost_usd == pytest.approx(trn2.time_h * 35.7608)  # one instance of 16 chips
    p5 = next(c for c in small.candidates if c.hardware == "p5.48xlarge")
    assert p5.cost_usd == pytest.approx(p5.time_h * 2 * 31.464)  # two of 8, both as capacity blocks


@pytest.mark.parametrize(("objective", "field"), [("cost", "cost_usd"), ("time", "time_h"), ("energy", "energy_kwh")])
def test_the_objective_decides_the_order(objective, field):
    found = plan("tinyllama-1.1b", 1e9, ["trn2.48xlarge", "trn1.32xlarge"], chips=16, objective=objective, today=TODAY)
    values = [getattr(c, field) for c in found.candidates]
    assert values == sorted(values)


def test_without_a_number_of_chips_several_are_searched_and_slow_ones_come_last():
    found = plan("llama3-8b", 1e12, ["trn2.48xlarge"], max_chips=64, max_days=70, today=TODAY)
    assert {c.num_chips for c in found.candidates} == {16, 32, 64}
    late = [c.time_h > 70 * 24 for c in found.candidates]
    assert late == sorted(late)
    assert late[0] is False


def test_the_frontier_holds_what_nothing_beats():
    found = plan("llama3-8b", 1e12, ["trn2.48xlarge"], max_chips=32, today=TODAY)
    for c in found.frontier():
        assert not any(o.cost_usd < c.cost_usd and o.time_h < c.time_h for o in found.candidates)


def test_spare_servers_are_paid_for():
    none, two = (
        plan("tinyllama-1.1b", 1e9, ["trn2.48xlarge"], chips=32, num_spares=n, today=TODAY).candidates[0]
        for n in (0, 2)
    )
    assert two.goodput > none.goodput
    assert two.cost_usd / two.time_h == pytest.approx(2 * none.cost_usd / none.time_h)


def test_unpublished_prices_become_a_stated_range():
    found = plan("tinyllama-1.1b", 1e9, ["trn3-ultraserver"], chips=4, today=TODAY).candidates[0]
    low, high = found.cost_range_usd
    assert low < found.cost_usd < high
    assert any("no price of trn3-ultraserver-gen2 is published" in a for a in found.assumptions)


def test_a_stale_list_warns_with_its_date_and_a_fresh_one_does_not():
    old = plan("tinyllama-1.1b", 1e9, ["trn2.48xlarge"], chips=2, today=datetime.date(2027, 1, 1))
    assert any("from 2026-01-31, 335 days ago" in w for w in old.warnings)
    assert not plan("tinyllama-1.1b", 1e9, ["trn2.48xlarge"], chips=2, today=TODAY).warnings


def test_fp8_is_faster_and_no_more_than_the_peaks_allow():
    bf16, fp8 = (
        plan("llama3-8b", 1e9, ["trn2.48xlarge"], chips=16, dtype=d, today=TODAY).candidates[0] for d in ("bf16", "fp8")
    )
    assert bf16.step_time_s / 2 < fp8.step_time_s < bf16.step_time_s


def test_a_mixture_of_experts_finds_expert_parallelism():
    best = plan(
        "qwen3-30b-a3b", 1e9, ["trn2.48xlarge"], chips=8, seq_len=2048, batch_tokens=32 * 2048, today=TODAY
    ).candidates[0]
    assert best.layout["ep"] > 1


def test_projected_hardware_runs():
    best = plan("tinyllama-1.1b", 1e9, ["trn4-ultraserver"], chips=4, today=TODAY).candidates[0]
    assert any("projection" in a for a in best.assumptions)


def test_chips_are_rounded_up_to_whole_units_with_a_warning():
    found = plan("llama3-8b", 1e9, ["trn2.48xlarge"], chips=20, today=TODAY)
    assert found.candidates[0].num_chips == 32
    assert any("20 rounded up to 32" in w for w in found.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on": ["p9.48xlarge"]}, "unknown instance or rack 'p9.48xlarge'"),
        ({"on": []}, "at least one"),
        ({"model": "gpt-5"}, "unknown model"),
        ({"tokens": -1}, "must be positive"),
        ({"tokens": float("nan")}, "must be positive"),
        ({"chips": 0}, "at least 1"),
        ({"objective": "fame"}, "cost, time, energy"),
        ({"price_overrides": {"trn2.48xlarge": -3.0}}, "must be positive"),
        ({"where": "mars-1"}, "mars-1"),
        ({"num_spares": -1}, "0 or more"),
        ({"batch_tokens": -5.0}, "batch must be positive"),
        ({"seq_len": 0}, "at least 1"),
        ({"price_overrides": {"trn9.48xlarge": 3.0}}, "'trn9.48xlarge', which is not planned on: trn2.48xlarge"),
        ({"cooling": "ice"}, "air, liquid"),
        ({"training_software": "pencil"}, "unknown training software 'pencil', known: neuronx-distributed"),
        ({"model": "llama3-405b", "chips": 1}, "fits nowhere"),
        ({"on": ["g5.xlarge"]}, "no published training measurement"),
    ],
)
def test_input_that_means_nothing_is_refused(change, message):
    given = {"model": "tinyllama-1.1b", "tokens": 1e9, "on": ["trn2.48xlarge"], "today": TODAY, **change}
    with pytest.raises(OpenTrnError, match=message):
        plan(**given)


def test_cooling_is_a_what_if_that_can_cost_speed():
    air, liquid = (
        plan("tinyllama-1.1b", 1e9, ["trn3-ultraserver"], chips=4, cooling=c, today=TODAY).candidates[0]
        for c in ("air", "liquid")
    )
    assert air.step_time_s > liquid.step_time_s
    assert any("the clock falls to" in a for a in air.assumptions)
    assert not any("the clock falls to" in a for a in liquid.assumptions)


def test_adapters_fit_and_run_where_full_training_does_not():
    with pytest.raises(OpenTrnError, match="fits nowhere"):
        plan("llama2-13b", 1e8, ["trn1.32xlarge"], chips=2, batch_tokens=2**16, today=TODAY)
    lora = plan("llama2-13b", 1e8, ["trn1.32xlarge"], chips=2, batch_tokens=2**16, tuning="lora", today=TODAY)
    assert lora.candidates[0].mfu > 0.1
