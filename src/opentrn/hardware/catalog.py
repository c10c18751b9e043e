"""Finding records by name: `chip("trn2")`, `core("v3")`, `instance("trn2.48xlarge")` and so on.

A name is a file's name (or a table's, in the files that hold many records) or one of its aliases, in any case. The path
of a user's own TOML file is accepted wherever a name is. What has been read is shared, so records can be compared and
used as keys by identity.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from opentrn.errors import HardwareError
from opentrn.hardware.loading import DATA, Origin, build, read_toml
from opentrn.hardware.records import Chip, Core, Gpu, Instance, Price, Rack, Record, Region

# Where the records of a kind live: a folder with a file for each, or one file with a table for each.
_PLACES: dict[type[Record], str] = {
    Core: "cores",
    Chip: "chips",
    Instance: "instances.toml",
    Rack: "racks.toml",
    Gpu: "gpus.toml",
    Region: "regions.toml",
}
_PRICE_KINDS = ("on_demand", "capacity_block", "reserved")


def core(name: str | Path | Core) -> Core:
    """A NeuronCore by name ("v3", "gen3"), or from a user's file.

    Raises:
        HardwareError: no such core, or a file that cannot be used.
    """
    return _record(Core, name)


def chip(name: str | Path | Chip) -> Chip:
    """A Neuron device by name ("trn2", "gen3", "inf2"), or from a user's file, which may say `extends = "trn2"`.

    Raises:
        HardwareError: no such chip, or a file that cannot be used.
    """
    return _record(Chip, name)


def instance(name: str | Path | Instance) -> Instance:
    """An EC2 instance size by name ("trn2.48xlarge"), or from a user's file.

    Raises:
        HardwareError: no such instance, or a file that cannot be used.
    """
    return _record(Instance, name)


def rack(name: str | Path | Rack) -> Rack:
    """An UltraServer or cluster by name ("trn2-ultraserver"), or from a user's file.

    Raises:
        HardwareError: no such rack, or a file that cannot be used.
    """
    return _record(Rack, name)


def gpu(name: str | Path | Gpu) -> Gpu:
    """A peer GPU by name ("h100"), or from a user's file.

    Raises:
        HardwareError: no such GPU, or a file that cannot be used.
    """
    return _record(Gpu, name)


def region(name: str | Path | Region) -> Region:
    """An AWS region by name ("us-east-1"), or from a user's file.

    Raises:
        HardwareError: no such region, or a file that cannot be used.
    """
    return _record(Region, name)


def cores() -> tuple[Core, ...]:
    """Every core that ships with OpenTrn, by generation."""
    return _all(Core)


def chips() -> tuple[Chip, ...]:
    """Every chip that ships with OpenTrn, by generation."""
    return tuple(sorted(_all(Chip), key=lambda chip: (chip.generation, chip.name)))


def instances() -> tuple[Instance, ...]:
    """Every instance size that ships with OpenTrn."""
    return _all(Instance)


def racks() -> tuple[Rack, ...]:
    """Every UltraServer and cluster that ships with OpenTrn."""
    return _all(Rack)


def gpus() -> tuple[Gpu, ...]:
    """Every peer GPU that ships with OpenTrn."""
    return _all(Gpu)


def regions() -> tuple[Region, ...]:
    """Every AWS region that ships with OpenTrn."""
    return _all(Region)


def prices(
    instance: str | None = None, kind: str | None = None, region: str | None = None, path: Path | None = None
) -> tuple[Price, ...]:
    """List prices, newest first, narrowed to an instance's name, a kind and a region.

    A kind is "on_demand", "capacity_block" or "reserved"; lists without regions count for every region. `path` is a
    user's own list, read instead of ours: a TOML file of `[[price]]` tables.

    Raises:
        HardwareError: an unknown kind, or a file that cannot be used.
    """
    if kind is not None and kind not in _PRICE_KINDS:
        raise HardwareError(f"no price kind {kind!r}; use one of {', '.join(_PRICE_KINDS)}.")
    return tuple(
        price
        for price in (_read_prices(DATA / "prices.toml", True) if path is None else _read_prices(path, False))
        if (instance is None or price.instance == instance.lower())
        and (kind is None or price.kind == kind)
        and (region is None or price.region in (region, "any"))
    )


def find(name: str | Path) -> Record:
    """A record of any kind by name: a chip first, then a core, an instance, a rack, a GPU, a region.

    Raises:
        HardwareError: nothing has that name.
    """
    kinds = (Chip, Core, Instance, Rack, Gpu, Region)
    if _is_path(name):
        return _record(Chip, name)
    for kind in kinds:
        if (found := _resolve(kind, str(name))) is not None:
            return _shipped(kind, found)
    raise _unknown("hardware", str(name), kinds)


def _record(kind: type[Record], name: Any) -> Any:
    if isinstance(name, kind):
        return name
    if _is_path(name):
        return _from_file(kind, Path(name), ())
    found = _resolve(kind, str(name))
    if found is None:
        raise _unknown(kind.kind, str(name), [kind])
    return _shipped(kind, found)


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or name.lower().endswith(".toml")


def _all(kind: type[Record]) -> tuple[Any, ...]:
    return tuple(_shipped(kind, name) for name in _tables(kind))


def _unknown(what: str, name: str, kinds: Sequence[type[Record]]) -> HardwareError:
    close = get_close_matches(name.lower(), {known for kind in kinds for known in _names(kind)}, n=3)
    known = sorted(_tables(kinds[0]))
    hint = f"did you mean {' or '.join(close)}" if close else f"known {kinds[0].kind}s are {', '.join(known)}"
    return HardwareError(f"no {what} is called {name!r}: {hint}; or give the path of a .toml file.")


@cache
def _tables(kind: type[Record]) -> dict[str, tuple[dict[str, Any], Origin]]:
    """Every table of a kind with where it stands, by name."""
    place = DATA / _PLACES[kind]
    if place.suffix:
        origin = Origin(place, builtin=True)
        return {name: (table, origin) for name, table in read_toml(place, builtin=True).items()}
    return {path.stem: _read_single(path) for path in sorted(place.glob("*.toml"))}


@cache
def _read_single(path: Path) -> tuple[dict[str, Any], Origin]:
    return read_toml(path, builtin=True), Origin(path, builtin=True)


@cache
def _names(kind: type[Record]) -> dict[str, str]:
    """Every name and alias of a kind, in lower case, to the name of its table."""
    tables = _tables(kind)
    aliases = {alias.lower(): name for name, (table, _) in tables.items() for alias in table.get("aliases", ())}
    return aliases | {name.lower(): name for name in tables}


def _resolve(kind: type[Record], name: str) -> str | None:
    """The table's name for a name or alias. A file's own name is found without reading the other files."""
    if name.isidentifier() and (DATA / _PLACES[kind] / f"{name}.toml").is_file():
        return name
    return _names(kind).get(name.lower())


@cache
def _shipped(kind: type[Record], name: str) -> Any:
    place = DATA / _PLACES[kind]
    table, origin = _tables(kind)[name] if place.suffix else _read_single(place / f"{name}.toml")
    return _assemble(kind, name, table, origin, ())


def _from_file(kind: type[Record], path: Path, chain: tuple[Path, ...]) -> Any:
    """A user's record. `chain` holds the files that led here through extends."""
    path = path.expanduser().resolve()
    if path in chain:
        raise HardwareError(f"{path}: extends leads back to the file itself.")
    modified = path.stat().st_mtime_ns if path.exists() else 0
    return _from_version(kind, path, modified, chain)


