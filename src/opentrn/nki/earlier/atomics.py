"""Read-modify-write of HBM: ``nl.atomic_rmw`` and ``nisa.dma_copy(dst_rmw_op=...)``."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.isa.settings import oob_mode as bounds
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.operands import fail, flush, in_sbuf, part, ranges_of, region_of, tile_of
from opentrn.nki.earlier.views import box

__all__ = ["atomic_rmw", "read_modify_write"]


def read_modify_write(dst: NkiTensor, src: NkiTensor, op: Any, oob_mode: Any = bounds.error) -> None:
    """``dst = dst <op> src`` in HBM; rows that two indices name are added one after the other."""
    name = getattr(op, "__name__", str(op))
    if name not in ("add", "sum"):
        raise fail(f"the DMA engine's read-modify-write adds; op={name} is not available")
    indirection = dst.indirection
    if indirection is not None and indirection.kind == "vector" and _repeats(indirection.index):
        for row in range(dst.layout.shape[0]):
            ranges = ((row, row + 1), *((0, n) for n in dst.layout.shape[1:]))
            a = box(dst, 0, ranges)
            isa.dma_compute(a, [box(src, 0, ranges), a], "add", oob_mode=oob_mode)
        return
    isa.dma_compute(dst, [src, dst], "add", oob_mode=oob_mode)


def _repeats(index: Any) -> bool:
    core = machine.current()
    if not core.execute or not isinstance(index, NkiTensor):
        return False
    values = index.array().reshape(-1)
    return len(np.unique(values)) < values.size


def atomic_rmw(dst: Any, value: Any, op: Any, *, mask: Any = None, **_: Any) -> None:
    """``dst = dst <op> value`` for a view of HBM, which may be indexed by a tile of row numbers."""
    flush()
    target, tile = (
        tile_of(dst, "the destination of nl.atomic_rmw"),
        in_sbuf(tile_of(value, "the value of nl.atomic_rmw")),
    )
    region = region_of(mask, target.shape, target, tile)
    if region is False:
        return
    ranges = ranges_of(region)
    read_modify_write(part(target, ranges), part(tile, ranges), op)
