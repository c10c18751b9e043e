"""`trn profile`: where a kernel's time and energy go, what is the bottleneck, and what would help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opentrn.errors import OpenTrnError

if TYPE_CHECKING:
    from opentrn.profiling import Profile


@click.command("profile", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("script", type=click.Path())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--chip", help="trn1, trn2, trn3, trn4, inf2, or a hardware file (default: trn3, or what the environment says)."
)
@click.option("--no-values", is_flag=True, help="Trace shapes alone: no data is allocated and nothing is computed.")
@click.option("--reorder", is_flag=True, help="Let the schedule reorder within dependencies, as the compiler may.")
@click.option("--trace", "trace_path", metavar="FILE", help="Write a trace for ui.perfetto.dev.")
@click.option("--html", "html_path", metavar="FILE", help="Write a self-contained page.")
@click.option("--parquet", "parquet_dir", metavar="DIR", help="Write every instruction as a row, one file a launch.")
@click.option("--json", "json_path", metavar="FILE", help="Write the figures as JSON ('-' for standard output).")
@click.option("--lines", default=8, show_default=True, help="Source lines to show.")
def command(
    script: str, arguments: tuple[str, ...], chip: str | None, no_values: bool, reorder: bool, trace_path: str | None,
    html_path: str | None, parquet_dir: str | None, json_path: str | None, lines: int,
) -> None:  # fmt: skip
    """Run SCRIPT and profile every kernel it launches.

    A kernel that raises half-way is shown up to there, and the exit code is 1.
    """
    import contextlib
    import sys

    from opentrn.cli.run import execute, prepare
    from opentrn.neuroncore import machine
    from opentrn.nki import launch

    for path in (trace_path, html_path, json_path):
        _check_writable(path)
    code = prepare(script, arguments, chip)
    name = chip or machine.default_chip()
    # With the document on standard output, what the script prints must not be mixed into it.
    redirect = contextlib.redirect_stdout(sys.stderr) if json_path == "-" else contextlib.nullcontext()
    with launch.session(chip=name, execute=not no_values, record=True) as session, redirect:
        exit_code = execute(code, script)
    profiles = _profiles(session.launches, reorder)
    if not profiles and exit_code == 0:
        raise OpenTrnError(f"{script} launched no kernel; call a function decorated with @nki.jit on arrays")
    if profiles:
        _write(profiles, name, Path(script).name, trace_path, html_path, parquet_dir, json_path)
    if json_path != "-":
        for number, profile in enumerate(profiles):
            _show(profile, number, lines)
    raise click.exceptions.Exit(exit_code)


def _check_writable(path: str | None) -> None:
    if path is None or path == "-":
        return
    parent = Path(path).parent
    if not parent.is_dir():
        raise OpenTrnError(f"cannot write {path}: {parent} is not a directory; create it first")
    if Path(path).is_dir():
        raise OpenTrnError(f"cannot write {path}: it is a directory; name a file")


def _profiles(launches: list[Any], reorder: bool) -> list[Profile]:
    from opentrn.profiling import profile

    return [profile(entry, reorder=reorder or None) for entry in launches if any(len(p) for p in entry.programs)]


def _write(
    profiles: list[Profile], chip: str, title: str, trace_path: str | None, html_path: str | None,
    parquet_dir: str | None, json_path: str | None,
) -> None:  # fmt: skip
    from opentrn.profiling import contract

    if trace_path:
        from opentrn.profiling.perfetto import trace_bytes

        contract.write_atomically(trace_path, trace_bytes(profiles))
    if html_path:
        from opentrn.profiling.html import page

        contract.write_atomically(html_path, page(profiles, title))
    if parquet_dir:
        from opentrn.profiling.table import write_parquet

        write_parquet(profiles, parquet_dir)
    if json_path:
        text = json.dumps(contract.document(chip, profiles), indent=1)
        if json_path == "-":
            click.echo(text)
        else:
            contract.write_atomically(json_path, text)


def _show(profile: Profile, number: int, num_lines: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from opentrn.profiling.advice import advice

    console = Console(highlight=False)
    timeline, latency = profile.timeline, profile.latency_us
    energy = profile.energy.total_j
    cores = f", {profile.num_cores} cores" if profile.num_cores > 1 else ""
    console.print(
        f"\n[bold]{profile.name}[/] #{number} on {profile.launch.chip}{cores}  ({profile.source})", soft_wrap=True
    )
    if profile.launch.error is not None:
        console.print("[red]stopped half-way[/]; what ran until then:")
    console.print(
        f"[bold]{latency:,.2f} us[/]   MFU {100 * profile.mfu:.1f} %   MBU {100 * profile.mbu:.1f} %   "
        f"DMA efficiency {100 * profile.dma_efficiency:.0f} %   {len(timeline):,} instructions   "
        f"{energy.value * 1e6:,.1f} uJ ({energy.low * 1e6:,.0f} to {energy.high * 1e6:,.0f}), {profile.energy.mean_w:.0f} W",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("engine", "busy us", "%", "", "critical path", "us", "%", "", "if ideal", "us"):
        table.add_column(title, justify="right" if title in ("busy us", "us", "%") else "left")
    busy = [(n, b) for n, b in {**timeline.engine_busy_us, "dma": timeline.dma_busy_us}.items() if b > 0]
    path = list(profile.path.by_cause.items())
    ideal = sorted(profile.what_ifs.items(), key=lambda item: item[1])
    for k in range(max(len(busy), len(path), len(ideal))):
        cells = [""] * 10
        if k < len(busy):
            cells[0:3] = busy[k][0], f"{busy[k][1]:,.1f}", f"{100 * busy[k][1] / latency / profile.num_cores:.0f}"
        if k < len(path):
            cells[4:7] = path[k][0].replace("_", " "), f"{path[k][1]:,.1f}", f"{100 * path[k][1] / latency:.0f}"
        if k < len(ideal):
            cells[8:10] = ideal[k][0].replace("_", " "), f"{ideal[k][1]:,.1f}"
        table.add_row(*cells)
    console.print(table)
    rows = [entry for entry in profile.lines if entry.critical_us > 0][:num_lines]
    if rows:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("line", "critical us", "issued", "source"):
            fixed = title != "source"
            table.add_column(title, justify="right" if title in ("critical us", "issued") else "left", no_wrap=True,
                             min_width=len(title) if fixed else None)  # fmt: skip
        places = [f"{Path(entry.file).name}:{entry.line}" for entry in rows]
        table.columns[0].min_width = max(map(len, places))
        for place, entry in zip(places, rows, strict=True):
            table.add_row(place, f"{entry.critical_us:,.1f}", f"{entry.count:,}",
                          entry.text.replace("[", "\\["))  # fmt: skip
        console.print(table)
    for found in advice(profile)[:4]:
        where = f" {Path(found.line.rsplit(':', 1)[0]).name}:{found.line.rsplit(':', 1)[1]}" if found.line else ""
        console.print(
            f"[bold]up to {found.saving_us:,.1f} us[/]{where}: {found.text}".replace("`", ""),
            markup=True,
            soft_wrap=True,
        )
