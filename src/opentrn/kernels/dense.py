"""Matrix products with the epilogue of a linear layer, and batches of them.

One operand's block stays in SBUF while the other's blocks stream past it; the block sizes are those that move the
fewest
bytes between HBM and SBUF. Contractions too long for SBUF are split, with partial sums in float32 in SBUF.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn import nki
from opentrn.errors import ValidationError
from opentrn.kernels.operands import PARTITIONS, broadcast_rows, chunk, contraction_major, num_blocks
from opentrn.nki.language import NkiTensor

__all__ = ["bmm", "choose_blocks", "matmul", "product"]

_WIDE = 512
_SIZES = (128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Blocks:
    """Elements of a block of the output (``m`` x ``n``) and of the contraction (``k``).

    ``hold_rhs`` says which operand's block stays in SBUF while the other streams.
    """

    m: int
    n: int
    k: int
    hold_rhs: bool


@lru_cache(maxsize=4096)
def choose_blocks(m: int, n: int, k: int, itemsize: int, budget_bytes: int) -> Blocks:
    """The blocks with the least traffic for an (m, k) x (k, n) product in ``budget_bytes`` a partition of SBUF."""
    best, least = None, float("inf")
    depths = sorted({k, *(d for d in (16384, 8192, 4096, 2048, 1024) if d < k)}, reverse=True)
    for depth in depths:
        chunks = num_blocks(depth, PARTITIONS)
        for bm in sorted({min(s, m) for s in _SIZES}):
            for bn in sorted({min(s, n) for s in _SIZES}):
                for hold_rhs in (True, False):
                    held, streamed = (bn, bm) if hold_rhs else (bm, bn)
                    copies = 1 if held == (n if hold_rhs else m) and depth == k else 2
                    stages = 2 if streamed < (m if hold_rhs else n) or depth < k else 1
                    tiles = num_blocks(bm, PARTITIONS)
                    needed = chunks * itemsize * (held * (copies if held <= 1024 else 1) + stages * streamed)
                    needed += 4 * bn * 4 + (4 * tiles * bn if depth < k else 0)
                    if needed > budget_bytes:
                        continue
                    traffic = m * k * (num_blocks(n, bn) if hold_rhs or depth < k else 1)
                    traffic += n * k * (num_blocks(m, bm) if not hold_rhs or depth < k else 1)
                    # Of equal traffic take wide stores, then streamed blocks of moderate size, which start sooner.
                    score = traffic * (1.0 + (0.02 if bn < min(n, _WIDE) else 0.0)) + streamed * chunks
                    if score < least:
                        best, least = Blocks(bm, bn, depth, hold_rhs), score
    if best is None:
        best = Blocks(min(128, m), min(512, n), min(1024, k), True)
    return best


@nki.jit
def matmul(
    lhs: Any,
    rhs: Any,
    *,
    transpose_lhs: bool = False,
    transpose_rhs: bool = False,
    bias: Any = None,
    activation: Any = None,
    residual: Any = None,
    out_dtype: Any = None,
) -> Any:
    """``activation(lhs @ rhs + bias) + residual``, accumulated in float32.

    Args:
        lhs: (M, K), or (K, M) with ``transpose_lhs``, which needs no transpose on the way in.
        rhs: (K, N), or (N, K) with ``transpose_rhs`` (how PyTorch stores the weight of a linear layer).
        bias: (N,), added before the activation.
        activation: a function of the Scalar engine such as ``nl.gelu`` or ``"silu"``.
        residual: (M, N), added last.
        out_dtype: type of the result; that of ``lhs`` by default.

    Returns:
        (M, N). Operands are float32, bfloat16 or float16, both of one width.
    """
    m = lhs.shape[1 if transpose_lhs else 0]
    n = rhs.shape[0 if transpose_rhs else 1]
    out = nl.ndarray((m, n), dtype=out_dtype or lhs.dtype, buffer=nl.shared_hbm)
    left = lhs if transpose_lhs else lhs.permute((1, 0))
    right = rhs.permute((1, 0)) if transpose_rhs else rhs
    product(out, left, right, bias=bias, activation=activation, residual=residual)
    return out


@nki.jit
def bmm(
    lhs: Any,
    rhs: Any,
    *,
    transpose_lhs: bool = False,
    transpose_rhs: bool = False,
    residual: Any = None,
    out_dtype: Any = None,
) -> Any:
    """``lhs[b] @ rhs[b] + residual[b]`` for every b.

    Args:
        lhs: (B, M, K), or (B, K, M) with ``transpose_lhs``.
        rhs: (B, K, N), or (B, N, K) with ``transpose_rhs``.
        residual: (B, M, N), added last.

    Returns:
        (B, M, N) in ``out_dtype``, by default the type of ``lhs``.
    """
    m = lhs.shape[2 if transpose_lhs else 1]
    n = rhs.shape[1 if transpose_rhs else 2]
    if lhs.shape[0] != rhs.shape[0]:
        raise ValidationError(f"bmm: lhs has {lhs.shape[0]} matrices and rhs {rhs.shape[0]}; they must agree")
    out = nl.ndarray((lhs.shape[0], m, n), dtype=out_dtype or lhs.dtype, buffer=nl.shared_hbm)
    for b in range(lhs.shape[0]):
        left = lhs[b] if transpose_lhs else lhs[b].permute((1, 0))
        right = rhs[b].permute((1, 0)) if transpose_rhs else rhs[b]
        product(out[b], left, right, residual=None if residual is None else residual[b])
    return out


def product(
    out: NkiTensor,
    left: NkiTensor,
    right: NkiTensor,
    *,
    bias: NkiTensor | None = None,
    activation: Any = None,
    residual: NkiTensor | None = None,
) -> None:
    """Write ``activation(left.T @ right + bias) + residual`` to ``out``; views of HBM, left (K, M), right (K, N)."""
    (k, m), n = left.shape, right.shape[1]
    if right.shape[0] != k:
        raise ValidationError(f"matmul: the contraction is {k} in lhs and {right.shape[0]} in rhs; they must agree")
    reserved = 4 * n if bias is not None else 0
    itemsize = max(left.dtype.itemsize, right.dtype.itemsize)
    blocks = choose_blocks(m, n, k, itemsize, int(nl.tile_size.total_available_sbuf_size * 0.9) - reserved - 16384)
    kind = right.dtype if right.dtype.itemsize >= left.dtype.itemsize else left.dtype
    wide_bias = None if bias is None else broadcast_rows(bias, min(PARTITIONS, m), nl.float32)
    split = blocks.k < k
    outer, inner = (n, m) if blocks.hold_rhs else (m, n)
    outer_step, inner_step = (blocks.n, blocks.m) if blocks.hold_rhs else (blocks.m, blocks.n)
    for o in range(0, outer, outer_step):
        o_end = min(o + outer_step, outer)
        held = None
        for i in range(0, inner, inner_step):
            i_end = min(i + inner_step, inner)
            (m0, m1), (n0, n1) = ((i, i_end), (o, o_end)) if blocks.hold_rhs else ((o, o_end), (i, i_end))
            sums = None
            if split:
                sums = nl.ndarray(
                    (PARTITIONS, num_blocks(m1 - m0, PARTITIONS), n1 - n0), dtype=nl.float32, buffer=nl.sbuf
                )
            for k0 in range(0, k, blocks.k):
                k1 = min(k0 + blocks.k, k)
                if split or held is None:
                    held = _load(right[k0:k1, n0:n1] if blocks.hold_rhs else left[k0:k1, m0:m1], kind)
                moved = _load(left[k0:k1, m0:m1] if blocks.hold_rhs else right[k0:k1, n0:n1], kind)
                stationary, moving = (moved, held) if blocks.hold_rhs else (held, moved)
                _block(
                    out[m0:m1, n0:n1],
                    stationary,
                    moving,
                    k1 - k0,
                    sums,
                    first=k0 == 0,
                    last=k1 == k,
                    bias=None if wide_bias is None else wide_bias[:, n0:n1],
                    activation=activation,
                    residual=None if residual is None else residual[m0:m1, n0:n1],
                )


def _load(view: NkiTensor, kind: Any) -> list[NkiTensor]:
    """A block in pieces of up to 512 columns, so that the first products need not wait for all of it."""
    columns = view.shape[1]
    return [contraction_major(view[:, c : min(c + _WIDE, columns)], kind) for c in range(0, columns, _WIDE)]


def _block(
    out: NkiTensor,
    stationary: list[NkiTensor],
    moving: list[NkiTensor],
    depth: int,
    sums: NkiTensor | None,
    *,
    first: bool,
    last: bool,
    bias: NkiTensor | None,
    activation: Any,
    residual: NkiTensor | None,
) -> None:
    """One block of the output, from operands that are in SBUF."""
    m, n = out.shape
    chunks = num_blocks(depth, PARTITIONS)
    for row in range(0, m, PARTITIONS):
        rows = min(PARTITIONS, m - row)
        line = nl.ndarray((rows, n), dtype=out.dtype, buffer=nl.sbuf) if last else None
        added = None
        if last and residual is not None:
            added = nl.ndarray((rows, n), dtype=residual.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=added, src=residual[row : row + rows, :])
        for column in range(0, n, _WIDE):
            columns = min(_WIDE, n - column)
            total = nl.ndarray((rows, columns), dtype=nl.float32, buffer=nl.psum)
            left, right = stationary[row // _WIDE], moving[column // _WIDE]
            at = row % _WIDE
            for c in range(chunks):
                nisa.nc_matmul(
                    dst=total,
                    stationary=chunk(left, c, depth, at, at + rows),
                    moving=chunk(right, c, depth, 0, columns),
                    accumulate=c > 0,
                )
            value = total
            if sums is not None:
                partial = sums[0:rows, row // PARTITIONS, column : column + columns]
                if first:
                    nisa.tensor_copy(dst=partial, src=total)
                else:
                    nisa.tensor_tensor(dst=partial, data1=total, data2=partial, op=nl.add)
                value = partial
            if line is None:
                continue
            _finish(
                line[:, column : column + columns],
                value,
                None if bias is None else bias[0:rows, column : column + columns],
                activation,
                None if added is None else added[:, column : column + columns],
            )
        if line is not None:
            nisa.dma_copy(dst=out[row : row + rows, :], src=line)


def _finish(
    target: NkiTensor, value: NkiTensor, bias: NkiTensor | None, activation: Any, residual: NkiTensor | None
) -> None:
    """``activation(value + bias) + residual`` into ``target``, rounded once."""
    plain = bias is None and activation is None and residual is None
    if plain:
        nisa.tensor_copy(dst=target, src=value)
        return
    work = nl.ndarray(value.shape, dtype=nl.float32, buffer=nl.sbuf) if value.dtype is not target.dtype else target
    if bias is not None:
        end = target if activation is None and residual is None else work
        nisa.tensor_tensor(dst=end, data1=value, data2=bias, op=nl.add)
        value = work
    if activation is not None:
        end = target if residual is None else work
        nisa.activation(dst=end, op=activation, data=value)
        value = work
    if residual is not None:
        nisa.tensor_tensor(dst=target, data1=value, data2=residual, op=nl.add)
