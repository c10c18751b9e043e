"""A figure: one number about hardware, how sure it is and who said so; and the rule that its name ends in its unit."""

import re
from dataclasses import dataclass
from typing import Any

# How sure a figure is: stated by the vendor, arithmetic on stated values or read off a public trace, fitted by us to
# measurements, assumed for hardware that nobody outside has measured, or a third party's claim.
STATUSES = ("published", "derived", "calibrated", "projected", "estimated")

# The last words of a quantity's name: units (GB is 1e9 bytes, GiB is 2**30), then what is counted or is a number by
# nature. Any of them may be followed by `_per_<something>`.
_UNITS = r"""
    ghz | mhz | tb | tib | gb | gib | mb | mib | kib | bytes | bits | gbps | s | ms | us | ns | cycles
    | tflops | tops | pflops | flop | w | kw | mw | gw | v | j | nj | pj | fj | kwh | wh | c | usd | kg_co2e | m | m3
    | years | percent | ratio | elements | partitions | values | fmax | fmin | increment | magnitude | cores | stacks
    | accesses | acres | default | sizes | shape | generation | year
"""
_UNIT_PATTERN = re.compile(rf"(?:^|_)((?:{_UNITS})(?:_per_[a-z0-9_]+)?)$", re.VERBOSE)
_COUNT_PATTERN = re.compile(r"(?:^|_)num_[a-z0-9_]+$")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a record.

    `value` is a number, bool, string, tuple or mapping, in the unit that `name` ends in; `low` and `high` bound it
    where the source gives a range; `group` is the heading of the file under which it stands.
    """

    name: str
    value: Any
    status: str
    source: str
    note: str = ""
    group: str = ""
    low: float | None = None
    high: float | None = None


def unit_of(name: str) -> str | None:
    """The unit at the end of a figure's name ("gb_per_s"; "count" for `num_...`), or None."""
    if match := _UNIT_PATTERN.search(name):
        return match.group(1)
    return "count" if _COUNT_PATTERN.search(name) else None


def quantity_of(name: str) -> str:
    """What a figure's name measures, without the unit: "hbm_bandwidth_gb_per_s" -> "hbm_bandwidth"."""
    match = _UNIT_PATTERN.search(name)
    return name[: match.start()] if match else name


def is_number(value: object) -> bool:
    """Whether a value is a quantity (a number or a tuple of numbers), and so needs a unit in its name."""
    if isinstance(value, list | tuple):
        return bool(value) and all(is_number(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)
