"""Scans along the free axis, on the Vector engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.convert import number, storer, widen
from opentrn.neuroncore.cost import Cost, stream
from opentrn.neuroncore.instruction import ON_CHIP, Engine, In, Issue, Out, Plan, Scalar, instruction, static
from opentrn.neuroncore.isa.accumulate import prefix_defined
from opentrn.neuroncore.isa.elementwise import arithmetic, step
from opentrn.neuroncore.isa.shapes import column, flat, not_both_psum, same_elements, unpacked

__all__ = ["tensor_tensor_scan"]


@instruction
class tensor_tensor_scan:
    """``dst[i] = (data0[i] <op0> dst[i - 1]) <op1> data1[i]`` along the free axis, starting from ``initial``.

    ``initial`` is a number or a (P, 1) column. ``reverse0`` and ``reverse1`` swap the sides of their operator.
    """

    operands = dict(
        dst=Out(ON_CHIP), data0=In(ON_CHIP), data1=In(ON_CHIP), initial=Scalar(ON_CHIP), op0=static(), op1=static(),
        reverse0=static(False), reverse1=static(False),
    )  # fmt: skip
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data0", "data1")
        column(i, "data0", "initial")
        unpacked(i, "dst", "data0", "data1")
        not_both_psum(i, "data0", "data1")
        for name in ("op0", "op1"):
            if arithmetic(i, name).unary:
                raise i.fail(f"{name}={arithmetic(i, name).name} takes one operand; a scan combines two")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, 2.0)

    def compute(i: Issue):
        op0, op1 = arithmetic(i, "op0"), arithmetic(i, "op1")
        # The running value is the right-hand side of op0, and the left-hand side of op1.
        first, second = step(op0, i.reverse0), step(op1, i.reverse1)
        shape, store = i.dst.shape, storer(i.dst)
        linear = (op0.name, op1.name) == ("multiply", "add")

        def run(core, dst, data0, data1, initial, *settings):
            # One row a time step: the lanes are then contiguous, and NumPy steps through time.
            a = np.ascontiguousarray(flat(widen(data0)).T)
            b = np.ascontiguousarray(flat(widen(data1)).T)
            state = np.empty(a.shape[1], np.float32)
            state[...] = number(initial).reshape(-1) if isinstance(initial, np.ndarray) else number(initial)
            y = _linear(a, b, state) if linear else _general(first, second, a, b, state)
            store(dst, y.T.reshape(shape))

        return run

    def flow(plan: Plan, args, position, masks):
        return prefix_defined(masks, args[position].shape)


def _linear(a: np.ndarray, b: np.ndarray, state: np.ndarray) -> np.ndarray:
    """``y[t] = a[t] * y[t - 1] + b[t]``, the product rounded before the sum."""
    y = np.empty_like(a)
    for row, scale, shift in zip(y, a, b, strict=True):
        np.multiply(scale, state, out=row)
        state = np.add(row, shift, out=row)
    return y


def _general(first: Any, second: Any, a: np.ndarray, b: np.ndarray, state: np.ndarray) -> np.ndarray:
    y = np.empty_like(a)
    for row, x0, x1 in zip(y, a, b, strict=True):
        state = second(first(x0, state, row), x1, row)
    return y
