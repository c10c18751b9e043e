"""`docs/fidelity.md` and its pictures, from outcomes: how far the model is from chips, worst row first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from opentrn.validation.running import Outcome, order_pairs, timeline_of

__all__ = ["curves", "statistics", "write_report"]

_TARGET_MEDIAN, _TARGET_P90, _TARGET_ORDER = 0.12, 0.30, 0.95


def statistics(outcomes: list[Outcome]) -> tuple[float, float]:
    """(median, 90th percentile) of |error|; nan without rows."""
    errors = np.abs([o.error for o in outcomes])
    return (float(np.median(errors)), float(np.quantile(errors, 0.9))) if len(errors) else (float("nan"), float("nan"))


def curves() -> dict[str, tuple[list[int], list[float], str]]:
    """Size curves of NeuronCore-v3: name -> (sizes, rates, unit)."""
    payload = [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
    dma = []
    for size in payload:
        timeline = timeline_of("transfers", {"bytes_per_row": size, "repeat": 24, "mode": "swdge"}, "trn2")
        begin, end = timeline.dma_start_ns.min(), timeline.dma_end_ns.max()
        dma.append(float(timeline.moved_bytes.sum() / (end - begin)))
    columns = [1, 8, 32, 64, 128, 192, 256, 384, 512]
    matmul = []
    for n in columns:
        timeline = timeline_of("products", {"columns": n, "repeat": 512}, "trn2")
        last = slice(256, None)
        span = timeline.free_ns[last].max() - timeline.start_ns[last].min()
        matmul.append(float(timeline.flops[last].sum() / span / 1e3))
    free = [1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096]
    vector = []
    for n in free:
        timeline = timeline_of(
            "instruction",
            {
                "name": "copy",
                "size": n,
                "source": "psum" if n <= 512 else "sbuf",
                "dtype": "float32",
                "result": "bfloat16",
                "repeat": 12,
            },
            "trn2",
        )
        vector.append(float(128 * n / np.median(np.diff(timeline.start_ns)[-4:])))
    return {
        "DMA bandwidth against bytes a partition": (payload, dma, "GB/s"),
        "Matmul rate against moving columns (bfloat16)": (columns, matmul, "TFLOPS"),
        "Vector rate against elements a partition": (free, vector, "elements/ns"),
    }


def _pictures(outcomes: list[Outcome], folder: Path) -> dict[str, str]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(5.6, 5.2))
    for role, marker in (("held-out", "o"), ("fit", "^"), ("context", "x")):
        chosen = [o for o in outcomes if o.row.role == role]
        if chosen:
            axes.loglog(
                [o.measured for o in chosen], [o.simulated for o in chosen], marker, ms=4, alpha=0.7, label=role
            )
    low, high = min(o.measured for o in outcomes) / 2, max(o.measured for o in outcomes) * 2
    axes.plot([low, high], [low, high], color="black", lw=0.8)
    for factor in (0.7, 1.3):
        axes.plot([low, high], [low * factor, high * factor], color="grey", lw=0.6, ls="--")
    axes.set(xlabel="measured, µs", ylabel="simulated, µs", title="Kernels: simulated against measured")
    axes.legend()
    figure.tight_layout()
    figure.savefig(folder / "fidelity-scatter.png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    names = {"Simulated against measured; dashed: 30 %": "fidelity-scatter.png"}
    for name, (sizes, rates, unit) in curves().items():
        figure, axes = plt.subplots(figsize=(4.8, 3.2))
        axes.semilogx(sizes, rates, "o-", base=2)
        if name.startswith("DMA"):
            from opentrn import hardware

            core = hardware.core("v3")
            sizes_read = np.array(core.dma_curve_bytes_per_partition)
            read = np.array(core.dma_curve_ratio) * max(rates)
            axes.plot(sizes_read, read, "s--", alpha=0.6, label="read off AWS's figure, scaled")
            axes.legend()
        axes.set(title=name, xlabel=name.split("against ")[1], ylabel=unit)
        axes.set_ylim(bottom=0)
        figure.tight_layout()
        file = "curve-" + name.split()[0].lower() + ".png"
        figure.savefig(folder / file, dpi=110, metadata={"Software": None})
        plt.close(figure)
        names[name] = file
    return names


def _row(o: Outcome) -> str:
    row = o.row
    shape = " ".join(f"{k}={v}" for k, v in row.parameters.items())
    return (
        f"| {row.id} | {row.program} | {shape} | {row.chip} | {row.statistic} | {o.measured:.1f} | {o.simulated:.1f} | "
        f"{o.error:+.0%} | {row.role} |"
    )


def _summary(title: str, outcomes: list[Outcome]) -> str:
    median, p90 = statistics(outcomes)
    return f"| {title} | {len(outcomes)} | {median:.1%} | {p90:.1%} |"


def write_report(kernels: list[Outcome], micro: list[Outcome], bounds: list[Any], path: Path) -> None:
    """Write the page at ``path`` and its pictures in ``img/`` beside it."""
    pictures = _pictures(kernels, path.parent / "img")
    held = [o for o in kernels if o.row.role == "held-out"]
    fit = [o for o in kernels if o.row.role == "fit"]
    context = [o for o in kernels if o.row.role == "context"]
    kept, total = order_pairs(held + fit)
    lines = [
        "# Fidelity",
        "",
        "Written by `trn validate --docs docs/fidelity.md`; do not edit. The model against",
        "published measurements of real chips:",
        "each row is a program of this project with the algorithm, shapes and types of the",
        "measured kernel, traced without",
        "values and scheduled. Error is simulated over measured, less one.",
        "",
        "| rows | number | median of abs. error | 90th percentile |",
        "|---|---|---|---|",
        _summary("kernels, held out", held),
        _summary("kernels used to fit", fit),
        _summary("single instructions and transfers, held out", [o for o in micro if o.row.role == "held-out"]),
        _summary("single instructions used to fit", [o for o in micro if o.row.role == "fit"]),
        "",
        f"Order of versions: {kept} of {total} pairs ({kept / max(total, 1):.1%}) in the measured order "
        "(versions of one computation, same sizes, measured at least 2 % apart).",
        "",
        "Fitted constants: the launch overhead and the window of the list scheduler (rows TKF-001 to TKF-030, and a look at",
        "ACC-001 to ACC-007), the cost of a static DMA trigger (row STU-014) and of a reciprocal (row ACC-001 and the same",
        "source's silu) on NeuronCore-v2; their status in `hardware/cores` is `calibrated`. Single-instruction",
        "figures are read from the rows marked `fit` in `validation/microbench.csv`. Everything else is published or read from traces.",
        "",
    ]
    for title, file in pictures.items():
        lines += [f"![{title}](img/{file})", ""]
    header = [
        "| row | program | sizes | chip | statistic | measured us | simulated us | error | role |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += ["## Kernels, worst first", "", *header]
    lines += [_row(o) for o in sorted(held + fit, key=lambda o: -abs(o.error))]
    if context:
        lines += [
            "",
            "## Rows whose algorithm is not known",
            "",
            "The sizes are the measured kernel's, the algorithm is ours: not counted above.",
            "",
            *header,
        ]
        lines += [_row(o) for o in sorted(context, key=lambda o: -abs(o.error))]
    lines += [
        "",
        "## Single instructions and transfers, worst first",
        "",
        "| row | program | sizes | chip | quantity | measured ns | simulated ns | error | role |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for o in sorted(micro, key=lambda o: -abs(o.error)):
        row = o.row
        shape = " ".join(f"{k}={v}" for k, v in row.parameters.items())
        lines.append(
            f"| {row.id} | {row.program} | {shape} | {row.chip} | {row.quantity} | {o.measured:.0f} | "
            f"{o.simulated:.0f} | "
            f"{o.error:+.0%} | {row.role} |"
        )
    lines += [
        "",
        "## Rows without a program here",
        "",
        "Bounds (thresholds and targets), and measurements of public kernels: fetch the file and "
        "run `trn profile` on it.",
        "",
        "| row | measured us | role | where |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r.id} | {r.measured_us:.1f} | {r.role} | `{r.source}` |" for r in bounds]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
