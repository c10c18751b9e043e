"""The DMA engines of the earlier API."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.settings import engine, oob_mode
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.issuing import (
    deferred,
)
from opentrn.nki.earlier.movement import _converted
from opentrn.nki.earlier.operands import (
    Tile,
    dtype_of,
    fail,
    flush,
    part,
    region_of,
    tile_of,
)

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum
tensor_engine, vector_engine = engine.tensor, engine.vector


def dma_copy(
    *,
    dst: Any,
    src: Any,
    mask: Any = None,
    dst_rmw_op: Any = None,
    oob_mode: Any = oob_mode.error,
    dge_mode: Any = None,
    **_: Any,
) -> None:
    """Copy through the DMA engines; ``dst_rmw_op`` adds to what is there.

    Indices outside the tensor: see ``oob_mode``.
    """
    flush()
    target, source = tile_of(dst, "dma_copy's dst"), tile_of(src, "dma_copy's src")
    mode = isa.dma_copy.instruction.operands["dge_mode"].default if dge_mode is None else dge_mode
    region = region_of(mask, target.shape if target.size >= source.size else source.shape, target, source)
    if region is False:
        return
    if region is True:
        a, b = target.nki, source.nki
    else:
        if region.ragged is not None:
            raise fail("dma_copy: the mask is not a bound of single axes; copy row by row")
        a, b = part(target, region.ranges), part(source, region.ranges)
    if b.layout.region is _psum:
        b = _converted(Tile(b), a.layout.dtype).nki
    if dst_rmw_op is None:
        isa.dma_copy(a, b, oob_mode=oob_mode, dge_mode=mode)
        return
    from opentrn.nki.earlier.atomics import read_modify_write

    read_modify_write(a, b, dst_rmw_op, oob_mode)


def dma_transpose(
    src: Any, *, axes: Any = None, mask: Any = None, dtype: Any = None, dge_mode: Any = None, **_: Any
) -> Tile:
    """A tile with the axes of ``src`` (in HBM or SBUF) reversed, or permuted as ``axes`` says, by DMA."""
    flush()
    source = tile_of(src, "dma_transpose's src")
    shape = source.shape
    order = tuple(axes) if axes is not None else tuple(reversed(range(len(shape))))
    view = source.nki
    new_shape = tuple(shape[d] for d in order)
    kind = dtype_of(dtype, source.dtype)
    return deferred(
        new_shape, 0, kind, True, lambda dst: transposed_copy(dst, view, order), regions=(_sbuf,), moves=True
    )


def transposed_copy(dst: NkiTensor, view: NkiTensor, order: tuple[int, ...]) -> None:
    """``dst`` = ``view`` with its dimensions permuted, through DMA descriptors."""
    layout = view.layout
    moved = view._view(tuple(layout.shape[d] for d in order), tuple(layout.strides[d] for d in order), view.offset)
    isa.dma_copy(dst, moved)


def _tiled_offloaded_memcpy(dst: Any, src: Any, **_: Any) -> None:
    """The compiler's own copy; a DMA copy."""
    dma_copy(dst=dst, src=src)
