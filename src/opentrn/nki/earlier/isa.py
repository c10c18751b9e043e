"""``nki.isa`` of the earlier API: the instructions as functions that return tiles.

Each function checks and shapes its operands and defers one instruction of :mod:`opentrn.neuroncore.isa`; legality,
values and cost are the instruction's own. Operands in PSUM that an engine reads from SBUF only are copied first, as the
compiler does.
"""
# ruff: noqa: F401  (names are imported to be found here)

from __future__ import annotations

from opentrn.neuroncore import machine as _machine
from opentrn.neuroncore.isa.settings import dge_mode, engine, nc_version, oob_mode, reduce_cmd
from opentrn.neuroncore.isa.settings import matmul_perf_mode as matmul_perf_mode
from opentrn.nki.earlier.dma import (
    _tiled_offloaded_memcpy,
    dma_copy,
    dma_transpose,
)
from opentrn.nki.earlier.elementwise import (
    activation,
    activation_reduce,
    memset,
    reciprocal,
    scalar_tensor_tensor,
    tensor_copy,
    tensor_copy_dynamic_dst,
    tensor_copy_dynamic_src,
    tensor_copy_predicated,
    tensor_scalar,
    tensor_scalar_reduce,
    tensor_tensor,
    tensor_tensor_scan,
)
from opentrn.nki.earlier.matrix import (
    matmul,
    nc_matmul,
    nc_transpose,
)
from opentrn.nki.earlier.selection import (
    affine_select,
    dropout,
    gather_flattened,
    iota,
    local_gather,
    nc_stream_shuffle,
    range_select,
    select_reduce,
)
from opentrn.nki.earlier.statistics import (
    bn_aggr,
    bn_stats,
    max8,
    nc_find_index8,
    nc_match_replace8,
    sequence_bounds,
    tensor_partition_reduce,
    tensor_reduce,
    tensor_scalar_cumulative,
)

tensor_engine = engine.tensor
vector_engine = engine.vector
scalar_engine = engine.scalar
gpsimd_engine = engine.gpsimd
unknown_engine = engine.unknown


def get_nc_version() -> nc_version:
    """Generation of the core that the kernel runs on."""
    return nc_version(_machine.current().hardware.generation)
