"""Element-wise arithmetic on the Vector, Scalar and GpSimd engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn.neuroncore.alu import Operator, as_float32, operator
from opentrn.neuroncore.dtypes import is_integer
from opentrn.neuroncore.instruction import ON_CHIP, Engine, In, Issue, Out, Scalar, instruction, static
from opentrn.neuroncore.isa.shapes import column, expand, fit, same_elements
from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.memory import MemoryRegion

__all__ = ["alu_operator", "store_float", "tensor_scalar", "tensor_tensor"]


def alu_operator(i: Issue, name: str) -> Operator:
    """The ALU operator in setting ``name``."""
    found = operator(i.fields[name])
    if found is None:
        given = getattr(i.fields[name], "__name__", i.fields[name])
        raise i.fail(f"{name}={given} is not an ALU operator; nki.language lists add, multiply, maximum and the others")
    return found


def _require_integers(i: Issue, op: Operator, *names: str) -> None:
    for name in names:
        layout = i.fields[name]
        if isinstance(layout, Layout) and not is_integer(layout.dtype):
            raise i.fail(f"{op.name} works on bit patterns and needs integer tensors, but {name} is {layout.dtype}")


def store_float(dst: Layout) -> Callable[[np.ndarray, Any], None]:
    """A function that writes float32 results into an array of ``dst``'s type."""

    def store(target: np.ndarray, value: Any) -> None:
        target[...] = value

    return store


@instruction
class tensor_tensor:
    """Element-wise ``dst = data1 <op> data2`` of two tiles with the same partitions and elements a partition.

    Arithmetic runs in float32 and is rounded to ``dst``'s type; with int32 or uint32 everywhere it runs on GpSimd in exact
    integer arithmetic. Bit-vector operators need integer types.
    """

    operands = dict(dst=Out(ON_CHIP, indirect=True), data1=In(ON_CHIP, indirect=True), data2=In(ON_CHIP), op=static(),
                    engine=static(Engine.unknown))  # fmt: skip
    engines = (Engine.vector, Engine.gpsimd)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data1", "data2")
        op = alu_operator(i, "op")
        if op.unary:
            raise i.fail(f"{op.name} takes one operand; use tensor_scalar or activation")
        if i.data1.region is MemoryRegion.psum and i.data2.region is MemoryRegion.psum:
            raise i.fail("data1 and data2 cannot both be in PSUM; copy one of them to SBUF first")
        if op.bitvec:
            _require_integers(i, op, "dst", "data1", "data2")

    def select_engine(i: Issue) -> Engine:
        in_psum = MemoryRegion.psum in (i.dst.region, i.data1.region, i.data2.region)
        native = alu_operator(i, "op").name == "power" or _native_integers(i.dst, i.data1, i.data2)
        if i.engine is not Engine.unknown:
            chosen = i.engine
        else:
            chosen = Engine.gpsimd if native and not in_psum and not alu_operator(i, "op").bitvec else Engine.vector
        if chosen is Engine.gpsimd and in_psum:
            raise i.fail("the GpSimd engine cannot reach PSUM; copy the operand to SBUF or use the Vector engine")
        return chosen

    def compute(i: Issue):
        op = alu_operator(i, "op")
        f, fit1, fit2 = op.function, fit(i.data1, i.dst), fit(i.data2, i.dst)
        integers = op.bitvec or (tensor_tensor.instruction.select_engine(i) is Engine.gpsimd and _native_integers(i.dst, i.data1, i.data2))
        if integers:

            def run(core, dst, data1, data2, op, engine):
                dst[...] = f(fit1(data1), fit2(data2))

        elif isinstance(f, np.ufunc) and not op.logical and i.dst.host == np.float32:

            def run(core, dst, data1, data2, op, engine):
                f(as_float32(fit1(data1)), as_float32(fit2(data2)), out=dst)

        else:

            def run(core, dst, data1, data2, op, engine):
                dst[...] = f(as_float32(fit1(data1)), as_float32(fit2(data2)))

        return run


