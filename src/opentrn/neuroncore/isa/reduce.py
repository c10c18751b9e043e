"""Reductions along the free dimensions, on the Vector engine."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.alu import as_float32
from opentrn.neuroncore.cost import Cost, stream
from opentrn.neuroncore.instruction import ON_CHIP, Engine, In, Issue, Out, instruction, static
from opentrn.neuroncore.isa.elementwise import alu_operator
from opentrn.neuroncore.isa.shapes import same_partitions

__all__ = ["tensor_reduce"]


def _axes(i: Issue) -> tuple[int, ...]:
    axes = i.axis if isinstance(i.axis, tuple) else (i.axis,)
    return tuple(sorted(a + i.data.ndim if a < 0 else a for a in axes))


@instruction
class tensor_reduce:
    """Reduce the last free dimensions of ``data`` with ``op``; ``negate`` flips the sign of an arithmetic result."""

    operands = dict(dst=Out(ON_CHIP, indirect=True), op=static(), data=In(ON_CHIP, indirect=True), axis=static(),
                    negate=static(False), keepdims=static(False))  # fmt: skip
    engines = (Engine.vector,)
    flow = "rows"

    def check(i: Issue) -> None:
        same_partitions(i, "dst", "data")
        op, axes = alu_operator(i, "op"), _axes(i)
        if op.reduction is None:
            raise i.fail(f"{op.name} cannot reduce; use add, subtract, multiply, maximum, minimum or a bit-vector operator")
        if not axes or axes[0] < 1 or axes != tuple(range(axes[0], i.data.ndim)):
            raise i.fail(f"axis {i.axis} of {list(i.data.shape)}: the axes must be the last free dimensions, never 0")
        kept = 1
        for n in i.data.shape[1 : axes[0]]:
            kept *= n
        if i.dst.free_size != kept:
            raise i.fail(f"dst must have {kept} elements a partition for axis {i.axis} of {list(i.data.shape)}, "
                         f"not {i.dst.free_size}")  # fmt: skip

    def cost(i: Issue, engine: Engine) -> Cost:
        narrow = i.data.dtype.itemsize == 2 and i.dst.dtype.itemsize == 2
        return stream(i, engine, 0.5 if narrow else 1.0)

    def compute(i: Issue):
        op, axes, shape, negate = alu_operator(i, "op"), _axes(i), i.dst.shape, i.negate
        reduce = op.reduction.reduce

        def run(core, dst, op_, data, axis, negate_, keepdims):
            x = data if op.bitvec else as_float32(data)
            result = x.sum(axis=axes, dtype=np.float32) if reduce is np.add.reduce and not op.bitvec else reduce(x, axis=axes)
            if negate:
                result = -result
            dst[...] = result.reshape(shape)

        return run
