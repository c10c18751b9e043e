"""softmax(Q^T K) V^T of one head, with the scores kept on chip or sent through HBM between its three phases."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import load, out, psum, sbuf, store, transpose


def _scores(q: Any, k: Any, i: int) -> Any:
    """128 rows of Q^T K, in SBUF."""
    length = q.shape[1]
    rows = sbuf(128, length)
    for j in range(length // 512):
        part = psum(128, 512)
        nisa.nc_matmul(part, q[:, i * 128 : i * 128 + 128], k[:, j * 512 : j * 512 + 512])
        nisa.tensor_copy(rows[:, j * 512 : j * 512 + 512], part)
    return rows


def _exponentials(rows: Any) -> tuple[Any, Any]:
    """exp(rows - their maximum), and the reciprocal of each row's sum."""
    length = rows.shape[1]
    parts = length // 512
    maxima, negative = sbuf(128, parts), sbuf(128, 1)
    for j in range(parts):
        nisa.tensor_reduce(maxima[:, j : j + 1], nl.maximum, rows[:, j * 512 : j * 512 + 512], axis=1)
    nisa.tensor_reduce(negative, nl.maximum, maxima, axis=1, negate=True)
    powers, sums = sbuf(128, length), sbuf(128, parts)
    for j in range(parts):
        part = powers[:, j * 512 : j * 512 + 512]
        nisa.activation(part, nl.exp, rows[:, j * 512 : j * 512 + 512], bias=negative, scale=1.0)
        nisa.tensor_reduce(sums[:, j : j + 1], nl.add, part, axis=1)
    total, inverse = sbuf(128, 1), sbuf(128, 1)
    nisa.tensor_reduce(total, nl.add, sums, axis=1)
    nisa.reciprocal(inverse, total)
    return powers, inverse


def _transposed_tiles(matrix: Any) -> Any:
    """The 128-column tiles of ``matrix``, each transposed, as (128, tiles, 128)."""
    tiles = matrix.shape[1] // 128
    turned = sbuf(128, tiles, 128)
    for j in range(tiles):
        transpose(matrix[:, j * 128 : j * 128 + 128], turned[:, j])
    return turned


def _weighted(weights: Any, v_t: Any) -> Any:
    """Sum over the keys of weights times values, in PSUM."""
    turned = _transposed_tiles(weights)
    total = psum(128, 128)
    for j in range(v_t.shape[1]):
        nisa.nc_matmul(total, turned[:, j], v_t[:, j])
    return total


def _heads(length: int, dtype: str) -> tuple[Spec, ...]:
    return tuple(Spec((128, length), dtype) for _ in range(3))


@builder
def attention_fused(seqlen: int, dtype: str) -> Any:
    """All three phases of a tile of queries before the next; the division comes last."""

    def attention_fused_kernel(q_ref, k_ref, v_ref):
        length = q_ref.shape[1]
        result = out(length, 128, dtype=q_ref.dtype)
        q, k, v = load(q_ref), load(k_ref), load(v_ref)
        v_t = _transposed_tiles(v)
        for i in range(length // 128):
            powers, inverse = _exponentials(_scores(q, k, i))
            total = _weighted(powers, v_t)
            done = sbuf(128, 128, dtype=q_ref.dtype)
            nisa.tensor_scalar(done, total, nl.multiply, inverse)
            store(result[i * 128 : i * 128 + 128, :], done)
        return result

    return attention_fused_kernel, _heads(seqlen, dtype)


@builder
def attention_three_phases(seqlen: int, dtype: str) -> Any:
    """Scores, softmax and weighted sum one after the other, through HBM."""

    def attention_phases_kernel(q_ref, k_ref, v_ref):
        length = q_ref.shape[1]
        tiles = length // 128
        result = out(length, 128, dtype=q_ref.dtype)
        q, k, v = load(q_ref), load(k_ref), load(v_ref)
        scores = out(tiles, 128, length)
        for i in range(tiles):
            store(scores[i], _scores(q, k, i))
        for i in range(tiles):
            powers, inverse = _exponentials(load(scores[i]))
            weights = sbuf(128, length)
            for j in range(length // 512):
                part = slice(j * 512, j * 512 + 512)
                nisa.tensor_scalar(weights[:, part], powers[:, part], nl.multiply, inverse, engine=nisa.vector_engine)
            store(scores[i], weights)
        v_t = _transposed_tiles(v)
        for i in range(tiles):
            total = _weighted(load(scores[i]), v_t)
            done = sbuf(128, 128, dtype=q_ref.dtype)
            nisa.tensor_copy(done, total)
            store(result[i * 128 : i * 128 + 128, :], done)
        return result

    return attention_phases_kernel, _heads(seqlen, dtype)
