"""Read-modify-write of HBM: ``nl.atomic_rmw`` and ``nisa.dma_copy(dst_rmw_op=...)``."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.settings import oob_mode as bounds
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.operands import fail, flush, in_sbuf, part, ranges_of, region_of, tile_of

__all__ = ["atomic_rmw", "read_modify_write"]


def read_modify_write(dst: NkiTensor, src: NkiTensor, op: Any, oob_mode: Any = bounds.error) -> None:
    """``dst = dst <op> src`` in HBM; rows that two indices name add up where the DMA engine works one after the other."""
    name = getattr(op, "__name__", str(op))
    if name not in ("add", "sum"):
        raise fail(f"the DMA engine's read-modify-write adds; op={name} is not available")
    plain = dst.indirection is None
    isa.dma_compute(dst, [src, dst], "add", unique_indices=plain, oob_mode=oob_mode)


def atomic_rmw(dst: Any, value: Any, op: Any, *, mask: Any = None, **_: Any) -> None:
    """``dst = dst <op> value`` for a view of HBM, which may be indexed by a tile of row numbers."""
    flush()
    target, tile = tile_of(dst, "the destination of nl.atomic_rmw"), in_sbuf(tile_of(value, "the value of nl.atomic_rmw"))
    region = region_of(mask, target.shape, target, tile)
    if region is False:
        return
    ranges = ranges_of(region)
    read_modify_write(part(target, ranges), part(tile, ranges), op)
