"""`trn launch`: a `torch.distributed` script on simulated ranks, as torchrun starts it on the real machine."""

from __future__ import annotations

import json

import click


@click.command("launch", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--chip", metavar="NAME|FILE", help="Chip to run on (default trn3).")
@click.option("--nodes", default=1, show_default=True, help="Instances.")
@click.option("--cores", default=2, show_default=True, help="Ranks on each instance, one a logical core.")
@click.option(
    "--on",
    "instance",
    metavar="NAME",
    help="Topology that prices the collectives (default: the chip's largest instance).",
)
@click.option(
    "--stall-timeout",
    default=60.0,
    show_default=True,
    help="Seconds without work on any rank that count as a deadlock.",
)
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    help="Write the collectives and their time as JSON ('-' for standard output).",
)
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    chip: str | None, nodes: int, cores: int, instance: str | None, stall_timeout: float, json_path: str | None,
    script: str, arguments: tuple[str, ...],
) -> None:  # fmt: skip
    """Run SCRIPT once a rank, with RANK, WORLD_SIZE and the rest of torchrun's environment set.

    The script uses the device "neuron" and the backend "neuron". What rank 0 prints is shown; of a rank that fails, its error.
    """
    from opentrn.neuroncore.machine import default_chip
    from opentrn.pytorch import ranks

    found = ranks.launch(
        script, arguments, chip=chip or default_chip(), num_nodes=nodes, ranks_per_node=cores, stall_timeout_s=stall_timeout,
        quiet=json_path == "-",
    )  # fmt: skip
    rows, topology_name = ranks.priced(found, instance)
    document = {"chip": found.chip, "nodes": nodes, "ranks": nodes * cores, "on": topology_name, "collectives": rows}
    if json_path == "-":
        click.echo(json.dumps(document, indent=1))
        return
    if json_path:
        from opentrn.profiling.contract import write_atomically

        write_atomically(json_path, json.dumps(document, indent=1))
    _show(rows, nodes * cores, topology_name, nodes)


def _show(rows: list[dict], num_ranks: int, topology_name: str, nodes: int) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        return
    where = topology_name if nodes == 1 else f"{nodes} x {topology_name}"
    table = Table(
        title=f"collectives of rank 0 of {num_ranks} on {where}",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for title in ("operation", "bytes", "ranks", "calls", "us each", "us in all"):
        table.add_column(title, justify="left" if title == "operation" else "right")
    for row in rows[:12]:
        table.add_row(row["op"], f"{row['size_bytes']:,}", str(len(row["ranks"])), f"{row['count']:,}", f"{row['latency_us']:,.1f}",
                      f"{row['total_us']:,.1f}")  # fmt: skip
    Console(highlight=False).print(table)
