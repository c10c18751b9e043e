"""The Scalar engine: activation functions with scale, bias and a reduction along the free axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from opentrn.neuroncore.alu import activation_function, as_float32
from opentrn.neuroncore.cost import Cost, activation_cost
from opentrn.neuroncore.instruction import ON_CHIP, Engine, In, Issue, Out, Scalar, instruction, static
from opentrn.neuroncore.isa.settings import reduce_cmd as commands
from opentrn.neuroncore.isa.shapes import column, expand, fit, flat, same_elements

__all__ = ["activation", "activation_reduce"]


def _function(i: Issue) -> Callable[[np.ndarray], np.ndarray]:
    found = activation_function(i.op)
    if found is None:
        raise i.fail(f"op={getattr(i.op, '__name__', i.op)} is not an activation function of the Scalar engine")
    return found


def _apply(i: Issue) -> Callable[..., np.ndarray]:
    """``op(data * scale + bias)`` in float32."""
    f = _function(i)
    shaped, scaled, biased = fit(i.data, i.dst), expand(i.scale, i.dst), expand(i.bias, i.dst)

    def apply(data, bias, scale):
        x = as_float32(shaped(data))
        if not (type(scale) is float and scale == 1.0):
            x = x * as_float32(scaled(scale))
        if bias is not None and not (type(bias) is float and bias == 0.0):
            x = x + as_float32(biased(bias))
        return f(x)

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
        same_elements(i, "dst", "data")
        column(i, "data", "bias", "scale", "reduce_res")
        _function(i)
        name = getattr(i.reduce_op, "__name__", None)
        if i.reduce_op is not None and name not in ("add", "sum"):
            raise i.fail(f"reduce_op={name}; the Scalar engine only sums, use nl.add")

    def cost(i: Issue, engine: Engine) -> Cost:
        return activation_cost(i, engine)

    def compute(i: Issue):
        apply = _apply(i)
        resets = i.reduce_cmd in (commands.reset, commands.reset_reduce)
        reduces = i.reduce_cmd in (commands.reduce, commands.reset_reduce)
        partitions = i.data.num_partitions

        def run(core, dst, op, data, bias, scale, reduce_op, reduce_res, reduce_cmd):
            result = apply(data, bias, scale)
            if resets or core.scalar_accumulator is None:
                core.scalar_accumulator = np.zeros(core.hardware.num_partitions, np.float32)
            if reduces:
                core.scalar_accumulator[:partitions] += flat(result).sum(axis=1, dtype=np.float32)
            dst[...] = result
            if reduce_res is not None:
                reduce_res[...] = core.scalar_accumulator[:partitions].reshape(reduce_res.shape)

        return run


@instruction
class activation_reduce:
    """:func:`activation` with the sum along the free axis written to ``reduce_res``."""

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), op=static(), data=In(ON_CHIP, indirect=True), reduce_op=static(),
        reduce_res=Out(ON_CHIP, None), bias=Scalar(ON_CHIP, None), scale=Scalar(ON_CHIP, 1.0),
    )  # fmt: skip
    engines = (Engine.scalar,)

    def check(i: Issue) -> None:
        activation.instruction.check(i)

    def cost(i: Issue, engine: Engine) -> Cost:
        return activation_cost(i, engine, extra_cycles=i.core.scalar_read_accumulator_cycles)

    def compute(i: Issue):
        apply = _apply(i)
        partitions = i.data.num_partitions

        def run(core, dst, op, data, reduce_op, reduce_res, bias, scale):
            result = apply(data, bias, scale)
            sums = flat(result).sum(axis=1, dtype=np.float32)
            core.scalar_accumulator = np.zeros(core.hardware.num_partitions, np.float32)
            core.scalar_accumulator[:partitions] = sums
            dst[...] = result
            if reduce_res is not None:
                reduce_res[...] = sums.reshape(reduce_res.shape)

        return run
