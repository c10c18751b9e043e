"""The instruction set of the NeuronCore: one declaration an instruction, grouped by what it does.

Importing this package declares everything; ``nki.isa`` exports the callables.
"""

from __future__ import annotations

from opentrn.neuroncore.isa.activate import activation, activation_reduce
from opentrn.neuroncore.isa.copies import memset, tensor_copy
from opentrn.neuroncore.isa.dma import dma_copy
from opentrn.neuroncore.isa.elementwise import tensor_scalar, tensor_tensor
from opentrn.neuroncore.isa.matmul import nc_matmul, nc_transpose
from opentrn.neuroncore.isa.reduce import tensor_reduce
from opentrn.neuroncore.isa.registers import register_alloc, register_load, register_move, register_store

__all__ = [
    "activation", "activation_reduce", "dma_copy", "memset", "nc_matmul", "nc_transpose", "register_alloc",
    "register_load", "register_move", "register_store", "tensor_copy", "tensor_reduce", "tensor_scalar", "tensor_tensor",
]  # fmt: skip
