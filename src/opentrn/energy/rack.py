"""Power of racks: chips, links, hosts, fans or pumps, conversion and the data centre around them.

Nothing here is published for Neuron hardware, so every figure is a range (`hardware/power.toml`), and every result is a
`Watts`: a middle and the two ends.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from opentrn.errors import OpenTrnError
from opentrn.hardware import Chip, Gpu, Region, region

__all__ = ["COOLING", "PowerFigures", "RackPower", "Watts", "chip_tdp", "energy_kwh", "power_figures", "rack_power"]

COOLING = ("air", "liquid")


@dataclass(frozen=True)
class Watts:
    """A power in watts with the range that the figures behind it allow."""

    value: float
    low: float
    high: float

    def __add__(self, other: "Watts") -> "Watts":
        return Watts(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> "Watts":
        return Watts(self.value * factor, self.low * factor, self.high * factor)

    def times(self, other: "Watts") -> "Watts":
        """Product of two uncertain, positive numbers."""
        return Watts(self.value * other.value, self.low * other.low, self.high * other.high)


@dataclass(frozen=True)
class PowerFigures:
    """The figures of `power.toml`: group -> name -> Watts-like triple."""

    groups: dict[str, dict[str, Watts]]

    def get(self, group: str, name: str) -> Watts:
        return self.groups[group][name]


@dataclass(frozen=True)
class RackPower:
    """Average power of a whole job's hardware by consumer. `total` is what the utility meter sees."""

    chips: Watts
    links: Watts
    hosts: Watts
    cooling: Watts
    conversion: Watts
    facility: Watts

    @property
    def it(self) -> Watts:
        """What enters the racks."""
        return self.chips + self.links + self.hosts + self.cooling + self.conversion

    @property
    def total(self) -> Watts:
        return self.it + self.facility

    def rows(self) -> list[tuple[str, Watts]]:
        return [
            (name, getattr(self, name)) for name in ("chips", "links", "hosts", "cooling", "conversion", "facility")
        ]


@cache
def power_figures() -> PowerFigures:
    """The shipped figures of `hardware/power.toml`."""
    from opentrn import hardware

    with (Path(hardware.__file__).parent / "power.toml").open("rb") as file:
        tables = tomllib.load(file)
    groups = {
        group: {
            name: Watts(entry["value"], entry.get("low", entry["value"]), entry.get("high", entry["value"]))
            for name, entry in table.items()
            if isinstance(entry, dict)
        }
        for group, table in tables.items()
    }
    return PowerFigures(groups)


def chip_tdp(chip: Chip | Gpu) -> tuple[Watts, str]:
    """Thermal design power of a chip with its range, and how sure it is ("published", "estimated", "projected")."""
    figures = power_figures()
    if isinstance(chip, Gpu):
        spread = figures.get("chip_tdp", "gpu_range_ratio")
        return spread * float(chip.tdp_w), "published"
    key = f"{chip.name}_w"
    if key in figures.groups["chip_tdp"]:
        return figures.get("chip_tdp", key), "projected" if chip.name == "trn4" else "estimated"
    if tdp := chip.get("tdp_w"):
        figure = chip.figure("tdp_w")
        return Watts(tdp, figure.low or 0.8 * tdp, figure.high or 1.2 * tdp), figure.status
    raise OpenTrnError(f"no power figure for {chip.title}; give the chip file a tdp_w")


def rack_power(
    chip: Chip | Gpu,
    num_chips: int,
    activity: float,
    *,
    cooling: str = "air",
    flow: float = 0.7,
    where: Region | str | None = None,
) -> RackPower:
    """Power of `num_chips` chips and what surrounds them.

    `activity` is the part of the time in which the chips' engines work; `flow` the speed of fans or pumps (1 is full);
    `where` a region, whose PUE replaces the cooling's own. Raises OpenTrnError for values outside their meaning.
    """
    if cooling not in COOLING:
        raise OpenTrnError(f"cooling must be one of {', '.join(COOLING)}, got {cooling!r}")
    if not 0.0 <= activity <= 1.0 or not 0.0 < flow <= 1.0:
        raise OpenTrnError(f"activity must lie in 0..1 and flow in (0, 1], got {activity:g} and {flow:g}")
    f = power_figures()
    tdp, _ = chip_tdp(chip)
    idle, busy = f.get("chip_use", "idle_ratio"), f.get("chip_use", "busy_ratio")
    share = idle * (1.0 - activity) + busy * activity
    chips = tdp.times(share) * num_chips
    links = (f.get("server", "efa_w_per_chip") + f.get("server", "neuronlink_w_per_chip")) * num_chips
    hosts = f.get("server", "host_w_per_chip") * num_chips
    mover = f.get("air", "fan_w_per_chip") if cooling == "air" else f.get("liquid", "pump_w_per_chip")
    moving = mover * (num_chips * flow**3)
    inside = chips + links + hosts + moving
    conversion = inside.times(f.get("server", "conversion_loss_ratio"))
    pue = _pue(cooling, where)
    it = inside + conversion
    facility = Watts(it.value * (pue.value - 1.0), it.low * (pue.low - 1.0), it.high * (pue.high - 1.0))
    return RackPower(chips, links, hosts, moving, conversion, facility)


def _pue(cooling: str, where: Region | str | None) -> Watts:
    own = power_figures().get(cooling, "facility_pue")
    if where is None or cooling != "air":
        return own
    place = region(where) if isinstance(where, str) else where
    return Watts(place.pue_ratio, own.low, own.high)


def energy_kwh(power: RackPower, hours: float) -> Watts:
    """Energy at the meter over `hours`, in kWh with its range."""
    return power.total * (hours / 1000.0)
