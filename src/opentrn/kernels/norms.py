"""RMS norm and layer norm over the last dimension, statistics in float32."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn import nki
from opentrn.kernels.operands import PARTITIONS, broadcast_rows
from opentrn.kernels.row_tiles import as_rows, load, row_blocks, scratch

__all__ = ["layer_norm", "rms_norm"]


def _inverse_root(mean_square: Any, scale: float, epsilon: float) -> None:
    """In place: ``1 / sqrt(mean_square * scale + epsilon)`` of a column."""
    nisa.tensor_scalar(
        dst=mean_square, data=mean_square, op0=nl.multiply, operand0=scale, op1=nl.add, operand1=epsilon
    )  # fmt: skip
    nisa.activation(dst=mean_square, op=nl.rsqrt, data=mean_square)


@nki.jit
def rms_norm(x: Any, weight: Any = None, *, epsilon: float = 1e-6) -> Any:
    """``x / sqrt(mean(x^2) + epsilon) * weight``; x (..., columns), weight (columns,); float32, bfloat16 or float16."""
    return _normalise(x, weight, None, epsilon, centred=False, name="rms_norm")


@nki.jit
def layer_norm(x: Any, weight: Any = None, bias: Any = None, *, epsilon: float = 1e-5) -> Any:
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias``; x (..., columns), weight and bias (columns,)."""
    return _normalise(x, weight, bias, epsilon, centred=True, name="layer_norm")


def _normalise(x: Any, weight: Any, bias: Any, epsilon: float, *, centred: bool, name: str) -> Any:
    rows = as_rows(x, name, 5)
    num_rows, columns = rows.shape
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    flat = out.reshape(rows.shape)
    height = min(PARTITIONS, num_rows)
    gain = None if weight is None else broadcast_rows(weight, height, nl.float32)
    shift = None if bias is None else broadcast_rows(bias, height, nl.float32)
    for first, last in row_blocks(num_rows):
        tile, count = load(rows, first, last), last - first
        if centred:
            mean, moved = scratch(count), scratch(count, columns)
            nisa.tensor_reduce(dst=mean, op=nl.add, data=tile, axis=1)
            nisa.tensor_scalar(dst=mean, data=mean, op0=nl.multiply, operand0=1.0 / columns)
            nisa.tensor_scalar(dst=moved, data=tile, op0=nl.subtract, operand0=mean)
            tile = moved
        factor, work = scratch(count), scratch(count, columns)
        nisa.activation_reduce(dst=work, op=nl.square, data=tile, reduce_op=nl.add, reduce_res=factor)
        _inverse_root(factor, 1.0 / columns, epsilon)
        result = nl.ndarray((count, columns), dtype=x.dtype, buffer=nl.sbuf)
        if gain is None:
            nisa.tensor_scalar(dst=work if shift is not None else result, data=tile, op0=nl.multiply, operand0=factor)
        else:
            nisa.scalar_tensor_tensor(
                dst=work if shift is not None else result, data=tile, op0=nl.multiply, operand0=factor, op1=nl.multiply,
                operand1=gain[0:count, :],
            )  # fmt: skip
        if shift is not None:
            nisa.tensor_tensor(dst=result, data1=work, data2=shift[0:count, :], op=nl.add)
        nisa.dma_copy(dst=flat[first:last, :], src=result)
    return out
