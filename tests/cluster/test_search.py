"""The search finds what exhaustive evaluation finds, refuses what fits nowhere, and can be interrupted and resumed."""

import json

import numpy as np
import pytest

from opentrn.cluster import Job, StepModel, load_model, machine, software
from opentrn.cluster import search as search_module
from opentrn.cluster.candidates import enumerate_layouts
from opentrn.cluster.search import local_workers, ray_workers, search
from opentrn.errors import OpenTrnError


def job(name="llama3.2-1b", batch=32, seq_len=2048):
    return Job(load_model(name), seq_len, batch, software("neuronx-distributed"))


def exhaustive(task, on, keep):
    """Every fitting layout simulated, no bound used."""
    table = enumerate_layouts(task, on.num_ranks)
    steps = StepModel(task, on).evaluate(table)
    times = np.where(steps.memory_gib <= on.memory_gib_per_rank, steps.step_time_s, np.inf)
    return np.sort(times)[:keep]


@pytest.mark.parametrize(
    ("name", "hardware", "chips", "batch"),
    [
        ("llama3.2-1b", "trn2.48xlarge", 2, 16),
        ("llama3-8b", "trn2.48xlarge", 16, 64),
        ("qwen3-30b-a3b", "trn2.48xlarge", 8, 16),
        ("t5-3b", "trn1.32xlarge", 16, 64),
        ("tinyllama-1.1b", "trn3-ultraserver", 12, 48),
    ],
)
def test_pruning_loses_nothing_against_exhaustive_search(name, hardware, chips, batch):
    task, on = job(name, batch), machine(hardware, chips)
    result = search(task, on, keep=5)
    np.testing.assert_allclose([f.step_time_s for f in result.found], exhaustive(task, on, 5), rtol=1e-9)
    assert result.num_simulated < result.num_fitting  # the bound did prune


def test_everything_found_fits_into_memory():
    on = machine("trn1.32xlarge", 32)
    result = search(job("llama2-13b", 256, 4096), on)
    assert all(f.memory_gib <= on.memory_gib_per_rank for f in result.found)
    assert all(f.memory_gib == pytest.approx(sum(f.memory_parts_gib.values())) for f in result.found)


def test_a_model_that_fits_nowhere_says_how_close_and_what_would_do():
    with pytest.raises(
        OpenTrnError, match=r"fits nowhere on 16 chips .* needs [\d.]+ GiB a rank .* of 16.0; \d+ chips would do"
    ):
        search(job("llama3-405b", 64, 8192), machine("trn1.32xlarge", 16))


def test_the_number_of_chips_that_would_do_does():
    task = job("llama2-70b", 64, 4096)
    with pytest.raises(OpenTrnError) as refused:
        search(task, machine("trn1.32xlarge", 16))
    enough = int(str(refused.value).split("; ")[1].split()[0])
    assert search(task, machine("trn1.32xlarge", enough)).found


def test_a_batch_that_shares_no_divisor_is_refused():
    with pytest.raises(OpenTrnError, match="no layout of llama3.2-1b divides"):
        search(job(batch=1), machine("trn3-ultraserver", 135 + 1))


def test_interrupted_search_keeps_what_it_found_and_resumes(tmp_path, monkeypatch):
    task, on = job("llama3-8b", 64), machine("trn2.48xlarge", 16)
    path = tmp_path / "results.jsonl"
    real, calls = search_module._search_shard, []

    def interrupted_after_two(index, *rest):
        calls.append(index)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return real(index, *rest)

    monkeypatch.setattr(search_module, "_search_shard", interrupted_after_two)
    partial = search(task, on, results=path)
    assert partial.interrupted
    assert partial.found
    written = [json.loads(line)["shard"] for line in path.read_text().splitlines()]
    assert written == calls[:2]

    calls.clear()
    monkeypatch.setattr(search_module, "_search_shard", lambda index, *rest: calls.append(index) or real(index, *rest))
    path.write_text(path.read_text() + '{"search": "half a li')  # a line cut short is no obstacle
    whole = search(task, on, results=path)
    assert not set(calls) & set(written)
    np.testing.assert_allclose([f.step_time_s for f in whole.found], exhaustive(task, on, 10), rtol=1e-9)


def test_a_results_file_of_another_job_is_not_mistaken_for_this_one(tmp_path):
    path, on = tmp_path / "results.jsonl", machine("trn2.48xlarge", 4)
    search(job("tinyllama-1.1b"), on, results=path)
    found = search(job(), on, results=path).found
    np.testing.assert_allclose([f.step_time_s for f in found], exhaustive(job(), on, 10), rtol=1e-9)


def test_local_processes_find_the_same_layouts():
    task, on = job("tinyllama-1.1b"), machine("trn2.48xlarge", 4)
    workers = local_workers(2)
    try:
        several = search(task, on, workers=workers)
    finally:
        workers.close()
    assert [f.step_time_s for f in several.found] == [f.step_time_s for f in search(task, on).found]


@pytest.mark.slow
def test_a_ray_cluster_finds_the_same_layouts():
    pytest.importorskip("ray")
    task, on = job("tinyllama-1.1b"), machine("trn2.48xlarge", 4)
    workers = ray_workers("local")
    try:
        several = search(task, on, workers=workers)
    finally:
        workers.close()
    assert [f.step_time_s for f in several.found] == [f.step_time_s for f in search(task, on).found]


def test_a_results_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OpenTrnError, match="cannot write results to .*nowhere"):
        search(job("tinyllama-1.1b"), machine("trn2.48xlarge", 1), results=tmp_path / "nowhere" / "results.jsonl")


def test_a_ray_cluster_that_does_not_answer_is_refused_at_once():
    pytest.importorskip("ray")
    with pytest.raises(OpenTrnError, match="cannot reach a Ray cluster at '127.0.0.1:1'"):
        ray_workers("127.0.0.1:1")


def test_no_workers_are_refused():
    with pytest.raises(OpenTrnError, match="at least 1, got 0"):
        local_workers(0)


def test_progress_counts_every_fitting_layout():
    seen = []
    result = search(job(), machine("trn2.48xlarge", 4), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (result.num_fitting, result.num_fitting)
    assert seen == sorted(seen)
