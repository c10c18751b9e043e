"""The model against measurements: a sample of rows that were not used to fit, and the table's own consistency."""

import json

import numpy as np
import pytest

from opentrn.cli import main
from opentrn.validation.programs import BUILDERS, build
from opentrn.validation.rows import kernel_rows, micro_rows
from opentrn.validation.running import run_kernels, run_micro


def test_single_instructions_agree_with_traces_within_twelve_percent():
    outcomes = run_micro([r for r in micro_rows() if r.role == "held-out" and r.program != "transfers"])
    errors = np.abs([o.error for o in outcomes])
    assert len(errors) > 20 and np.median(errors) < 0.03 and np.quantile(errors, 0.9) < 0.12


def test_small_kernels_that_were_not_fitted_agree_within_the_target():
    held_out = [r for r in kernel_rows() if r.role == "held-out" and r.measured_us < 100]
    rows = [r for r in held_out if r.id.startswith(("TKF", "STU"))]
    errors = np.abs([o.error for o in run_kernels(rows)])
    assert len(errors) > 40 and np.median(errors) <= 0.12 and np.quantile(errors, 0.9) <= 0.30


@pytest.mark.parametrize("row", [r for r in kernel_rows() if r.program], ids=lambda r: r.id)
def test_every_row_has_a_program_that_exists(row):
    for name in row.program.split("+"):
        kernel, _ = build(name, row.parameters)
        assert callable(kernel) and name in BUILDERS


def test_bounds_are_not_counted_as_measurements():
    assert all(not r.program for r in kernel_rows() if r.role == "bound")


def test_validate_prints_and_writes(tmp_path, capsys):
    path = tmp_path / "out.json"
    assert main(["validate", "--rows", "STU-00", "--json", str(path)]) == 0
    outcomes = json.loads(path.read_text())
    assert {o["id"] for o in outcomes} >= {"STU-002", "STU-004"}
    assert "median |error|" in capsys.readouterr().out


def test_validate_refuses_an_unknown_prefix_and_a_missing_folder(tmp_path, capsys):
    assert main(["validate", "--rows", "NOPE"]) == 1
    assert "prefixes" in capsys.readouterr().err
    assert main(["validate", "--docs", str(tmp_path / "none" / "fidelity.md")]) == 1
    assert "does not exist" in capsys.readouterr().err