def _native_integers(*layouts: Layout) -> bool:
    return all(layout.dtype in ("int32", "uint32") for layout in layouts)


@instruction
class tensor_scalar:
    """``dst = (data <op0> operand0) <op1> operand1``, the operands numbers or (P, 1) columns.

    ``reverse0`` and ``reverse1`` swap the sides of their operator. Both operators are arithmetic (float32) or both bit-vector.
    """

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), data=In(ON_CHIP, indirect=True), op0=static(), operand0=Scalar(ON_CHIP, None),
        reverse0=static(False), op1=static(None), operand1=Scalar(ON_CHIP, None), reverse1=static(False),
        engine=static(Engine.unknown),
    )  # fmt: skip
    engines = (Engine.vector, Engine.scalar, Engine.gpsimd)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data")
        column(i, "data", "operand0", "operand1")
        ops = [alu_operator(i, "op0")]
        if i.op1 is not None:
            ops.append(alu_operator(i, "op1"))
        if len({op.bitvec for op in ops if op.name != "bypass"}) > 1:
            raise i.fail(f"{ops[0].name} and {ops[1].name} mix bit-vector and arithmetic operators; split the instruction")
        for op, name in zip(ops, ("operand0", "operand1"), strict=False):
            if op.bitvec:
                _require_integers(i, op, "dst", "data")
            if i.fields[name] is None and not op.unary:
                raise i.fail(f"{op.name} needs {name}")

    def select_engine(i: Issue) -> Engine:
        bitvec = alu_operator(i, "op0").bitvec
        chosen = i.engine
        if chosen is Engine.unknown:
            chosen = Engine.gpsimd if alu_operator(i, "op0").name == "rsqrt" else Engine.vector
        if bitvec and chosen is not Engine.vector:
            raise i.fail(f"bit-vector operators run on the Vector engine only, not {chosen.name}")
        if chosen is Engine.gpsimd and MemoryRegion.psum in (i.dst.region, i.data.region):
            if i.engine is Engine.unknown:
                return Engine.vector
            raise i.fail("the GpSimd engine cannot reach PSUM; use the Vector engine")
        return chosen

    def compute(i: Issue):
        op0 = alu_operator(i, "op0")
        op1 = alu_operator(i, "op1") if i.op1 is not None else None
        shaped, col0, col1 = fit(i.data, i.dst), expand(i.operand0, i.dst), expand(i.operand1, i.dst)
        f0, f1 = op0.function, op1.function if op1 else None
        swap0, swap1 = i.reverse0, i.reverse1
        unary0, unary1 = op0.unary, bool(op1 and op1.unary)
        convert = (lambda a: a) if op0.bitvec else as_float32

        def run(core, dst, data, op0, operand0, reverse0, op1, operand1, reverse1, engine):
            x = convert(shaped(data))
            if unary0:
                x = f0(x)
            else:
                a = convert(col0(operand0))
                x = f0(a, x) if swap0 else f0(x, a)
            if f1 is not None:
                x = convert(x)
                if unary1:
                    x = f1(x)
                else:
                    b = convert(col1(operand1))
                    x = f1(b, x) if swap1 else f1(x, b)
            dst[...] = x

        if op0.bitvec:

            def run_bits(core, dst, data, op0, operand0, reverse0, op1, operand1, reverse1, engine):
                kind = data.dtype.type
                a = operand0 if isinstance(operand0, np.ndarray) or operand0 is None else _bits(operand0, kind)
                b = operand1 if isinstance(operand1, np.ndarray) or operand1 is None else _bits(operand1, kind)
                run(core, dst, data, op0, a, reverse0, op1, b, reverse1, engine)

            return run_bits
        return run


def _bits(value: Any, kind: Any) -> Any:
    """A constant as a bit pattern of an integer type."""
    return np.array([int(value) & ((1 << (8 * np.dtype(kind).itemsize)) - 1)], dtype=np.uint64).astype(
        f"u{np.dtype(kind).itemsize}"
    ).view(kind)[0]
