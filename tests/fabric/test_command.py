"""`trn collectives` as a user runs it."""

import json
from pathlib import Path

import pytest

from opentrn.cli import main
from opentrn.cli.collectives import parse_size, parse_sizes
from opentrn.errors import OpenTrnError

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "collectives.schema.json"


def run(capsys, *arguments):
    code = main(["collectives", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_table_has_nccom_tests_columns_and_one_line_a_size(capsys):
    code, out, _ = run(capsys, "--op", "all_reduce", "--on", "trn2-ultraserver", "--sizes", "1KiB:4GiB")
    lines = out.splitlines()
    assert code == 0
    assert lines[1].split() == ["size(B)", "ranks", "time(us)", "algbw(GB/s)", "busbw(GB/s)", "algorithm"]
    assert [int(line.split()[0]) for line in lines[2:-1]] == [2**power for power in range(10, 33)]
    assert lines[-1].startswith("Avg bus bandwidth:")


def test_json_rows_are_what_the_schema_says(capsys):
    _, out, _ = run(capsys, "--op", "allg", "--on", "trn2", "--ranks", "16", "--sizes", "64KiB,1MB", "--json")
    rows = json.loads(out)
    schema = json.loads(SCHEMA.read_text())["items"]
    assert len(rows) == 2
    for row in rows:
        assert list(row) == schema["required"] == list(schema["properties"])
        for key, value in row.items():
            kind = schema["properties"][key]["type"]
            assert isinstance(value, {"string": str, "integer": int, "number": (int, float)}[kind])
    assert rows[0]["op"] == "all_gather" and rows[0]["ranks"] == 16
    assert rows[1]["size_bytes"] == 1_000_000
    first = rows[0]
    assert first["algbw_gb_per_s"] == pytest.approx(first["size_bytes"] / first["latency_us"] / 1e3, rel=1e-3)
    assert first["busbw_gb_per_s"] == pytest.approx(first["algbw_gb_per_s"] * 15 / 16, rel=1e-3)


def test_simulate_takes_the_message_level_and_stays_near_the_closed_form(capsys):
    arguments = ("--on", "trn2.48xlarge", "--sizes", "64MiB", "--json")
    _, closed, _ = run(capsys, *arguments)
    _, simulated, _ = run(capsys, *arguments, "--simulate")
    a, b = json.loads(closed)[0]["latency_us"], json.loads(simulated)[0]["latency_us"]
    assert a != b and b == pytest.approx(a, rel=0.1)


def test_several_operations_and_algorithms_share_a_table(capsys):
    operations = ("--op", "all_reduce", "--op", "all_gather", "--algorithm", "ring", "--algorithm", "mesh")
    code, out, _ = run(capsys, "--on", "trn2", *operations, "--sizes", "1MiB")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:-1]] == ["all_reduce"] * 2 + ["all_gather"] * 2


@pytest.mark.parametrize("suffix, magic", [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_pictures_are_written_and_equal_from_run_to_run(capsys, tmp_path, suffix, magic):
    pytest.importorskip("matplotlib")
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        assert run(capsys, "--on", "trn2", "--sizes", "1KiB:1GiB:8", "--plot", str(path))[0] == 0
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(magic) and first == second


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--op", "all_sum", "--on", "trn2"), "unknown collective operation 'all_sum'"),
        (("--on", "trn7"), "unknown instance or UltraServer 'trn7'"),
        (("--on", "trn2", "--sizes", "-5"), "cannot read the size '-5'"),
        (("--on", "trn2", "--sizes", "1KiB:oops"), "cannot read the size 'oops'"),
        (("--on", "trn2", "--sizes", "4MiB:1MiB"), "smaller one first"),
        (("--on", "trn2", "--sizes", "1:4:1"), "factor"),
        (("--on", "trn2", "--sizes", "1:1e9"), "cannot read"),
        (("--on", "trn2", "--sizes", "1:1GiB:1.0000001"), "larger factor"),
        (("--on", "trn2", "--ranks", "65"), "use --instances 2 or fewer ranks"),
        (("--on", "trn2", "--ranks", "1"), "at least 2 ranks"),
        (("--on", "trn2", "--ranks", "7", "--instances", "2"), "do not divide over 2 instances"),
        (("--on", "inf2", "--instances", "2"), "no network"),
        (("--on", "trn2", "--algorithm", "magic"), "unknown algorithm 'magic'"),
        (("--on", "trn2", "--plot", "x.doc"), "a picture ends in"),
        (("--on", "trn2", "--plot", "/no/such/folder/x.png"), "no folder"),
        (("--on", "trn2", "--lnc", "5"), "1 or 2 cores"),
        (("--on", "p5.48xlarge", "--simulate"), "no message-level form"),
        (("--on", "trn2", "--broken-link", "0-1"), "add --simulate"),
        (("--on", "trn2", "--simulate", "--broken-link", "zero"), "cannot read the link 'zero'"),
        (("--on", "trn2", "--simulate", "--broken-link", "0-2"), "no direct link"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_1(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1 and out == ""
    assert message in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    "text, size",
    [("64", 64), ("1KiB", 1024), ("1kB", 1000), ("2.5MB", 2_500_000), ("4G", 2**32), ("1 mib", 2**20), ("0", 0)],
)
def test_sizes_are_read_with_their_units(text, size):
    assert parse_size(text) == size


def test_ranges_double_unless_a_factor_is_given():
    assert parse_sizes("8:64") == [8, 16, 32, 64]
    assert parse_sizes("1KiB:64KiB:8") == [1024, 8192, 65536]
    with pytest.raises(OpenTrnError):
        parse_sizes("0:8")
