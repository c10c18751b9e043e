"""From a TOML table to a record: figures with status and source, inheritance, errors that name the file and the key.

A table holds figures, either bare (`num_cores = 8`, with the status and source of the heading or the file) or as
`{ value, status, source, note, low, high }`, directly or under headings. `extends` names a record to start from;
there `{ times = 4 }` multiplies the base's value, `inherited` gives the figures carried over a new status and `drops`
leaves some of them behind.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from opentrn.errors import HardwareError
from opentrn.hardware.figure import STATUSES, Figure, is_number, quantity_of, unit_of
from opentrn.hardware.records import Record

DATA = Path(__file__).parent

_FIGURE_KEYS = {"value", "times", "status", "source", "note", "low", "high"}
_RECORD_KEYS = {"title", "aliases", "extends", "inherited", "drops", "status", "source"}
_RECORD_FIELDS = get_type_hints(Record).keys()


@dataclass(frozen=True)
class Origin:
    """Where a table comes from. A user's file may leave status and source out; ours may not."""

    path: Path
    builtin: bool

    def error(self, message: str) -> HardwareError:
        return HardwareError(f"{self.path.name if self.builtin else self.path}: {message}")


def read_toml(path: Path, *, builtin: bool) -> dict[str, Any]:
    """The parsed file.

    Raises:
        HardwareError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise HardwareError(f"{path}: the file cannot be read: {reason}.") from error
    except tomllib.TOMLDecodeError as error:
        raise Origin(path, builtin).error(f"not valid TOML: {error}.") from error


def build(
    kind: type[Record],
    name: str,
    table: Mapping[str, Any],
    origin: Origin,
    base: Record | None,
    parts: Mapping[str, Any] | None = None,
    vocabulary: Callable[[], set[str]] = set,
) -> Any:
    """A record of class `kind` from its table, checked.

    `parts` are attributes that are records themselves (a chip's core); `vocabulary` gives all names that files of this
    kind use, against which the new names of a user's file are checked for slips.
    """
    parts = parts or {}
    inherited = _inherited(table, origin, base)
    figures = _figures(kind, table, origin, _RECORD_KEYS | parts.keys(), base.figures if base else {})
    if not origin.builtin:
        _refuse_slips(figures.keys() - inherited.keys(), inherited, vocabulary, origin)
    figures = inherited | figures
    _check_types(kind, figures, origin)
    if missing := [required for required in kind.required if required not in figures]:
        raise origin.error(f"{kind.kind} {name} lacks {', '.join(missing)}; add them, or start from one with extends.")
    title, aliases = str(table.get("title", name)), tuple(table.get("aliases", ()))
    return kind(name, title, origin.path, aliases, figures, parts)


def _defaults(table: Mapping[str, Any], origin: Origin, outer: tuple[str, str] | None = None) -> tuple[str, str]:
    """Status and source of the bare figures of a table."""
    if outer is None:
        outer = ("", "") if origin.builtin else ("estimated", str(origin.path))
    return table.get("status", outer[0]), table.get("source", outer[1])


def _figures(
    kind: type[Record], table: Mapping[str, Any], origin: Origin, reserved: set[str], base: Mapping[str, Figure]
) -> dict[str, Figure]:
    """The figures of a record's table; `reserved` keys are not figures, `base` is what `times` multiplies."""
    defaults = _defaults(table, origin)
    figures: dict[str, Figure] = {}

    def add(name: str, entry: Any, group: str, defaults: tuple[str, str]) -> None:
        if name in figures:
            raise origin.error(f"{name} is given twice, under [{figures[name].group}] and [{group}].")
        if name in _RECORD_FIELDS or hasattr(kind, name):
            raise origin.error(f"{name} cannot be set: a {kind.kind} has it already or computes it from other figures.")
        figures[name] = _figure(name, entry, group, defaults, origin, base)

    for key, entry in table.items():
        if key in reserved:
            continue
        if isinstance(entry, dict) and not entry.keys() & {"value", "times"}:
            if stray := entry.keys() & {"note", "low", "high"}:
                raise origin.error(f"{key} has {', '.join(sorted(stray))} and no value.")
            group_defaults = _defaults(entry, origin, defaults)
            for name, inner in entry.items():
                if name not in ("status", "source"):
                    add(name, inner, key, group_defaults)
        else:
            add(key, entry, "", defaults)
    return figures


def _figure(
    name: str, entry: Any, group: str, defaults: tuple[str, str], origin: Origin, base: Mapping[str, Figure]
) -> Figure:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise origin.error(f"{name!r} is not a figure's name; use lower-case words joined by underscores.")
    given = entry if isinstance(entry, dict) else {"value": entry}
    if unknown := given.keys() - _FIGURE_KEYS:
        raise origin.error(f"{name} has {', '.join(sorted(unknown))}; a figure has {', '.join(sorted(_FIGURE_KEYS))}.")
    status, source = given.get("status", defaults[0]), given.get("source", defaults[1])
    if status not in STATUSES:
        raise origin.error(f"{name} has status {status!r}; use one of {', '.join(STATUSES)}.")
    if not source:
        raise origin.error(f"{name} has no source.")
    if "times" in given:
        if name not in base or not is_number(base[name].value):
            raise origin.error(f"{name} is given as times, but the record it extends has no such number.")
        value, note = base[name].value * given["times"], f"{given['times']} times {base[name].value}"
        note = f"{note}; {given['note']}" if given.get("note") else note
    else:
        value, note = _frozen(given["value"]), given.get("note", "")
    if is_number(value) and unit_of(name) is None:
        raise origin.error(f"{name} does not say its unit; end the name in one, such as _gb_per_s, _us or _bytes.")
    return Figure(name, value, status, source, note, group, given.get("low"), given.get("high"))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _inherited(table: Mapping[str, Any], origin: Origin, base: Record | None) -> dict[str, Figure]:
    """The base's figures as this record takes them over."""
    drops = table.get("drops", [])
    if base is None:
        if drops or "inherited" in table:
            raise origin.error("drops and inherited need extends, the record to start from.")
        return {}
    if unknown := [name for name in drops if name not in base.figures]:
        raise origin.error(f"drops names {', '.join(unknown)}, which {base.kind} {base.name} does not have.")
    figures = {name: figure for name, figure in base.figures.items() if name not in drops}
    status = table.get("inherited")
    if status is None:
        return figures
    if status not in STATUSES:
        raise origin.error(f"inherited is {status!r}; use one of {', '.join(STATUSES)}.")
    return {
        name: replace(figure, status=status, source=f"as {base.title}: {figure.source}")
        for name, figure in figures.items()
    }


def _refuse_slips(
    new: set[str], inherited: Mapping[str, Figure], vocabulary: Callable[[], set[str]], origin: Origin
) -> None:
    """Refuse a user's name that is a known quantity in another unit or a known name misspelt: it would do nothing."""
    known = vocabulary() | inherited.keys() if new else set()
    for name in sorted(new - known):
        if others := [other for other in known if quantity_of(other) == quantity_of(name) and unit_of(other)]:
            raise origin.error(f"{name} is known as {sorted(others)[0]}; give the figure in that unit.")
        close = get_close_matches(name, known, n=1, cutoff=0.9)
        # Names that differ in their digits alone (fp6, fp8) are different figures, not slips.
        if close and re.sub(r"\d", "", close[0]) != re.sub(r"\d", "", name):
            raise origin.error(f"{name} is not a figure that is used; did you mean {close[0]}?")


def _check_types(kind: type[Record], figures: Mapping[str, Figure], origin: Origin) -> None:
    """Figures that code relies on have the declared type, and are not negative where they are numbers."""
    for name, declared in get_type_hints(kind).items():
        if name not in figures:
            continue
        value = figures[name].value
        if declared is str:
            wanted, good = "a string", isinstance(value, str)
        elif declared is int:
            wanted, good = "a whole number", isinstance(value, int) and not isinstance(value, bool) and value >= 0
        elif declared is float:
            wanted, good = "a number", isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        else:
            wanted = "a list of whole numbers"
            good = isinstance(value, tuple) and all(isinstance(item, int) for item in value)
        if not good:
            raise origin.error(f"{name} must be {wanted}, not {value!r}.")
