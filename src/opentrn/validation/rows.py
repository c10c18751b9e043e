"""Measured rows: what was measured on which chip, and the program of ours that stands for it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["KernelRow", "MicroRow", "kernel_rows", "micro_rows"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class KernelRow:
    """One measurement of a kernel.

    Attributes:
        program: builder in ``validation.programs``, several joined by ``+`` when launches were added; "" when the
        row is a bound
            or points to a public kernel only.
        api: ``nki``, ``earlier``, or ``as-written`` for kernels that switched the compiler's rearrangements off.
        statistic: ``benchmark`` (device latency of ``nki.benchmark``) or ``profile`` (a profile's total).
        role: ``fit`` (used to choose constants), ``held-out``, ``bound``, ``public`` or ``context``.
    """

    id: str
    program: str
    parameters: dict[str, Any]
    chip: str
    api: str
    statistic: str
    measured_us: float
    confidence: str
    role: str
    source: str
    note: str


@dataclass(frozen=True)
class MicroRow:
    """One measurement of a single instruction or transfer: ``quantity`` is ``duration`` or ``interval``."""

    id: str
    program: str
    parameters: dict[str, Any]
    chip: str
    quantity: str
    measured_ns: float
    role: str
    source: str


def _parameters(text: str) -> dict[str, Any]:
    pairs = dict(part.split("=") for part in text.split())
    return {
        k: int(v) if v.lstrip("-").isdigit() else v == "True" if v in ("True", "False") else v for k, v in pairs.items()
    }


def _table(name: str) -> list[dict[str, str]]:
    with open(_HERE / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def kernel_rows() -> list[KernelRow]:
    """All rows of ``kernels.csv``."""
    return [
        KernelRow(
            r["id"],
            r["program"],
            _parameters(r["parameters"]),
            r["chip"],
            r["api"],
            r["statistic"],
            float(r["measured_us"]),
            r["confidence"],
            r["role"],
            r["source"],
            r["note"],
        )
        for r in _table("kernels.csv")
    ]


def micro_rows() -> list[MicroRow]:
    """All rows of ``microbench.csv``."""
    return [
        MicroRow(
            r["id"],
            r["program"],
            _parameters(r["parameters"]),
            r["chip"],
            r["quantity"],
            float(r["measured_ns"]),
            r["role"],
            r["source"],
        )
        for r in _table("microbench.csv")
    ]
