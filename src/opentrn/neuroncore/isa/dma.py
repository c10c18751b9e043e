"""The DMA engines: movement between HBM and SBUF, with conversion, gather and scatter."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore import indirection, undefined
from opentrn.neuroncore.alu import as_float32
from opentrn.neuroncore.instruction import ANY, Engine, In, Issue, Out, instruction, static
from opentrn.neuroncore.isa.settings import dge_mode as modes
from opentrn.neuroncore.isa.settings import oob_mode as bounds
from opentrn.neuroncore.memory import FULL

__all__ = ["dma_copy"]


@instruction
class dma_copy:
    """``dst = src`` through the DMA engines; either side in HBM, SBUF or PSUM-free SBUF, with the same number of elements.

    Different types convert through float32. A dynamic ``src`` gathers and a dynamic ``dst`` scatters; ``oob_mode`` says what
    an index outside the tensor does.
    """

    operands = dict(
        dst=Out(ANY), src=In(ANY), priority=static(None), oob_mode=static(bounds.error), dge_mode=static(modes.unknown),
        engine=static(Engine.unknown),
    )  # fmt: skip
    engines = (Engine.dma, Engine.sync, Engine.scalar, Engine.gpsimd, Engine.vector, Engine.tensor)

    def check(i: Issue) -> None:
        if i.dst.size != i.src.size:
            raise i.fail(f"dst has {i.dst.size} elements {list(i.dst.shape)} and src {i.src.size} {list(i.src.shape)}; "
                         "a copy moves as many as it reads")  # fmt: skip
        if i.dge_mode is modes.hwdge and i.core.generation < 3:
            raise i.fail("hardware descriptor generation needs NeuronCore-v3 or newer; use dge_mode.swdge or none")
        if i.dge_mode is modes.hwdge and (i.src.indirect == "vector" or i.dst.indirect == "vector"):
            raise i.fail("hardware descriptor generation cannot gather or scatter; use dge_mode.swdge")

    def compute(i: Issue):
        shape = i.dst.shape
        same_shape = i.src.shape == shape
        skip = i.oob_mode is bounds.skip
        dynamic = i.src.indirect is not None or i.dst.indirect is not None
        convert = (lambda a: a) if i.src.dtype is i.dst.dtype else as_float32

        def run(core, dst, src, *settings):
            dst[...] = convert(src if same_shape else src.reshape(shape))

        def run_dynamic(core, dst, src, *settings):
            value, rows = indirection.read(core, src, skip=skip)
            if value is None:
                return
            if rows is not None and rows.shape[0] != shape[0]:
                rows = np.broadcast_to(rows[:, None], (rows.shape[0], shape[0] // rows.shape[0])).reshape(-1)
            if np.shares_memory(value, dst.storage.data):
                value = value.copy()
            indirection.write(core, dst, convert(value.reshape(shape)), skip=skip, rows=rows)

        return run_dynamic if dynamic else run
