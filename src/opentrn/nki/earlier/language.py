"""``nki.language`` of the earlier API."""
# ruff: noqa: F401  (names are imported to be found here)

from __future__ import annotations

from typing import Any

import ml_dtypes as _ml_dtypes
import numpy as _np

from opentrn.neuroncore import dtypes as _dtypes
from opentrn.neuroncore import machine as _machine
from opentrn.neuroncore.dtypes import (
    bfloat16,
    float8_e4m3,
    float8_e5m2,
    float16,
    float32,
    int8,
    int16,
    int32,
    tfloat32,
    uint8,
    uint16,
    uint32,
)
from opentrn.neuroncore.dtypes import bool_ as bool_
from opentrn.neuroncore.memory import MemoryRegion as _MemoryRegion
from opentrn.neuroncore.tensor import ds
from opentrn.nki.earlier.arithmetic import *  # noqa: F403
from opentrn.nki.earlier.atomics import atomic_rmw
from opentrn.nki.earlier.constants import shared_constant, shared_identity_matrix
from opentrn.nki.earlier.creation import empty_like, full, ndarray, ones, par_dim, rand, random_seed, zeros, zeros_like
from opentrn.nki.earlier.indices import arange, mgrid
from opentrn.nki.earlier.isa import gather_flattened, matmul
from opentrn.nki.earlier.iteration import (
    affine_range,
    all_reduce,
    loop_reduce,
    nc,
    num_programs,
    program_id,
    program_ndim,
    sequential_range,
    spmd_dim,
    static_range,
)
from opentrn.nki.earlier.movement import broadcast_to, copy, load, load_transpose2d, store, transpose
from opentrn.nki.earlier.operands import flush as _flush
from opentrn.nki.earlier.reductions import all, any, max, mean, min, prod, rms_norm, softmax, sum, var
from opentrn.nki.earlier.tiles import Tile as Tensor

sbuf = _MemoryRegion.sbuf
psum = _MemoryRegion.psum
private_hbm = _MemoryRegion.private_hbm
shared_hbm = _MemoryRegion.shared_hbm
# Programs of a grid each write their part of what a kernel returns, wherever it asked for "HBM".
hbm = _MemoryRegion.shared_hbm

fp8_e4m3, fp8_e5m2 = float8_e4m3, float8_e5m2
dslice = ds
negative_infinity = float("-inf")
for _kind in _dtypes.all_dtypes():
    globals().setdefault(str(_kind), _kind)


class _Fp32:
    """``nl.fp32``: limits of float32."""

    min = -3.4028234663852886e38
    max = 3.4028234663852886e38


fp32 = _Fp32()


class _TileSize:
    """``nl.tile_size``: limits of the core that the kernel runs on."""

    @property
    def pmax(self) -> int:
        """Partitions of SBUF and PSUM."""
        return _hardware().num_partitions

    @property
    def psum_fmax(self) -> int:
        """float32 elements of a PSUM bank's partition."""
        return _hardware().psum_bank_bytes // 4

    @property
    def gemm_stationary_fmax(self) -> int:
        """Columns of a matmul's stationary tile."""
        return _hardware().gemm_stationary_fmax

    @property
    def gemm_moving_fmax(self) -> int:
        """Columns of a matmul's moving tile."""
        return _hardware().gemm_moving_fmax

    @property
    def bn_stats_fmax(self) -> int:
        """Elements a partition of ``nisa.bn_stats``."""
        return _hardware().bn_stats_fmax

    @property
    def psum_min_align(self) -> int:
        """Byte alignment of PSUM addresses."""
        return 4

    @property
    def sbuf_min_align(self) -> int:
        """Byte alignment of SBUF addresses."""
        return 1

    @property
    def total_available_sbuf_size(self) -> int:
        """Bytes of an SBUF partition that tiles can use."""
        return _hardware().sbuf_bytes_per_partition


def _hardware() -> Any:
    from opentrn.nki.earlier import launching

    return launching.hardware_of_kernels()


tile_size = _TileSize()


def finfo(dtype: Any) -> Any:
    """Limits of a floating-point type, as ``numpy.finfo``."""
    return _ml_dtypes.finfo(_dtypes.as_dtype(dtype).numpy)


def static_cast(x: Any, dtype: Any, **_: Any) -> Any:
    """A tile or a NumPy array of another type."""
    if isinstance(x, _np.ndarray) or hasattr(x, "astype") and not isinstance(x, Tensor):
        return x.astype(_dtypes.as_dtype(dtype).numpy)
    return copy(x, dtype=dtype)


def expand_dims(data: Any, axis: Any) -> Any:
    """A view with dimensions of size 1 inserted."""
    for a in sorted(axis if isinstance(axis, (tuple, list)) else (axis,)):
        data = data.expand_dims(a)
    return data


def device_print(prefix: Any, x: Any = None, *, mask: Any = None, **_: Any) -> None:
    """Print a tile's values when the kernel runs."""
    if not isinstance(x, Tensor):
        print(prefix, x)
        return
    _flush()
    view = x.nki
    if _machine.current().execute:
        from opentrn.nki.earlier.launching import printable

        print(prefix, printable(view, x.par))


def sync_program(*_: Any, **__: Any) -> None:
    """Wait for the other programs of the grid, which here have always got as far."""


def __getattr__(name: str) -> Any:
    raise AttributeError(f"nki.language of the earlier API has no {name!r} here; docs/coverage.md lists what there is")
