"""Prices: list, user's own, stale, missing, and how the user buys."""

import datetime

import pytest

from opentrn.cost.prices import chip_price, common_kind, parse_override, stale_warning
from opentrn.errors import OpenTrnError
from opentrn.hardware import instance, rack

FRESH = datetime.date(2026, 2, 1)


def test_a_chips_price_is_the_instances_over_its_chips():
    price = chip_price(instance("p5.48xlarge"), kind="on_demand", today=FRESH)
    assert price.usd_per_chip_hour == 55.04 / 8
    assert "2026-01-21" in price.basis


def test_the_users_price_wins():
    price = chip_price(instance("p5.48xlarge"), overrides={"P5.48xlarge": 24.0}, today=FRESH)
    assert (price.usd_per_chip_hour, price.status, price.warnings) == (3.0, "user", ())


def test_the_users_list_is_read_instead_of_ours(tmp_path):
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[price]]\ninstance = "p5.48xlarge"\nkind = "on_demand"\nregion = "us-east-1"\nusd_per_hour = 40.0\n'
        'date = 2026-01-31\nstatus = "published"\nsource = "our contract"\n'
    )
    assert chip_price(instance("p5.48xlarge"), catalogue=path, today=FRESH).usd_per_chip_hour == 5.0


def test_old_prices_carry_a_dated_warning():
    late = chip_price(instance("trn2.48xlarge"), today=FRESH + datetime.timedelta(days=400))
    assert late.stale_days == 401
    assert "trn2.48xlarge are from 2026-01-31, 401 days ago" in (stale_warning({"trn2.48xlarge": late}) or "")
    fresh = chip_price(instance("trn2.48xlarge"), today=FRESH)
    assert stale_warning({"trn2.48xlarge": fresh}) is None


def test_hardware_without_a_price_gets_a_range_between_chip_and_flop_parity():
    price = chip_price(rack("trn3-ultraserver"), today=FRESH)
    assert price.low == pytest.approx(35.7608 / 16)
    assert price.high == pytest.approx(35.7608 / 16 * 2517 / 1299)
    assert price.usd_per_chip_hour == pytest.approx((price.low * price.high) ** 0.5)
    assert price.status == "estimated"


def test_the_shared_way_of_buying_is_taken():
    assert common_kind([instance("trn2.48xlarge"), instance("p5.48xlarge")]) == "capacity_block"
    assert common_kind([instance("trn1n.32xlarge"), instance("p4de.24xlarge")]) == "on_demand"
    assert common_kind([instance("trn2.48xlarge"), instance("trn1n.32xlarge")]) is None
    assert common_kind([rack("trn3-ultraserver"), instance("trn1n.32xlarge")]) == "on_demand"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chip_price(instance("trn2.48xlarge"), kind="on_demand"), "no on_demand price .* capacity_block"),
        (lambda: chip_price(instance("p5.48xlarge"), overrides={"p5.48xlarge": -1.0}), "must be positive, got -1"),
        (lambda: chip_price(instance("p6e-gb200.36xlarge")), "give one as p6e-gb200.36xlarge=USD_PER_HOUR"),
        (lambda: parse_override("p5.48xlarge=-4"), "must be positive"),
        (lambda: parse_override("p5.48xlarge=0"), "must be positive"),
        (lambda: parse_override("p5.48xlarge"), "NAME=USD_PER_HOUR"),
        (lambda: parse_override("=4"), "NAME=USD_PER_HOUR"),
        (lambda: parse_override("p5.48xlarge=free"), "NAME=USD_PER_HOUR"),
    ],
)
def test_prices_that_mean_nothing_are_refused(call, message):
    with pytest.raises(OpenTrnError, match=message):
        call()


def test_an_override_is_a_name_and_a_number():
    assert parse_override("trn3-ultraserver=900.5") == ("trn3-ultraserver", 900.5)
