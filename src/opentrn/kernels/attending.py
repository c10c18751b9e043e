"""Attention, forward: a block of 128 queries at a time, its scores against every visible key kept in SBUF."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn import nki
from opentrn.errors import ValidationError
from opentrn.kernels.operands import PARTITIONS, chunk, contraction_major, num_blocks, transpose_tile
from opentrn.nki.language import NkiTensor

__all__ = ["attention"]

_WIDE = 512
_LOWEST = -3.0e38


@nki.jit
def attention(query: Any, key: Any, value: Any, *, scale: float | None = None, causal: bool = False) -> Any:
    """``softmax(scale * query @ key.T) @ value`` for every head.

    Args:
        query: (batch, heads, queries, head_dim).
        key, value: (batch, key_heads, keys, head_dim); heads is a multiple of key_heads.
        scale: 1 / sqrt(head_dim) by default.
        causal: query i sees keys up to i + keys - queries.

    Returns:
        The shape and type of ``query``; float32, bfloat16 or float16, head_dim up to 512.

    Raises:
        ValidationError: the scores of 128 queries against all keys do not fit into SBUF, or a causal query sees no key.
    """
    batch, heads, queries, head_dim = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    if heads % key_heads:
        raise ValidationError(f"attention: {heads} heads are no multiple of {key_heads} key heads")
    if causal and queries > keys:
        raise ValidationError(f"attention: {queries} causal queries on {keys} keys; the first ones would see none")
    if scale is not None and scale < 0:
        raise ValidationError(f"attention: scale is {scale}; it must not be negative, change the sign of the queries")
    if head_dim > _WIDE:
        raise ValidationError(f"attention: head_dim is {head_dim}; it must not exceed {_WIDE}")
    limit = nl.tile_size.total_available_sbuf_size // 24
    if keys > limit:
        raise ValidationError(f"attention: {keys} keys; scores of {limit} fit into SBUF, split the keys")
    out = nl.ndarray(query.shape, dtype=query.dtype, buffer=nl.shared_hbm)
    factor = head_dim**-0.5 if scale is None else scale
    for b in range(batch):
        for h in range(key_heads):
            keys_t, values = contraction_major(key[b, h].permute((1, 0))), contraction_major(value[b, h])
            for g in range(h * heads // key_heads, (h + 1) * heads // key_heads):
                for first in range(0, queries, PARTITIONS):
                    last = min(first + PARTITIONS, queries)
                    _block(out[b, g], query[b, g], keys_t, values, first, last, keys, factor, causal)
    return out


def _block(
    out: NkiTensor, query: NkiTensor, keys_t: NkiTensor, values: NkiTensor, first: int, last: int, keys: int, factor: float,
    causal: bool,
) -> None:  # fmt: skip
    count, head_dim = last - first, query.shape[1]
    offset = keys - query.shape[0]
    visible = last + offset if causal else keys
    queries_t = contraction_major(query[first:last, :].permute((1, 0)))
    scores = nl.ndarray((count, visible), dtype=nl.float32, buffer=nl.sbuf)
    chunks = num_blocks(head_dim, PARTITIONS)
    for start in range(0, visible, _WIDE):
        end = min(start + _WIDE, visible)
        total = nl.ndarray((count, end - start), dtype=nl.float32, buffer=nl.psum)
        for c in range(chunks):
            nisa.nc_matmul(
                dst=total, stationary=chunk(queries_t, c, head_dim, 0, count), moving=chunk(keys_t, c, head_dim, start, end),
                accumulate=c > 0,
            )  # fmt: skip
        tile = scores[:, start:end]
        nisa.tensor_copy(dst=tile, src=total)
        if causal and end - 1 > first + offset:
            nisa.affine_select(
                dst=tile, pattern=[[-1, end - start]], channel_multiplier=1, offset=first + offset - start,
                on_true_tile=tile, on_false_value=_LOWEST, cmp_op=nl.greater_equal,
            )  # fmt: skip
    shift = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    normal = nl.ndarray((count, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=shift, op=nl.maximum, data=scores, axis=1)
    nisa.tensor_scalar(dst=shift, data=shift, op0=nl.multiply, operand0=-factor)
    weights = nl.ndarray((count, visible), dtype=values.dtype, buffer=nl.sbuf)
    nisa.activation_reduce(
        dst=weights, op=nl.exp, data=scores, bias=shift, scale=factor, reduce_op=nl.add, reduce_res=normal
    )  # fmt: skip
    nisa.reciprocal(dst=normal, data=normal)
    result = nl.ndarray((count, head_dim), dtype=nl.float32, buffer=nl.psum)
    for c in range(num_blocks(visible, PARTITIONS)):
        start, end = c * PARTITIONS, min((c + 1) * PARTITIONS, visible)
        turned = nl.ndarray((end - start, 1, count), dtype=values.dtype, buffer=nl.sbuf)
        transpose_tile(turned, weights[:, start:end])
        nisa.nc_matmul(dst=result, stationary=turned[:, 0, :], moving=values[0 : end - start, c, :], accumulate=c > 0)
    tile = nl.ndarray((count, head_dim), dtype=out.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(dst=tile, data=result, op0=nl.multiply, operand0=normal)
    nisa.dma_copy(dst=out[first:last, :], src=tile)
