"""``neuronxcc.nki``."""

from __future__ import annotations

from opentrn.nki.earlier import compiler, isa, language, typing
from opentrn.nki.earlier.decorators import baremetal, benchmark, jit, nki_jit, profile, simulate_kernel, trace
from opentrn.nki.earlier.tiles import Tile as tensor

__all__ = [
    "baremetal",
    "benchmark",
    "compiler",
    "isa",
    "jit",
    "language",
    "nki_jit",
    "profile",
    "simulate_kernel",
    "tensor",
    "trace",
    "typing",
]
