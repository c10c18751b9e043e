"""How fast kernels execute on values: ratios against native torch and against other interpreters, in one run.

    python benchmarks/kernels_vs_native.py [--quick]

Each row runs one kernel of ours and the same mathematics in torch on the same threads, alternating, and prints the median of
the ratios. torch computes in float32 and, where the CPU is not hopeless at it, in bfloat16. JAX Pallas (interpret mode)
and Triton's interpreter are measured on a tiled matmul when they are installed. The last row is the cost of an instruction in
Python where arithmetic is negligible.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from opentrn.public_names import install

install()
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import attention as attention_example  # noqa: E402
import mlp as mlp_example  # noqa: E402
import nki.isa as nisa  # noqa: E402
import nki.language as nl  # noqa: E402
import torch  # noqa: E402

import nki  # noqa: E402


@nki.jit
def matmul(lhs_t, rhs):
    """lhs_t.T @ rhs with the columns of rhs kept in SBUF while all rows pass."""
    k_size, m_size = lhs_t.shape
    n_size = rhs.shape[1]
    num_k = k_size // 128
    out = nl.ndarray((m_size, n_size), dtype=lhs_t.dtype, buffer=nl.shared_hbm)
    for n in range(n_size // 512):
        right = nl.ndarray((128, num_k, 512), dtype=rhs.dtype, buffer=nl.sbuf)
        nisa.dma_copy(
            dst=right, src=rhs.reshape((num_k, 128, n_size)).permute((1, 0, 2))[:, :, n * 512 : (n + 1) * 512]
        )
        for m in range(m_size // 128):
            left = nl.ndarray((128, num_k, 128), dtype=lhs_t.dtype, buffer=nl.sbuf)
            columns = slice(m * 128, (m + 1) * 128)
            nisa.dma_copy(dst=left, src=lhs_t.reshape((num_k, 128, m_size)).permute((1, 0, 2))[:, :, columns])
            acc = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
            for k in range(num_k):
                nisa.nc_matmul(dst=acc, stationary=left[:, k, :], moving=right[:, k, :], accumulate=k > 0)
            tile = nl.ndarray((128, 512), dtype=lhs_t.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=tile, src=acc)
            nisa.dma_copy(dst=out[columns, n * 512 : (n + 1) * 512], src=tile)
    return out


@nki.jit
def many_small_instructions(x, count=2000):
    """Instructions on a (128, 4) tile: what is left is their cost in Python."""
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    t = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=t, src=x)
    for _ in range(count):
        nisa.tensor_scalar(dst=t, data=t, op0=nl.multiply, operand0=1.0)
    nisa.dma_copy(dst=out, src=t)
    return out


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """(median ratio, median seconds of ours, of theirs), the two alternating after one warm-up each."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def show(name: str, found: tuple[float, float, float]) -> None:
    print(f"{name:<58} {found[1]:9.3f} s {found[2]:9.3f} s {found[0]:8.2f} x", flush=True)


def to_torch(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32)).to(dtype)


def bfloat16_is_usable() -> bool:
    a = torch.randn(256, 256)
    b = a.bfloat16()
    a @ a, b @ b
    return seconds(lambda: b @ b) < 10 * seconds(lambda: a @ a)


