"""Walking over a tensor row by row: leading dimensions flattened, 128 rows a tile, a whole row in SBUF."""

from __future__ import annotations

from collections.abc import Iterator

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.errors import ValidationError
from opentrn.kernels.operands import PARTITIONS
from opentrn.nki.language import NkiTensor

__all__ = ["as_rows", "load", "row_blocks", "scratch"]


def as_rows(tensor: NkiTensor, kernel: str, tiles: int) -> NkiTensor:
    """The tensor as (rows, columns), where ``tiles`` float32 tiles of a row must fit into SBUF, twice to overlap.

    Raises:
        ValidationError: the rows are too long.
    """
    columns = tensor.shape[-1]
    limit = nl.tile_size.total_available_sbuf_size // (8 * tiles)
    if columns > limit:
        raise ValidationError(
            f"{kernel}: rows have {columns} elements and {limit} fit into SBUF; split the last dimension"
        )
    return tensor.reshape((tensor.size // columns, columns))


def row_blocks(rows: int) -> Iterator[tuple[int, int]]:
    """(first, last) of every block of up to 128 rows."""
    for first in range(0, rows, PARTITIONS):
        yield first, min(first + PARTITIONS, rows)


def load(rows: NkiTensor, first: int, last: int) -> NkiTensor:
    """Rows ``first`` to ``last`` in SBUF, in their own type."""
    tile = nl.ndarray((last - first, rows.shape[1]), dtype=rows.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=rows[first:last, :])
    return tile


def scratch(height: int, width: int = 1) -> NkiTensor:
    """An undefined float32 tile in SBUF."""
    return nl.ndarray((height, width), dtype=nl.float32, buffer=nl.sbuf)
