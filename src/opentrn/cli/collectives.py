"""`trn collectives`: how long a collective takes at many sizes, as nccom-test prints it, without the machines."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from opentrn.errors import OpenTrnError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_MAX_ROWS = 10_000


@click.command("collectives")
@click.option("--op", "ops", multiple=True, default=("all_reduce",), show_default=True, help="Operation; repeatable.")
@click.option("--on", "name", required=True, help="Instance, UltraServer, cluster, torus-16x16x16 or a fabric file.")
@click.option(
    "--sizes", default="1KiB:1GiB", show_default=True, help="FROM:TO[:FACTOR] or a list, such as 64,1MiB,2GB."
)
@click.option("--ranks", type=int, help="Ranks (logical cores) that take part; all by default.")
@click.option("--instances", type=int, default=1, show_default=True, help="Copies joined by the network.")
@click.option(
    "--algorithm",
    "algorithms",
    multiple=True,
    help="ring, kangaring, mesh, rdh, torus, tree or hier instead of the runtime's choice; repeatable.",
)
@click.option("--lnc", type=int, help="Physical cores a rank (logical NeuronCore size).")
@click.option("--collectives", "runtime", help="Collective runtime, such as neuron-2023.")
@click.option("--simulate", is_flag=True, help="Simulate every message on every link instead of the closed form.")
@click.option(
    "--broken-link", "broken", multiple=True, help="With --simulate: a link out of service, as 0-1; repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="Print rows as JSON.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Draw the curves to a .png or .svg file.")
def command(
    ops: tuple[str, ...],
    name: str,
    sizes: str,
    ranks: int | None,
    instances: int,
    algorithms: tuple[str, ...],
    lnc: int | None,
    runtime: str | None,
    simulate: bool,
    broken: tuple[str, ...],
    as_json: bool,
    picture: Path | None,
) -> None:
    """Time collectives on a topology.

    Sizes follow nccom-test: the buffer of an all-reduce, the output of an all-gather, the input of a reduce-scatter or
    all-to-all. KiB, MiB, GiB (also K, M, G) are powers of 1024; kB, MB, GB powers of 1000. Bandwidths are in GB/s of
    1e9 bytes, where nccom-test prints GiB/s.
    """
    from opentrn.fabric.collectives import Estimate, collective_estimate
    from opentrn.fabric.operations import operation
    from opentrn.fabric.topologies import topology

    wanted = parse_sizes(sizes)
    if broken and not simulate:
        raise OpenTrnError("the closed form knows whole fabrics only; add --simulate to --broken-link")
    broken_links = [_chips(text) for text in broken]
    on = topology(name, instances, cores_per_rank=lnc, collectives=runtime)
    group = rank_group(on, ranks, instances)
    if picture:
        from opentrn.fabric.plot import check_picture

        check_picture(picture)
    rows: list[Estimate] = []
    for op in map(operation, ops):
        for algorithm in algorithms or ("auto",):
            for size in wanted:
                row = collective_estimate(op, size, group, on, algorithm=algorithm, siblings=False)
                if simulate:
                    from opentrn.fabric.simulation import simulate as run_messages

                    found = run_messages(op, size, group, on, algorithm=algorithm, broken_links=broken_links)
                    row = replace(row, algorithm=found.algorithm, latency_us=found.time_us)
                rows.append(row)
    if picture:
        from opentrn.fabric.plot import plot_collectives

        how = "message by message" if simulate else "closed form"
        plot_collectives(rows, picture, f"{on.name}, {on.num_chips} chips, {on.runtime.name} ({how})")
    if as_json:
        click.echo(json.dumps([row.row() for row in rows], indent=2))
        return
    click.echo(
        f"{on.name}: {on.num_chips} chips, {on.num_ranks} ranks; {group.num_ranks} take part ({on.runtime.name})"
    )
    click.echo("\n".join(table(rows)))
    if picture:
        click.echo(f"wrote {picture}")


def rank_group(on, ranks: int | None, instances: int):
    """`ranks` ranks, the same number on every instance; OpenTrnError where that is impossible."""
    from opentrn.fabric.group import RankGroup

    ranks = on.num_ranks if ranks is None else ranks
    if ranks < 2:
        raise OpenTrnError(f"a collective needs at least 2 ranks, got {ranks}")
    if ranks > on.num_ranks:
        per_instance = on.num_ranks // instances
        needed = -(-ranks // per_instance)
        raise OpenTrnError(
            f"{ranks} ranks do not fit on {on.name}, which has {on.num_ranks}; use --instances {needed} or fewer ranks"
        )
    per_instance, rest = divmod(ranks, instances)
    if rest:
        raise OpenTrnError(f"{ranks} ranks do not divide over {instances} instances; use a multiple of {instances}")
    whole = on.num_ranks // instances
    if instances == 1 or per_instance == whole:
        return RankGroup(ranks)
    return RankGroup.product((per_instance, 1), (instances, whole))


def parse_sizes(text: str) -> list[int]:
    """Sizes in bytes of "FROM:TO", "FROM:TO:FACTOR" or a comma-separated list; OpenTrnError where it is neither."""
    if ":" not in text:
        return [parse_size(part) for part in text.split(",")]
    low_text, high_text, *rest = text.split(":")
    if len(rest) > 1:
        raise OpenTrnError(f"cannot read the sizes {text!r}; write FROM:TO or FROM:TO:FACTOR, such as 1KiB:4GiB:4")
    low, high = parse_size(low_text), parse_size(high_text)
    factor = _factor(rest[0]) if rest else 2.0
    if low > high:
        raise OpenTrnError(f"the sizes {text!r} go from {low} down to {high} bytes; write the smaller one first")
    if low == 0:
        raise OpenTrnError(f"a range of sizes cannot start at 0; write its first size in {text!r}")
    sizes, size = [], float(low)
    while size <= high * (1 + 1e-12):
        sizes.append(round(size))
        size *= factor
        if len(sizes) > _MAX_ROWS:
            raise OpenTrnError(f"the sizes {text!r} are more than {_MAX_ROWS}; use a larger factor")
    return sizes


def parse_size(text: str) -> int:
    """Bytes of a size such as 64, 1KiB, 2.5MB or 4G; OpenTrnError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise OpenTrnError(f"cannot read the size {text!r}; write bytes or a unit, such as 64, 1KiB, 4MiB or 2GB")
    number, unit, binary, suffix = match.groups()
    scale = _UNITS[unit.lower()]
    if unit and suffix and not binary:
        scale = 1000 ** list(_UNITS).index(unit.lower())
    size = float(number) * scale
    if size != int(size):
        raise OpenTrnError(f"the size {text!r} is not a whole number of bytes")
    return int(size)