@cache
def _from_version(kind: type[Record], path: Path, modified: int, chain: tuple[Path, ...]) -> Any:
    origin = Origin(path, builtin=False)
    return _assemble(kind, path.stem, read_toml(path, builtin=False), origin, (*chain, path))


def _assemble(kind: type[Record], name: str, table: Mapping[str, Any], origin: Origin, chain: tuple[Path, ...]) -> Any:
    """The record of a table, with the record it extends and the records that are its parts."""
    base = _reference(kind, table["extends"], "extends", origin, chain) if "extends" in table else None
    return build(kind, name, table, origin, base, _parts(kind, name, table, origin, base), lambda: _vocabulary(kind))


def _reference(kind: type[Record], name: Any, key: str, origin: Origin, chain: tuple[Path, ...] = ()) -> Any:
    """The record that a key of a file names; a path is relative to that file."""
    if not isinstance(name, str):
        raise origin.error(f"{key} must be the name of a {kind.kind}, not {name!r}.")
    if _is_path(name):
        return _from_file(kind, origin.path.parent / name, chain)
    found = _resolve(kind, name)
    if found is None:
        raise origin.error(f"{key}: {_unknown(kind.kind, name, [kind])}")
    return _shipped(kind, found)


def _parts(
    kind: type[Record], name: str, table: Mapping[str, Any], origin: Origin, base: Record | None
) -> dict[str, Record]:
    """The attributes of a record that are records: a chip's core, an instance's accelerator, a rack's chip."""
    key = {Chip: "core", Instance: "accelerator", Rack: "chip"}.get(kind)
    if key is None:
        return {}
    given = table.get(key)
    if given is None:
        if base is None:
            raise origin.error(f"{kind.kind} {name} lacks {key}.")
        return {key: base.__dict__[key]}
    if kind is Chip:
        if isinstance(given, dict):
            return {key: _own_core(name, given, origin, base)}
        return {key: _reference(Core, given, key, origin)}
    if kind is Instance and isinstance(given, str) and not _is_path(given) and _resolve(Gpu, given):
        return {key: _reference(Gpu, given, key, origin)}
    return {key: _reference(Chip, given, key, origin)}


def _own_core(name: str, table: Mapping[str, Any], origin: Origin, base: Record | None) -> Core:
    """The core that a chip's file describes itself under [core]; without extends it starts from the base chip's."""
    if "extends" in table:
        start = _reference(Core, table["extends"], "core.extends", origin)
    else:
        start = base.__dict__["core"] if base else None
    return build(Core, f"{name}-core", table, origin, start, vocabulary=lambda: _vocabulary(Core))


@cache
def _vocabulary(kind: type[Record]) -> set[str]:
    """Every figure's name that our files of a kind use."""
    return {name for record in _all(kind) for name in record.figures}


@cache
def _read_prices(path: Path, builtin: bool) -> tuple[Price, ...]:
    origin = Origin(path, builtin)
    rows = read_toml(path, builtin=builtin).get("price", [])
    return tuple(sorted((_price(row, origin) for row in rows), key=lambda price: price.date, reverse=True))


def _price(row: Mapping[str, Any], origin: Origin) -> Price:
    row = row if origin.builtin else {"status": "estimated", "source": str(origin.path)} | dict(row)
    where = f"the price of {row.get('instance', 'an unnamed instance')}"
    try:
        price = Price(**row)
    except TypeError as error:
        raise origin.error(f"{where} is incomplete or has an unknown key: {error}.") from error
    if price.kind not in _PRICE_KINDS:
        raise origin.error(f"{where} has kind {price.kind!r}; use one of {', '.join(_PRICE_KINDS)}.")
    if not isinstance(price.date, date) or not isinstance(price.usd_per_hour, int | float) or price.usd_per_hour <= 0:
        raise origin.error(f"{where} needs a date such as 2026-01-31 and a positive usd_per_hour.")
    return price
