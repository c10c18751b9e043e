"""Two profiles side by side: what became faster, what slower, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentrn.errors import OpenTrnError

__all__ = ["Difference", "compare"]


@dataclass(frozen=True)
class Difference:
    """One figure of one launch in both documents; ``ratio`` is new / base, None where base is 0."""

    launch: str
    figure: str
    base: float
    new: float

    @property
    def ratio(self) -> float | None:
        return self.new / self.base if self.base else None


_FIGURES = (
    "latency_us",
    "dma_busy_us",
    "hbm_bytes",
    "flops",
    "mfu",
    "mbu",
    "energy_j",
    "sbuf_peak_bytes",
    "psum_peak_bytes",
)


def compare(base: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """The figures of launches that correspond: by position where the kernels' names agree or there is one each.

    Raises:
        OpenTrnError: the two runs have no launch in common.
    """
    pairs = _pairs(base["launches"], new["launches"])
    if not pairs:
        raise OpenTrnError(
            f"the runs have no kernel in common: {_names(base)} against {_names(new)}; compare runs of the same kernels"
        )
    rows: list[Difference] = []
    for a, b in pairs:
        label = a["name"] if a["name"] == b["name"] else f"{a['name']} -> {b['name']}"
        rows += [Difference(label, f, float(a.get(f) or 0), float(b.get(f) or 0)) for f in _FIGURES]
        for group in ("engine_busy_us", "critical_path"):
            ours, theirs = a.get(group, {}), b.get(group, {})
            for name in dict.fromkeys([*ours, *theirs]):
                rows.append(Difference(label, f"{group}.{name}", float(ours.get(name, 0)), float(theirs.get(name, 0))))
    return rows


def _pairs(ours: list[dict], theirs: list[dict]) -> list[tuple[dict, dict]]:
    if len(ours) == 1 and len(theirs) == 1:
        return [(ours[0], theirs[0])]
    remaining = list(theirs)
    pairs = []
    for a in ours:
        match = next((b for b in remaining if b["name"] == a["name"]), None)
        if match is not None:
            remaining.remove(match)
            pairs.append((a, match))
    return pairs


def _names(run: dict[str, Any]) -> str:
    return ", ".join(dict.fromkeys(launch["name"] for launch in run["launches"])) or "none"
