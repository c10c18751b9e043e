"""`trn profile` and `trn compare` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
import numpy as np
import nki, nki.language as nl, nki.isa as nisa

@nki.jit
def double(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for i in range(x.shape[0] // 128):
        t = nl.ndarray((128, x.shape[1]), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=t, src=x[i * 128 : (i + 1) * 128])
        nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=2.0)
        if FAIL and i == 1:
            raise ValueError("half-way")
        nisa.dma_copy(dst=out[i * 128 : (i + 1) * 128], src=t)
    return out

print("hello from the script")
x = np.ones((512, 256), np.float32)
double(x)
"""


def trn(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "NEURON_PLATFORM_TARGET_OVERRIDE"}
    return subprocess.run(
        [sys.executable, "-m", "opentrn", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("kernels")
    (path / "good.py").write_text(KERNEL.replace("FAIL", "False"))
    (path / "bad.py").write_text(KERNEL.replace("FAIL", "True"))
    (path / "none.py").write_text("print('nothing')")
    return path


def test_json_on_standard_output_is_the_document_alone(folder):
    run = trn("profile", "good.py", "--chip", "trn2", "--json", "-", cwd=folder)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["chip"] == "trn2" and [launch["name"] for launch in document["launches"]] == ["double"]
    assert document["launches"][0]["hbm_bytes"] == 2 * 512 * 256 * 4
    assert "hello from the script" in run.stderr


def test_the_same_script_gives_the_same_figures_twice(folder):
    first, second = (trn("profile", "good.py", "--json", "-", cwd=folder).stdout for _ in range(2))
    assert first == second


def test_all_outputs_are_written_and_summarised(folder, tmp_path):
    run = trn("profile", "good.py", "--html", str(tmp_path / "r.html"), "--trace", str(tmp_path / "t.perfetto-trace"),
              "--parquet", str(tmp_path / "rows"), "--json", str(tmp_path / "p.json"), cwd=folder)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "double" in run.stdout and "critical path" in run.stdout and "good.py:" in run.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"r.html", "t.perfetto-trace", "rows", "p.json"}
    same = trn("compare", str(tmp_path / "p.json"), str(tmp_path / "p.json"), "--fail-above", "1", cwd=folder)
    assert same.returncode == 0 and "latency_us" in same.stdout


def test_a_kernel_that_raises_is_shown_up_to_there(folder):
    run = trn("profile", "bad.py", cwd=folder)
    assert run.returncode == 1
    assert "stopped half-way" in run.stdout and "ValueError: half-way" in run.stderr
    assert "opentrn/" not in run.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none.py",), "launched no kernel"),
        (("missing.py",), "no script missing.py"),
        (("good.py", "--chip", "trn9"), "trn9"),
        (("good.py", "--html", "no/such/dir/x.html"), "not a directory"),
    ],
)
def test_bad_input_is_one_sentence(folder, arguments, sentence):
    run = trn("profile", *arguments, cwd=folder)
    assert run.returncode == 1
    assert sentence in run.stderr and "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1 or "hello" in run.stdout


def test_a_slower_kernel_fails_the_gate(folder, tmp_path):
    base = json.loads(trn("profile", "good.py", "--json", "-", cwd=folder).stdout)
    (tmp_path / "base.json").write_text(json.dumps(base))
    base["launches"][0]["latency_us"] *= 1.2
    (tmp_path / "new.json").write_text(json.dumps(base))
    run = trn("compare", "base.json", "new.json", "--fail-above", "5", cwd=tmp_path)
    assert run.returncode == 1 and "slower by more than 5 %" in run.stderr
