"""The instruction set of the NeuronCore: one declaration an instruction, grouped by what it does.

Importing this package declares everything; ``nki.isa`` exports the callables.
"""

from __future__ import annotations

from opentrn.neuroncore.isa.accumulate import (
    exponential,
    range_select,
    select_reduce,
    tensor_scalar_cumulative,
    tensor_scalar_reduce,
)
from opentrn.neuroncore.isa.activate import activate2, activation, activation_reduce
from opentrn.neuroncore.isa.copies import memset, nc_stream_shuffle, tensor_copy, tensor_copy_predicated
from opentrn.neuroncore.isa.dma import dma_compute, dma_copy
from opentrn.neuroncore.isa.dma_transpose import dma_transpose
from opentrn.neuroncore.isa.elementwise import reciprocal, scalar_tensor_tensor, tensor_scalar, tensor_tensor
from opentrn.neuroncore.isa.gather import local_gather, nc_n_gather
from opentrn.neuroncore.isa.matmul import nc_matmul, nc_transpose
from opentrn.neuroncore.isa.mx import nc_matmul_mx, quantize_mx
from opentrn.neuroncore.isa.patterns import affine_select, iota
from opentrn.neuroncore.isa.random import dropout, rand2, rand_get_state, rand_set_state, rng, set_rng_seed
from opentrn.neuroncore.isa.reduce import tensor_partition_reduce, tensor_reduce
from opentrn.neuroncore.isa.registers import register_alloc, register_load, register_move, register_store
from opentrn.neuroncore.isa.rendezvous import core_barrier, sendrecv
from opentrn.neuroncore.isa.scan import tensor_tensor_scan
from opentrn.neuroncore.isa.search import (
    max8,
    nc_find_index8,
    nc_match_replace8,
    nonzero_with_count,
    sequence_bounds,
    topk,
)
from opentrn.neuroncore.isa.statistics import bn_aggr, bn_stats

__all__ = [
    "activate2", "activation", "activation_reduce", "affine_select", "bn_aggr", "bn_stats", "core_barrier",
    "dma_compute", "dma_copy", "dma_transpose", "dropout", "exponential", "iota", "local_gather", "max8", "memset",
    "nc_find_index8", "nc_match_replace8", "nc_matmul", "nc_matmul_mx", "nc_n_gather", "nc_stream_shuffle",
    "nc_transpose", "nonzero_with_count", "quantize_mx", "rand2", "rand_get_state", "rand_set_state", "range_select",
    "reciprocal", "register_alloc", "register_load", "register_move", "register_store", "rng", "scalar_tensor_tensor",
    "select_reduce", "sendrecv", "sequence_bounds", "set_rng_seed", "tensor_copy", "tensor_copy_predicated",
    "tensor_partition_reduce", "tensor_reduce", "tensor_scalar", "tensor_scalar_cumulative", "tensor_scalar_reduce",
    "tensor_tensor", "tensor_tensor_scan", "topk",
]  # fmt: skip
