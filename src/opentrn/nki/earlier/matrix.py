"""The Tensor engine of the earlier API: matrix products and transposes."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import float32, is_float
from opentrn.neuroncore.isa.settings import engine, matmul_perf_mode
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.arithmetic import _nothing
from opentrn.nki.earlier.issuing import (
    engine_of,
    on_chip_tile,
)
from opentrn.nki.earlier.masks import Predicate, resolve
from opentrn.nki.earlier.movement import copy as _copy
from opentrn.nki.earlier.operands import (
    Deferred,
    Tile,
    dtype_of,
    fail,
    flush,
    in_sbuf,
    part,
    ranges_of,
    region_of,
)
from opentrn.nki.earlier.views import product

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum
tensor_engine, vector_engine = engine.tensor, engine.vector


def nc_matmul(
    stationary: Any,
    moving: Any,
    *,
    is_stationary_onezero: bool = False,
    is_moving_onezero: bool = False,
    is_transpose: bool = False,
    tile_position: Any = (),
    tile_size: Any = (),
    perf_mode: Any = None,
    mask: Any = None,
    **_: Any,
) -> Tile:
    """``stationary.T @ moving`` in PSUM: (K, M) and (K, N) give (M, N), float32; ``+=`` of a PSUM tile accumulates."""
    flush()
    s = in_sbuf(on_chip_tile(stationary, "nc_matmul's stationary"))
    m = in_sbuf(on_chip_tile(moving, "nc_matmul's moving"))
    mode = _perf_mode(perf_mode)
    double = mode is not matmul_perf_mode.none
    s_free, m_free = s.shape[1:], m.shape[1:]
    if double:
        s_free, m_free = s_free[1:], m_free[1:]
    size_m = product(s_free)
    shape = (size_m, *m_free)
    kind = s.dtype if is_transpose and machine.current().hardware.generation >= 3 else float32
    s_view: Any = None
    m_view: Any = None
    region: Any = True
    if mask is None:
        s_view, m_view = s.nki, m.nki
    else:
        region, s_view, m_view = _matmul_region(mask, s, m, shape, double)

    def emit(dst: NkiTensor, accumulate: bool | None = None) -> None:
        # Transpose mode moves bits; into a wider type the sums of one product are exact as they are.
        moves_bits = is_transpose and dst.layout.dtype is s_view.layout.dtype
        isa.nc_matmul(
            dst,
            s_view,
            m_view,
            is_stationary_onezero=is_stationary_onezero,
            is_moving_onezero=is_moving_onezero,
            is_transpose=moves_bits,
            accumulate=accumulate,
            tile_position=tuple(tile_position or ()),
            tile_size=tuple(tile_size or ()),
            perf_mode=mode,
        )

    return Deferred(shape, kind, emit, regions=(_psum,), matmul=True, region=region, moves=is_transpose).defer()


def _perf_mode(perf_mode: Any) -> matmul_perf_mode:
    if perf_mode is None:
        return matmul_perf_mode.none
    if isinstance(perf_mode, matmul_perf_mode):
        return perf_mode
    name = str(getattr(perf_mode, "value", perf_mode))
    if name.startswith("double_row"):
        return matmul_perf_mode.double_row
    if name in ("", "none", "normal"):
        return matmul_perf_mode.none
    raise fail(f"nc_matmul: perf_mode={perf_mode!r} is not available; use 'double_row' or leave it out")


def _matmul_region(mask: Any, s: Tile, m: Tile, shape: tuple[int, ...], double: bool) -> tuple[Any, Any, Any]:
    """What a mask over the contraction and the two free axes leaves: (of the result, stationary, moving)."""
    if isinstance(mask, Predicate) and (double or s.ndim != 2):
        raise fail("nc_matmul takes masks that are index expressions for 2-D stationary tiles only")
    grid = (s.shape[0], *shape)
    names = [t.vars for t in (s, m)]
    s_vars = None if names[0] is None else (names[0][0], names[0][1], *(None,) * (len(shape) - 1))
    m_vars = None if names[1] is None else (names[1][0], None, *names[1][1:])

    region = resolve(mask, grid, [v for v in (s_vars, m_vars) if v is not None])
    if isinstance(region, bool):
        return region, (s.nki if region else None), (m.nki if region else None)
    if region.ragged is not None:
        raise fail(
            "nc_matmul: the mask is not a bound of single axes; select elements of an operand with nisa.affine_select"
        )
    k, *rest = region.ranges
    s_view = part(s, (k, rest[0]))
    m_view = part(m, (k, *rest[1:]))
    region.ranges = tuple(rest)
    if all(r == (0, n) for r, n in zip(rest, shape, strict=True)):
        return True, s_view, m_view
    return region, s_view, m_view


def matmul(x: Any, y: Any, *, transpose_x: bool = False, mask: Any = None, **_: Any) -> Tile:
    """``x @ y`` in PSUM: (M, K) or, with ``transpose_x``, (K, M), times (K, N)."""
    if not transpose_x:
        flipped = nc_transpose(in_sbuf(on_chip_tile(x, "an operand of nl.matmul")), engine=tensor_engine)
        x = _copy(flipped)
    return nc_matmul(x, y, mask=mask)


def nc_transpose(data: Any, *, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any) -> Tile:
    """The partition and free axes swapped: on the Tensor engine from SBUF to PSUM, on Vector up to 32 x 32."""
    flush()
    tile = on_chip_tile(data, "nc_transpose's data")
    chosen = engine_of(engine)
    free = product(tile.shape[1:])
    small = tile.shape[0] <= 32 and free <= 32
    if tile.buffer is _psum and chosen is not vector_engine:
        if not small or chosen is tensor_engine:
            tile = in_sbuf(tile)
        else:
            chosen = vector_engine
    on_vector = chosen is vector_engine or (tile.buffer is _psum and small)
    region = region_of(mask, tile.shape, tile)
    kind = dtype_of(dtype, tile.dtype)
    shape = (free, tile.shape[0])
    if region is False:
        return _nothing(shape, kind)
    view = part(tile, ranges_of(region)) if region is not True else tile.nki
    if not isinstance(region, bool):
        if tile.ndim != 2 or region.ragged is not None:
            raise fail("nc_transpose takes masks that bound the axes of a 2-D tile")
        region.ranges = (region.ranges[1], region.ranges[0])

    def emit(dst: NkiTensor) -> None:
        same = dst.layout.dtype is view.layout.dtype
        if same or on_vector or not is_float(view.layout.dtype):
            target = (
                dst
                if same
                else machine.current().allocate(dst.layout.shape, view.layout.dtype, _sbuf if on_vector else _psum)
            )
            isa.nc_transpose(target, view, engine=vector_engine if on_vector else tensor_engine)
            if not same:
                isa.tensor_copy(dst, target)
        else:  # a matmul with the identity, whose float32 sums of one product are exact
            from opentrn.nki.earlier.constants import identity

            isa.nc_matmul(dst, view, identity(view.layout.shape[0], view.layout.dtype), accumulate=False)

    regions = (_sbuf, _psum) if on_vector else (_psum,)
    return Deferred(shape, kind, emit, regions=regions, moves=dtype is None, region=region).defer()
