"""Registers: allocation, moves, and their traffic with memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import machine, undefined
from opentrn.neuroncore.memory import FULL
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["register_alloc", "register_load", "register_move", "register_store"]


def register_alloc(x: int | None = None) -> VirtualRegister:
    """A new register, holding ``x`` if given."""
    register = VirtualRegister()
    if x is not None:
        register.write(x)
    return register


def register_move(dst: VirtualRegister, src: Any) -> None:
    """Copy a register or a 32-bit integer constant into a register."""
    dst.write(src.read() if isinstance(src, VirtualRegister) else int(src))


def register_load(dst: VirtualRegister, src: NkiTensor) -> None:
    """Load one element of SBUF or HBM into a register."""
    if src.layout.size != 1:
        raise ValidationError(f"register_load reads one element, not {list(src.shape)}; slice it", caller())
    core = machine.current()
    if core.execute:
        undefined.require(core, src, "a register")
        dst.write(int(np.asarray(src.array()).reshape(-1)[0]))


def register_store(dst: NkiTensor, src: Any) -> None:
    """Store a register or constant into one element of SBUF or HBM."""
    if dst.layout.size != 1:
        raise ValidationError(f"register_store writes one element, not {list(dst.shape)}; slice it", caller())
    core = machine.current()
    if core.execute:
        if dst.storage.state != FULL:
            core._writing(dst, dst.storage)
        dst.array()[...] = int(src)