def _chips(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)-(\d+)", text.strip())
    if not match:
        raise OpenTrnError(f"cannot read the link {text!r}; write its two chips, such as 0-1")
    return int(match.group(1)), int(match.group(2))


def _factor(text: str) -> float:
    try:
        factor = float(text.lower().removeprefix("x"))
    except ValueError:
        factor = 0.0
    if not factor > 1.0 or factor == float("inf"):
        raise OpenTrnError(f"the factor between sizes must be a number above 1, got {text!r}")
    return factor


def table(rows: Iterable) -> list[str]:
    """Lines of a table with nccom-test's columns; several operations are told apart by a first column."""
    rows = list(rows)
    several = len({row.op for row in rows}) > 1
    headings = ["size(B)", "ranks", "time(us)", "algbw(GB/s)", "busbw(GB/s)", "algorithm"]
    cells = [
        [
            str(row.size_bytes),
            str(row.ranks),
            f"{row.latency_us:.2f}",
            f"{row.algbw_gb_per_s:.2f}",
            f"{row.busbw_gb_per_s:.2f}",
            row.algorithm,
        ]
        for row in rows
    ]
    if several:
        headings.insert(0, "op")
        for cell, row in zip(cells, rows, strict=True):
            cell.insert(0, row.op)
    widths = [max(len(line[column]) for line in [headings, *cells]) for column in range(len(headings))]
    lines = [
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in [headings, *cells]
    ]
    average = sum(row.busbw_gb_per_s for row in rows) / max(1, len(rows))
    return [*lines, f"Avg bus bandwidth: {average:.4f} GB/s"]
