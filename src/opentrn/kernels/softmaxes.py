"""Softmax and log-softmax over the last dimension, and their gradients."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn import nki
from opentrn.kernels.row_tiles import as_rows, load, row_blocks, scratch

__all__ = ["log_softmax", "log_softmax_backward", "softmax", "softmax_backward"]


def _exponentials(x: Any) -> tuple[Any, Any, Any]:
    """exp(x - max) of a tile, its sum a row, and -max."""
    height, width = x.shape
    shift, total, powers = scratch(height), scratch(height), scratch(height, width)
    nisa.tensor_reduce(dst=shift, op=nl.maximum, data=x, axis=1, negate=True)
    nisa.activation_reduce(dst=powers, op=nl.exp, data=x, bias=shift, reduce_op=nl.add, reduce_res=total)
    return powers, total, shift


@nki.jit
def softmax(x: Any) -> Any:
    """Softmax over the last dimension of ``x`` (..., columns), computed in float32; float32, bfloat16 or float16."""
    rows = as_rows(x, "softmax", 4)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    flat = out.reshape(rows.shape)
    for first, last in row_blocks(rows.shape[0]):
        powers, total, _ = _exponentials(load(rows, first, last))
        nisa.reciprocal(dst=total, data=total)
        result = nl.ndarray(powers.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=result, data=powers, op0=nl.multiply, operand0=total)
        nisa.dma_copy(dst=flat[first:last, :], src=result)
    return out


@nki.jit
def log_softmax(x: Any) -> Any:
    """Logarithm of the softmax over the last dimension of ``x`` (..., columns), computed in float32."""
    rows = as_rows(x, "log_softmax", 4)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    flat = out.reshape(rows.shape)
    for first, last in row_blocks(rows.shape[0]):
        tile = load(rows, first, last)
        _, total, shift = _exponentials(tile)
        nisa.activation(dst=total, op=nl.log, data=total)
        result = nl.ndarray(tile.shape, dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(
            dst=result, data=tile, op0=nl.add, operand0=shift, op1=nl.subtract, operand1=total
        )  # fmt: skip
        nisa.dma_copy(dst=flat[first:last, :], src=result)
    return out


@nki.jit
def softmax_backward(gradient: Any, result: Any) -> Any:
    """Gradient of :func:`softmax` with respect to its input: ``y * (g - sum(g * y))``; both (..., columns), one type."""
    rows, results = as_rows(gradient, "softmax_backward", 5), as_rows(result, "softmax_backward", 5)
    out = nl.ndarray(gradient.shape, dtype=gradient.dtype, buffer=nl.shared_hbm)
    flat = out.reshape(rows.shape)
    for first, last in row_blocks(rows.shape[0]):
        g, y = load(rows, first, last), load(results, first, last)
        weighted, total = scratch(*g.shape), scratch(g.shape[0])
        nisa.tensor_tensor(dst=weighted, data1=g, data2=y, op=nl.multiply)
        nisa.tensor_reduce(dst=total, op=nl.add, data=weighted, axis=1)
        moved = nl.ndarray(g.shape, dtype=gradient.dtype, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=moved, data=g, op0=nl.subtract, operand0=total, op1=nl.multiply, operand1=y
        )  # fmt: skip
        nisa.dma_copy(dst=flat[first:last, :], src=moved)
    return out


@nki.jit
def log_softmax_backward(gradient: Any, result: Any) -> Any:
    """Gradient of :func:`log_softmax` with respect to its input: ``g - exp(y) * sum(g)``; both (..., columns), one type."""
    rows, results = as_rows(gradient, "log_softmax_backward", 5), as_rows(result, "log_softmax_backward", 5)
    out = nl.ndarray(gradient.shape, dtype=gradient.dtype, buffer=nl.shared_hbm)
    flat = out.reshape(rows.shape)
    for first, last in row_blocks(rows.shape[0]):
        g, y = load(rows, first, last), load(results, first, last)
        powers, total = scratch(*g.shape), scratch(g.shape[0])
        nisa.activation(dst=powers, op=nl.exp, data=y)
        nisa.tensor_reduce(dst=total, op=nl.add, data=g, axis=1)
        moved = nl.ndarray(g.shape, dtype=gradient.dtype, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=moved, data=powers, op0=nl.multiply, operand0=total, op1=nl.subtract, operand1=g, reverse1=True
        )  # fmt: skip
        nisa.dma_copy(dst=flat[first:last, :], src=moved)
    return out
