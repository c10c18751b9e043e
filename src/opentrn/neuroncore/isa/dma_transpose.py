"""Transposes on the DMA engines, direct or of rows gathered by an index."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore import indirection
from opentrn.neuroncore.cost import Cost, transposing_transfer
from opentrn.neuroncore.instruction import HBM, SBUF, Engine, In, Issue, Out, instruction, static
from opentrn.neuroncore.isa.dma import check_descriptors
from opentrn.neuroncore.isa.settings import dge_mode as modes
from opentrn.neuroncore.isa.settings import oob_mode as bounds
from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.memory import MemoryRegion

__all__ = ["dma_transpose"]

_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 1, 2, 0)}
_BLOCK = 16
_MAX_COLUMNS = 128


def _axes(i: Issue) -> tuple[int, ...]:
    axes = _AXES.get(i.src.ndim)
    if axes is None:
        raise i.fail(f"src has {i.src.ndim} dimensions {list(i.src.shape)}; it transposes 2, 3 or 4")
    if i.axes is not None and tuple(i.axes) != axes:
        raise i.fail(f"axes={i.axes}; {i.src.ndim} dimensions transpose by {axes}")
    return axes


def _check_two_byte_columns(i: Issue, what: str) -> None:
    if i.src.shape[-1] > _MAX_COLUMNS:
        raise i.fail(f"the last dimension of src is {i.src.shape[-1]}; {what} takes at most {_MAX_COLUMNS}")
    if i.src.dtype.itemsize != 2:
        raise i.fail(f"src is {i.src.dtype}; {what} moves elements of 2 bytes, such as bfloat16")


def _check_gather(i: Issue) -> None:
    """Rules of a transpose of gathered rows (software descriptor generation)."""
    src = i.src
    if i.core.generation < 3:
        raise i.fail("a transpose of gathered rows needs NeuronCore-v3 or newer")
    if i.dge_mode not in (modes.unknown, modes.swdge):
        raise i.fail(f"dge_mode.{i.dge_mode.name}; a transpose of gathered rows uses dge_mode.swdge or unknown")
    if src.region is MemoryRegion.sbuf:
        raise i.fail("rows are gathered from HBM, and src is in sbuf")
    _check_two_byte_columns(i, "a transpose of gathered rows")
    if src.ndim == 4 and 1 not in src.shape[1:3]:
        raise i.fail(f"src is {list(src.shape)}; of a gathered 4-D src dimension 1 or 2 must be 1")
    if src.shape[0] % _BLOCK:
        raise i.fail(f"{src.shape[0]} rows are gathered; their number must be a multiple of {_BLOCK}")


@instruction
class dma_transpose:
    """``dst = src`` with its first and last dimensions swapped: axes (1, 0), (2, 1, 0) or (3, 1, 2, 0).

    ``src`` is in HBM or SBUF and ``dst`` in SBUF, of one type. A ``src`` indexed by a vector gathers rows first; a
    two-dimensional index counts down its columns.
    """

    operands = dict(
        dst=Out(SBUF), src=In(HBM + SBUF), axes=static(None), priority=static(None), dge_mode=static(modes.unknown),
        oob_mode=static(bounds.error),
    )  # fmt: skip
    engines = (Engine.dma,)
    flow = "transpose"
    follows_undefined = True

    def check(i: Issue) -> None:
        src, dst, axes = i.src, i.dst, _axes(i)
        if src.dtype is not dst.dtype:
            raise i.fail(f"src is {src.dtype} and dst {dst.dtype}; a transpose does not convert, make them equal")
        shape = tuple(src.shape[a] for a in axes)
        if dst.num_partitions != shape[0] or dst.size != src.size:
            raise i.fail(f"dst must be {list(shape)}, the transpose of {list(src.shape)}, not {list(dst.shape)}")
        if src.indirect == "vector":
            _check_gather(i)
            if i.priority is not None:
                check_descriptors(i, src)
            return
        check_descriptors(i)
        if i.dge_mode not in (modes.unknown, modes.hwdge):
            raise i.fail(f"dge_mode.{i.dge_mode.name}; a direct transpose uses dge_mode.hwdge or unknown")
        if i.oob_mode is bounds.skip and src.indirect is None:
            raise i.fail("oob_mode.skip needs a src addressed at run time")
        if i.dge_mode is modes.hwdge:
            rows = src.shape[0]
            if src.ndim == 2 and rows != _BLOCK:
                raise i.fail(f"src has {rows} rows; a 2-D transpose by hardware descriptor generation has {_BLOCK}")
            if src.ndim > 2 and (rows not in (1, 2, 4, 8, 16) or rows * src.shape[-2] % _BLOCK):
                raise i.fail(
                    f"src is {list(src.shape)}; hardware descriptor generation needs 1, 2, 4, 8 or 16 rows, and rows "
                    "times "
                    f"the second last dimension a multiple of {_BLOCK}"
                )
            _check_two_byte_columns(i, "hardware descriptor generation")

    def cost(i: Issue, engine: Engine) -> Cost:
        inside = i.src.on_chip
        ratio = i.core.dma_transpose_sbuf_to_sbuf_rate_ratio if inside else i.core.dma_transpose_hbm_to_sbuf_rate_ratio
        return transposing_transfer(i, i.dst, i.src, rate_ratio=ratio)

    def compute(i: Issue):
        axes, shape = _axes(i), i.dst.shape
        if i.src.indirect is None:

            def run(core, dst, src, *settings):
                dst[...] = src.transpose(axes).reshape(shape)

            return run
        skip = i.oob_mode is bounds.skip

        def run_dynamic(core, dst, src, *settings):
            _check_index(i, src.indirection.index, src.layout)
            value, rows = indirection.read(core, src, skip=skip, down_columns=True)
            if value is None:
                return
            mask = indirection.read_mask(core, src, skip=skip, down_columns=True)
            result = value.transpose(axes).reshape(shape)
            if mask is not None:
                mask = np.ascontiguousarray(mask.transpose(axes)).reshape(shape)
            if rows is not None:  # a skipped row leaves its column of dst alone
                keep = np.broadcast_to(rows.reshape(rows.shape + (1,) * (value.ndim - 1)), value.shape)
                keep = keep.transpose(axes).reshape(shape)
                old = indirection.read_mask(core, dst)
                result = np.where(keep, result, dst.array())
                mask = np.where(keep, True if mask is None else mask, True if old is None else old)
            indirection.write(core, dst, result, mask=mask, origin=src.storage.undefined_by)

        run_dynamic.on_tensors = True
        return run_dynamic


def _check_index(i: Issue, index, src: Layout) -> None:
    """Rules for the index of a gather, which are about a tensor that is not an operand of its own."""
    layout = getattr(index, "layout", None)
    if layout is None or src.indirect != "vector":
        return
    rows = layout.shape[0]
    columns = layout.size // rows
    if layout.region is not MemoryRegion.sbuf or layout.dtype != "uint32":
        raise i.fail(f"the index is {layout.dtype} in {layout.region.value}; it must be uint32 in sbuf")
    if rows % _BLOCK or not _BLOCK <= rows <= 128:
        raise i.fail(f"the index has {rows} partitions; they must be 16 to 128, a multiple of {_BLOCK}")
    if columns > 1 and rows != 128:
        raise i.fail(f"an index of {columns} columns needs 128 partitions, not {rows}")
    if layout.size < src.shape[0]:
        raise i.fail(f"{src.shape[0]} rows are gathered by an index of {layout.size}")
