"""`trn claims`: headlines about this family, derived again from the model."""

import json

import click


@click.command(name="claims")
@click.argument("ids", nargs=-1)
@click.option("--json", "json_path", help="Write JSON to a file, or to standard output with -.")
@click.option("--explain", is_flag=True, help="Print how each ratio was derived.")
def command(ids: tuple[str, ...], json_path: str | None, explain: bool) -> None:
    """Re-derive what vendors and the press claim: reproduced, not reproduced, or not decidable.

    IDS names some of the claims; all of them are checked without it.
    """
    from pathlib import Path

    from opentrn.cluster.claims import check_claims
    from opentrn.errors import OpenTrnError

    verdicts = check_claims(list(ids))
    if json_path:
        text = json.dumps({"claims": [v.as_json() for v in verdicts]}, indent=2, allow_nan=False)
        if json_path == "-":
            click.echo(text)
            return
        try:
            Path(json_path).write_text(text + "\n")
        except OSError as error:
            raise OpenTrnError(f"cannot write {json_path}: {error.strerror or error}") from None
    for v in verdicts:
        d = v.derived
        derived = "-" if d.ratio is None else f"{d.ratio:.2f}x"
        if d.low is not None and d.high is not None:
            derived += f" ({d.low:.2f} to {d.high:.2f})"
        click.echo(f"{v.verdict:<15} claimed {v.claim.ratio:g}x, derived {derived}: {v.claim.statement} [{v.claim.id}]")
        if explain or ids:
            click.echo(f"    source: {v.claim.source}; workload: {v.claim.workload}")
            for step in d.steps:
                click.echo(f"    - {step}")
