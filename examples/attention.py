"""Causal flash attention in NKI, checked against the plain formula.

    trn run examples/attention.py                          # the numbers
    trn profile examples/attention.py --chip trn2          # the time

Queries and keys arrive with the head dimension on partitions, as a projection that writes them for the Tensor engine leaves
them. Each block of 128 queries sees the keys up to its own position; scores of the whole row stay in SBUF, so that one
maximum and one exponential a row serve all of its keys.
"""

from __future__ import annotations

import sys

import ml_dtypes
import nki.isa as nisa
import nki.language as nl
import numpy as np

import nki

Q_TILE = 128
K_TILE = 512


@nki.jit
def attention(q_t, k_t, v, scale=1.0, causal=True):
    """softmax(scale * q @ k.T) @ v.

    Args:
        q_t, k_t: (head_dim, sequence), head_dim <= 128, sequence a multiple of 512.
        v: (sequence, head_dim).

    Returns:
        (sequence, head_dim) in the type of ``v``.
    """
    head_dim, length = q_t.shape
    out = nl.ndarray((length, head_dim), dtype=v.dtype, buffer=nl.shared_hbm)

    # Keys and values are used by every block of queries: load them once.
    keys = nl.ndarray((head_dim, length), dtype=k_t.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=keys, src=k_t)
    num_chunks = length // 128
    values = nl.ndarray((128, num_chunks, head_dim), dtype=v.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=values, src=v.reshape((num_chunks, 128, head_dim)).permute((1, 0, 2)))

    for block in range(length // Q_TILE):
        first = block * Q_TILE
        visible = first + Q_TILE if causal else length
        num_blocks = (visible + K_TILE - 1) // K_TILE
        width = num_blocks * K_TILE

        queries = nl.ndarray((head_dim, Q_TILE), dtype=q_t.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=queries, src=q_t[:, first : first + Q_TILE])

        scores = nl.ndarray((Q_TILE, width), dtype=nl.float32, buffer=nl.sbuf)
        maxima = nl.ndarray((Q_TILE, num_blocks), dtype=nl.float32, buffer=nl.sbuf)
        for k in range(num_blocks):
            start = k * K_TILE
            product = nl.ndarray((Q_TILE, K_TILE), dtype=nl.float32, buffer=nl.psum)
            nisa.nc_matmul(dst=product, stationary=queries, moving=keys[:, start : start + K_TILE])
            tile = scores[:, start : start + K_TILE]
            nisa.tensor_copy(dst=tile, src=product)
            if causal and start + K_TILE > first:
                # Key position start + j is visible to query first + p when first + p - start - j >= 0.
                nisa.affine_select(
                    dst=tile, pattern=[[-1, K_TILE]], channel_multiplier=1, offset=first - start,
                    on_true_tile=tile, on_false_value=-3.0e38, cmp_op=nl.greater_equal,
                )  # fmt: skip
            nisa.tensor_reduce(dst=maxima[:, k : k + 1], op=nl.maximum, data=tile, axis=1)

        # exp(scale * score - scale * max), and the sum of each row, in one instruction.
        shift = nl.ndarray((Q_TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.tensor_reduce(dst=shift, op=nl.maximum, data=maxima, axis=1)
        nisa.tensor_scalar(dst=shift, data=shift, op0=nl.multiply, operand0=-scale)
        weights = nl.ndarray((Q_TILE, width), dtype=v.dtype, buffer=nl.sbuf)
        total = nl.ndarray((Q_TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation_reduce(
            dst=weights, op=nl.exp, data=scores, bias=shift, scale=scale, reduce_op=nl.add, reduce_res=total
        )

        # The second product contracts over keys, so the weights go through the array transposed.
        result = nl.ndarray((Q_TILE, head_dim), dtype=nl.float32, buffer=nl.psum)
        used = (visible + 127) // 128
        for group in range(0, used, 4):
            count = min(4, used - group)
            turned = nl.ndarray((128, count, Q_TILE), dtype=v.dtype, buffer=nl.psum)
            for c in range(count):
                chunk = (group + c) * 128
                nisa.nc_transpose(dst=turned[:, c, :], data=weights[:, chunk : chunk + 128])
            weights_t = nl.ndarray((128, count, Q_TILE), dtype=v.dtype, buffer=nl.sbuf)
            nisa.tensor_copy(dst=weights_t, src=turned)
            for c in range(count):
                nisa.nc_matmul(
                    dst=result, stationary=weights_t[:, c, :], moving=values[:, group + c, :], accumulate=group + c > 0
                )

        inverse = nl.ndarray((Q_TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.reciprocal(dst=inverse, data=total)
        normal = nl.ndarray((Q_TILE, head_dim), dtype=v.dtype, buffer=nl.sbuf)
        nisa.tensor_scalar(dst=normal, data=result, op0=nl.multiply, operand0=inverse)
        nisa.dma_copy(dst=out[first : first + Q_TILE, :], src=normal)
    return out


def reference(q_t, k_t, v, scale, causal=True):
    """The same in float64, without tiles."""
    scores = scale * (q_t.astype(np.float64).T @ k_t.astype(np.float64))
    if causal:
        scores[np.triu_indices(scores.shape[0], 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)) @ v.astype(np.float64)


def main(length: int = 1024, head_dim: int = 128) -> None:
    rng = np.random.default_rng(0)
    q_t, k_t = (rng.standard_normal((head_dim, length)).astype(ml_dtypes.bfloat16) for _ in range(2))
    v = rng.standard_normal((length, head_dim)).astype(ml_dtypes.bfloat16)
    scale = head_dim**-0.5
    result = attention(q_t, k_t, v, scale=scale)
    error = np.abs(result.astype(np.float64) - reference(q_t, k_t, v, scale)).max()
    print(f"causal attention, {length} x {head_dim} in bfloat16: largest difference from float64 is {error:.4f}")
    if not error < 0.02:
        raise SystemExit("the kernel does not match its reference")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
