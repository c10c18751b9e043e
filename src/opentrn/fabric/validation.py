"""The closed forms against published timings: one row of error for each measurement.

    python -m opentrn.fabric.validation [rows.csv]

reads `opentrn/validation/collectives.csv` (or a table with the same columns) and prints every row, worst first. The
calibrated constants were read from the rows marked `fitted` alone; which mechanisms to model was decided with the whole
table in sight.
"""

import csv
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from opentrn.errors import OpenTrnError
from opentrn.fabric.collectives import collective_estimate
from opentrn.fabric.reading import CollectiveMeasurement, UnusableRow, read_measurement

__all__ = ["ROWS", "Comparison", "Validation", "validate"]

ROWS = Path(__file__).parents[1] / "validation" / "collectives.csv"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measurement beside its prediction in microseconds. `error` is relative: +0.1 predicts 10 % too slow."""

    measurement: CollectiveMeasurement
    algorithm: str
    predicted_us: float

    @property
    def error(self) -> float:
        return self.predicted_us / self.measurement.measured_us - 1.0


@dataclass(frozen=True)
class Validation:
    """All comparisons, worst first, and the rows that cannot be used with the reason."""

    comparisons: tuple[Comparison, ...]
    unusable: tuple[tuple[str, str], ...]

    def quantile(self, part: float, *, fitted: bool | None = None) -> float:
        """Quantile of |error| over all rows, over the fitted ones (True) or over the others (False)."""
        errors = [abs(c.error) for c in self.comparisons if fitted is None or c.measurement.fitted == fitted]
        return float(np.quantile(errors, part)) if errors else 0.0

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    @property
    def p90(self) -> float:
        return self.quantile(0.9)


def validate(rows: Path | Iterable[dict[str, str]] | None = None) -> Validation:
    """Compare the model with published timings; `rows` is a CSV file or its rows, the project's own when None."""
    if rows is None or isinstance(rows, (str, Path)):
        path = Path(rows or ROWS)
        try:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError as problem:
            raise OpenTrnError(f"cannot read {path}: {problem.strerror}") from None
    comparisons: list[Comparison] = []
    unusable: list[tuple[str, str]] = []
    for row in rows:
        try:
            measurement = read_measurement(row)
        except UnusableRow as reason:
            unusable.append((row["id"], str(reason)))
            continue
        except KeyError as missing:
            raise OpenTrnError(f"the table of timings has no column {missing}") from None
        comparisons.append(_compare(measurement))
    comparisons.sort(key=lambda comparison: (-abs(comparison.error), comparison.measurement.id))
    return Validation(tuple(comparisons), tuple(unusable))


def _compare(measurement: CollectiveMeasurement) -> Comparison:
    # nccom-test and nccl-tests run one group; nothing else uses the links.
    estimate = collective_estimate(
        measurement.op, measurement.size_bytes, measurement.group, measurement.on, siblings=False
    )
    return Comparison(measurement, estimate.algorithm, estimate.latency_us + measurement.host_us)


def main(arguments: list[str]) -> int:
    result = validate(Path(arguments[0]) if arguments else None)
    for comparison in result.comparisons:
        row = comparison.measurement
        print(
            f"{row.id}  {comparison.error:+7.1%}  {row.op:14s} {row.size_bytes:>12d} B  {row.group.num_ranks:4d} ranks "
            f"{row.on.name} x{row.on.num_instances} ({row.on.runtime.name}, {comparison.algorithm})  "
            f"measured {row.measured_us:.1f} us, model {comparison.predicted_us:.1f} us"
            f"{'  fitted' if row.fitted else ''}"
        )
    for identifier, reason in result.unusable:
        print(f"{identifier}  unusable: {reason}")
    num_fitted = sum(c.measurement.fitted for c in result.comparisons)
    print(f"{len(result.comparisons)} rows: median |error| {result.median:.1%}, 90th percentile {result.p90:.1%}")
    print(
        f"{num_fitted} fitted rows: median {result.quantile(0.5, fitted=True):.1%}; "
        f"{len(result.comparisons) - num_fitted} others: median {result.quantile(0.5, fitted=False):.1%}, "
        f"90th percentile {result.quantile(0.9, fitted=False):.1%}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
