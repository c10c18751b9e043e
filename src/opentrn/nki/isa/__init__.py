"""``nki.isa``: the instructions and their settings, as kernels import them."""

from __future__ import annotations

from opentrn.errors import KernelError
from opentrn.neuroncore import isa as _isa
from opentrn.neuroncore import machine as _machine
from opentrn.neuroncore.instruction import NkiInstruction
from opentrn.neuroncore.isa import *  # noqa: F403  (its __all__ is the list of instructions)
from opentrn.neuroncore.isa.settings import (
    dge_mode,
    dma_engine,
    engine,
    matmul_perf_mode,
    nc_version,
    oob_mode,
    reduce_cmd,
)
from opentrn.neuroncore.registers import VirtualRegister

tensor_engine = engine.tensor
vector_engine = engine.vector
scalar_engine = engine.scalar
gpsimd_engine = engine.gpsimd
unknown_engine = engine.unknown

NkiValidationError = KernelError
"""What the instructions raise, under the name that AWS's library gives it."""


def get_nc_version() -> nc_version:
    """Generation of the core that the kernel runs on."""
    return nc_version(_machine.current().hardware.generation)


def get_nc_sub_version() -> int:
    """Silicon revision within a generation; 0, the first, for every core described here."""
    return 0


__all__ = [
    *_isa.__all__,
    "NkiInstruction",
    "NkiValidationError",
    "VirtualRegister",
    "dge_mode",
    "dma_engine",
    "engine",
    "get_nc_sub_version",
    "get_nc_version",
    "gpsimd_engine",
    "matmul_perf_mode",
    "nc_version",
    "oob_mode",
    "reduce_cmd",
    "scalar_engine",
    "tensor_engine",
    "unknown_engine",
    "vector_engine",
]
