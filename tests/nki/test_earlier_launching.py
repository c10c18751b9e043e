"""Kernels of the earlier API as their callers use them: grids, outputs as arguments, decorators, public names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from opentrn.errors import ValidationError
from opentrn.nki.earlier import isa as nisa
from opentrn.nki.earlier import language as nl
from opentrn.nki.earlier import typing as nt
from opentrn.nki.earlier.decorators import baremetal, benchmark, jit, profile, simulate_kernel, trace

RNG = np.random.default_rng(5)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def double(a):
    out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(a) * 2)
    return out


@pytest.mark.parametrize("decorator", [jit, trace, baremetal, jit(mode="simulation")])
def test_every_decorator_runs_the_kernel(decorator):
    x = floats(16, 8)
    assert np.array_equal(decorator(double)(x), 2 * x)
    assert np.array_equal(simulate_kernel(decorator(double), x), 2 * x)


def test_baremetal_writes_the_files_it_is_asked_for(tmp_path):
    x, neff, trace_file = floats(16, 8), tmp_path / "k.neff", tmp_path / "k.ntff"
    run = baremetal(double, save_neff_name=str(neff), save_trace_name=str(trace_file), additional_compile_opt="-O1")
    assert np.array_equal(run(x), 2 * x)
    assert json.loads(neff.read_text())["num_instructions"] == 3 and trace_file.exists()


def test_a_plain_function_can_be_simulated():
    x = floats(16, 8)
    assert np.array_equal(simulate_kernel(double, x), 2 * x)


def test_outputs_passed_as_arguments_are_changed_in_place():
    @trace
    def kernel(a, out):
        nl.store(out, nl.load(a) + 1)

    x, out = floats(16, 8), np.zeros((16, 8), np.float32)
    simulate_kernel(kernel, x, out)
    assert np.allclose(out, x + 1)


@pytest.mark.parametrize("grid", [(4, 2), (nl.spmd_dim(nl.nc(2), 2), 2), (nl.nc(2) * 2, 2), (2 * nl.nc(2), 2)])
def test_programs_of_a_grid_write_their_parts_of_one_tensor(grid):
    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.hbm)
        i, j = nl.program_id(0), nl.program_id(1)
        assert nl.program_ndim() == 2 and nl.num_programs(0) == 4 and nl.num_programs() == 8
        nl.store(out[i, j], nl.load(a[i, j]) * (10 * i + j))
        return out

    x = floats(4, 2, 8, 8)
    factor = 10 * np.arange(4)[:, None] + np.arange(2)[None, :]
    assert np.allclose(kernel[grid](x), x * factor[..., None, None])


def test_a_kernel_called_by_a_kernel_is_inlined():
    @jit(mode="trace")
    def helper(tile, into):
        into[...] = nl.exp(tile)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        box = nl.ndarray(a.shape, dtype=a.dtype)
        helper(nl.load(a), into=box)
        nl.store(out, box)
        return out

    x = floats(16, 8)
    assert np.allclose(kernel(x), np.exp(x), rtol=1e-3)


def test_lists_dictionaries_and_torch_tensors_go_in_and_come_out():
    torch = pytest.importorskip("torch")

    @jit
    def kernel(pair, named):
        out = nl.ndarray(pair[0].shape, dtype=pair[0].dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.load(pair[0]) + nl.load(pair[1]) + nl.load(named["c"]))
        return out

    a, b, c = (torch.from_numpy(floats(8, 8)) for _ in range(3))
    result = kernel([a, b], {"c": c})
    assert isinstance(result, torch.Tensor)
    assert torch.allclose(result, a + b + c)


def test_shapes_in_annotations_are_accepted():
    @jit
    def kernel(a: nt.tensor[16, 8], b: nt.mutable_tensor = None):
        x: nt.tensor[16, 8] = nl.load(a)
        nl.store(a, x * 0)
        return a

    assert not kernel(np.ones((16, 8), np.float32)).any()


def test_benchmark_times_without_values(tmp_path):
    neff = tmp_path / "double.neff"
    timed = benchmark(warmup=2, iters=5, save_neff_name=str(neff))(double)
    assert timed(floats(128, 4096)) is None
    latency = timed.benchmark_result.nc_latency
    small = benchmark(double)
    small(nt.tensor[[128, 64], nl.float32])
    assert latency.get_latency_percentile(50) == latency.get_latency_percentile(99)
    assert 0 < small.benchmark_result.nc_latency.get_latency_percentile(99) < latency.get_latency_percentile(99)
    assert json.loads(neff.read_text())["latency_us"] == latency.get_latency_percentile(50)


def test_a_grid_shares_the_benchmark_of_its_kernel():
    timed = benchmark(double)[1]
    timed(floats(128, 64))
    assert timed.benchmark_result.nc_latency.get_latency_percentile(50) > 0


def test_profile_runs_the_kernel_and_leaves_its_files(tmp_path):
    x = floats(16, 8)
    run = profile(
        working_directory=str(tmp_path), save_neff_name="k.neff", save_trace_name="p.ntff", num_execs=20, profile_nth=10
    )(double)
    assert np.array_equal(run(x), 2 * x)
    assert (tmp_path / "k.neff").exists()
    assert {p.name for p in tmp_path.glob("*.ntff")} == {"p_exec_10.ntff", "p_exec_20.ntff"}
    assert len(list((tmp_path / "json_reports").iterdir())) == 2


def test_the_generation_follows_the_chip():
    seen = []

    def kernel(a):
        seen.append(nisa.get_nc_version())
        return double(a)

    simulate_kernel(jit(kernel), floats(8, 8))
    simulate_kernel(jit(kernel, platform_target="trn1"), floats(8, 8))
    assert seen == [nisa.nc_version.gen3, nisa.nc_version.gen2]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValidationError, match="double"):
        jit(double)(floats(8, 8), 3)
    with pytest.raises(ValidationError, match="modes are"):
        jit(double, mode="fast")


def test_the_public_names_lead_here():
    script = textwrap.dedent("""
        import numpy as np
        import neuronxcc.nki as nki
        import neuronxcc.nki.isa as nisa
        import neuronxcc.nki.language as nl
        import neuronxcc.nki.compiler as ncc
        from neuronxcc import nki as again
        from neuronxcc.nki import baremetal, benchmark, profile, simulate_kernel
        from neuronxcc.nki.isa.constants import dge_mode, oob_mode
        from neuronxcc.nki.language import par_dim
        from neuronxcc.nki.language.constants import sizeinbytes
        from neuronxcc.nki.typing import tensor
        from neuronxcc.starfish.support.util import allclose
        import logging
        assert again is nki and nki.language is nl and nki.isa is nisa and nki.compiler is ncc
        assert sizeinbytes(nl.bfloat16) == 2 and isinstance(par_dim(3), int) and logging.OFF > logging.CRITICAL

        @nki.jit
        def kernel(a):
            out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
            nl.store(out, nl.load(a) + 1)
            return out

        assert allclose(kernel(np.zeros((4, 4), np.float32)), np.ones((4, 4)))
    """)
    code = "from opentrn.public_names import install; install()\n" + script
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
