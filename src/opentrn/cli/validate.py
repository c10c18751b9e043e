"""`trn validate`: the timing model against published measurements on real chips, worst row first."""

from __future__ import annotations

from pathlib import Path

import click

from opentrn.errors import OpenTrnError


@click.command("validate")
@click.option(
    "--rows", "pattern", default="", metavar="PREFIX", help="Only rows whose id begins so, for example TKF or DOC-00."
)
@click.option(
    "--docs", "docs", type=click.Path(path_type=Path), metavar="FILE", help="Write the page and its pictures."
)
@click.option("--show", default=30, show_default=True, help="Rows to print.")
@click.option("--json", "json_path", metavar="FILE", help="Write all outcomes as JSON ('-' for standard output).")
def command(pattern: str, docs: Path | None, show: int, json_path: str | None) -> None:
    """Run a program for every measured row and compare."""
    from opentrn.validation.rows import kernel_rows, micro_rows
    from opentrn.validation.running import order_pairs, run_kernels, run_micro

    if docs is not None and not docs.resolve().parent.is_dir():
        raise OpenTrnError(f"cannot write {docs}: its folder does not exist; create it first")
    every = kernel_rows()
    rows = [r for r in every if r.id.startswith(pattern)]
    single = [r for r in micro_rows() if r.id.startswith(pattern)]
    if not rows and not single:
        raise OpenTrnError(
            f"no row begins with {pattern!r}; the prefixes are {', '.join(sorted({r.id[:3] for r in every}))}"
        )
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=json_path == "-")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running rows", total=len(rows))
        kernels = run_kernels(rows, lambda: progress.advance(task))
    micro = run_micro(single)
    _table(console, kernels, micro, show)
    counted = [o for o in kernels if o.row.role in ("held-out", "fit")]
    kept, total = order_pairs(counted)
    if total:
        console.print(f"order of versions: {kept} of {total} pairs as measured ({kept / total:.1%})")
    if json_path:
        _write_json(kernels, micro, json_path)
    if docs is not None:
        from opentrn.validation.report import write_report

        write_report(kernels, micro, [r for r in rows if not r.program], docs)
        console.print(f"wrote {docs}")


def _table(console, kernels, micro, show: int) -> None:  # noqa: ANN001
    from rich.table import Table

    from opentrn.validation.report import statistics

    table = Table(
        "row", "program", "sizes", "chip", "measured", "simulated", "error", "role", box=None, header_style="bold"
    )
    worst = sorted([*kernels, *micro], key=lambda o: -abs(o.error))[:show]
    for o in worst:
        unit = "us" if hasattr(o.row, "measured_us") else "ns"
        sizes = " ".join(f"{k}={v}" for k, v in o.row.parameters.items())
        table.add_row(
            o.row.id,
            o.row.program,
            sizes,
            o.row.chip,
            f"{o.measured:.1f} {unit}",
            f"{o.simulated:.1f} {unit}",
            f"{o.error:+.0%}",
            o.row.role,
        )
    console.print(table)
    for title, group in (("kernels", kernels), ("instructions and transfers", micro)):
        for role in ("held-out", "fit", "context"):
            chosen = [o for o in group if o.row.role == role]
            if chosen:
                median, p90 = statistics(chosen)
                console.print(
                    f"{title}, {role}: {len(chosen)} rows, median |error| {median:.1%}, 90th percentile {p90:.1%}"
                )


def _write_json(kernels, micro, path: str) -> None:  # noqa: ANN001
    import json

    content = [
        {
            "id": o.row.id,
            "program": o.row.program,
            "parameters": o.row.parameters,
            "chip": o.row.chip,
            "role": o.row.role,
            "measured": o.measured,
            "simulated": o.simulated,
            "error": o.error,
        }
        for o in [*kernels, *micro]
    ]
    text = json.dumps(content, indent=1)
    if path == "-":
        click.echo(text)
        return
    try:
        Path(path).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OpenTrnError(f"cannot write {path}: {error.strerror}; choose another file") from None
