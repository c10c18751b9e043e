"""The Scalar engine: activation functions with scale, bias and a reduction along the free axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn.neuroncore.activations import activation_function, parametric_relu
from opentrn.neuroncore.alu import Operator, named
from opentrn.neuroncore.convert import number, storer, widen
from opentrn.neuroncore.cost import Cost, activation_cost
from opentrn.neuroncore.dtypes import all_dtypes
from opentrn.neuroncore.instruction import (
    ON_CHIP,
    SCALAR,
    Engine,
    In,
    Issue,
    Out,
    Scalar,
    instruction,
    static,
)
from opentrn.neuroncore.isa.accumulators import accumulation, first_lane
from opentrn.neuroncore.isa.elementwise import alu_operator, chain
from opentrn.neuroncore.isa.settings import reduce_cmd as commands
from opentrn.neuroncore.isa.shapes import column, direct, expand, fit, require_types, same_elements, unpacked

__all__ = ["activate2", "activation", "activation_reduce"]

_BIAS_TYPES = tuple(str(d) for d in all_dtypes() if d != "tfloat32")


def _name(op: Any) -> str:
    return op if isinstance(op, str) else getattr(op, "__name__", str(op))


def _check_function(i: Issue) -> None:
    if _name(i.op) != "prelu" and activation_function(i.op) is None:
        raise i.fail(
            f"op={_name(i.op)} is not an activation function of the Scalar engine; nl.exp, nl.gelu and nl.copy are"
        )


def _function(i: Issue) -> Callable[..., np.ndarray]:
    if _name(i.op) == "prelu":
        return lambda x, out=None: parametric_relu(x, 0.0, out)
    found = activation_function(i.op)
    assert found is not None
    return found


def _check(i: Issue) -> None:
    """What activation and activation_reduce agree on."""
    same_elements(i, "dst", "data")
    column(i, "data", "bias", "scale", "reduce_res")
    unpacked(i, "dst", "data")
    _check_function(i)
    require_types(i, "scale", "float32")
    require_types(i, "bias", *_BIAS_TYPES)
    if i.core.generation == 2 and i.bias is not None:
        if i.bias is SCALAR:
            raise i.fail(
                "bias is a number, which needs NeuronCore-v3 or newer; on NeuronCore-v2 pass a tensor of shape (P, 1)"
            )
        if _name(i.op) == "reciprocal":
            raise i.fail("reciprocal takes no bias on NeuronCore-v2; add it first with nisa.tensor_scalar")


def _reduce_operator(i: Issue, *allowed: str) -> Operator:
    """The reduction in setting ``reduce_op``; a sum where none is given."""
    if i.reduce_op is None:
        return named("add")
    found = alu_operator(i, "reduce_op")
    if found.name not in allowed:
        raise i.fail(f"reduce_op={found.name}; this instruction reduces with {' or '.join('nl.' + a for a in allowed)}")
    return found


def _apply(i: Issue) -> Callable[..., np.ndarray]:
    """``op(data * scale + bias)`` in float32, into ``out`` or a new array."""
    f = _function(i)
    shaped, scaled, biased = fit(i.data, i.dst), expand(i.scale, i.dst), expand(i.bias, i.dst)

    def apply(data: np.ndarray, bias: Any, scale: Any, out: np.ndarray | None) -> np.ndarray:
        x = source = widen(shaped(data))
        if not (type(scale) is float and scale == 1.0):
            x = np.multiply(x, number(scaled(scale)))
        if bias is not None and not (type(bias) is float and bias == 0.0):
            x = np.add(x, number(biased(bias)), out=None if x is source else x)
        return f(x, out=out)

    return apply


@instruction
class activation:
    """``dst = op(data * scale + bias)`` on the Scalar engine, with an optional sum along the free axis.

    The sum goes to the engine's accumulator registers as ``reduce_cmd`` says; ``reduce_res`` (P, 1) reads them out.
    """

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), op=static(), data=In(ON_CHIP, indirect=True), bias=Scalar(ON_CHIP, None),
        scale=Scalar(ON_CHIP, 1.0), reduce_op=static(None), reduce_res=Out(ON_CHIP, None),
        reduce_cmd=static(commands.idle),
    )  # fmt: skip
    engines = (Engine.scalar,)

    def check(i: Issue) -> None:
        _check(i)
        _reduce_operator(i, "add")
        if i.reduce_cmd is commands.load_reduce:
            raise i.fail("the Scalar engine has no load_reduce; use reset_reduce, reduce, reset or idle")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return activation_cost(i, engine)

    def compute(i: Issue):
        apply, store = _apply(i), storer(i.dst)
        in_place = direct(i.dst)
        if i.reduce_cmd is commands.idle and i.reduce_res is None:

            def run(core, dst, op, data, bias, scale, reduce_op, reduce_res, reduce_cmd):
                if in_place:
                    apply(data, bias, scale, dst)
                else:
                    store(dst, apply(data, bias, scale, None))

            return run

        update = accumulation(i, "scalar", _reduce_operator(i, "add"))
        store_sum = storer(i.reduce_res) if i.reduce_res is not None else None

        def run_reducing(core, dst, op, data, bias, scale, reduce_op, reduce_res, reduce_cmd):
            result = apply(data, bias, scale, dst if in_place else None)
            registers = update(core, result)
            if not in_place:
                store(dst, result)
            if store_sum is not None:
                store_sum(reduce_res, registers.reshape(reduce_res.shape))

        return run_reducing


@instruction
class activation_reduce:
    """:func:`activation` with the reduction along the free axis written to ``reduce_res``."""

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), op=static(), data=In(ON_CHIP, indirect=True), reduce_op=static(),
        reduce_res=Out(ON_CHIP, optional=True), bias=Scalar(ON_CHIP, None), scale=Scalar(ON_CHIP, 1.0),
    )  # fmt: skip
    engines = (Engine.scalar,)

    def check(i: Issue) -> None:
        _check(i)
        _reduce_operator(i, *_REDUCTIONS_BY_GENERATION.get(i.core.generation, _REDUCTIONS))

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return activation_cost(i, engine, extra_cycles=i.core.scalar_read_accumulator_cycles)

    def compute(i: Issue):
        apply, store, in_place = _apply(i), storer(i.dst), direct(i.dst)
        i.fields["reduce_cmd"] = commands.reset_reduce
        update = accumulation(i, "scalar", _reduce_operator(i, *_REDUCTIONS))
        store_sum = storer(i.reduce_res) if i.reduce_res is not None else None

        def run(core, dst, op, data, reduce_op, reduce_res, bias, scale):
            result = apply(data, bias, scale, dst if in_place else None)
            registers = update(core, result)
            if not in_place:
                store(dst, result)
            if store_sum is not None:
                store_sum(reduce_res, registers.reshape(reduce_res.shape))

        return run


_REDUCTIONS = ("add", "maximum", "minimum", "abs_max", "abs_min")
_REDUCTIONS_BY_GENERATION = {2: ("add",), 3: ("add", "maximum", "minimum")}
_TENSOR_SCALAR_PAIRS = (
    ("multiply", "add"), ("multiply", "subtract"), ("multiply", "bypass"), ("add", "bypass"), ("subtract", "bypass"),
    ("bypass", "bypass"),
)  # fmt: skip


@instruction
class activate2:
    """``dst = op((data <op0> imm0) <op1> imm1)`` on the Scalar engine, with an optional reduction; NeuronCore-v4.

    ``relu_param`` is the slope of ``nl.prelu``. ``reduce_op`` reduces along the free axis into the engine's accumulator
    registers as ``reduce_cmd`` says; ``reduce_res`` (P, 1) reads them out.
    """

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), op=static(), data=In(ON_CHIP, indirect=True),
        imm0=Scalar(ON_CHIP, optional=True), imm1=Scalar(ON_CHIP, optional=True), op0=static(), op1=static(),
        relu_param=Scalar(ON_CHIP, 0.0), reverse0=static(False), reverse1=static(False), reduce_op=static(None),
        reduce_res=Out(ON_CHIP, None), reduce_cmd=static(commands.idle),
    )  # fmt: skip
    engines = (Engine.scalar,)
    generations = (4, 5)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data")
        column(i, "data", "imm0", "imm1", "relu_param", "reduce_res")
        unpacked(i, "dst", "data")
        _check_function(i)
        if i.op0 is None and (i.op1 is not None or i.reverse0):
            raise i.fail("op1 and reverse0 need op0; give nl.bypass for no operation")
        if i.op1 is None and i.reverse1:
            raise i.fail("reverse1 needs op1")
        pair = tuple(op.name for op in _pair(i))
        if pair not in _TENSOR_SCALAR_PAIRS:
            legal = ", ".join(f"{a} then {b}" for a, b in _TENSOR_SCALAR_PAIRS)
            raise i.fail(
                f"{pair[0]} then {pair[1]} is not a pair of operators that the Scalar engine runs; it has {legal}"
            )
        for op, name in zip(pair, ("imm0", "imm1"), strict=True):
            if op != "bypass" and i.fields[name] is None:
                raise i.fail(f"{op} needs {name}")
        if hasattr(i.imm0, "dtype") and hasattr(i.imm1, "dtype") and i.imm0.dtype is not i.imm1.dtype:
            raise i.fail(f"imm0 is {i.imm0.dtype} and imm1 {i.imm1.dtype}; two tensors must have one type")
        _reduce_operator(i, *_REDUCTIONS)
        if i.reduce_cmd is commands.load_reduce:
            raise i.fail("the Scalar engine has no load_reduce; use reset_reduce, reduce, reset or idle")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return activation_cost(i, engine)

    def compute(i: Issue):
        shaped, col0, col1 = fit(i.data, i.dst), expand(i.imm0, i.dst), expand(i.imm1, i.dst)
        slope_column = expand(i.relu_param, i.dst)
        first, second = _pair(i)
        none = first.name == second.name == "bypass"
        both = chain(first, second, i.reverse0, i.reverse1)
        prelu = _name(i.op) == "prelu"
        f, store, in_place = _function(i), storer(i.dst), direct(i.dst)
        update = accumulation(i, "scalar", _reduce_operator(i, *_REDUCTIONS))
        store_sum = storer(i.reduce_res) if i.reduce_res is not None else None

        def run(
            core, dst, op, data, imm0, imm1, op0, op1, relu_param, reverse0, reverse1, reduce_op, reduce_res, reduce_cmd
        ):
            x = widen(shaped(data))
            if not none:
                a = None if imm0 is None else number(col0(imm0))
                x = both(x, a, None if imm1 is None else number(col1(imm1)), None)
            out = dst if in_place else None
            result = parametric_relu(x, number(slope_column(relu_param)), out) if prelu else f(x, out=out)
            registers = update(core, result)
            if not in_place:
                store(dst, result)
            if store_sum is not None:
                store_sum(reduce_res, registers.reshape(reduce_res.shape))

        return run


def _pair(i: Issue) -> tuple[Operator, Operator]:
    bypass = named("bypass")
    return (bypass if i.op0 is None else alu_operator(i, "op0"), bypass if i.op1 is None else alu_operator(i, "op1"))
