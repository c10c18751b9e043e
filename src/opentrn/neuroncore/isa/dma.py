"""The DMA engines: movement between HBM and SBUF, with conversion, gather and scatter, and addition on the way."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore import indirection
from opentrn.neuroncore.alu import operator
from opentrn.neuroncore.convert import storer, widen
from opentrn.neuroncore.cost import Cost, descriptor_mode, several, transfer
from opentrn.neuroncore.dtypes import is_packed
from opentrn.neuroncore.instruction import HBM, SBUF, Engine, In, Issue, Out, Tensors, instruction, static
from opentrn.neuroncore.isa.settings import dge_mode as modes
from opentrn.neuroncore.isa.settings import oob_mode as bounds
from opentrn.neuroncore.layout import Layout

__all__ = ["check_descriptors", "dma_compute", "dma_copy"]

_MOVABLE = HBM + SBUF
_MAX_SOURCES = 16
_PRIORITIES = (0, 1, 2, 3)
_TRIGGERS = (Engine.sync, Engine.scalar)


def check_descriptors(i: Issue, *moved: Layout) -> None:
    """Refuse a quality-of-service class or a way of descriptor generation that the core does not have."""
    generation = i.core.generation
    if i.priority is not None:
        if generation < 4:
            raise i.fail(
                f"priority={i.priority} needs NeuronCore-v4 or newer; leave it out on NeuronCore-v{generation}"
            )
        if i.priority not in _PRIORITIES:
            raise i.fail(f"priority={i.priority}; the classes are 0 (first) to 3")
    mode = i.dge_mode
    if mode is modes.hwdge and generation < 3:
        raise i.fail("hardware descriptor generation needs NeuronCore-v3 or newer; use dge_mode.swdge or unknown")
    if mode in (modes.hwdge, modes.none) and any(layout.indirect == "vector" for layout in moved):
        raise i.fail(
            f"dge_mode.{mode.name} cannot gather or scatter by a vector of indices; use dge_mode.swdge or unknown"
        )


def _check_conversion(i: Issue, src: Layout, dst: Layout) -> None:
    if src.dtype is not dst.dtype and (is_packed(src.dtype) or is_packed(dst.dtype)):
        raise i.fail(f"{src.dtype} to {dst.dtype}: packed types move unchanged; reinterpret one side with .view(dtype)")


def _converter(src: Layout, dst: Layout):
    """A function that brings values of ``src``'s type into ``dst``'s, through float32."""
    if src.dtype is dst.dtype:
        return lambda a: a
    store = storer(dst)

    def convert(values: np.ndarray) -> np.ndarray:
        converted = np.empty(values.shape, dst.host)
        store(converted, widen(values))
        return converted

    return convert


def _spread(rows: np.ndarray | None, count: int) -> np.ndarray | None:
    """Valid rows of a gather, as rows of a destination with ``count`` of them (each source row may fill several)."""
    if rows is None or rows.shape[0] == count:
        return rows
    return np.repeat(rows, count // rows.shape[0]) if count % rows.shape[0] == 0 else None


@instruction
class dma_copy:
    """``dst = src`` through the DMA engines, each in HBM or SBUF, with the same number of elements.

    Different types convert through float32. A dynamic ``src`` gathers and a dynamic ``dst`` scatters; ``oob_mode`` says
    what an index outside the tensor does. ``engine`` (sync or scalar) triggers hardware descriptor generation.
    """

    operands = dict(
        dst=Out(_MOVABLE), src=In(_MOVABLE), priority=static(None), oob_mode=static(bounds.error),
        dge_mode=static(modes.unknown), engine=static(Engine.unknown),
    )  # fmt: skip
    engines = (Engine.dma,)
    follows_undefined = True

    def check(i: Issue) -> None:
        if i.dst.size != i.src.size:
            raise i.fail(
                f"dst has {i.dst.size} elements {list(i.dst.shape)} and src {i.src.size} {list(i.src.shape)}; "
                "a copy moves as many as it reads"
            )
        check_descriptors(i, i.dst, i.src)
        _check_conversion(i, i.src, i.dst)
        if i.engine is not Engine.unknown:
            if i.dge_mode is not modes.hwdge:
                raise i.fail(
                    f"engine={i.engine.name} selects the trigger of dge_mode.hwdge; leave it out in other modes"
                )
            if i.engine not in _TRIGGERS:
                raise i.fail(
                    f"engine={i.engine.name}; hardware descriptor generation is triggered by engine.sync or scalar"
                )

    def select_engine(i: Issue) -> Engine:
        return Engine.dma

    def cost(i: Issue, engine: Engine) -> Cost:
        return transfer(i, i.dst, i.src, engine=i.engine, mode=descriptor_mode(i, i.dst, i.src))

    def compute(i: Issue):
        shape = i.dst.shape
        same_shape = i.src.shape == shape
        skip = i.oob_mode is bounds.skip
        convert = _converter(i.src, i.dst)
        if i.src.indirect is None and i.dst.indirect is None:
            if same_shape and i.src.dtype is i.dst.dtype:

                def run(core, dst, src, *settings):
                    dst[...] = src

            elif i.src.dtype is i.dst.dtype:

                def run(core, dst, src, *settings):
                    dst[...] = src.reshape(shape)

            else:
                store = storer(i.dst)

                def run(core, dst, src, *settings):
                    store(dst, widen(src if same_shape else src.reshape(shape)))

            return run

        def run_dynamic(core, dst, src, *settings):
            value, rows = indirection.read(core, src, skip=skip)
            if value is None:
                return
            if value.base is not None and np.may_share_memory(value, dst.storage.data):
                value = value.copy()
            mask = indirection.read_mask(core, src, skip=skip)
            indirection.write(
                core, dst, convert(value.reshape(shape)), skip=skip, rows=_spread(rows, shape[0]),
                mask=None if mask is None else mask.reshape(shape), origin=src.storage.undefined_by,
            )  # fmt: skip

        run_dynamic.on_tensors = True
        return run_dynamic


@instruction
class dma_compute:
    """``dst = srcs[0] + srcs[1] + ...`` in float32 inside the DMA engines; up to 16 sources of as many elements as
    ``dst``.

    With a vector of indices it reads, adds and writes rows of HBM: ``dst[idx] += src`` (``dst`` and one source are the
    indexed view) or ``dst += src[idx]`` (``dst`` in SBUF is one of two sources). Indices must differ.
    """

    operands = dict(
        dst=Out(_MOVABLE), srcs=Tensors(_MOVABLE), reduce_op=static(), scales=static(None), unique_indices=static(True),
        oob_mode=static(bounds.error),
    )  # fmt: skip
    engines = (Engine.dma,)

    def check(i: Issue) -> None:
        found = operator(i.reduce_op)
        if found is None or found.name != "add":
            raise i.fail(
                f"reduce_op={getattr(i.reduce_op, '__name__', i.reduce_op)}; the DMA engines only add, use nl.add"
            )
        if not 1 <= len(i.srcs) <= _MAX_SOURCES:
            raise i.fail(f"{len(i.srcs)} sources; it takes 1 to {_MAX_SOURCES}")
        for n, src in enumerate(i.srcs):
            if src.size != i.dst.size:
                raise i.fail(
                    f"srcs[{n}] has {src.size} elements {list(src.shape)} and dst {i.dst.size} {list(i.dst.shape)}; "
                    "they must agree"
                )
            _check_conversion(i, src, i.dst)
        if i.scales is not None and (len(i.scales) != len(i.srcs) or any(float(s) != 1.0 for s in i.scales)):
            raise i.fail(f"scales={i.scales}; they must be all 1.0, one a source (or left out)")
        if any(layout.indirect == "vector" for layout in (i.dst, *i.srcs)):
            if len(i.srcs) != 2:
                raise i.fail(f"a gather or scatter adds exactly 2 sources, not {len(i.srcs)}")
            if not i.unique_indices:
                raise i.fail("unique_indices=False is not supported; make the indices distinct")
            if i.dst.indirect and sum(src.indirect is not None for src in i.srcs) != 1:
                raise i.fail("a scatter needs one source that is the indexed dst, and one with the data to add")

    def cost(i: Issue, engine: Engine) -> Cost:
        largest = max(i.srcs, key=lambda s: s.size * s.dtype.itemsize)
        mode = descriptor_mode(i, i.dst, *i.srcs)
        one = transfer(i, i.dst, largest, engine=engine, mode=mode, rate_ratio=i.core.dma_accumulate_rate_ratio)
        return several(one, i.srcs, largest)

    def compute(i: Issue):
        shape = i.dst.shape
        skip = i.oob_mode is bounds.skip
        store = storer(i.dst)
        if all(layout.indirect is None for layout in (i.dst, *i.srcs)):

            def run(core, dst, srcs, reduce_op, scales, unique_indices, oob_mode, *arrays):
                total = widen(arrays[0]).reshape(shape)
                for array in arrays[1:]:
                    total = total + widen(array).reshape(shape)
                store(dst, total)

            return run
        scatters = i.dst.indirect is not None

        def run_dynamic(core, dst, srcs, reduce_op, scales, unique_indices, oob_mode, *sources):
            if scatters:
                indirection.require_distinct(core, dst)
            total, valid, mask = None, None, None
            for source in sources:
                value, rows = indirection.read(core, source, skip=skip)
                if value is None:
                    return
                value = widen(value).reshape(shape)
                total = value if total is None else total + value
                valid = rows if valid is None else valid if rows is None else valid & rows
                defined = indirection.read_mask(core, source, skip=skip)
                if defined is not None:
                    mask = defined.reshape(shape) if mask is None else mask & defined.reshape(shape)
            origin = next((s.storage.undefined_by for s in sources if s.storage.undefined_by), None)
            result = np.empty(shape, i.dst.host)
            store(result, total)
            indirection.write(core, dst, result, skip=skip, rows=_spread(valid, shape[0]), mask=mask, origin=origin)

        run_dynamic.on_tensors = True
        return run_dynamic
