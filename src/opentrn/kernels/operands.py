"""How kernels bring operands of the Tensor engine on chip: contraction dimension on partitions, in few large transfers.

A contraction of K becomes a tile (128, ceil(K / 128), columns); the last chunk may be partial. :func:`chunk` gives
the part
of one chunk that exists.
"""

from __future__ import annotations

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.language import NkiTensor

__all__ = ["PARTITIONS", "broadcast_rows", "chunk", "contraction_major", "num_blocks", "transpose_tile"]

PARTITIONS = 128


def num_blocks(size: int, block: int) -> int:
    """Blocks that cover ``size``, the last one possibly partial."""
    return -(-size // block)


def chunk(tile: NkiTensor, k: int, size: int, first: int, last: int) -> NkiTensor:
    """Columns ``first`` to ``last`` of contraction chunk ``k`` of a tile that holds ``size`` contracted elements."""
    return tile[0 : min(PARTITIONS, size - k * PARTITIONS), k, first:last]


def contraction_major(view: NkiTensor, dtype: object = None) -> NkiTensor:
    """Load a (K, columns) view of HBM, of any strides, as (128, ceil(K / 128), columns) in SBUF.

    A view whose rows are contiguous is copied. A transposed one (its first dimension contiguous) goes through the
    transposing
    DMA when its elements have 2 bytes, and otherwise through the Tensor engine.
    """
    size, columns = view.shape
    tile = nl.ndarray(
        (min(PARTITIONS, size), num_blocks(size, PARTITIONS), columns), dtype=dtype or view.dtype, buffer=nl.sbuf
    )
    turned = view.strides[0] == 1 and view.strides[1] != 1 and size > 1 and columns > 1
    whole = size // PARTITIONS
    parts = [(0, whole, PARTITIONS)] if whole else []
    if size % PARTITIONS:
        parts.append((whole, whole + 1, size % PARTITIONS))
    for first, last, rows in parts:
        source = view[first * PARTITIONS : first * PARTITIONS + (last - first) * rows, :]
        target = tile[0:rows, first:last, :]
        if not turned:
            nisa.dma_copy(dst=target, src=source.reshape_dim(0, (last - first, rows)).permute((1, 0, 2)))
        elif view.dtype.itemsize == 2 and tile.dtype is view.dtype:
            # (columns, chunks, rows) as it lies in memory, turned to (rows, chunks, columns).
            nisa.dma_transpose(dst=target, src=source.reshape_dim(0, (last - first, rows)).permute((2, 0, 1)))
        else:
            _turn_on_tensor_engine(target, source.permute((1, 0)), rows)
    return tile


def _turn_on_tensor_engine(target: NkiTensor, rows_of: NkiTensor, rows: int) -> None:
    """``target`` (rows, chunks, columns) from ``rows_of`` (columns, chunks * rows) in HBM."""
    num_columns, chunks = rows_of.shape[0], target.shape[1]
    for first in range(0, num_columns, PARTITIONS):
        last = min(first + PARTITIONS, num_columns)
        lines = nl.ndarray((last - first, chunks * rows), dtype=rows_of.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=lines, src=rows_of[first:last, :])
        for c in range(0, chunks, 4):
            count = min(4, chunks - c)
            transpose_tile(target[:, c : c + count, first:last], lines[:, c * rows : (c + count) * rows])


def transpose_tile(target: NkiTensor, data: NkiTensor) -> None:
    """``target`` (r, n, p) in SBUF from ``data`` (p, n * r): each group of r columns turned, evacuated by one copy.

    p, r <= 128 and n * p * 4 bytes at most one bank of PSUM.
    """
    rows, count, columns = target.shape
    turned = nl.ndarray((rows, count, columns), dtype=data.dtype, buffer=nl.psum)
    for c in range(count):
        nisa.nc_transpose(dst=turned[:, c, :], data=data[:, c * rows : (c + 1) * rows])
    nisa.tensor_copy(dst=target, src=turned)


def broadcast_rows(vector: NkiTensor, rows: int = PARTITIONS, dtype: object = None) -> NkiTensor:
    """A (n,) vector of HBM on each of ``rows`` partitions: (rows, n) in SBUF."""
    flat = vector.reshape((1, vector.size))
    tile = nl.ndarray((rows, vector.size), dtype=dtype or vector.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=flat.broadcast(0, rows))
    return tile
