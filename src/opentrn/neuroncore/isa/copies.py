"""Copies and fills on chip."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.alu import as_float32
from opentrn.neuroncore.instruction import ANY, ON_CHIP, Engine, In, Issue, Out, Value, instruction, static
from opentrn.neuroncore.isa.shapes import fit, same_elements
from opentrn.neuroncore.memory import MemoryRegion

__all__ = ["memset", "tensor_copy"]


@instruction
class tensor_copy:
    """Copy ``src`` to ``dst`` within SBUF and PSUM, converting the type.

    Bit-exact when the types agree (on the Scalar engine of NeuronCore-v2 every value passes through float32); otherwise the
    values pass through float32.
    """

    operands = dict(dst=Out(ON_CHIP, indirect=True), src=In(ON_CHIP, indirect=True), engine=static(Engine.unknown))
    engines = (Engine.vector, Engine.scalar, Engine.gpsimd)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "src")
        if i.engine is Engine.gpsimd and MemoryRegion.psum in (i.dst.region, i.src.region):
            raise i.fail("the GpSimd engine cannot reach PSUM; use the Vector or Scalar engine")
        if i.engine is Engine.scalar and i.core.generation == 2:
            raise i.fail("the Scalar engine of NeuronCore-v2 has no tensor_copy; use nisa.activation with op=nl.copy")

    def compute(i: Issue):
        shaped = fit(i.src, i.dst)
        if i.src.dtype is i.dst.dtype:

            def run(core, dst, src, engine):
                dst[...] = shaped(src)

        else:

            def run(core, dst, src, engine):
                dst[...] = as_float32(shaped(src))

        return run


@instruction
class memset:
    """Fill ``dst`` with a constant."""

    operands = dict(dst=Out(ANY), value=Value(), engine=static(Engine.unknown))
    engines = (Engine.vector, Engine.gpsimd)

    def check(i: Issue) -> None:
        if i.engine is Engine.gpsimd and i.dst.region is MemoryRegion.psum:
            raise i.fail("the GpSimd engine cannot reach PSUM; use the Vector engine")

    def compute(i: Issue):
        packed = i.dst.dtype.kind == "packed"
        fail = i.fail
        kind = i.dst.host.type

        def run(core, dst, value, engine):
            if packed and value != 0:
                raise fail(f"packed types can only be set to 0, not {value}")
            dst[...] = kind(value) if np.isscalar(value) else value

        return run
