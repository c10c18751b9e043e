from datetime import date

import pytest

from opentrn import hardware
from opentrn.errors import HardwareError


def test_every_price_is_of_an_instance_we_know_and_says_where_it_comes_from():
    listed = hardware.prices()
    assert len(listed) > 30
    for price in listed:
        assert hardware.instance(price.instance).name == price.instance
        assert price.source and price.status in ("published", "derived", "estimated")
        assert date(2025, 1, 1) < price.date < date(2027, 1, 1)
        assert (price.kind == "reserved") == bool(price.term)


def test_a_trn1_instance_has_its_three_list_prices():
    by_kind = {price.kind: price.usd_per_hour for price in hardware.prices("trn1.32xlarge")}
    assert by_kind == {"on_demand": 21.5, "capacity_block": 9.532, "reserved": 13.22895}


def test_prices_narrow_to_a_kind_and_a_region():
    assert {price.kind for price in hardware.prices(kind="capacity_block")} == {"capacity_block"}
    # A list without regions counts for every region; another region's price does not.
    in_oregon = {price.instance for price in hardware.prices(region="us-west-2")}
    assert "p6-b300.48xlarge" in in_oregon and "p5en.48xlarge" in in_oregon
    assert "trn2.48xlarge" not in in_oregon


def test_the_newest_price_comes_first():
    dates = [price.date for price in hardware.prices("p5.48xlarge")]
    assert len(dates) > 1 and dates == sorted(dates, reverse=True)


def test_an_unknown_kind_is_refused():
    with pytest.raises(HardwareError, match="no price kind 'spot'; use one of on_demand, capacity_block, reserved"):
        hardware.prices(kind="spot")


def test_a_user_brings_their_own_list(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(
        '[[price]]\ninstance = "trn2.48xlarge"\nkind = "reserved"\nterm = "3yr"\nregion = "us-east-2"\n'
        "usd_per_hour = 20.5\ndate = 2026-05-01\n"
    )
    (price,) = hardware.prices("trn2.48xlarge", path=path)
    assert (price.usd_per_hour, price.term, price.source) == (20.5, "3yr", str(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'usd_per_hour = "20"',
            "the price of trn2.48xlarge needs a date such as 2026-01-31 and a positive usd_per_hour",
        ),
        ("usd_per_hour = -1", "positive usd_per_hour"),
        ("usd_per_hour = 20\ncurrency = 'EUR'", "incomplete or has an unknown key"),
        ("", "incomplete or has an unknown key"),
    ],
)
def test_a_bad_price_is_refused(tmp_path, line, message):
    path = tmp_path / "ours.toml"
    path.write_text(
        f'[[price]]\ninstance = "trn2.48xlarge"\nkind = "on_demand"\nregion = "x"\ndate = 2026-05-01\n{line}\n'
    )
    with pytest.raises(HardwareError, match=message):
        hardware.prices(path=path)
