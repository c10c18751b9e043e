"""`trn plan`: choose a parallel layout, and say how long, how much money, how much energy and how sure."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opentrn.errors import OpenTrnError

if TYPE_CHECKING:
    from opentrn.cluster.planning import Plan


@click.command(name="plan")
@click.option("--model", help="A name of the catalogue (see --models) or a TOML file.")
@click.option("--script", help="A PyTorch training script whose model to plan for, instead of --model.")
@click.option("--tokens", type=float, help="Tokens to train on, such as 1e12 (with --script 1e9 where not given).")
@click.option("--on", "hardware", multiple=True, help="An instance type or rack; repeat to compare.")
@click.option("--chips", type=int, help="Chips of each hardware; a range of sizes is searched without it.")
@click.option("--objective", type=click.Choice(["cost", "time", "energy"]), default="cost", show_default=True)
@click.option("--seq-len", type=click.IntRange(min=1), help="Tokens of a sequence; the model's own by default.")
@click.option("--batch-tokens", type=float, help="Tokens of a global batch; 4,194,304 by default.")
@click.option("--dtype", type=click.Choice(["bf16", "fp8", "fp32"]), default="bf16", show_default=True)
@click.option("--optimizer", type=click.Choice(["adamw", "lamb", "muon", "sgd"]), default="adamw", show_default=True)
@click.option("--tuning", type=click.Choice(["full", "lora"]), default="full", show_default=True)
@click.option("--software", default="neuronx-distributed", show_default=True, help="The training stack on Neuron.")
@click.option("--purchase", type=click.Choice(["on_demand", "capacity_block", "reserved"]), help="How to buy.")
@click.option("--price", "prices", multiple=True, metavar="NAME=USD", help="Your price an hour of an instance or rack.")
@click.option("--price-file", type=click.Path(path_type=Path), help="Your price list: a TOML file of [[price]] tables.")
@click.option("--region", "where", help="AWS region, for carbon, PUE and price.")
@click.option("--cooling", type=click.Choice(["air", "liquid"]), help="What if the chips were cooled this way.")
@click.option("--spares", type=int, help="Spare servers held and paid for; as many as pay by default.")
@click.option("--checkpoint-minutes", type=float, help="Time between checkpoints; the best by default.")
@click.option(
    "--max-days", type=float, default=90.0, show_default=True, help="Longer runs rank last (without --chips)."
)
@click.option("--max-chips", type=click.IntRange(min=1), default=1024, show_default=True, help="Largest size searched.")
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="Layouts kept of each size.")
@click.option("--migration-usd", type=float, help="What moving to Trainium costs you once, for the break-even.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Local processes that search.")
@click.option("--ray", "ray_address", metavar="ADDRESS", help="Search on a Ray cluster (auto, HOST:PORT, local).")
@click.option("--resume", "results", type=click.Path(path_type=Path), help="Results file to write and to go on from.")
@click.option("--json", "json_path", help="Write JSON to a file, or to standard output with -.")
@click.option("--html", "html_path", type=click.Path(path_type=Path), help="Write a page with tables and pictures.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Write cost against time as PNG or SVG.")
@click.option("--plot-pipeline", type=click.Path(path_type=Path), help="Write the best layout's step as a picture.")
@click.option("--plot-memory", type=click.Path(path_type=Path), help="Write memory by rank as a picture.")
@click.option("--explain", is_flag=True, help="Print the assumptions of every candidate.")
def command(**options: Any) -> None:
    """Plan the training of a model on Trainium and on the GPUs you could rent.

    \b
    trn plan --model llama3-70b --tokens 1e12 --on trn2.48xlarge --on trn3-ultraserver --on p5.48xlarge
    trn plan --model qwen3-8b --tokens 1e11 --on trn2.48xlarge --chips 64 --objective time --json -
    """
    from opentrn.cluster.planning import plan
    from opentrn.cluster.search import local_workers, ray_workers
    from opentrn.cost.prices import parse_override

    _model_of_script(options)
    overrides = dict(parse_override(text) for text in options["prices"])
    minutes = options["checkpoint_minutes"]
    workers = ray_workers(options["ray_address"]) if options["ray_address"] else local_workers(options["jobs"])
    quiet = options["json_path"] == "-"
    try:
        with _progress(quiet) as report:
            found = plan(
                options["model"],
                options["tokens"],
                list(options["hardware"]),
                chips=options["chips"],
                objective=options["objective"],
                seq_len=options["seq_len"],
                batch_tokens=options["batch_tokens"],
                dtype=options["dtype"],
                optimizer=options["optimizer"],
                training_software=options["software"],
                tuning=options["tuning"],
                purchase=options["purchase"],
                price_overrides=overrides,
                price_catalogue=options["price_file"],
                where=options["where"],
                cooling=options["cooling"],
                num_spares=options["spares"],
                interval_s=minutes * 60.0 if minutes is not None else None,
                max_days=options["max_days"],
                max_chips=options["max_chips"],
                keep=options["top"],
                workers=workers,
                results=options["results"],
                progress=report,
            )
    finally:
        workers.close()
    notes = _notes(found, options["migration_usd"])
    _write(found, notes, options)
    if not quiet:
        _print(found, notes, options["explain"])
    if found.interrupted:
        raise click.exceptions.Exit(130)


def _model_of_script(options: dict[str, Any]) -> None:
    """Fill in the model that a script trains, and what else the options leave open."""
    if (options["model"] is None) == (options["script"] is None):
        raise click.UsageError("give --model NAME or --script FILE, one of the two")
    if options["script"] is not None:
        from opentrn.cluster.capture import capture

        found = capture(options["script"])
        options["model"] = found.model
        options["seq_len"] = options["seq_len"] or found.seq_len
        options["tokens"] = options["tokens"] or 1e9
        options["hardware"] = options["hardware"] or ("trn3-ultraserver",)
        if options["json_path"] != "-":
            stack = found.model.stacks[0]
            click.echo(f"{options['script']} trains {found.model.num_parameters / 1e6:,.1f} million parameters: {stack.num_layers} layers of width "
                       f"{stack.hidden}, sequences of {found.seq_len}")  # fmt: skip
    if not options["tokens"]:
        raise click.UsageError("give --tokens, the tokens to train on")
    if not options["hardware"]:
        raise click.UsageError("give --on, an instance type or rack; repeat it to compare")


@contextmanager
def _progress(quiet: bool):
    """A progress bar on standard error, none where that is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("layouts"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[tuple[str, int], Any] = {}

        def report(name: str, done: int, total: int) -> None:
            key = (name, total)
            if key not in tasks:
                tasks[key] = bar.add_task(name, total=total)
            bar.update(tasks[key], completed=done)

        yield report


def _notes(found: "Plan", migration_usd: float | None) -> list[str]:
    """Break-even of the best Neuron candidate against the best of each GPU instance."""
    from opentrn.cost.break_even import break_even

    ours = next((c for c in found.candidates if c.found is not None), None)
    if migration_usd is None or ours is None:
        return []
    peers = {c.hardware: c for c in reversed(found.candidates) if c.found is None}
    if not peers:
        raise OpenTrnError("--migration-usd compares with a GPU instance: add one with --on, such as --on p5.48xlarge")
    return [
        break_even(ours.cost_usd, peer.cost_usd, found.tokens, migration_usd).sentence(ours.hardware, name)
        for name, peer in peers.items()
    ]


def _write(found: "Plan", notes: list[str], options: dict[str, Any]) -> None:
    from opentrn.profiling.contract import write_atomically

    if options["json_path"]:
        text = json.dumps(found.as_json(), indent=2, allow_nan=False)
        if options["json_path"] == "-":
            click.echo(text)
        else:
            write_atomically(options["json_path"], text + "\n")
    if options["html_path"]:
        from opentrn.cluster.report import plan_html

        write_atomically(options["html_path"], plan_html(found, notes))
    for path, draw in (
        (options["plot_path"], _draw_frontier),
        (options["plot_pipeline"], _draw_pipeline),
        (options["plot_memory"], _draw_memory),
    ):
        if path:
            from opentrn.cluster.pictures import save_picture

            save_picture(draw(found), path)


def _draw_frontier(found: "Plan") -> Any:
    from opentrn.cluster.pictures import frontier_picture

    return frontier_picture(found)


def _simulated(found: "Plan") -> list[Any]:
    simulated = [c for c in found.candidates if c.found is not None]
    if not simulated:
        raise OpenTrnError(
            "no Neuron hardware in the plan: GPUs are not simulated and have no pipeline or memory picture"
        )
    return simulated


def _draw_pipeline(found: "Plan") -> Any:
    from opentrn.cluster import machine
    from opentrn.cluster.pictures import pipeline_picture

    best = _simulated(found)[0]
    return pipeline_picture(best, machine(best.hardware, best.num_chips))


def _draw_memory(found: "Plan") -> Any:
    from opentrn.cluster import machine
    from opentrn.cluster.pictures import memory_picture

    simulated = _simulated(found)[:12]
    return memory_picture(simulated, [machine(c.hardware, c.num_chips).memory_gib_per_rank for c in simulated])


def _print(found: "Plan", notes: list[str], explain: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(f"{found.model} on {found.tokens:.3g} tokens, best by {found.objective} first", highlight=False)
    figures = Table(box=None, pad_edge=False)
    for name in ("#", "hardware", "chips", "step s", "tokens/s", "MFU", "days", "USD", "MWh"):
        figures.add_column(name, justify="left" if name == "hardware" else "right", no_wrap=True)
    layouts = Table(box=None, pad_edge=False)
    for name in ("#", "layout", "GiB/core", "USD/1e9 tok", "t CO2e", "goodput"):
        layouts.add_column(name, justify="left" if name == "layout" else "right", no_wrap=name != "layout")
    for row, c in enumerate(found.candidates, 1):
        figures.add_row(
            str(row),
            c.hardware,
            str(c.num_chips),
            f"{c.step_time_s:.4g}",
            f"{c.tokens_per_s:,.0f}",
            f"{c.mfu:.0%}",
            f"{c.time_h / 24:.1f}",
            _usd(c),
            f"{c.energy_kwh / 1e3:,.4g}",
        )
        layouts.add_row(
            str(row),
            _layout(c),
            f"{c.memory_gib_per_core:.1f}",
            f"{c.cost_usd / found.tokens * 1e9:,.4g}",
            f"{c.co2_kg / 1e3:,.4g}",
            f"{c.goodput:.1%}",
        )
    console.print(figures)
    console.print()
    console.print(layouts)
    console.print()
    for line in notes:
        console.print(line, soft_wrap=True)
    searched = sum(result.num_layouts for result in found.searches.values())
    seconds = sum(result.seconds for result in found.searches.values())
    if searched:
        console.print(
            f"{searched:,} layouts decided in {seconds:.1f} s ({searched / max(seconds, 1e-9):,.0f} a second)"
        )
    for line in found.warnings:
        click.echo(f"warning: {line}", err=True)
    shown = found.candidates if explain else found.candidates[:1]
    for c in shown:
        console.print(f"\nassumptions of {c.hardware} x{c.num_chips}, {_layout(c)}:", soft_wrap=True)
        low, high = c.energy_range_kwh
        usd = c.cost_range_usd
        ranges = f"cost between {usd[0]:,.0f} and {usd[1]:,.0f} USD, energy {low / 1e3:,.3g} to {high / 1e3:,.3g} MWh"
        for line in (*c.assumptions, ranges):
            console.print(f"  - {line}", soft_wrap=True, markup=False, highlight=False)
    if not explain and len(found.candidates) > 1:
        console.print("\n(--explain prints those of every candidate)")


def _layout(c: Any) -> str:
    if c.found is not None:
        return str(c.found.layout)
    return " ".join(f"{axis}{n}" for axis, n in c.layout.items() if n > 1) + " (measured efficiency)"


def _usd(c: Any) -> str:
    low, high = c.cost_range_usd
    return f"{'~' if high > 1.001 * low else ''}{c.cost_usd:,.0f}"
