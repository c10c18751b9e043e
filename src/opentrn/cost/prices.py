"""What an hour of a chip costs: list prices with dates, the user's own, and a stated range where none is published.

The list is `hardware/prices.toml` or a file of the user's. A price that is old is used with a dated warning; a price
that nobody has published becomes a range derived from the nearest listed generation, and says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from opentrn.errors import OpenTrnError
from opentrn.hardware import Chip, Gpu, Instance, Price, Rack, instance, prices

__all__ = ["STALE_DAYS", "ChipPrice", "chip_price", "common_kind", "parse_override", "stale_warning"]

STALE_DAYS = 180  # list prices of accelerators have moved by tens of percent within such a time
_KINDS = ("capacity_block", "on_demand", "reserved")


@dataclass(frozen=True)
class ChipPrice:
    """USD for one chip for one hour, bounded by `low` and `high` where it is not a list price.

    `stale_days` is the age of a list that is too old, 0 otherwise.
    """

    usd_per_chip_hour: float
    kind: str
    status: str
    basis: str
    low: float
    high: float
    as_of: date | None = None
    warnings: tuple[str, ...] = ()
    stale_days: int = 0


def parse_override(text: str) -> tuple[str, float]:
    """NAME=USD, an hour of the whole instance or rack. Raises OpenTrnError for anything but a positive number."""
    name, separator, amount = text.partition("=")
    try:
        value = float(amount)
    except ValueError:
        value = float("nan")
    if not separator or not name or value != value:
        raise OpenTrnError(f"a price is given as NAME=USD_PER_HOUR, such as p5.48xlarge=31.46, got {text!r}")
    if not 0.0 < value < float("inf"):
        raise OpenTrnError(f"a price must be positive, got {value:g} USD/h for {name}")
    return name.strip(), value


def common_kind(units: Sequence[Instance | Rack], catalogue: Path | None = None) -> str | None:
    """The way of buying that all listed hardware shares, preferring capacity blocks (how Trainium2 is sold).

    None if they share none. Hardware without any list price does not vote.
    """
    listed = [{p.kind for p in _listed(unit, catalogue)} for unit in units]
    listed = [kinds for kinds in listed if kinds]
    shared = set.intersection(*listed) if listed else set()
    return next((kind for kind in _KINDS if kind in shared), None)


def chip_price(
    unit: Instance | Rack,
    *,
    kind: str | None = None,
    region: str | None = None,
    overrides: Mapping[str, float] | None = None,
    catalogue: Path | None = None,
    today: date | None = None,
) -> ChipPrice:
    """The price of one chip-hour of an instance type or rack.

    `kind` is "on_demand", "capacity_block", "reserved" or None for the first of these that is listed, in the order that
    `common_kind` prefers. `overrides` maps names to USD an hour of the whole unit; they win. Raises OpenTrnError for a
    kind that is not listed for this hardware.
    """
    count = _chips(unit)
    for name, usd in (overrides or {}).items():
        if usd <= 0.0:
            raise OpenTrnError(f"a price must be positive, got {usd:g} USD/h for {name}")
        if name.lower() in (unit.name.lower(), *(alias.lower() for alias in unit.aliases)):
            each = usd / count
            return ChipPrice(each, "override", "user", f"{usd:g} USD/h for {unit.name}, given by the user", each, each)
    listed = _listed(unit, catalogue)
    if not listed:
        return _estimated(unit, catalogue, kind, today)
    wanted = [p for p in listed if kind is None or p.kind == kind]
    if not wanted:
        offered = ", ".join(sorted({p.kind for p in listed}))
        raise OpenTrnError(
            f"no {kind} price of {unit.name} is listed (listed: {offered}); choose one of these or give yours"
        )
    wanted.sort(key=lambda p: (_KINDS.index(p.kind), region is not None and p.region != region, -p.date.toordinal()))
    price = wanted[0]
    each = price.usd_per_hour / _chips(_priced_unit(unit))
    warnings = []
    if region and price.region not in (region, "any"):
        warnings.append(f"{price.instance}: no list price in {region}, that of {price.region} is used")
    basis = f"{price.kind.replace('_', ' ')}{' ' + price.term if price.term else ''}, {price.usd_per_hour:g} USD/h for "
    basis += f"{price.instance} in {price.region}, {price.date} ({price.source})"
    return ChipPrice(
        each, price.kind, price.status, basis, each, each, price.date, tuple(warnings), _days_stale(price, today)
    )


def _chips(unit: Instance | Rack) -> int:
    return unit.num_chips if isinstance(unit, Rack) else unit.num_accelerators


def _priced_unit(unit: Instance | Rack) -> Instance | Rack:
    """The instance whose price list entry stands for a rack that is not sold by its own name."""
    if prices(unit.name) or not isinstance(unit, Rack):
        return unit
    return instance(unit.get("instance")) if unit.get("instance") else unit


def _listed(unit: Instance | Rack, catalogue: Path | None) -> list[Price]:
    found = prices(unit.name, path=catalogue)
    if not found and isinstance(unit, Rack) and unit.get("instance"):
        found = prices(unit.get("instance"), path=catalogue)
    return list(found)


def _days_stale(price: Price, today: date | None) -> int:
    age = ((today or date.today()) - price.date).days
    return age if age > STALE_DAYS else 0


def stale_warning(prices_used: Mapping[str, ChipPrice]) -> str | None:
    """One dated sentence about those of the named prices that are older than `STALE_DAYS`; None if none is."""
    stale = {name: price for name, price in prices_used.items() if price.stale_days}
    if not stale:
        return None
    oldest = max(stale.values(), key=lambda price: price.stale_days)
    return (
        f"list prices of {', '.join(stale)} are from {oldest.as_of}, {oldest.stale_days} days ago; check them and give "
        "yours with --price NAME=USD"
    )


def _estimated(unit: Instance | Rack, catalogue: Path | None, kind: str | None, today: date | None) -> ChipPrice:
    """A range for a Neuron chip without a list price, from the newest listed Neuron instance.

    Low: the same price a chip as that generation. High: the same price for a dense FP8 FLOP (MXFP8 where that is the
    peak that is published). The geometric mean is taken.
    """
    chip = unit.chip if isinstance(unit, Rack) else unit.accelerator
    if isinstance(chip, Gpu):
        raise OpenTrnError(f"no price of {unit.name} is listed; give one as {unit.name}=USD_PER_HOUR")
    reference = instance("trn2.48xlarge")
    base = chip_price(reference, kind=kind if prices(reference.name, kind) else None, catalogue=catalogue, today=today)
    ratio = max(1.0, _peak_fp8(chip) / _peak_fp8(reference.accelerator)) if chip is not reference.accelerator else 1.0
    low, high = base.usd_per_chip_hour, base.usd_per_chip_hour * ratio
    middle = (low * high) ** 0.5
    basis = f"no price of {unit.name} is published; {base.basis}"
    if ratio > 1.0:
        basis += f": from the same price a chip ({low:.2f} USD/h) to the same price an FP8 FLOP ({high:.2f})"
    else:
        basis += ": the same price a chip is taken"
    return ChipPrice(middle, "estimated", "estimated", basis, low, high, base.as_of, base.warnings, base.stale_days)


def _peak_fp8(chip: Chip | Gpu) -> float:
    return max(chip.get(name, 0.0) for name in ("peak_fp8_tflops", "peak_mxfp8_tflops"))
