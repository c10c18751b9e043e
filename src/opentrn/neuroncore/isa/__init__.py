"""The instruction set of the NeuronCore: one declaration an instruction, grouped by what it does.

Importing this package declares everything; ``nki.isa`` exports the callables.
"""

from __future__ import annotations

from opentrn.neuroncore.isa.activate import activation, activation_reduce
from opentrn.neuroncore.isa.copies import memset, tensor_copy
from opentrn.neuroncore.isa.dma import dma_compute, dma_copy
from opentrn.neuroncore.isa.dma_transpose import dma_transpose
from opentrn.neuroncore.isa.elementwise import tensor_scalar, tensor_tensor
from opentrn.neuroncore.isa.matmul import nc_matmul, nc_transpose
from opentrn.neuroncore.isa.mx import nc_matmul_mx, quantize_mx
from opentrn.neuroncore.isa.reduce import tensor_reduce
from opentrn.neuroncore.isa.registers import register_alloc, register_load, register_move, register_store
from opentrn.neuroncore.isa.rendezvous import core_barrier, sendrecv

__all__ = [
    "sendrecv",
    "core_barrier",
    "quantize_mx",
    "nc_matmul_mx",
    "dma_transpose",
    "dma_compute",
    "activation", "activation_reduce", "dma_copy", "memset", "nc_matmul", "nc_transpose", "register_alloc",
    "register_load", "register_move", "register_store", "tensor_copy", "tensor_reduce", "tensor_scalar", "tensor_tensor",
]  # fmt: skip
