"""Matrix products, from one tile at a time to blocks of all three dimensions."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import load, out, psum, sbuf, store, transpose


def _finish(result: Any, where: tuple[slice, slice], product: Any) -> None:
    tile = sbuf(*product.shape, dtype=result.dtype)
    nisa.tensor_copy(tile, product)
    store(result[where], tile)


def _range(start: int, size: int) -> slice:
    return slice(start, start + size)


@builder
def matmul_tiled(m: int, k: int, n: int, dtype: str) -> Any:
    """Both operands of every product loaded where they are used."""

    def matmul_tiled_kernel(a_t, b):
        result = out(m, n, dtype=dtype)
        for i in range(m // 128):
            for j in range(n // 512):
                product = psum(128, 512)
                for d in range(k // 128):
                    left = load(a_t[_range(d * 128, 128), _range(i * 128, 128)])
                    right = load(b[_range(d * 128, 128), _range(j * 512, 512)])
                    nisa.nc_matmul(product, left, right)
                _finish(result, (_range(i * 128, 128), _range(j * 512, 512)), product)
        return result

    return matmul_tiled_kernel, (Spec((k, m), dtype), Spec((k, n), dtype))


@builder
def matmul_hoisted(m: int, k: int, n: int, dtype: str) -> Any:
    """The left operand of a row of tiles loaded once."""

    def matmul_hoisted_kernel(a_t, b):
        result = out(m, n, dtype=dtype)
        for i in range(m // 128):
            left = sbuf(128, k // 128, 128, dtype=dtype)
            for d in range(k // 128):
                nisa.dma_copy(left[:, d], a_t[_range(d * 128, 128), _range(i * 128, 128)])
            for j in range(n // 512):
                right = sbuf(128, k // 128, 512, dtype=dtype)
                for d in range(k // 128):
                    nisa.dma_copy(right[:, d], b[_range(d * 128, 128), _range(j * 512, 512)])
                product = psum(128, 512)
                for d in range(k // 128):
                    nisa.nc_matmul(product, left[:, d], right[:, d])
                _finish(result, (_range(i * 128, 128), _range(j * 512, 512)), product)
        return result

    return matmul_hoisted_kernel, (Spec((k, m), dtype), Spec((k, n), dtype))


@builder
def matmul_blocked_free(m: int, k: int, n: int, dtype: str) -> Any:
    """Blocks of two tiles in both output dimensions; the depth of each operand loaded once a block, tile by tile."""

    def matmul_blocked_free_kernel(a_t, b):
        result = out(m, n, dtype=dtype)
        depth = k // 128
        for i in range(m // 256):
            left = [load(a_t[_range(d * 128, 128), _range(i * 256, 256)]) for d in range(depth)]
            for j in range(n // 1024):
                products = [[psum(128, 512) for _ in range(2)] for _ in range(2)]
                for d in range(depth):
                    right = load(b[_range(d * 128, 128), _range(j * 1024, 1024)])
                    for p in range(2):
                        for q in range(2):
                            nisa.nc_matmul(
                                products[p][q], left[d][:, _range(p * 128, 128)], right[:, _range(q * 512, 512)]
                            )
                for p in range(2):
                    for q in range(2):
                        _finish(
                            result, (_range(i * 256 + p * 128, 128), _range(j * 1024 + q * 512, 512)), products[p][q]
                        )
        return result

    return matmul_blocked_free_kernel, (Spec((k, m), dtype), Spec((k, n), dtype))


@builder
def matmul_blocked(m: int, k: int, n: int, dtype: str, rows: int = 16, columns: int = 2, depth: int = 8) -> Any:
    """Blocks of ``rows`` x ``columns`` output tiles and ``depth`` tiles of contraction, summed in SBUF."""

    def matmul_blocked_kernel(a_t, b):
        from opentrn.nki import language as nl

        result = out(m, n, dtype=dtype)
        for j in range(n // (512 * columns)):
            # One accumulator a block of output, kept in SBUF over the contraction.
            for i in range(m // (128 * rows)):
                sums = sbuf(128, rows, columns * 512)
                for d in range(k // (128 * depth)):
                    right, left = (
                        sbuf(128, depth, 512 * columns, dtype=dtype),
                        sbuf(128, depth, 128 * rows, dtype=dtype),
                    )
                    for e in range(depth):
                        at = _range((d * depth + e) * 128, 128)
                        nisa.dma_copy(right[:, e], b[at, _range(j * 512 * columns, 512 * columns)])
                        nisa.dma_copy(left[:, e], a_t[at, _range(i * 128 * rows, 128 * rows)])
                    for p in range(rows):
                        for q in range(columns):
                            product = psum(128, 512)
                            for e in range(depth):
                                nisa.nc_matmul(
                                    product, left[:, e, _range(p * 128, 128)], right[:, e, _range(q * 512, 512)]
                                )
                            place = sums[:, p, _range(q * 512, 512)]
                            if d == 0:
                                nisa.tensor_copy(place, product)
                            else:
                                nisa.tensor_tensor(place, place, product, nl.add)
                for p in range(rows):
                    tile = sbuf(128, columns * 512, dtype=dtype)
                    nisa.tensor_copy(tile, sums[:, p])
                    store(result[_range((i * rows + p) * 128, 128), _range(j * 512 * columns, 512 * columns)], tile)
        return result

    return matmul_blocked_kernel, (Spec((k, m), dtype), Spec((k, n), dtype))


@builder
def matmul_transposing(m: int, k: int, n: int, dtype: str) -> Any:
    """The left operand stored by rows and transposed on chip, for each block of 1024 output columns again."""

    def matmul_transposing_kernel(a, b):
        result = out(m, n, dtype=dtype)
        depth = k // 128
        for j in range(n // 1024):
            right = [load(b[_range(d * 128, 128), _range(j * 1024, 1024)]) for d in range(depth)]
            for i in range(m // 128):
                left = []
                for g in range(depth // 8):
                    tile = load(a[_range(i * 128, 128), _range(g * 1024, 1024)])
                    turned = sbuf(128, 8, 128, dtype=dtype)
                    for d in range(8):
                        transpose(tile[:, _range(d * 128, 128)], turned[:, d])
                    left += [turned[:, d] for d in range(8)]
                done = sbuf(128, 1024, dtype=dtype)
                for q in range(2):
                    product = psum(128, 512)
                    for d in range(depth):
                        nisa.nc_matmul(product, left[d], right[d][:, _range(q * 512, 512)])
                    nisa.tensor_copy(done[:, _range(q * 512, 512)], product)
                store(result[_range(i * 128, 128), _range(j * 1024, 1024)], done)
        return result

    return matmul_transposing_kernel, (Spec((m, k), dtype), Spec((k, n), dtype))
