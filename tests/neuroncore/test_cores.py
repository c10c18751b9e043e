"""Two cores of a logical NeuronCore: what they share, how they meet, and what happens when they cannot."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import opentrn.nki as nki
import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.errors import DeadlockError, ValidationError
from opentrn.nki import launch

X = np.arange(64, dtype=np.float32).reshape(8, 8)


def load(x):
    tile = nl.ndarray(x.shape, x.dtype)
    nisa.dma_copy(tile, x)
    return tile


@nki.jit
def swapped_halves(x):
    me = nl.program_id(0)
    mine, other = load(x[4 * me : 4 * me + 4]), nl.ndarray((4, 8), x.dtype)
    nisa.sendrecv(mine, other, send_to_rank=1 - me, recv_from_rank=1 - me, pipe_id=0)
    out = nl.ndarray((8, 8), x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out[4 * me : 4 * me + 4], other)
    nisa.core_barrier(out, (0, 1))
    both = nl.ndarray((8, 8), x.dtype, buffer=nl.shared_hbm)
    if me == 0:
        nisa.dma_copy(both, out)  # sees what the other core wrote before the barrier
    return both


def test_sendrecv_swaps_tiles_and_a_barrier_shows_the_others_writes():
    assert (swapped_halves[2](X) == np.concatenate([X[4:], X[:4]])).all()


def test_both_cores_record_where_they_meet():
    with launch.session(record=True) as opened:
        swapped_halves[2](X)
    first, second = opened.launches[0].programs
    assert [p.core_index for p in (first, second)] == [0, 1]

    def meetings(program):
        return [(program.plans[program.plan[at]].instruction.name, kind, value)
                for at, kind, value in program.markers if kind in ("barrier", "sendrecv")]  # fmt: skip

    assert meetings(first) == meetings(second)
    assert [(name, kind) for name, kind, _ in meetings(first)] == [
        ("sendrecv", "sendrecv"),
        ("core_barrier", "barrier"),
    ]


def test_a_run_without_values_meets_in_the_same_places():
    with launch.session(record=True) as opened:
        swapped_halves[2](X)
    with launch.session(record=True, execute=False) as traced:
        swapped_halves[2](X)
    for with_values, without in zip(opened.launches[0].programs, traced.launches[0].programs, strict=True):
        assert (with_values.site == without.site).all() and with_values.markers == without.markers


def test_private_hbm_is_each_cores_own():
    @nki.jit
    def kernel(x):
        me = nl.program_id(0)
        private = nl.ndarray((8, 8), x.dtype, buffer=nl.private_hbm)
        nisa.dma_copy(private, x)
        if me == 0:
            nisa.memset(t := nl.ndarray((8, 8), x.dtype), -1.0)
            nisa.dma_copy(private, t)
        out = nl.ndarray((2, 8, 8), x.dtype, buffer=nl.shared_hbm)
        nisa.core_barrier(out, (0, 1))
        nisa.dma_copy(out[me], private)
        return out

    result = kernel[2](X)
    assert (result[0] == -1).all() and (result[1] == X).all()


def test_each_pipe_carries_its_own_messages():
    @nki.jit
    def kernel(x):
        me = nl.program_id(0)
        mine = load(x[4 * me : 4 * me + 4])
        tiles = [nl.ndarray((4, 8), x.dtype) for _ in range(2)]
        doubled = nl.ndarray((4, 8), x.dtype)
        nisa.tensor_scalar(doubled, mine, nl.multiply, 2.0)
        for pipe in (0, 1):
            nisa.sendrecv(mine if pipe == 0 else doubled, tiles[pipe], 1 - me, 1 - me, pipe)
        out = nl.ndarray((2, 2, 4, 8), x.dtype, buffer=nl.shared_hbm)
        for pipe in range(2):
            nisa.dma_copy(out[me, pipe], tiles[pipe])
        return out

    result = kernel[2](X)
    assert (result[0, 0] == X[4:]).all() and (result[1, 1] == 2 * X[:4]).all()


@pytest.mark.parametrize("how", ["barrier", "sendrecv"])
def test_a_deadlock_is_reported_with_what_each_core_waits_for(how):
    @nki.jit
    def kernel(x):
        me = nl.program_id(0)
        out = nl.ndarray((8, 8), x.dtype, buffer=nl.shared_hbm)
        if me == 0 and how == "barrier":
            nisa.core_barrier(out, (0, 1))
        if how == "sendrecv":
            nisa.sendrecv(tile := load(x), tile, 1 - me, 1 - me, pipe_id=me)
        return out

    expected = {
        "barrier": r"core 0 waits for core_barrier at line \d+; core 1 has finished",
        "sendrecv": r"core 0 waits for sendrecv \(from core 1, pipe 0\) at line \d+; core 1 waits for .*pipe 1",
    }
    with pytest.raises(DeadlockError, match=expected[how]):
        kernel[2](X)


def test_a_core_that_fails_does_not_leave_the_other_waiting():
    @nki.jit
    def kernel(x):
        out = nl.ndarray((8, 8), x.dtype, buffer=nl.shared_hbm)
        if nl.program_id(0) == 1:
            raise RuntimeError("core 1 gives up")
        nisa.core_barrier(out, (0, 1))
        return out

    with pytest.raises(RuntimeError, match="core 1 gives up"):
        kernel[2](X)


def test_ctrl_c_stops_a_kernel_on_two_cores_that_never_ends(tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(
        textwrap.dedent("""
        import numpy as np
        import opentrn.nki as nki, opentrn.nki.isa as nisa, opentrn.nki.language as nl

        @nki.jit
        def endless(x):
            tile = nl.ndarray((8, 8), x.dtype)
            print("running", flush=True)
            while True:
                nisa.dma_copy(tile, x)

        endless[2](np.zeros((8, 8), np.float32))
    """)
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "running"
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode != 0 and "KeyboardInterrupt" in errors


@pytest.mark.parametrize("instruction", ["barrier", "sendrecv"])
def test_meeting_another_core_needs_a_launch_on_two(instruction):
    @nki.jit
    def kernel(x):
        if instruction == "barrier":
            nisa.core_barrier(x, (0, 1))
        else:
            nisa.sendrecv(tile := load(x), tile, 1, 1, 0)
        return x

    with pytest.raises(ValidationError, match=r"kernel\[2\]"):
        kernel(X)


def test_a_barrier_of_one_core_does_not_wait():
    @nki.jit
    def kernel(x):
        nisa.core_barrier(x, (0,))
        return x

    assert (kernel(X) == X).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"send_to_rank": 2}, "ranks are 0 and 1"),
        ({"dma_engine": nisa.dma_engine.gpsimd_dma, "columns": 257}, "at most 256"),
        ({"dtype": nl.bfloat16}, "src is float32 and dst bfloat16"),
    ],
)
def test_rules_of_sendrecv(settings, message):
    settings = {"send_to_rank": 1, "recv_from_rank": 1, "pipe_id": 0, "columns": 8, "dtype": nl.float32, **settings}
    columns, dtype = settings.pop("columns"), settings.pop("dtype")

    @nki.jit
    def kernel(x):
        a, b = nl.ndarray((4, columns), nl.float32), nl.ndarray((4, columns), dtype)
        nisa.memset(a, 0.0)
        nisa.sendrecv(a, b, **settings)
        return x

    with pytest.raises(ValidationError, match=message):
        kernel[2](X)


def test_cores_are_refused_before_neuroncore_v3():
    with launch.session(chip="trn1"), pytest.raises(ValidationError, match="needs NeuronCore-v3"):
        swapped_halves[2](X)
