"""The model against published timings, and how rows are read."""

import pytest

from opentrn.errors import OpenTrnError
from opentrn.fabric import validate
from opentrn.fabric.reading import UnusableRow, read_measurement

ROW = {
    "id": "X1",
    "op": "all_reduce",
    "size_bytes": "1048576",
    "ranks": "64",
    "topology": "2 instances, 32 ranks each (EFA)",
    "hardware": "2x trn1.32xlarge",
    "dtype": "fp32",
    "latency_us": "1328",
    "algbw_GBps": "",
    "busbw_GBps": "",
    "software": "nccom-test",
    "date": "2023-05-01",
    "source": "here",
    "confidence": "high",
    "notes": "",
}


def test_the_median_error_over_all_published_rows_is_at_most_20_percent():
    result = validate()
    assert len(result.comparisons) >= 140
    assert result.median <= 0.20
    assert result.quantile(0.5, fitted=False) <= 0.20


@pytest.mark.parametrize("name", ["trn1.32xlarge", "p4de.24xlarge", "p5.48xlarge"])
def test_the_median_error_of_every_long_sweep_is_at_most_20_percent(name):
    errors = sorted(abs(c.error) for c in validate().comparisons if c.measurement.on.name == name)
    assert len(errors) > 10
    assert errors[len(errors) // 2] <= 0.20


def test_rows_are_listed_worst_first():
    errors = [abs(comparison.error) for comparison in validate().comparisons]
    assert errors == sorted(errors, reverse=True)


def test_a_row_is_read_as_it_is_written():
    found = read_measurement(ROW)
    assert (found.on.name, found.on.num_instances) == ("trn1.32xlarge", 2)
    assert found.group.num_ranks == 64
    assert found.measured_us == 1328
    assert read_measurement({**ROW, "date": "2025-06-01"}).on.runtime.name == "neuron-2025"


def test_nccom_test_bandwidths_are_gibibytes_and_nccl_bandwidths_gigabytes():
    no_time = {**ROW, "latency_us": "", "busbw_GBps": "10", "size_bytes": "1000000000"}
    factor = 2 * 63 / 64
    assert read_measurement(no_time).measured_us == pytest.approx(factor * 1e9 / (10 * 2**30) * 1e6)
    assert read_measurement({**no_time, "software": "nccl-tests"}).measured_us == pytest.approx(factor * 1e5)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"op": "device to host"}, "not a collective"),
        ({"ranks": ""}, "number of ranks"),
        ({"size_bytes": "small"}, "no size"),
        ({"hardware": "a toaster", "topology": "1 box"}, "unknown hardware"),
        ({"latency_us": ""}, "neither"),
        ({"ranks": "63"}, "do not divide"),
        ({"ranks": "640"}, "do not fit"),
    ],
)
def test_rows_that_say_too_little_are_unusable_with_a_reason(change, reason):
    with pytest.raises(UnusableRow, match=reason):
        read_measurement({**ROW, **change})


def test_unusable_rows_are_reported_and_a_missing_table_or_column_is_an_error(tmp_path):
    assert all(reason for _, reason in validate().unusable)
    with pytest.raises(OpenTrnError, match="cannot read"):
        validate(tmp_path / "nothing.csv")
    with pytest.raises(OpenTrnError, match="no column"):
        validate([{"id": "1"}])
