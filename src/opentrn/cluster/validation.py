"""The step model against published training speeds: one row of error for each measurement.

    python -m opentrn.cluster.validation [--markdown] [rows.csv]

reads `opentrn/validation/training.csv` (or a table with the same columns) and prints every row, worst first.
"""

import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from opentrn.cluster.candidates import LayoutTable
from opentrn.cluster.reading import Measurement, UnusableRow, read_measurement
from opentrn.cluster.step import StepModel
from opentrn.errors import OpenTrnError

__all__ = ["ROWS", "Comparison", "Validation", "predict", "validate"]

ROWS = Path(__file__).parents[1] / "validation" / "training.csv"


@dataclass(frozen=True)
class Comparison:
    """One measurement beside its prediction, in samples a second. `error` is relative: +0.1 predicts 10 % too fast."""

    measurement: Measurement
    predicted: float
    fitted: bool

    @property
    def measured(self) -> float:
        return self.measurement.samples_per_s

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True)
class Validation:
    """All comparisons, worst first, and the rows that say too little with the reason."""

    comparisons: tuple[Comparison, ...]
    unusable: tuple[tuple[str, str], ...]

    def quantile(self, part: float) -> float:
        """Quantile of |error| over all usable rows."""
        return float(np.quantile([abs(c.error) for c in self.comparisons], part))

    @property
    def median(self) -> float:
        """Median of |error|."""
        return self.quantile(0.5)

    @property
    def p90(self) -> float:
        """90th percentile of |error|."""
        return self.quantile(0.9)

    @property
    def order_preserved(self) -> float:
        """Part of the pairs of runs of one model whose order in speed the model keeps.

        Pairs of the same configuration (repeats, revisions of a table) say nothing about order and are left out, and so
        are pairs that were measured within 5 % of each other.
        """
        kept = total = 0
        for a, b in combinations(self.comparisons, 2):
            if a.measurement.job.model.name != b.measurement.job.model.name or _same_run(a, b):
                continue
            if abs(a.measured / b.measured - 1.0) < 0.05:
                continue
            total += 1
            kept += (a.measured > b.measured) == (a.predicted > b.predicted)
        return kept / total if total else 1.0


def _same_run(a: Comparison, b: Comparison) -> bool:
    def key(c: Comparison) -> tuple:
        m = c.measurement
        return m.job, m.layout, m.machine.name, m.machine.num_chips

    return key(a) == key(b)


def predict(measurement: Measurement) -> float:
    """Samples a second of a measured run, predicted."""
    table = LayoutTable.of([measurement.layout])
    step = StepModel(measurement.job, measurement.machine).evaluate(table)
    return measurement.job.global_batch / float(step.step_time_s[0])


def validate(path: str | Path | None = None) -> Validation:
    """Compare every usable row of a table with the model.

    `path` is a CSV with the columns of `validation/training.csv` (id, model, seq_len, global_batch, micro_batch,
    parallelism, dtype, hardware, chips, metric, value, unit, software, notes), that file by default. Raises
    OpenTrnError if it cannot be read.
    """
    try:
        with Path(path or ROWS).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise OpenTrnError(f"cannot read measurements from {path}: {error.strerror or error}") from None
    return compare(rows)


def compare(rows: Iterable[dict[str, str]]) -> Validation:
    """Compare rows that were read already."""
    comparisons, unusable = [], []
    known: dict[tuple, float] = {}
    for row in rows:
        try:
            m = read_measurement(row)
        except UnusableRow as reason:
            unusable.append((row["id"], str(reason)))
            continue
        key = (m.job, m.layout, m.machine.name, m.machine.num_chips, m.machine.cores_per_rank)
        try:
            if key not in known:
                known[key] = predict(m)
        except OpenTrnError as reason:
            unusable.append((m.id, str(reason)))
            continue
        comparisons.append(Comparison(m, known[key], row.get("fitted", "") == "yes"))
    comparisons.sort(key=lambda c: -abs(c.error))
    return Validation(tuple(comparisons), tuple(unusable))


def markdown(result: Validation) -> str:
    """Every row as a Markdown table, worst first, under the summary."""
    lines = [summary(result), "", "| row | run | measured | predicted | error | |", "|---|---|---:|---:|---:|---|"]
    for c in result.comparisons:
        m, fitted = c.measurement, "fitted" if c.fitted else ""
        lines.append(f"| {m.id} | {m.label} | {c.measured:,.4g} | {c.predicted:,.4g} | {c.error:+.1%} | {fitted} |")
    return "\n".join(lines) + "\n"


def summary(result: Validation) -> str:
    """One line: number of rows, errors, order."""
    return (
        f"{len(result.comparisons)} rows: median {result.median:.1%}, 90th percentile {result.p90:.1%}, "
        f"order kept in {result.order_preserved:.1%} of pairs; {len(result.unusable)} rows say too little"
    )


def main(arguments: list[str]) -> int:
    as_markdown = "--markdown" in arguments
    paths = [a for a in arguments if a != "--markdown"]
    try:
        result = validate(paths[0] if paths else None)
    except OpenTrnError as error:
        print(error, file=sys.stderr)
        return 2
    if as_markdown:
        print(markdown(result), end="")
        return 0
    for c in result.comparisons:
        print(
            f"{c.measurement.id} {c.error:+7.1%}  measured {c.measured:10.3f}  predicted {c.predicted:10.3f} samples/s"
            f"{' fitted' if c.fitted else ''}  {c.measurement.label}"
        )
    print(summary(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
