"""What a profile says of a kernel whose work can be counted by hand: 4 x 2 output tiles, 8 contraction steps."""

from __future__ import annotations

import pytest

from opentrn.profiling.advice import advice
from opentrn.timing import WHAT_IFS

M, N, K = 512, 1024, 1024
NUM_MATMULS = (M // 128) * (N // 512) * (K // 128)


def test_flops_are_those_of_the_matrix_product(matmul_profile):
    assert matmul_profile.timeline.total_flops == 2 * M * N * K


def test_hbm_bytes_are_what_the_loops_load_and_store(matmul_profile):
    loads = NUM_MATMULS * (128 * 128 + 128 * 512) * 2
    assert matmul_profile.timeline.hbm_bytes == loads + M * N * 2


def test_mfu_is_flops_against_the_bf16_peak_of_one_core(matmul_profile):
    peak = 2 * 128 * 128 * 2.4e9
    expected = 2 * M * N * K / (peak * matmul_profile.latency_us * 1e-6)
    assert matmul_profile.mfu == pytest.approx(expected, rel=1e-9)
    assert 0 < matmul_profile.mfu < 1


def test_the_critical_path_adds_up_to_the_latency(matmul_profile):
    parts = matmul_profile.path.by_cause
    assert sum(parts.values()) == pytest.approx(matmul_profile.latency_us, rel=1e-6)
    assert all(us >= 0 for us in parts.values())


def test_a_kernel_that_reloads_its_tiles_is_bound_by_transfers(matmul_profile):
    path = matmul_profile.path.by_cause
    transfers = sum(us for name, us in path.items() if name.startswith("dma"))
    assert transfers > path.get("tensor", 0.0)
    assert matmul_profile.what_ifs["free_dma"] < 0.7 * matmul_profile.latency_us


def test_nothing_gets_slower_when_one_thing_is_ideal(matmul_profile):
    assert set(matmul_profile.what_ifs) <= set(WHAT_IFS)
    assert all(us <= matmul_profile.latency_us * (1 + 1e-9) for us in matmul_profile.what_ifs.values())


def test_advice_names_the_line_that_reloads_data(matmul_profile):
    reload_lines = {e.line for e in matmul_profile.lines if "rhs[" in e.text}
    found = [
        a for a in advice(matmul_profile) if "reloading" in a.text and int(a.line.rsplit(":", 1)[1]) in reload_lines
    ]
    assert found, "each rhs tile is loaded once for each of the 4 row blocks"
    assert "4 times" in found[0].text
    assert found[0].saving_us <= matmul_profile.latency_us


def test_lines_account_for_all_instructions_and_all_critical_work(matmul_profile):
    assert sum(e.count for e in matmul_profile.lines) == len(matmul_profile.timeline)
    covered = sum(e.critical_us for e in matmul_profile.lines)
    outside = {"launch_overhead", "semaphore", "idle"}
    on_lines = sum(us for name, us in matmul_profile.path.by_cause.items() if name not in outside)
    assert covered == pytest.approx(on_lines, rel=1e-6)


def test_peak_memory_is_the_live_tiles(matmul_profile):
    # The accumulator alone lives in PSUM: 512 fp32 on 128 partitions; SBUF holds at most a few tiles at once.
    assert matmul_profile.psum_peak_bytes == 128 * 512 * 4
    assert matmul_profile.sbuf_peak_bytes >= 128 * (128 + 512) * 2


def test_engine_times_never_exceed_the_latency(matmul_profile):
    metrics = matmul_profile.metrics
    shares = [v for name, v in metrics.items() if name.endswith("active_time_percent")]
    assert shares and all(0 <= v <= 100 for v in shares)
    assert metrics["hbm_read_bytes"] + metrics["hbm_write_bytes"] == matmul_profile.timeline.hbm_bytes
