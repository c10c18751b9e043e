"""RMS normalisation before or after a product, and the gated MLP."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import load, out, psum, rows_of_one, sbuf, store, transpose


def _normalised(x: Any, gain: Any) -> Any:
    """Rows of ``x`` over their root mean square, times ``gain`` if given."""
    n = x.shape[1]
    square, total, mean, inverse, done = sbuf(128, n), sbuf(128, 1), sbuf(128, 1), sbuf(128, 1), sbuf(128, n)
    nisa.activation(square, nl.square, x)
    nisa.tensor_reduce(total, nl.add, square, axis=1)
    nisa.tensor_scalar(mean, total, nl.multiply, 1.0 / n, op1=nl.add, operand1=1e-6)
    nisa.activation(inverse, nl.rsqrt, mean)
    nisa.tensor_scalar(done, x, nl.multiply, inverse)
    if gain is None:
        return done
    scaled = sbuf(128, n)
    for j in range(0, n, 512):
        wide = rows_of_one(gain[:, j : j + 512], 512, "float32")
        nisa.tensor_tensor(scaled[:, j : j + 512], done[:, j : j + 512], wide, nl.multiply)
    return scaled


def _turned(x: Any) -> list[Any]:
    """The 128-column tiles of ``x`` transposed."""
    tiles = []
    for j in range(x.shape[1] // 128):
        tiles.append(sbuf(128, 128))
        transpose(x[:, j * 128 : j * 128 + 128], tiles[-1])
    return tiles


@builder
def add_norm_matmul(m: int, k: int, n: int) -> Any:
    """norm(x + z) @ w, row tile by row tile."""

    def add_norm_matmul_kernel(x, w, z, g):
        result = out(m, n)
        gain = load(g)
        for i in range(m // 128):
            rows = slice(i * 128, i * 128 + 128)
            left, right, total = load(x[rows]), load(z[rows]), sbuf(128, k)
            nisa.tensor_tensor(total, left, right, nl.add)
            tiles = _turned(_normalised(total, gain))
            for j in range(n // 512):
                product = psum(128, 512)
                for d, tile in enumerate(tiles):
                    nisa.nc_matmul(product, tile, load(w[d * 128 : d * 128 + 128, j * 512 : j * 512 + 512]))
                done = sbuf(128, 512)
                nisa.tensor_copy(done, product)
                store(result[rows, j * 512 : j * 512 + 512], done)
        return result

    return add_norm_matmul_kernel, (
        Spec((m, k), "float32"),
        Spec((k, n), "float32"),
        Spec((m, k), "float32"),
        Spec((1, k), "float32"),
    )


@builder
def matmul_add_norm(m: int, k: int, n: int) -> Any:
    """norm(x @ w + z), row tile by row tile."""

    def matmul_add_norm_kernel(x, w, z, g):
        result = out(m, n)
        gain = load(g)
        for i in range(m // 128):
            rows = slice(i * 128, i * 128 + 128)
            row = load(x[rows])
            tiles = _turned(row)
            product_row = sbuf(128, n)
            for j in range(n // 512):
                product = psum(128, 512)
                for d, tile in enumerate(tiles):
                    nisa.nc_matmul(product, tile, load(w[d * 128 : d * 128 + 128, j * 512 : j * 512 + 512]))
                nisa.tensor_copy(product_row[:, j * 512 : j * 512 + 512], product)
            other, total = load(z[rows]), sbuf(128, n)
            nisa.tensor_tensor(total, product_row, other, nl.add)
            store(result[rows], _normalised(total, gain))
        return result

    return matmul_add_norm_kernel, (
        Spec((m, k), "float32"),
        Spec((k, n), "float32"),
        Spec((m, n), "float32"),
        Spec((1, n), "float32"),
    )


@builder
def norm_matmul(m: int, k: int, n: int) -> Any:
    """norm(x) @ w in groups of eight row tiles; squares and sums by halves of a row."""

    def norm_matmul_kernel(x, w):
        result = out(m, n)
        for g in range(m // 1024):
            tiles = []
            for i in range(8):
                row = load(x[(g * 8 + i) * 128 : (g * 8 + i + 1) * 128])
                sums, inverse = sbuf(128, 2), sbuf(128, 1)
                for h in range(2):
                    square, scaled = sbuf(128, 512), sbuf(128, 512)
                    nisa.activation(square, nl.square, row[:, h * 512 : h * 512 + 512])
                    nisa.tensor_scalar(scaled, square, nl.multiply, 1.0 / k)
                    nisa.tensor_reduce(sums[:, h : h + 1], nl.add, scaled, axis=1)
                total = sbuf(128, 1)
                nisa.tensor_reduce(total, nl.add, sums, axis=1)
                nisa.activation(inverse, nl.rsqrt, total)
                normal = sbuf(128, k)
                for h in range(2):
                    half = slice(h * 512, h * 512 + 512)
                    nisa.tensor_scalar(normal[:, half], row[:, half], nl.multiply, inverse)
                tiles.append(_turned(normal))
            for c in range(n // 1024):
                weights = [load(w[d * 128 : d * 128 + 128, c * 1024 : c * 1024 + 1024]) for d in range(k // 128)]
                for i in range(8):
                    done = sbuf(128, 1024)
                    for h in range(2):
                        product = psum(128, 512)
                        for d, tile in enumerate(tiles[i]):
                            nisa.nc_matmul(product, tile, weights[d][:, h * 512 : h * 512 + 512])
                        nisa.tensor_copy(done[:, h * 512 : h * 512 + 512], product)
                    store(result[(g * 8 + i) * 128 : (g * 8 + i + 1) * 128, c * 1024 : c * 1024 + 1024], done)
        return result

    return norm_matmul_kernel, (Spec((m, k), "float32"), Spec((k, n), "float32"))


@builder
def gated_mlp(m: int, k: int, n: int) -> Any:
    """(silu(x Wg) * (x Wu)) Wd: gate and up with transposed blocks of x, the product through HBM, then down."""

    def gated_mlp_kernel(x, up, down, gate):
        result = out(m, k)
        middle = out(n // 128, m // 512, 128, 512)
        zero = sbuf(128, 1)
        nisa.memset(zero, 0.0)
        gates: dict[tuple[int, int, int], Any] = {}
        for weights, is_gate in ((gate, True), (up, False)):
            for c in range(n // 1024):
                columns = [load(weights[d * 128 : d * 128 + 128, c * 1024 : c * 1024 + 1024]) for d in range(k // 128)]
                for b in range(m // 512):
                    turned = sbuf(128, k // 128, 512)
                    for r in range(4):
                        row = load(x[b * 512 + r * 128 : b * 512 + r * 128 + 128])
                        for d in range(k // 128):
                            transpose(row[:, d * 128 : d * 128 + 128], turned[:, d, r * 128 : r * 128 + 128])
                    for p in range(8):
                        product = psum(128, 512)
                        for d in range(k // 128):
                            nisa.nc_matmul(product, columns[d][:, p * 128 : p * 128 + 128], turned[:, d])
                        if is_gate:
                            kept = gates[c, b, p] = out(128, 512)
                            tile = sbuf(128, 512)
                            nisa.tensor_copy(tile, product)
                            store(kept, tile)
                            continue
                        g = load(gates[c, b, p])
                        power, one, inverse, silu, done = (sbuf(128, 512) for _ in range(5))
                        nisa.activation(power, nl.exp, g, bias=zero, scale=-1.0)
                        nisa.tensor_scalar(one, power, nl.add, 1.0)
                        nisa.reciprocal(inverse, one)
                        nisa.tensor_tensor(silu, g, inverse, nl.multiply)
                        nisa.tensor_tensor(done, silu, product, nl.multiply)
                        store(middle[c * 8 + p, b], done)
        tiles_down = [load(down[d * 128 : d * 128 + 128]) for d in range(n // 128)]
        for b in range(m // 512):
            columns = [load(middle[d, b]) for d in range(n // 128)]
            for r in range(4):
                done = sbuf(128, k)
                for h in range(k // 512):
                    product = psum(128, 512)
                    for d in range(n // 128):
                        nisa.nc_matmul(
                            product, columns[d][:, r * 128 : r * 128 + 128], tiles_down[d][:, h * 512 : h * 512 + 512]
                        )
                    nisa.tensor_copy(done[:, h * 512 : h * 512 + 512], product)
                store(result[b * 512 + r * 128 : b * 512 + r * 128 + 128], done)
        return result

    return gated_mlp_kernel, (
        Spec((m, k), "float32"),
        Spec((k, n), "float32"),
        Spec((n, k), "float32"),
        Spec((k, n), "float32"),
    )
