"""Reductions: along the free dimensions on the Vector engine, across partitions on GpSimd."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.convert import storer, widen
from opentrn.neuroncore.cost import Cost, stream
from opentrn.neuroncore.dtypes import is_integer
from opentrn.neuroncore.instruction import ON_CHIP, SBUF, Engine, In, Issue, Out, Plan, instruction, static
from opentrn.neuroncore.isa.elementwise import alu_operator
from opentrn.neuroncore.isa.shapes import same_partitions, unpacked

__all__ = ["tensor_partition_reduce", "tensor_reduce"]


def _axes(i: Issue) -> tuple[int, ...]:
    axes = i.axis if isinstance(i.axis, tuple) else (i.axis,)
    return tuple(sorted(a + i.data.ndim if a < 0 else a for a in axes))


def _check_bits(i: Issue) -> None:
    for name in ("dst", "data"):
        if not is_integer(i.fields[name].dtype):
            op = alu_operator(i, "op").name
            raise i.fail(f"{op} works on bit patterns and needs integer tensors, but {name} is {i.fields[name].dtype}")


@instruction
class tensor_reduce:
    """Reduce the last free dimensions of ``data`` with ``op``; ``negate`` flips the sign of an arithmetic result.

    ``keepdims`` only says how ``dst`` is shaped; any shape with the right number of elements a partition is taken.
    """

    operands = dict(dst=Out(ON_CHIP, indirect=True), op=static(), data=In(ON_CHIP, indirect=True), axis=static(),
                    negate=static(False), keepdims=static(False))  # fmt: skip
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_partitions(i, "dst", "data")
        unpacked(i, "dst", "data")
        op, axes = alu_operator(i, "op"), _axes(i)
        if op.reduction is None or op.name == "average":
            raise i.fail(f"{op.name} cannot reduce; use add, subtract, multiply, maximum, minimum, a logical or a "
                         "bit-vector "
                         "operator")  # fmt: skip
        if not axes or axes[0] < 1 or axes != tuple(range(axes[0], i.data.ndim)):
            raise i.fail(f"axis {i.axis} of {list(i.data.shape)}: the axes must be the last free dimensions, never 0")
        if op.bitvec:
            _check_bits(i)
            if i.negate:
                raise i.fail(f"negate applies to arithmetic operators, not to {op.name}")
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
        op, axes, shape, negate, store = alu_operator(i, "op"), _axes(i), i.dst.shape, i.negate, storer(i.dst)
        assert op.reduction is not None
        reduce = op.reduction.reduce
        # One trailing axis is NumPy's fast case, and `subtract` reduces only along one.
        merged = (*i.data.shape[: axes[0]], -1)
        merge = len(axes) > 1
        last = axes[0]

        def run(core, dst, op_, data, axis, negate_, keepdims):
            x = widen(data.reshape(merged) if merge else data)
            result = reduce(x, axis=last)
            if negate:
                result = np.negative(result, dtype=np.float32)
            store(dst, result.reshape(shape))

        def run_bits(core, dst, op_, data, axis, negate_, keepdims):
            dst[...] = reduce(data.reshape(merged), axis=last).reshape(shape)

        return run_bits if op.bitvec else run

    def flow(plan: Plan, args, position, masks):
        return masks[2].all(axis=_axes(plan.issue)).reshape(args[0].shape)


_PARTITION_REDUCTIONS = ("add", "average", "maximum", "bitwise_or", "bitwise_and")


@instruction
class tensor_partition_reduce:
    """Reduce ``data`` (P, ...) across its partitions into ``dst`` (1, ...), with add, average, maximum or a bit-vector
    operator."""

    operands = dict(dst=Out(SBUF), op=static(), data=In(SBUF))
    engines = (Engine.gpsimd,)

    def check(i: Issue) -> None:
        unpacked(i, "dst", "data")
        op = alu_operator(i, "op")
        if op.name not in _PARTITION_REDUCTIONS:
            raise i.fail(f"op={op.name}; partitions reduce with {', '.join(_PARTITION_REDUCTIONS)}")
        if op.bitvec:
            _check_bits(i)
        if i.dst.num_partitions != 1 or i.dst.free_size != i.data.free_size:
            raise i.fail(f"dst must have 1 partition of {i.data.free_size} elements for {list(i.data.shape)}, "
                         f"not {list(i.dst.shape)}")  # fmt: skip

    def cost(i: Issue, engine: Engine) -> Cost:
        # Partition by partition through one processor: each contributes its own pass.
        return stream(i, engine, i.data.num_partitions / i.core.num_gpsimd_cores)

    def compute(i: Issue):
        op, shape, store, count = alu_operator(i, "op"), i.dst.shape, storer(i.dst), np.float32(i.data.num_partitions)
        assert op.reduction is not None
        reduce, average = op.reduction.reduce, op.name == "average"

        def run(core, dst, op_, data):
            result = reduce(widen(data), axis=0)
            if average:
                result /= count
            store(dst, result.reshape(shape))

        def run_bits(core, dst, op_, data):
            dst[...] = reduce(data, axis=0).reshape(shape)

        return run_bits if op.bitvec else run

    def flow(plan: Plan, args, position, masks):
        return masks[2].all(axis=0).reshape(args[0].shape)
