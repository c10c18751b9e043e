"""Pictures of a plan: the pipeline of a step, memory by rank, cost against time.

Each function draws on a matplotlib figure and returns it; matplotlib is imported when a picture is wanted.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentrn.cluster.machines import Machine
from opentrn.cluster.pipeline import trace
from opentrn.cluster.planning import Candidate, Plan
from opentrn.cluster.step import StepModel
from opentrn.errors import OpenTrnError

__all__ = ["as_svg", "frontier_picture", "memory_picture", "pipeline_picture", "save_picture"]

_COLOURS = {"forward": "#4477aa", "backward": "#ee6677", "weight": "#ccbb44"}
_MEMORY_COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise OpenTrnError("pictures need matplotlib: pip install 'opentrn[plots]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def pipeline_picture(candidate: Candidate, machine: Machine, max_micro_batches: int = 16) -> Any:
    """The passes of one step on each pipeline rank (the first `max_micro_batches` micro-batches)."""
    assert candidate.found is not None and candidate.job is not None
    layout, job = candidate.found.layout, candidate.job
    forward, backward, weight, send = StepModel(job, machine).pass_times_us(layout)
    count = min(layout.micro_batches(job.global_batch), max_micro_batches)
    count = max(layout.pp, count - count % layout.pp) if layout.schedule == "interleaved" else max(1, count)
    run = trace(layout.schedule, count, forward, backward, weight, send)
    figure, axes = _figure(10, 1.2 + 0.35 * layout.pp)
    for kind, colour in _COLOURS.items():
        spans = [p for p in run.passes if p.kind == kind]
        for rank in range(layout.pp):
            own = [(p.start_us * 1e-3, (p.end_us - p.start_us) * 1e-3) for p in spans if p.rank == rank]
            axes.broken_barh(
                own,
                (rank - 0.4, 0.8),
                facecolor=colour,
                edgecolor="white",
                linewidth=0.4,
                label=kind if rank == 0 and own else None,
            )
    axes.set(
        xlabel="time in the step (ms)",
        ylabel="pipeline rank",
        yticks=range(layout.pp),
        title=f"{candidate.hardware}, {layout}: {count} micro-batches, {run.bubble_fraction():.0%} bubbles",
    )
    axes.invert_yaxis()
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def memory_picture(candidates: Sequence[Candidate], limits_gib: Sequence[float]) -> Any:
    """Memory of the fullest rank of each candidate by purpose, with the limit of its hardware."""
    shown = [(c, limit) for c, limit in zip(candidates, limits_gib, strict=True) if c.found is not None]
    figure, axes = _figure(10, 1.5 + 0.45 * len(shown))
    names = list(shown[0][0].found.memory_parts_gib) if shown and shown[0][0].found else []
    labels = [f"{c.hardware} x{c.num_chips}\n{c.found.layout}" for c, _ in shown if c.found]
    left = [0.0] * len(shown)
    for name, colour in zip(names, _MEMORY_COLOURS, strict=True):
        widths = [c.found.memory_parts_gib[name] for c, _ in shown if c.found]
        axes.barh(range(len(shown)), widths, left=left, color=colour, label=name)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, (_, limit) in enumerate(shown):
        axes.plot(
            [limit, limit], [row - 0.45, row + 0.45], color="black", linewidth=1.5, label="limit" if row == 0 else None
        )
    axes.set(xlabel="GiB on the fullest rank", yticks=range(len(shown)))
    axes.set_yticklabels(labels, fontsize="x-small")
    axes.invert_yaxis()
    axes.legend(fontsize="small")
    return figure


def frontier_picture(plan: Plan) -> Any:
    """Cost against time of every candidate; the line joins those that nothing beats in both."""
    figure, axes = _figure(8, 5)
    for index, name in enumerate(dict.fromkeys(c.hardware for c in plan.candidates)):
        own = [c for c in plan.candidates if c.hardware == name]
        errors = [[c.cost_usd - c.cost_range_usd[0] for c in own], [c.cost_range_usd[1] - c.cost_usd for c in own]]
        axes.errorbar(
            [c.time_h / 24 for c in own],
            [c.cost_usd for c in own],
            yerr=errors,
            fmt="o",
            capsize=3,
            label=name,
            color=f"C{index}",
        )
        seen = set()
        for c in own:
            if c.num_chips not in seen:
                seen.add(c.num_chips)
                axes.annotate(
                    str(c.num_chips),
                    (c.time_h / 24, c.cost_usd),
                    fontsize="x-small",
                    xytext=(4, 4),
                    textcoords="offset points",
                )
    days = [c.time_h / 24 for c in plan.candidates]
    if max(days) > 5 * min(days):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    line = plan.frontier()
    axes.plot([c.time_h / 24 for c in line], [c.cost_usd for c in line], color="black", linewidth=0.8, zorder=0)
    axes.set(
        xlabel="days to train",
        ylabel="USD",
        title=f"{plan.model} on {plan.tokens:.3g} tokens (labels: chips; bars: price range)",
    )
    axes.legend(fontsize="small")
    return figure


def save_picture(figure: Any, path: str | Path) -> None:
    """Write a figure as PNG, SVG or PDF by the file's ending; raises OpenTrnError for others or an unwritable path."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise OpenTrnError(f"pictures are written as .png, .svg or .pdf, not {path.name!r}")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OpenTrnError(f"cannot write {path}: {error.strerror or error}") from None


def as_svg(figure: Any) -> str:
    """A figure as an <img> element that holds its SVG."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    data = base64.b64encode(buffer.getvalue().encode()).decode()
    return f'<img alt="" src="data:image/svg+xml;base64,{data}">'
