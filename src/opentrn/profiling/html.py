"""One self-contained page: timeline, summary, critical path, lines, memory and power over time. No network, no server.

The bars are packed as typed arrays and drawn on a canvas, so that a hundred thousand instructions scroll smoothly.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from opentrn import __version__
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.profiling.advice import advice
from opentrn.profiling.occupancy import occupancy
from opentrn.profiling.perfetto import bars
from opentrn.profiling.profile import Profile
from opentrn.timing import Cause

__all__ = ["page"]

_MAX_BARS = 300_000
_MAX_POINTS = 2_000
_TEMPLATE = Path(__file__).with_name("page.html")


def page(profiles: list[Profile], title: str) -> str:
    """The page for all launches of a run."""
    data = {"title": title, "version": __version__, "launches": [_launch(p) for p in profiles]}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = _TEMPLATE.read_text()
    return template.replace("{{title}}", html.escape(title)).replace("{{data}}", text)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _launch(p: Profile) -> dict[str, Any]:
    timeline = p.timeline
    start, stop, names = bars(p)
    shown = min(len(timeline), _MAX_BARS)
    tracks = list(dict.fromkeys(sorted(names, key=_track_order)))
    index = {name: k for k, name in enumerate(tracks)}
    many = len(timeline.programs) > 1
    lanes = [f"core {c} {name}" if many else name for c in range(max(len(timeline.programs), 1)) for name in tracks]
    track = np.array([index[n] for n in names[:shown]], dtype=np.int64) + timeline.core[:shown] * len(tracks)
    plans: list[dict[str, str]] = []
    sites: list[str] = []
    plan_ids, site_ids = [], []
    for program in timeline.programs:
        plan_ids.append(program.plan + len(plans))
        site_ids.append(program.site + len(sites))
        plans += [{"n": q.instruction.name, "o": ", ".join(map(repr, q.layouts))} for q in program.plans]
        for s in range(len(program.sites)):
            where = program.line(s)
            sites.append(f"{Path(where[0]).name}:{where[1]}" if where else "")
    on_path = np.zeros(len(timeline), np.uint8)
    on_path[p.path.rows] = 1
    edges, watts = p.energy.watts_over_time()
    energy = p.energy.total_j
    return {
        "name": p.name,
        "source": p.source,
        "chip": p.launch.chip,
        "error": str(p.launch.error) if p.launch.error is not None else None,
        "latency_us": p.latency_us,
        "span_us": timeline.span_us,
        "count": len(timeline),
        "shown": shown,
        "lanes": lanes,
        "plans": plans,
        "sites": sites,
        "causes": [c.name.lower() for c in Cause],
        "bars": {
            "start": _packed(start[:shown].astype(np.float64)),
            "stop": _packed(stop[:shown].astype(np.float64)),
            "lane": _packed(track.astype(np.uint16)),
            "plan": _packed(np.concatenate(plan_ids or [np.zeros(0)])[:shown].astype(np.uint32)),
            "site": _packed(np.concatenate(site_ids or [np.zeros(0)])[:shown].astype(np.uint32)),
            "cause": _packed(timeline.cause[:shown].astype(np.uint8)),
            "blocked": _packed(timeline.blocked_by[:shown].astype(np.int32)),
            "path": _packed(on_path[:shown]),
        },
        "summary": {
            "engines": {**timeline.engine_busy_us, "dma": timeline.dma_busy_us},
            "mfu": p.mfu,
            "mbu": p.mbu,
            "hbm_bytes": timeline.hbm_bytes,
            "flops": timeline.total_flops,
            "energy_j": [energy.value, energy.low, energy.high],
            "mean_w": p.energy.mean_w,
            "sbuf_peak": p.sbuf_peak_bytes,
            "psum_peak": p.psum_peak_bytes,
            "cores": p.num_cores,
        },
        "path": p.path.by_cause,
        "what_if": p.what_ifs if len(timeline) <= _MAX_BARS else {},
        "energy": {name: part.value for name, part in p.energy.by_level.items()},
        "lines": [
            {
                "at": f"{e.file}:{e.line}",
                "text": e.text,
                "what": ", ".join(e.instructions),
                "n": e.count,
                "critical": e.critical_us,
                "busy": e.busy_us,
                "hbm": e.hbm_bytes,
            }
            for e in p.lines[:200]
        ],  # fmt: skip
        "advice": [{"us": a.saving_us, "at": a.line, "text": a.text} for a in advice(p)],
        "sbuf": _steps(timeline, MemoryRegion.sbuf),
        "psum": _steps(timeline, MemoryRegion.psum),
        "sbuf_limit": p.chip.core.sbuf_bytes_per_partition,
        "psum_limit": p.chip.core.psum_bytes_per_partition,
        "watts": [edges[:-1].round(4).tolist(), watts.round(2).tolist()],
        "roofline": {
            "intensity": timeline.total_flops / max(timeline.hbm_bytes, 1),
            "tflops": timeline.total_flops / max(p.latency_us, 1e-9) / 1e6,
            "peak_tflops": p.peak_flops_per_s / 1e12,
            "gb_per_s": p.hbm_bytes_per_s / 1e9,
        },
    }


def _track_order(name: str) -> tuple[int, str]:
    engines = ("tensor", "vector", "scalar", "gpsimd", "sync")
    return (engines.index(name), "") if name in engines else (len(engines), name)


def _steps(timeline: Any, region: MemoryRegion) -> list[list[float]]:
    times, values = occupancy(timeline, region)
    if len(times) > _MAX_POINTS:
        # Keep the largest value of each stretch: a peak must not vanish between two points.
        edges = np.linspace(0, len(times), _MAX_POINTS + 1).astype(int)[:-1]
        times, values = times[edges], np.maximum.reduceat(values, edges)
    return [times.round(4).tolist(), values.tolist()]
