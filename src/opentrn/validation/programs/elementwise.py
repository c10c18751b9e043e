"""Kernels without a matmul at their heart: sums of vectors, exp, rotary embedding, transposes, a depthwise
convolution.
"""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import load, out, sbuf, store, transpose


@builder
def vector_add_chunks(n: int, chunk: int) -> Any:
    """Chunks of at most 128 elements, one a partition."""

    def vector_add_chunks_kernel(a, b):
        result = out(n, 1)
        for i in range(n // chunk):
            where = slice(i * chunk, i * chunk + chunk)
            left, right, total = load(a[where]), load(b[where]), sbuf(chunk, 1)
            nisa.tensor_scalar(total, left, nl.add, right)
            store(result[where], total)
        return result

    return vector_add_chunks_kernel, (Spec((n, 1), "float32"), Spec((n, 1), "float32"))


@builder
def vector_add_stream(n: int, free: int) -> Any:
    """Tiles of 128 partitions by ``free`` elements."""

    def vector_add_stream_kernel(a, b):
        result = out(128, n // 128)
        for i in range(n // (128 * free)):
            where = (slice(None), slice(i * free, i * free + free))
            left, right, total = load(a[where]), load(b[where]), sbuf(128, free)
            nisa.tensor_tensor(total, left, right, nl.add)
            store(result[where], total)
        return result

    return vector_add_stream_kernel, (Spec((128, n // 128), "float32"), Spec((128, n // 128), "float32"))


@builder
def exp_rows(m: int, n: int) -> Any:
    """exp of a matrix by tiles of 128 rows."""

    def exp_rows_kernel(x):
        result = out(m, n)
        for i in range(0, m, 128):
            where = slice(i, min(i + 128, m))
            tile = load(x[where])
            done = sbuf(*tile.shape)
            nisa.activation(done, nl.exp, tile)
            store(result[where], done)
        return result

    return exp_rows_kernel, (Spec((m, n), "float32"),)


@builder
def transpose_tiles(m: int, n: int, dtype: str = "float32") -> Any:
    """A transpose in tiles of 128 x 128 through the Tensor engine."""

    def transpose_tiles_kernel(x):
        result = out(n, m, dtype=dtype)
        for i in range(m // 128):
            for j in range(n // 128):
                tile = load(x[i * 128 : i * 128 + 128, j * 128 : j * 128 + 128])
                turned = sbuf(128, 128, dtype=dtype)
                transpose(tile, turned)
                store(result[j * 128 : j * 128 + 128, i * 128 : i * 128 + 128], turned)
        return result

    return transpose_tiles_kernel, (Spec((m, n), dtype),)


@builder
def rope(length: int, depth: int) -> Any:
    """Rotary embedding, first and second halves, in tiles of 512 positions."""

    def rope_kernel(x, cos, sin):
        half = depth // 2
        result = out(depth, length)
        for s in range(0, length, 512):
            at = slice(s, s + 512)
            tile, cosine, sine = load(x[:, at]), load(cos[:, at]), load(sin[:, at])
            second = sbuf(half, 512)
            nisa.tensor_copy(second, tile[half:depth])
            parts = [sbuf(half, 512) for _ in range(4)]
            for part, value, factor in zip(
                parts, (tile[0:half], second, tile[0:half], second), (cosine, cosine, sine, sine), strict=True
            ):
                nisa.tensor_tensor(part, value, factor, nl.multiply)
            done = sbuf(depth, 512)
            nisa.tensor_tensor(done[0:half], parts[0], parts[3], nl.subtract)
            nisa.tensor_tensor(done[half:depth], parts[1], parts[2], nl.add)
            store(result[:, at], done)
        return result

    half = depth // 2
    return rope_kernel, (
        Spec((depth, length), "float32"),
        Spec((half, length), "float32"),
        Spec((half, length), "float32"),
    )
