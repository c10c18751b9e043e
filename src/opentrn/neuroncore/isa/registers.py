"""Registers: allocation, moves, and their traffic with memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import machine, undefined
from opentrn.neuroncore.cost import Cost, fixed
from opentrn.neuroncore.instruction import HBM, SBUF, Engine, In, Issue, Out, Plan, Value, instruction
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["register_alloc", "register_load", "register_move", "register_store"]

_REGISTER_BYTES = 4


def _register(value: Any, what: str) -> VirtualRegister:
    if not isinstance(value, VirtualRegister):
        raise ValidationError(
            f"{what} must be a register from nisa.register_alloc, not {type(value).__name__}", caller()
        )
    return value


def _check_element(i: Issue, name: str) -> None:
    layout = i.fields[name]
    if layout.size != 1:
        raise i.fail(f"{name} has {layout.size} elements {list(layout.shape)}; a register holds one, slice it")
    if layout.dtype.itemsize > _REGISTER_BYTES or layout.dtype.kind not in ("int", "uint", "bool"):
        raise i.fail(f"{name} is {layout.dtype}; a register holds an integer of up to 32 bits, cast the tensor first")


def register_alloc(x: Any = None) -> VirtualRegister:
    """A new register; ``x`` is its first value, an integer (or a one-element tensor to load), None for none yet."""
    register = VirtualRegister()
    if isinstance(x, NkiTensor):
        register_load(register, x)
    elif x is not None:
        register_move(register, x)
    return register


def register_move(dst: VirtualRegister, src: Any) -> None:
    """Copy a register or a 32-bit integer constant into a register."""
    dst = _register(dst, "register_move: dst")
    if isinstance(src, VirtualRegister):
        dst.copy(src)
        return
    try:
        value = src.__index__()
    except (AttributeError, TypeError):
        raise ValidationError(
            f"register_move: src is {src!r}; it must be an integer or a register, load tensors with register_load",
            caller(),
        ) from None
    dst.write(value)
    dst.producer = None


@instruction
class register_load:
    """Load one integer element of SBUF or HBM, of up to 32 bits, into a register."""

    operands = dict(dst=Value(), src=In(SBUF + HBM))
    engines = (Engine.sync,)
    on_tensors = True
    follows_undefined = True

    def check(i: Issue) -> None:
        _check_element(i, "src")

    def place(plan: Plan, args: tuple) -> tuple:
        dst, src = args
        core = machine.current()
        _register(dst, "register_load: dst").load(core, core.count - 1, _origin(src))
        return args

    def cost(i: Issue, engine: Engine) -> Cost:
        return fixed(i, engine, i.core.register_load_ns)

    def compute(i: Issue):
        def run(core, dst, src):
            undefined.require(core, src, "a register")
            dst.write(int(np.asarray(src.array()).reshape(-1)[0]))

        return run


def _origin(src: NkiTensor) -> str:
    label = f"tensor {src.name!r}" if src.name else f"a {src.layout.region.value} tensor"
    where = caller()
    return f"{label}, loaded at line {where[1]}" if where else label


@instruction
class register_store:
    """Store a register (or an integer constant) into one integer element of SBUF or HBM."""

    operands = dict(dst=Out(SBUF + HBM), src=Value())
    engines = (Engine.sync,)

    def check(i: Issue) -> None:
        _check_element(i, "dst")

    def place(plan: Plan, args: tuple) -> tuple:
        dst, src = args
        if isinstance(src, VirtualRegister) and src.producer is not None:
            core = machine.current()
            if src.producer[0] is core:
                core.add_dependency(src.producer[1], core.count - 1)
        return args

    def cost(i: Issue, engine: Engine) -> Cost:
        return fixed(i, engine, i.core.register_load_ns)

    def compute(i: Issue):
        wrap = i.dst.dtype.itemsize * 8
        kind, unsigned = i.dst.host, np.dtype(f"u{i.dst.dtype.itemsize}")

        def run(core, dst, src):
            bits = int(src) & ((1 << wrap) - 1)
            dst[...] = (
                np.array([bits], dtype=np.uint64).astype(unsigned).view(kind if kind.kind != "b" else unsigned)[0]
            )

        return run
