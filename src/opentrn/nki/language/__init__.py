"""``nki.language``: tensors, types, and functions on tiles.

Functions that compute (``add``, ``exp``, ``sum``...) have two uses, as in AWS's library: called, they allocate a tile
and issue
the instructions that fill it; passed as ``op=`` to an instruction of ``nki.isa``, they name its operator. One idea a
file;
this module is the list of what kernels may import.
"""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore.dtypes import (
    DType,
    bfloat16,
    bool_,
    float4_e2m1fn_x4,
    float8_e3m4,
    float8_e4m3,
    float8_e4m3fn,
    float8_e4m3fn_x4,
    float8_e5m2,
    float8_e5m2_x4,
    float8_e8m0fnu,
    float16,
    float32,
    int8,
    int16,
    int32,
    int64,
    tfloat32,
    uint8,
    uint16,
    uint32,
)
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NKIObject, NkiTensor, ds
from opentrn.nki.language.activations import (
    arctan,
    cos,
    erf,
    erf_dx,
    exp,
    gelu,
    gelu_apprx_sigmoid,
    gelu_apprx_sigmoid_dx,
    gelu_apprx_tanh,
    gelu_dx,
    log,
    mish,
    prelu,
    reciprocal,
    relu,
    rsqrt,
    sigmoid,
    sign,
    silu,
    silu_dx,
    sin,
    softplus,
    sqrt,
    square,
    tan,
    tanh,
)
from opentrn.nki.language.creation import (
    empty_like,
    full,
    ndarray,
    ones,
    rand,
    random_seed,
    shared_constant,
    shared_identity_matrix,
    zeros,
    zeros_like,
)
from opentrn.nki.language.elementwise import (
    abs,
    abs_max,
    abs_min,
    add,
    average,
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    bypass,
    divide,
    equal,
    fmod,
    greater,
    greater_equal,
    invert,
    left_shift,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    multiply,
    negative,
    not_equal,
    power,
    right_shift,
    subtract,
)
from opentrn.nki.language.loops import (
    affine_range,
    dynamic_range,
    fori_loop,
    no_reorder,
    sequential_range,
    static_range,
    while_loop,
)
from opentrn.nki.language.movement import (
    broadcast_to,
    copy,
    expand_dims,
    gather_flattened,
    load,
    load_transpose2d,
    matmul,
    store,
    transpose,
)
from opentrn.nki.language.program import device_print, num_programs, program_id, program_ndim
from opentrn.nki.language.reductions import all, max, mean, min, prod, rms_norm, softmax, sum, var
from opentrn.nki.language.rounding import ceil, floor, trunc
from opentrn.nki.language.selection import dropout, where
from opentrn.nki.language.tiles import is_hbm, is_on_chip, is_psum, is_sbuf, tile_size

sbuf = MemoryRegion.sbuf
psum = MemoryRegion.psum
private_hbm = hbm = MemoryRegion.private_hbm
shared_hbm = MemoryRegion.shared_hbm

# Names that AWS's own kernels use although the reference does not list them.
tensor = NkiTensor
dtype = DType
range = affine_range
bool = bool_

_EARLIER = ("arange", "mgrid")


def par_dim(size: int) -> int:
    """Marks the partition dimension of a shape in the earlier API; it is dimension 0 now, so the size stands for
    itself."""
    return size


def __getattr__(name: str) -> Any:
    """Index grids of the earlier API, imported on first use."""
    if name in _EARLIER:
        from opentrn.nki.earlier import indices

        return getattr(indices, name)
    raise AttributeError(f"module 'nki.language' has no attribute {name!r}")


__all__ = [
    "DType", "MemoryRegion", "NKIObject", "NkiTensor", "abs", "abs_max", "abs_min", "add", "affine_range", "all",
    "arctan",
    "average", "bfloat16", "bitwise_and", "bitwise_or", "bitwise_xor", "bool", "bool_", "broadcast_to", "bypass",
    "ceil",
    "copy", "cos", "device_print", "divide", "dropout", "ds", "dtype", "dynamic_range", "empty_like", "equal", "erf",
    "erf_dx", "exp", "expand_dims", "float16", "float32", "float4_e2m1fn_x4", "float8_e3m4", "float8_e4m3",
    "float8_e4m3fn", "float8_e4m3fn_x4", "float8_e5m2", "float8_e5m2_x4", "float8_e8m0fnu", "floor", "fmod",
    "fori_loop",
    "full", "gather_flattened", "gelu", "gelu_apprx_sigmoid", "gelu_apprx_sigmoid_dx", "gelu_apprx_tanh", "gelu_dx",
    "greater", "greater_equal", "hbm", "int16", "int32", "int64", "int8", "invert", "is_hbm", "is_on_chip", "is_psum",
    "is_sbuf", "left_shift", "less", "less_equal", "load", "load_transpose2d", "log", "logical_and", "logical_not",
    "logical_or", "logical_xor", "matmul", "max", "maximum", "mean", "min", "minimum", "mish", "mod", "multiply",
    "ndarray",
    "negative", "no_reorder", "not_equal", "num_programs", "ones", "par_dim", "power", "prelu", "private_hbm", "prod",
    "program_id", "program_ndim", "psum", "rand", "random_seed", "range", "reciprocal", "relu", "right_shift",
    "rms_norm",
    "rsqrt", "sbuf", "sequential_range", "shared_constant", "shared_hbm", "shared_identity_matrix", "sigmoid", "sign",
    "silu", "silu_dx", "sin", "softmax", "softplus", "sqrt", "square", "static_range", "store", "subtract", "sum",
    "tan",
    "tanh", "tensor", "tfloat32", "tile_size", "transpose", "trunc", "uint16", "uint32", "uint8", "var", "where",
    "while_loop", "zeros", "zeros_like",
]  # fmt: skip