def pallas_matmul(size: int) -> Callable[[], object] | None:
    try:
        import jax
        import jax.numpy as jnp
        from jax.experimental import pallas as pl
    except ImportError:
        return None

    def body(x_ref, y_ref, o_ref):
        o_ref[...] = jnp.dot(x_ref[...], y_ref[...], preferred_element_type=jnp.float32)

    x = jnp.ones((size, size), jnp.bfloat16)
    call = jax.jit(
        pl.pallas_call(
            body, out_shape=jax.ShapeDtypeStruct((size, size), jnp.float32), grid=(size // 128, size // 512),
            in_specs=[pl.BlockSpec((128, size), lambda i, j: (i, 0)), pl.BlockSpec((size, 512), lambda i, j: (0, j))],
            out_specs=pl.BlockSpec((128, 512), lambda i, j: (i, j)), interpret=True,
        )
    )  # fmt: skip
    return lambda: call(x, x).block_until_ready()


def triton_matmul(size: int) -> Callable[[], object] | None:
    import os

    os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton
        import triton.language as tl
    except ImportError:
        return None

    @triton.jit
    def body(a, b, c, n: tl.constexpr, bm: tl.constexpr, bn: tl.constexpr, bk: tl.constexpr):
        rows = tl.program_id(0) * bm + tl.arange(0, bm)
        columns = tl.program_id(1) * bn + tl.arange(0, bn)
        acc = tl.zeros((bm, bn), dtype=tl.float32)
        for k in range(0, n, bk):
            inner = k + tl.arange(0, bk)
            left = tl.load(a + rows[:, None] * n + inner[None, :])
            right = tl.load(b + inner[:, None] * n + columns[None, :])
            acc += tl.dot(left, right)
        tl.store(c + rows[:, None] * n + columns[None, :], acc)

    a = torch.ones(size, size)
    c = torch.empty(size, size)
    return lambda: body[(size // 128, size // 512)](a, a, c, size, 128, 512, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller shapes, for a look")
    quick = parser.parse_args().quick
    rounds = 3
    length, size, tokens = (1024, 1024, 256) if quick else (4096, 4096, 1024)
    print(f"{torch.get_num_threads()} threads; ours, theirs, ratio ours / theirs (below 1: ours is faster)")
    kinds = [torch.float32] + ([torch.bfloat16] if bfloat16_is_usable() else [])

    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((128, length)).astype(ml_dtypes.bfloat16) for _ in range(2))
    v = rng.standard_normal((length, 128)).astype(ml_dtypes.bfloat16)
    for kind in kinds:
        tq, tk, tv = to_torch(q.T, kind), to_torch(k.T, kind), to_torch(v, kind)

        def native_attention(tq=tq, tk=tk, tv=tv):
            scores = (tq @ tk.T) * 128**-0.5
            return (
                torch.softmax(scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf")), -1)
                @ tv
            )

        ours = lambda: attention_example.attention(q, k, v, scale=128**-0.5)  # noqa: E731
        show(f"causal attention {length} x 128, torch {kind}", ratio(ours, native_attention, rounds))

    a, b = (rng.standard_normal((size, size)).astype(ml_dtypes.bfloat16) for _ in range(2))
    for kind in kinds:
        ta, tb = to_torch(a.T, kind), to_torch(b, kind)
        show(
            f"matmul {size} cubed bf16, torch {kind}", ratio(lambda: matmul(a, b), lambda ta=ta, tb=tb: ta @ tb, rounds)
        )

    arguments = mlp_example.inputs(tokens, 1024, 2560)
    for kind in kinds:
        x, gain, gate, up, down = (to_torch(t, kind) for t in arguments)

        def native_mlp(x=x, gain=gain, gate=gate, up=up, down=down):
            y = torch.nn.functional.rms_norm(x, (x.shape[1],), gain[0], 1e-5)
            return (torch.nn.functional.silu(y @ gate) * (y @ up)) @ down

        show(f"RMSNorm-MLP {tokens} x 1024 -> 2560, torch {kind}",
             ratio(lambda: mlp_example.rmsnorm_mlp(*arguments), native_mlp, rounds))  # fmt: skip

    small = [rng.standard_normal((1024, 1024)).astype(ml_dtypes.bfloat16) for _ in range(2)]
    for name, peer in (
        ("JAX Pallas, interpret mode", pallas_matmul(1024)),
        ("Triton's interpreter", triton_matmul(1024)),
    ):
        if peer is None:
            print(f"matmul 1024 cubed against {name}: not installed")
        else:
            show(f"matmul 1024 cubed against {name}", ratio(lambda: matmul(*small), peer, rounds))

    x = np.ones((128, 4), np.float32)
    many_small_instructions(x)
    each = min(seconds(lambda: many_small_instructions(x)) for _ in range(5)) / 2000
    print(f"one instruction on a (128, 4) tile: {each * 1e6:.1f} us")


if __name__ == "__main__":
    main()
