"""X @ W + bias, GELU: in one kernel or in two, with the activation of the Scalar engine or a polynomial on Vector."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import accumulate, load, out, psum, rows_of_one, sbuf, store


def _product_with_bias(x_t: Any, w: Any, bias: Any, m: int, n: int, dtype: Any) -> Any:
    depth = x_t.shape[0]
    rows, columns = slice(m * 128, m * 128 + 128), slice(n * 512, n * 512 + 512)
    product = psum(128, 512)
    accumulate(
        product,
        (
            (load(x_t[k * 128 : k * 128 + 128, rows]), load(w[k * 128 : k * 128 + 128, columns]))
            for k in range(depth // 128)
        ),
    )
    tile = sbuf(128, 512, dtype=dtype)
    nisa.tensor_copy(tile, product)
    wide = rows_of_one(load(bias[0:1, columns]), 512, dtype)
    summed = sbuf(128, 512, dtype=dtype)
    nisa.tensor_tensor(summed, tile, wide, nl.add)
    return summed


def _gelu(tile: Any, dtype: Any) -> Any:
    done = sbuf(128, 512, dtype=dtype)
    nisa.activation(done, nl.gelu, tile)
    return done


def _gelu_by_sigmoid(x: Any, dtype: Any) -> Any:
    """0.5 x (1 + tanh(c (x + a x^3))) with tanh(z) = 2 sigmoid(2z) - 1, step by step as written."""

    def tile() -> Any:
        return sbuf(128, 512, dtype=dtype)

    square, cube, scaled, inner, z, gate, tanh, half, one, done = (tile() for _ in range(10))
    nisa.tensor_tensor(square, x, x, nl.multiply)
    nisa.tensor_tensor(cube, square, x, nl.multiply)
    nisa.tensor_scalar(scaled, cube, nl.multiply, 0.044715)
    nisa.tensor_tensor(inner, x, scaled, nl.add)
    nisa.tensor_scalar(z, inner, nl.multiply, 0.7978845608)
    nisa.activation(gate, nl.sigmoid, z, scale=2.0)
    nisa.tensor_scalar(tanh, gate, nl.multiply, 2.0, op1=nl.subtract, operand1=1.0)
    nisa.tensor_scalar(half, x, nl.multiply, 0.5)
    nisa.tensor_scalar(one, tanh, nl.add, 1.0)
    nisa.tensor_tensor(done, half, one, nl.multiply)
    return done


def _arguments(m: int, k: int, n: int, dtype: str) -> tuple[Spec, ...]:
    return Spec((k, m), dtype), Spec((k, n), dtype), Spec((1, n), dtype)


@builder
def mlp_fused(m: int, k: int, n: int, dtype: str) -> Any:
    """GELU while the tile is on chip, on the Scalar engine."""

    def mlp_fused_kernel(x_t, w, bias):
        result = out(x_t.shape[1], w.shape[1], dtype=x_t.dtype)
        for i in range(x_t.shape[1] // 128):
            for j in range(w.shape[1] // 512):
                tile = _gelu(_product_with_bias(x_t, w, bias, i, j, x_t.dtype), x_t.dtype)
                store(result[i * 128 : i * 128 + 128, j * 512 : j * 512 + 512], tile)
        return result

    return mlp_fused_kernel, _arguments(m, k, n, dtype)


@builder
def mlp_fused_polynomial(m: int, k: int, n: int, dtype: str) -> Any:
    """GELU from elementary operations while the tile is on chip."""

    def mlp_polynomial_kernel(x_t, w, bias):
        result = out(x_t.shape[1], w.shape[1], dtype=x_t.dtype)
        for i in range(x_t.shape[1] // 128):
            for j in range(w.shape[1] // 512):
                tile = _gelu_by_sigmoid(_product_with_bias(x_t, w, bias, i, j, x_t.dtype), x_t.dtype)
                store(result[i * 128 : i * 128 + 128, j * 512 : j * 512 + 512], tile)
        return result

    return mlp_polynomial_kernel, _arguments(m, k, n, dtype)


@builder
def mlp_gemm(m: int, k: int, n: int, dtype: str) -> Any:
    """The first of two kernels: the product and the bias."""

    def mlp_gemm_kernel(x_t, w, bias):
        result = out(x_t.shape[1], w.shape[1], dtype=x_t.dtype)
        for i in range(x_t.shape[1] // 128):
            for j in range(w.shape[1] // 512):
                tile = _product_with_bias(x_t, w, bias, i, j, x_t.dtype)
                store(result[i * 128 : i * 128 + 128, j * 512 : j * 512 + 512], tile)
        return result

    return mlp_gemm_kernel, _arguments(m, k, n, dtype)


@builder
def mlp_gelu(m: int, k: int, n: int, dtype: str) -> Any:
    """The second of two kernels: GELU of a matrix in HBM."""

    def mlp_gelu_kernel(y):
        result = out(*y.shape, dtype=y.dtype)
        for i in range(y.shape[0] // 128):
            for j in range(y.shape[1] // 512):
                where = (slice(i * 128, i * 128 + 128), slice(j * 512, j * 512 + 512))
                store(result[where], _gelu(load(y[where]), y.dtype))
        return result

    return mlp_gelu_kernel, (Spec((m, n), dtype),)
