"""`trn compare`: two profiles side by side."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("base", type=click.Path())
@click.argument("new", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.option(
    "--fail-above", type=float, metavar="PERCENT", help="Exit 1 if a kernel's latency grew by more than this."
)
def command(base: str, new: str, as_json: bool, fail_above: float | None) -> None:
    """Compare BASE with NEW, both written by `trn profile --json`."""
    from opentrn.profiling import contract
    from opentrn.profiling.compare import compare

    first, second = contract.load(base), contract.load(new)
    rows = compare(first, second)
    if as_json:
        click.echo(json.dumps(
            [{"launch": r.launch, "figure": r.figure, "base": r.base, "new": r.new, "ratio": r.ratio} for r in rows], indent=1
        ))  # fmt: skip
    else:
        _show(rows, first["chip"], second["chip"])
    worse = [r for r in rows if r.figure == "latency_us" and r.ratio is not None
             and fail_above is not None and r.ratio > 1 + fail_above / 100]  # fmt: skip
    if worse:
        names = ", ".join(
            f"{r.launch} {r.base:,.1f} -> {r.new:,.1f} us ({100 * (r.ratio or 0) - 100:+.1f} %)" for r in worse
        )
        raise click.ClickException(f"slower by more than {fail_above:g} %: {names}")


def _show(rows: list, base_chip: str, new_chip: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for launch in dict.fromkeys(r.launch for r in rows):
        chips = base_chip if base_chip == new_chip else f"{base_chip} against {new_chip}"
        table = Table(title=f"{launch} on {chips}", title_justify="left", box=None, pad_edge=False, header_style="dim")
        for title in ("figure", "base", "new", "change"):
            table.add_column(title, justify="left" if title == "figure" else "right")
        for r in rows:
            if r.launch != launch or (r.base == 0 and r.new == 0):
                continue
            change = f"{100 * (r.ratio - 1):+.1f} %" if r.ratio is not None else "new"
            table.add_row(r.figure, _number(r.base), _number(r.new), change if r.base != r.new else "=")
        console.print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:,.4g}"
