"""Reads `hardware/fabrics/*.toml` and `hardware/collective_runtimes/*.toml`, and files of the user's own.

A figure in those files is a plain value, which has the file's status and source, or a table with its own. This module
hands out plain values; `figures` keeps the provenance for whoever wants to print it.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from opentrn.errors import HardwareError

_STATUSES = ("published", "derived", "calibrated", "projected", "estimated")


@dataclass(frozen=True, slots=True)
class Figure:
    """One hardware figure with where it comes from."""

    name: str
    value: Any
    status: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class FabricFile:
    """The tables of one fabric file: links, chips, topologies and the torus template."""

    path: str
    tables: dict[str, Any]

    def table(self, kind: str, name: str) -> dict[str, Any]:
        """A table such as [link.NAME] as plain values."""
        try:
            raw = self.tables[kind][name]
        except KeyError:
            raise HardwareError(f"{self.path} has no [{kind}.{name}], which one of its topologies names") from None
        return {key: plain(value) for key, value in raw.items()}

    def figures(self) -> Iterator[Figure]:
        """Every figure of the file's links and chips with its provenance."""
        for kind in ("link", "chip"):
            for name, raw in self.tables.get(kind, {}).items():
                for key, value in raw.items():
                    if isinstance(value, str):
                        continue
                    yield _figure(f"{kind}.{name}.{key}", value, self.tables)


def plain(value: Any) -> Any:
    """The value of a figure, without its provenance."""
    return value["value"] if isinstance(value, dict) and "value" in value else value


def _figure(name: str, value: Any, defaults: dict[str, Any]) -> Figure:
    own = value if isinstance(value, dict) else {}
    status = own.get("status", defaults.get("status", ""))
    if status not in _STATUSES:
        raise HardwareError(f"figure {name} has status {status!r}; use one of {', '.join(_STATUSES)}")
    return Figure(name, plain(value), status, own.get("source", defaults.get("source", "")), own.get("note", ""))


def read_fabric_file(path: Path) -> FabricFile:
    """A fabric file of the project or of the user; raises HardwareError when it cannot be read."""
    try:
        tables = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise HardwareError(f"no fabric file {path}") from None
    except tomllib.TOMLDecodeError as problem:
        raise HardwareError(f"{path} is not valid TOML: {problem}") from None
    return FabricFile(str(path), tables)


@lru_cache(maxsize=1)
def fabric_files() -> tuple[FabricFile, ...]:
    """The fabric files that ship with the project, by name."""
    folder = files("opentrn") / "hardware" / "fabrics"
    return tuple(
        read_fabric_file(Path(str(entry)))
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    )


@lru_cache(maxsize=1)
def topology_index() -> dict[str, tuple[FabricFile, str]]:
    """Every topology name and alias -> (file, name)."""
    index: dict[str, tuple[FabricFile, str]] = {}
    for file in fabric_files():
        for name, table in file.tables.get("topology", {}).items():
            for known in (name, *table.get("aliases", ())):
                index[known] = (file, name)
    return index


def runtime_table(name: str) -> tuple[dict[str, Any], list[Figure]]:
    """A collective runtime as plain values, and its figures with provenance."""
    folder = files("opentrn") / "hardware" / "collective_runtimes"
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))
        raise HardwareError(f"unknown collective runtime {name!r}; use one of {', '.join(known)}")
    tables = tomllib.loads(path.read_text())
    heading = ("title", "status", "source")
    figures = [_figure(f"{name}.{key}", value, tables) for key, value in tables.items() if key not in heading]
    return {figure.name.split(".", 1)[1]: figure.value for figure in figures}, figures
