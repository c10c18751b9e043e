"""Element-wise arithmetic on the Vector, Scalar and GpSimd engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn.neuroncore.alu import Operator, operator
from opentrn.neuroncore.convert import number, storer, widen
from opentrn.neuroncore.cost import Cost, fast_mode, stream, two_streams
from opentrn.neuroncore.dtypes import is_integer
from opentrn.neuroncore.instruction import ON_CHIP, Engine, In, Issue, Out, Scalar, instruction, static
from opentrn.neuroncore.isa.shapes import (
    column,
    direct,
    expand,
    fit,
    not_both_psum,
    require_types,
    same_elements,
    unpacked,
)
from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.memory import MemoryRegion

__all__ = [
    "Step",
    "alu_operator",
    "arithmetic",
    "reciprocal",
    "scalar_tensor_tensor",
    "step",
    "tensor_scalar",
    "tensor_tensor",
]

Step = Callable[[Any, Any, "np.ndarray | None"], np.ndarray]
"""``step(x, operand, out)``: one operator applied to a tile and its operand."""

_WORD = ("int32", "uint32")
_EXACT_ON_INTEGERS = ("add", "subtract", "multiply")


def alu_operator(i: Issue, name: str) -> Operator:
    """The ALU operator in setting ``name``."""
    found = operator(i.fields[name])
    if found is None:
        given = getattr(i.fields[name], "__name__", i.fields[name])
        raise i.fail(f"{name}={given} is not an ALU operator; nki.language lists add, multiply, maximum and the others")
    if found.name in ("abs_max", "abs_min") and i.core.generation < 4:
        raise i.fail(f"{found.name} needs NeuronCore-v4 or newer, this is NeuronCore-v{i.core.generation}; "
                     "take nl.abs of both sides first")  # fmt: skip
    return found


def arithmetic(i: Issue, name: str) -> Operator:
    """The ALU operator in setting ``name``, which may not be a bit-vector operator."""
    found = alu_operator(i, name)
    if found.bitvec:
        raise i.fail(f"{name}={found.name} is a bit-vector operator; this instruction computes in float32, use "
                     "tensor_scalar "
                     "or tensor_tensor")  # fmt: skip
    return found


def step(op: Operator, reverse: bool = False) -> Step:
    """An operator as a function of tile, operand and destination; ``reverse`` puts the operand on the left."""
    f = op.function
    if op.unary:
        return lambda x, a, out: f(x, None, out=out)
    if reverse:
        return lambda x, a, out: f(a, x, out=out)
    return lambda x, a, out: f(x, a, out=out)


def chain(first: Operator, second: Operator, reverse0: bool, reverse1: bool) -> Callable[..., np.ndarray]:
    """``(x <first> a) <second> b`` as ``f(x, a, b, out)``; the operands may overlap ``out``, which is written last."""
    one, two = step(first, reverse0), step(second, reverse1)
    owned = first.name != "bypass"
    logical = first.logical

    def run(x: np.ndarray, a: Any, b: Any, out: np.ndarray | None) -> np.ndarray:
        t = one(x, a, np.empty(x.shape, np.float32) if logical else None)
        return two(t, b, t if out is None and owned else out)

    return run


def _require_integers(i: Issue, op: Operator, *names: str) -> None:
    for name in names:
        layout = i.fields[name]
        if isinstance(layout, Layout) and not is_integer(layout.dtype):
            raise i.fail(f"{op.name} works on bit patterns and needs integer tensors, but {name} is {layout.dtype}")


def check_operand(i: Issue, op: Operator, setting: str, name: str) -> None:
    """The rules for a scalar or column operand of an operator: given unless unary, float32 for arithmetic."""
    if i.fields[name] is None and not op.unary:
        raise i.fail(f"{setting}={op.name} takes two operands; give {name}")


def _native(*layouts: Layout) -> bool:
    return all(layout.dtype in _WORD for layout in layouts)


@instruction
class tensor_tensor:
    """Element-wise ``dst = data1 <op> data2`` of two tiles with the same partitions and elements a partition.

    Arithmetic runs in float32 and is rounded to ``dst``'s type; with int32 or uint32 everywhere it runs on GpSimd in
    exact integer arithmetic that wraps. Bit-vector operators need integer types.
    """

    operands = dict(dst=Out(ON_CHIP, indirect=True), data1=In(ON_CHIP, indirect=True), data2=In(ON_CHIP), op=static(),
                    engine=static(Engine.unknown))  # fmt: skip
    engines = (Engine.vector, Engine.gpsimd)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data1", "data2")
        op = alu_operator(i, "op")
        if op.unary:
            raise i.fail(f"{op.name} takes one operand; use tensor_scalar or activation")
        not_both_psum(i, "data1", "data2")
        if op.bitvec:
            _require_integers(i, op, "dst", "data1", "data2")
        unpacked(i, "dst", "data1", "data2")

    def select_engine(i: Issue) -> Engine:
        in_psum = MemoryRegion.psum in (i.dst.region, i.data1.region, i.data2.region)
        op = alu_operator(i, "op")
        if op.name == "power":
            if in_psum:
                raise i.fail(
                    "power runs on the GpSimd engine, which cannot reach PSUM; copy the operands to SBUF first"
                )
            if i.engine is Engine.vector:
                raise i.fail("power of two tensors runs on the GpSimd engine only; leave engine out")
            return Engine.gpsimd if i.engine is Engine.unknown else i.engine
        if i.engine is Engine.unknown:
            native = _native(i.dst, i.data1, i.data2) and not op.bitvec
            return Engine.gpsimd if native and not in_psum else Engine.vector
        if i.engine is Engine.gpsimd and in_psum:
            raise i.fail("the GpSimd engine cannot reach PSUM; copy the operand to SBUF or use the Vector engine")
        return i.engine

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, two_streams(i.dst, i.data1, i.data2))

    def compute(i: Issue):
        op = alu_operator(i, "op")
        f, fit1, fit2, store = op.function, fit(i.data1, i.dst), fit(i.data2, i.dst), storer(i.dst)
        native = _native(i.dst, i.data1, i.data2) and tensor_tensor.instruction.select_engine(i) is Engine.gpsimd

        def run(core, dst, data1, data2, op, engine):
            f(widen(fit1(data1)), widen(fit2(data2)), out=dst)

        def run_storing(core, dst, data1, data2, op, engine):
            store(dst, f(widen(fit1(data1)), widen(fit2(data2)), out=None))

        def run_bits(core, dst, data1, data2, op, engine):
            dst[...] = f(fit1(data1), fit2(data2))

        def run_integers(core, dst, data1, data2, op, engine):
            with np.errstate(all="ignore"):
                dst[...] = f(fit1(data1).astype(np.int64), fit2(data2).astype(np.int64)).astype(dst.dtype)

        if op.bitvec:
            return run_bits
        if native and op.name not in ("divide", "power", "mod", "fmod"):
            return run_integers
        return run if direct(i.dst) else run_storing


@instruction
class tensor_scalar:
    """``dst = (data <op0> operand0) <op1> operand1``, the operands numbers or (P, 1) columns.

    ``reverse0`` and ``reverse1`` swap the sides of their operator. Both operators are arithmetic, in float32 with
    float32 operands, or both bit-vector. Additions, subtractions and multiplications of int32 and uint32 tiles by
    integers are exact and wrap.
    """

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), data=In(ON_CHIP, indirect=True), op0=static(),
        operand0=Scalar(ON_CHIP, optional=True), reverse0=static(False), op1=static(None),
        operand1=Scalar(ON_CHIP, None),
        reverse1=static(False), engine=static(Engine.unknown),
    )  # fmt: skip
    engines = (Engine.vector, Engine.scalar, Engine.gpsimd)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data")
        column(i, "data", "operand0", "operand1")
        unpacked(i, "dst", "data")
        ops = _operators(i)
        if len({op.bitvec for op in ops if op.name != "bypass"}) > 1:
            raise i.fail(
                f"{ops[0].name} and {ops[1].name} mix bit-vector and arithmetic operators; split the instruction"
            )
        if i.op1 is None and i.operand1 is not None:
            raise i.fail("operand1 is given without op1; leave it None, or say which operator it is for")
        integers = _addresses(i)
        for op, number_ in zip(ops, ("0", "1"), strict=False):
            check_operand(i, op, "op" + number_, "operand" + number_)
            if op.bitvec:
                _require_integers(i, op, "dst", "data", "operand" + number_)
            elif not integers and not op.unary:
                require_types(i, "operand" + number_, "float32")
        if integers and "tensor" in (i.dst.indirect, i.data.indirect):
            raise i.fail(
                "integer address arithmetic does not take indirect() views; copy the tile with tensor_copy first"
            )

    def select_engine(i: Issue) -> Engine:
        ops = _operators(i)
        names = tuple(op.name for op in ops)
        in_psum = MemoryRegion.psum in (i.dst.region, i.data.region)
        chosen = i.engine
        if chosen is Engine.unknown:
            return Engine.gpsimd if names[0] == "rsqrt" and not in_psum else Engine.vector
        if ops[0].bitvec and chosen is not Engine.vector:
            raise i.fail(f"bit-vector operators run on the Vector engine only, not {chosen.name}")
        if chosen is Engine.gpsimd:
            if "rsqrt" not in names:
                raise i.fail("the GpSimd engine runs tensor_scalar only for rsqrt; use the Vector engine")
            if in_psum:
                raise i.fail("the GpSimd engine cannot reach PSUM; use the Vector engine")
        if chosen is Engine.scalar and i.core.generation < 4 and names not in (
            ("multiply", "add"), ("multiply",), ("add",),
        ):  # fmt: skip
            raise i.fail(f"the Scalar engine of NeuronCore-v{i.core.generation} runs multiply, add, or multiply "
                         "then add, not "
                         f"{' then '.join(names)}; use the Vector engine")  # fmt: skip
        return chosen

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, fast_mode(i, engine, i.data, i.dst))

    def compute(i: Issue):
        ops = _operators(i)
        shaped, col0, col1 = fit(i.data, i.dst), expand(i.operand0, i.dst), expand(i.operand1, i.dst)
        store, in_place = storer(i.dst), direct(i.dst)
        if ops[0].bitvec or (len(ops) > 1 and ops[1].bitvec):
            return _bit_operations(i, ops)
        one = step(ops[0], i.reverse0)
        both = chain(ops[0], ops[-1], i.reverse0, i.reverse1)

        def run_one(core, dst, data, op0, operand0, reverse0, op1, operand1, reverse1, engine):
            a = None if operand0 is None else number(col0(operand0))
            if in_place:
                one(widen(shaped(data)), a, dst)
            else:
                store(dst, one(widen(shaped(data)), a, None))

        def run_both(core, dst, data, op0, operand0, reverse0, op1, operand1, reverse1, engine):
            a = None if operand0 is None else number(col0(operand0))
            b = None if operand1 is None else number(col1(operand1))
            if in_place:
                both(widen(shaped(data)), a, b, dst)
            else:
                store(dst, both(widen(shaped(data)), a, b, None))

        floats = run_one if len(ops) == 1 else run_both
        if not _addresses(i):
            return floats
        exact = [step(op, reverse) for op, reverse in zip(ops, (i.reverse0, i.reverse1), strict=False)]

        def run_addresses(core, dst, data, op0, operand0, reverse0, op1, operand1, reverse1, engine):
            given = [_whole(col0(operand0)), _whole(col1(operand1))]
            if any(a is None for a in given[: len(exact)]):
                floats(core, dst, data, op0, operand0, reverse0, op1, operand1, reverse1, engine)
                return
            x = shaped(data).astype(np.int64)
            for apply, a in zip(exact, given, strict=False):
                x = apply(x, a, None)
            dst[...] = x.astype(dst.dtype)

        return run_addresses


def _operators(i: Issue) -> list[Operator]:
    ops = [alu_operator(i, "op0")]
    if i.op1 is not None:
        ops.append(alu_operator(i, "op1"))
    return ops


def _addresses(i: Issue) -> bool:
    """Whether the call is address arithmetic: int32 or uint32 tiles and columns, operators that are exact on
    integers."""
    layouts = [f for f in (i.dst, i.data, i.operand0, i.operand1) if isinstance(f, Layout)]
    return _native(*layouts) and all(op.name in _EXACT_ON_INTEGERS for op in _operators(i))


def _whole(value: Any) -> Any:
    """An operand of address arithmetic as an integer; None where it has a fraction."""
    if isinstance(value, np.ndarray):
        return value.astype(np.int64)
    if value is None or float(value) != np.floor(float(value)):
        return None
    return int(value)


def _bit_operations(i: Issue, ops: list[Operator]) -> Callable[..., None]:
    shaped, col0, col1 = fit(i.data, i.dst), expand(i.operand0, i.dst), expand(i.operand1, i.dst)
    steps = [step(op, reverse) for op, reverse in zip(ops, (i.reverse0, i.reverse1), strict=False)]

    def run(core, dst, data, op0, operand0, reverse0, op1, operand1, reverse1, engine):
        x = shaped(data)
        for apply, a in zip(steps, (col0(operand0), col1(operand1)), strict=False):
            a = a if a is None or isinstance(a, np.ndarray) else _bits(a, x.dtype)
            x = apply(x, a, None)
        dst[...] = x

    return run


def _bits(value: Any, host: np.dtype) -> np.ndarray:
    """A constant as a bit pattern of an integer type."""
    width = 8 * host.itemsize
    return np.array(int(value) & ((1 << width) - 1), dtype=f"u{host.itemsize}").view(host)


@instruction
class scalar_tensor_tensor:
    """``dst = (data <op0> operand0) <op1> operand1``: operand0 a number or (P, 1) column, operand1 a tile like
    ``data``."""

    operands = dict(
        dst=Out(ON_CHIP), data=In(ON_CHIP), op0=static(), operand0=Scalar(ON_CHIP), op1=static(), operand1=In(ON_CHIP),
        reverse0=static(False), reverse1=static(False),
    )  # fmt: skip
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data", "operand1")
        column(i, "data", "operand0")
        unpacked(i, "dst", "data", "operand1")
        not_both_psum(i, "data", "operand1")
        arithmetic(i, "op0")
        if arithmetic(i, "op1").unary:
            raise i.fail("op1 takes operand1; a unary operator would ignore it, use tensor_scalar")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, two_streams(i.dst, i.data, i.operand1))

    def compute(i: Issue):
        shaped, col, second = fit(i.data, i.dst), expand(i.operand0, i.dst), fit(i.operand1, i.dst)
        both = chain(arithmetic(i, "op0"), arithmetic(i, "op1"), i.reverse0, i.reverse1)
        store, in_place = storer(i.dst), direct(i.dst)

        def run(core, dst, data, op0, operand0, op1, operand1, reverse0, reverse1):
            x, a, b = widen(shaped(data)), number(col(operand0)), widen(second(operand1))
            if in_place:
                both(x, a, b, dst)
            else:
                store(dst, both(x, a, b, None))

        return run


@instruction
class reciprocal:
    """Element-wise ``dst = 1 / data`` on the Vector engine, correctly rounded in float32."""

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP))
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data")
        unpacked(i, "dst", "data")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, i.core.vector_reciprocal_cycles_per_element)

    def compute(i: Issue):
        shaped, store, in_place = fit(i.data, i.dst), storer(i.dst), direct(i.dst)
        one = np.float32(1)

        def run(core, dst, data):
            if in_place:
                np.divide(one, widen(shaped(data)), out=dst)
            else:
                store(dst, np.divide(one, widen(shaped(data))))

        return run
