"""Speed of tracing and of executing: instructions a second of a tiled matmul, and microseconds an instruction at tiny
tiles.

    python benchmarks/trace_speed.py

Tracing computes no values (a launch for time only); executing a tiny tile costs what Python does around the arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import opentrn.nki as nki
import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki import launch
from opentrn.nki.arrays import Spec


@nki.jit
def tiled_matmul(lhs_t, rhs):
    """(K, M).T @ (K, N) in tiles of 128 x 128 x 512, every tile loaded where it is used."""
    num_k, num_m = lhs_t.shape
    _, num_n = rhs.shape
    out = nl.ndarray((num_m, num_n), dtype=lhs_t.dtype, buffer=nl.shared_hbm)
    for m in range(num_m // 128):
        for n in range(num_n // 512):
            acc = nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum)
            for k in range(num_k // 128):
                a = nl.ndarray((128, 128), dtype=lhs_t.dtype, buffer=nl.sbuf)
                b = nl.ndarray((128, 512), dtype=rhs.dtype, buffer=nl.sbuf)
                nisa.dma_copy(dst=a, src=lhs_t[k * 128 : (k + 1) * 128, m * 128 : (m + 1) * 128])
                nisa.dma_copy(dst=b, src=rhs[k * 128 : (k + 1) * 128, n * 512 : (n + 1) * 512])
                nisa.nc_matmul(dst=acc, stationary=a, moving=b)
            tile = nl.ndarray((128, 512), dtype=lhs_t.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=tile, src=acc)
            nisa.dma_copy(dst=out[m * 128 : (m + 1) * 128, n * 512 : (n + 1) * 512], src=tile)
    return out


@nki.jit
def tiny_tiles(x, count):
    """``count`` rounds of four instructions on 2 x 4 tiles."""
    out = nl.ndarray((2, 4), dtype=nl.float32, buffer=nl.shared_hbm)
    a = nl.ndarray((2, 4), dtype=nl.float32, buffer=nl.sbuf)
    b = nl.ndarray((2, 4), dtype=nl.float32, buffer=nl.sbuf)
    acc = nl.ndarray((4, 4), dtype=nl.float32, buffer=nl.psum)
    nisa.dma_copy(dst=a, src=x)
    for _ in range(count):
        nisa.tensor_copy(dst=b, src=a)
        nisa.tensor_tensor(dst=b, data1=a, data2=b, op=nl.add)
        nisa.nc_matmul(dst=acc, stationary=a, moving=b, accumulate=False)
        nisa.dma_copy(dst=out[0:2, 0:4], src=b)
    return out


def _best_seconds(run: Callable[[], object], repeats: int = 15) -> float:
    """The shortest of several runs: what the code needs when nothing else wants the processor."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    size = 4096
    spec = Spec((size, size), nl.bfloat16)
    with launch.session(execute=False, record=True) as opened:
        tiled_matmul(spec, spec)
        instructions = len(opened.launches[0].programs[0])
        seconds = _best_seconds(lambda: tiled_matmul(spec, spec))
    print(f"tracing a {size} cubed matmul: {instructions} instructions, {instructions / seconds:,.0f} a second")
    count = 2000
    x = np.ones((2, 4), np.float32)
    seconds = _best_seconds(lambda: tiny_tiles(x, count))
    print(f"executing 2 x 4 tiles: {seconds / (4 * count) * 1e6:.1f} us an instruction")


if __name__ == "__main__":
    main()
