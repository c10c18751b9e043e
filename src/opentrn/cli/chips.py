"""`trn chips`: the hardware that OpenTrn knows, and for one record every figure with its status and source."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opentrn import hardware
from opentrn.hardware import Chip, Figure, Instance, Price, Rack, Record

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_STATUS_STYLES = {
    "published": "green",
    "derived": "cyan",
    "calibrated": "blue",
    "projected": "yellow",
    "estimated": "magenta",
}
_PIPE_WIDTH = 500  # columns: into a pipe or a file, a row is a line whatever its length


@click.command("chips")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='A chip of your own: a TOML file, which may start with extends = "trn2".',
)
def command(name: str | None, as_json: bool, path: Path | None) -> None:
    """Show the chips, or everything known of one.

    NAME is a chip (trn2, trainium2, gen3), core (v3), instance (trn2.48xlarge), rack (trn2-ultraserver), GPU (h100) or
    region (us-east-1).
    """
    if name and path:
        raise click.UsageError("Give a name or --file, not both.")
    record = hardware.chip(path) if path else hardware.find(name) if name else None
    if as_json:
        content = _record_json(record) if record else [_summary_json(chip) for chip in hardware.chips()]
        click.echo(json.dumps(content, indent=2))
    else:
        _show(_record_page(record) if record else _overview())


def _overview() -> Iterable["RenderableType"]:
    chips = _table(
        "Chips",
        ("chip", "", "core"),
        ("cores", "logical", "BF16 TFLOPS", "FP8 TFLOPS", "HBM GiB", "HBM GB/s", "link GB/s", "SBUF MiB"),
    )
    for chip in hardware.chips():
        numbers = (
            chip.num_cores,
            chip.logical_cores,
            chip.peak_bf16_tflops,
            # MX is the faster FP8 where a chip has both.
            chip.get("peak_mxfp8_tflops") or chip.get("peak_fp8_tflops"),
            chip.hbm_gib,
            chip.hbm_bandwidth_gb_per_s,
            chip.get("neuronlink_gb_per_s"),
            chip.get("sbuf_total_mib"),
        )
        chips.add_row(chip.name, chip.title, chip.core.name, *map(_text, numbers))
    yield chips

    instances = _table(
        "Instances",
        ("instance", "chips", "topology"),
        ("vCPU", "host GiB", "device GiB", "EFA Gbps", "USD/h"),
        ("price",),
    )
    for instance in hardware.instances():
        if not isinstance(instance.accelerator, Chip):
            continue
        price = _headline_price(instance)
        numbers = [instance.get(key) for key in ("num_vcpus", "host_memory_gib", "device_memory_gib", "efa_gbps")]
        instances.add_row(
            instance.name,
            f"{instance.num_accelerators} x {instance.accelerator.name}",
            _topology(instance),
            *map(_text, numbers),
            _text(price.usd_per_hour) if price else "",
            price.kind.replace("_", " ") if price else "not listed",
        )
    yield instances

    racks = _table("Racks and clusters", ("rack", "chips", "topology"), ("HBM GiB", "BF16 TFLOPS", "EFA Gbps"))
    for rack in hardware.racks():
        numbers = [rack.get(key) for key in ("device_memory_gib", "peak_bf16_tflops", "efa_gbps")]
        racks.add_row(rack.name, f"{_text(rack.num_chips)} x {rack.chip.name}", _topology(rack), *map(_text, numbers))
    yield racks
    yield "trn chips NAME shows every figure of a chip, core, instance, rack, GPU or region with its source."


def _record_page(record: Record) -> Iterable["RenderableType"]:
    also = f"; also {', '.join(record.aliases)}" if record.aliases else ""
    yield f"[bold]{record.title}[/bold] ({record.kind} {record.name}{also})"
    for name, part in _parts(record).items():
        yield f"{name}: {part.name}, {part.title}"
    sources: dict[str, int] = {}
    yield _figures(record, sources)
    if isinstance(record, Chip):
        yield f"[bold]{record.core.title}[/bold] (core {record.core.name}; {record.num_cores} in {record.name})"
        yield _figures(record.core, sources)
    if isinstance(record, Instance) and (listed := hardware.prices(record.name)):
        prices = _table("Prices", ("kind", "term", "region"), ("USD/h",), ("date", "status", "source", "note"))
        for price in listed:
            source = _number(price.source, sources)
            usd, status = _text(price.usd_per_hour), _status(price.status)
            prices.add_row(
                price.kind, price.term, price.region, usd, price.date.isoformat(), status, source, price.note
            )
        yield prices
    yield "[bold]Sources[/bold]"
    yield from (f"{number:>3}  {source}" for source, number in sources.items())


def _figures(record: Record, sources: dict[str, int]) -> "RenderableType":
    """A table of all figures under the headings of their file; sources are numbered for a list below."""
    table = _table("", ("figure", "value", "status", "source", "note"))
    heading = ""
    for figure in record.figures.values():
        if figure.group != heading:
            heading = figure.group
            table.add_section()
            table.add_row(f"[bold]{heading.replace('_', ' ')}[/bold]")
        source = _number(figure.source, sources)
        table.add_row(figure.name, _value(figure), _status(figure.status), source, figure.note)
    return table


def _headline_price(instance: Instance) -> Price | None:
    """The price to show first: on demand where there is one, then the newest of another kind."""
    listed = hardware.prices(instance.name)
    return next((price for price in listed if price.kind == "on_demand"), listed[0] if listed else None)


def _number(source: str, sources: dict[str, int]) -> str:
    return str(sources.setdefault(source, len(sources) + 1))


def _value(figure: Figure) -> str:
    if figure.low is not None and figure.high is not None:
        return f"{_text(figure.value)} ({_text(figure.low)} to {_text(figure.high)})"
    return _text(figure.value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)


def _status(status: str) -> str:
    return f"[{_STATUS_STYLES[status]}]{status}[/]"


def _topology(record: Instance | Rack) -> str:
    shape = record.get("topology_shape", ())
    return f"{record.get('topology', '')} {' x '.join(map(str, shape))}".strip()


def _parts(record: Record) -> dict[str, Record]:
    """The attributes of a record that are records: a chip's core, an instance's accelerator."""
    return {name: part for name, part in vars(record).items() if isinstance(part, Record)}


def _summary_json(chip: Chip) -> dict[str, Any]:
    values = {name: figure.value for name, figure in chip.figures.items()}
    return {"name": chip.name, "title": chip.title, "core": chip.core.name, **values}


def _record_json(record: Record) -> dict[str, Any]:
    fields = ("value", "status", "source", "note", "group", "low", "high")
    content: dict[str, Any] = {"name": record.name, "kind": record.kind, "title": record.title}
    content |= {name: _record_json(part) for name, part in _parts(record).items()}
    content["figures"] = {
        name: {field: getattr(figure, field) for field in fields if getattr(figure, field) not in (None, "")}
        for name, figure in record.figures.items()
    }
    if isinstance(record, Instance):
        content["prices"] = [
            {"kind": price.kind, "term": price.term, "region": price.region, "usd_per_hour": price.usd_per_hour}
            | {"date": price.date.isoformat(), "status": price.status, "source": price.source, "note": price.note}
            for price in hardware.prices(record.name)
        ]
    return content


def _table(title: str, texts: Sequence[str], numbers: Sequence[str] = (), more_texts: Sequence[str] = ()) -> "Table":
    """A table with text columns on the left, then number columns, then text columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", padding=(0, 1, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=name not in ("", "value", "note"), overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", overflow="fold")
    for name in more_texts:
        table.add_column(name, overflow="fold")
    return table


def _show(page: Iterable["RenderableType"]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    for part in page:
        console.print(part)
