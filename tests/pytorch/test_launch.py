"""`trn launch`: parallel scripts train to the losses of one rank, and ranks that fail or wait for each other are named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
EXAMPLES = Path(__file__).parents[2] / "examples" / "distributed"


def launch(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "opentrn", "launch", "--chip", "trn2", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110)


def losses(run: subprocess.CompletedProcess) -> list[float]:
    assert run.returncode == 0, run.stderr
    return [float(x) for x in re.findall(r"loss ([0-9.]+)", run.stdout)]


@pytest.fixture(scope="module")
def single() -> list[float]:
    found = losses(launch("--cores", "1", str(EXAMPLES / "train.py"), "--mode", "single", "--steps", "3"))
    assert len(found) == 3
    return found


@pytest.mark.parametrize("mode", ["ddp", "fsdp", "tp"])
def test_parallel_training_has_the_losses_of_one_rank(single, mode):
    run = launch("--cores", "2", str(EXAMPLES / "train.py"), "--mode", mode, "--steps", "3")
    assert losses(run) == pytest.approx(single, abs=2e-6)
    assert "collectives of rank 0 of 2" in run.stdout


def test_a_pipeline_has_the_losses_of_the_whole_model():
    run = launch("--cores", "2", str(EXAMPLES / "pipeline.py"))
    assert run.returncode == 0, run.stderr
    pairs = re.findall(r"loss ([0-9.]+), whole model ([0-9.]+)", run.stdout)
    assert len(pairs) == 3
    assert all(float(ours) == pytest.approx(float(theirs), abs=2e-6) for ours, theirs in pairs)


def test_kernels_of_different_ranks_meet_in_their_collectives():
    run = launch("--cores", "3", str(EXAMPLES / "all_reduce_kernel.py"))
    assert run.returncode == 0 and "every element is 14" in run.stdout


def test_a_rank_that_dies_is_named_with_its_error(tmp_path):
    (tmp_path / "die.py").write_text(
        "import torch.distributed as dist\ndist.init_process_group('neuron')\n"
        "if dist.get_rank() == 1:\n    raise ValueError('a bad day')\ndist.barrier()\n"
    )
    run = launch("--cores", "2", "die.py", cwd=tmp_path)
    assert run.returncode == 1
    assert "ValueError: a bad day" in run.stderr and "rank 1 failed" in run.stderr


def test_ranks_that_wait_for_each_other_are_named_with_their_lines(tmp_path):
    (tmp_path / "dead.py").write_text(
        "import torch, torch.distributed as dist\ndist.init_process_group('neuron')\n"
        "t = torch.ones(4, device='neuron')\nif dist.get_rank() == 0:\n    dist.all_reduce(t)\nelse:\n    dist.recv(t, 0)\n"
    )
    run = launch("--cores", "2", "--stall-timeout", "8", "dead.py", cwd=tmp_path)
    assert run.returncode == 1
    assert "rank 0 waits in all_reduce at dead.py:5" in run.stderr and "rank 1 waits in recv at dead.py:7" in run.stderr


def test_bad_counts_and_scripts_are_refused(tmp_path):
    run = launch("--cores", "0", "x.py", cwd=tmp_path)
    assert run.returncode == 1 and "give 1 to" in run.stderr
    run = launch("missing.py", cwd=tmp_path)
    assert run.returncode == 1 and "no script missing.py" in run.stderr
