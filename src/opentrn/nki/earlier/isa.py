"""``nki.isa`` of the earlier API: the instructions as functions that return tiles.

Each function checks and shapes its operands and defers one instruction of :mod:`opentrn.neuroncore.isa`; legality, values and cost
are the instruction's own. Operands in PSUM that an engine reads from SBUF only are copied first, as the compiler does.
"""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import alu, isa, machine
from opentrn.neuroncore.dtypes import DType, float32, is_float, is_integer, uint32
from opentrn.neuroncore.instruction import Engine
from opentrn.neuroncore.isa.settings import dge_mode as dge_mode
from opentrn.neuroncore.isa.settings import engine, matmul_perf_mode, nc_version, oob_mode, reduce_cmd
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.arithmetic import _nothing
from opentrn.nki.earlier.indices import Index
from opentrn.nki.earlier.masks import Predicate
from opentrn.nki.earlier.movement import _converted, column_or_number
from opentrn.nki.earlier.movement import copy as _copy
from opentrn.nki.earlier.operands import (
    Deferred,
    Tile,
    aligned,
    broadcast_shape,
    dtype_of,
    fail,
    flush,
    in_sbuf,
    is_number,
    on_chip,
    part,
    pieces,
    ranges_of,
    region_of,
    tile_of,
)
from opentrn.nki.earlier.reductions import reduce
from opentrn.nki.earlier.views import product, whole

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum

tensor_engine = engine.tensor
vector_engine = engine.vector
scalar_engine = engine.scalar
gpsimd_engine = engine.gpsimd
unknown_engine = engine.unknown


def get_nc_version() -> nc_version:
    """Generation of the core that the kernel runs on."""
    return nc_version(machine.current().hardware.generation)


def _engine(chosen: Any) -> Engine:
    return Engine.unknown if chosen is None else chosen


def _data(value: Any, what: str) -> Tile:
    return on_chip(tile_of(value, what), what)


# The Tensor engine


def nc_matmul(stationary: Any, moving: Any, *, is_stationary_onezero: bool = False, is_moving_onezero: bool = False,
              is_transpose: bool = False, tile_position: Any = (), tile_size: Any = (), perf_mode: Any = None, mask: Any = None,
              **_: Any) -> Tile:  # fmt: skip
    """``stationary.T @ moving`` in PSUM: (K, M) and (K, N) give (M, N), float32; ``+=`` of a PSUM tile accumulates."""
    flush()
    s = in_sbuf(_data(stationary, "nc_matmul's stationary"))
    m = in_sbuf(_data(moving, "nc_matmul's moving"))
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
            dst, s_view, m_view, is_stationary_onezero=is_stationary_onezero, is_moving_onezero=is_moving_onezero,
            is_transpose=moves_bits, accumulate=accumulate, tile_position=tuple(tile_position or ()), tile_size=tuple(tile_size or ()),
            perf_mode=mode,
        )  # fmt: skip

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
    from opentrn.nki.earlier.masks import resolve

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
        flipped = nc_transpose(in_sbuf(_data(x, "an operand of nl.matmul")), engine=tensor_engine)
        x = _copy(flipped)
    return nc_matmul(x, y, mask=mask)


def nc_transpose(data: Any, *, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any) -> Tile:
    """The partition and free axes swapped: on the Tensor engine from SBUF to PSUM, on Vector up to 32 x 32."""
    flush()
    tile = _data(data, "nc_transpose's data")
    chosen = _engine(engine)
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


# Element-wise


def _elementwise(shape: tuple[int, ...], par: int, kind: DType, region: Any, emit: Any, **options: Any) -> Tile:
    if region is False:
        return _nothing(shape, kind, par)
    return Deferred(shape, kind, emit, par=par, region=region, **options).defer()


def _par_range(region: Any, par: int) -> Any:
    return None if isinstance(region, bool) else region.ranges[par]


def _type(operand: Any) -> DType:
    return float32 if is_number(operand) else tile_of(operand).dtype


def _on_bits(op: Any) -> bool:
    found = alu.operator(op)
    return found is not None and found.bitvec


def _written(tile: Any, par_range: Any) -> Any:
    """A column that an instruction writes beside its result."""
    if tile is None:
        return None
    target = tile_of(tile, "reduce_res")
    if target.psum is not None and target.access is not None:
        target.psum.written(target.access, False)
    from opentrn.nki.earlier.operands import column

    return column(target, par_range)


def activation(op: Any, data: Any, *, bias: Any = None, scale: Any = 1.0, reduce_op: Any = None, reduce_res: Any = None,
               reduce_cmd: reduce_cmd = reduce_cmd.idle, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:  # fmt: skip
    """``op(data * scale + bias)`` on the Scalar engine; ``scale`` and ``bias`` are numbers or one value a partition."""
    flush()
    tile = _data(data, "activation's data")
    region = region_of(mask, tile.shape, tile, bias, scale)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = _par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    b = None if bias is None else column_or_number(bias, rows, wide=is_integer(_type(bias)))
    a = column_or_number(scale, rows)
    a = float(a) if is_number(a) else a
    res = _written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        for to, source in pieces(dst, view):
            isa.activation(to, op, source, bias=b, scale=a, reduce_op=reduce_op, reduce_res=res, reduce_cmd=reduce_cmd)

    return _elementwise(tile.shape, tile.par, kind, region, emit)


def activation_reduce(op: Any, data: Any, *, reduce_op: Any, reduce_res: Any, bias: Any = None, scale: Any = 1.0, mask: Any = None,
                      dtype: Any = None, **_: Any) -> Tile:  # fmt: skip
    """:func:`activation`, and the sum of its result along the free axes in ``reduce_res`` (P, 1)."""
    flush()
    tile = _data(data, "activation_reduce's data")
    region = region_of(mask, tile.shape, tile, bias, scale)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = _par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    b = None if bias is None else column_or_number(bias, rows, wide=is_integer(_type(bias)))
    a = column_or_number(scale, rows)
    a = float(a) if is_number(a) else a
    res = _written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        isa.activation_reduce(dst, op, view, reduce_op, res, bias=b, scale=a)

    return _elementwise(tile.shape, tile.par, kind, region, emit)


def tensor_tensor(
    data1: Any, data2: Any, op: Any, *, dtype: Any = None, mask: Any = None, engine: Any = None, **_: Any
) -> Tile:
    """``data1 <op> data2``, element by element, on the Vector or GpSimd engine."""
    flush()
    a, b = _data(data1, "tensor_tensor's data1"), _data(data2, "tensor_tensor's data2")
    shape = a.shape if a.shape == b.shape else broadcast_shape(a.shape, b.shape)
    par = a.par if len(a.shape) == len(shape) else b.par
    region = region_of(mask, shape, a, b)
    from opentrn.nki.earlier.operands import promote

    kind = dtype_of(dtype, promote(a.dtype, b.dtype))
    if region is False:
        return _nothing(shape, kind, par)
    if a.buffer is _psum and b.buffer is _psum:
        b = in_sbuf(b)
    ranges, chosen = ranges_of(region), _engine(engine)
    left, right = aligned(a, shape, par, ranges), aligned(b, shape, par, ranges)

    def emit(dst: NkiTensor) -> None:
        for to, first, second in pieces(dst, left, right):
            isa.tensor_tensor(to, first, second, op, engine=chosen)

    return _elementwise(shape, par, kind, region, emit)


def tensor_scalar(data: Any, op0: Any, operand0: Any, reverse0: bool = False, op1: Any = None, operand1: Any = None,
                  reverse1: bool = False, *, dtype: Any = None, mask: Any = None, engine: Any = None, **_: Any) -> Tile:  # fmt: skip
    """``(data <op0> operand0) <op1> operand1``; the operands are numbers or one value a partition."""
    flush()
    tile = _data(data, "tensor_scalar's data")
    region = region_of(mask, tile.shape, tile, operand0, operand1)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows, chosen = _par_range(region, tile.par), _engine(engine)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    a = column_or_number(operand0, rows, not _on_bits(op0))
    b = None if operand1 is None else column_or_number(operand1, rows, not _on_bits(op1))

    def emit(dst: NkiTensor) -> None:
        for to, source in pieces(dst, view):
            isa.tensor_scalar(
                to, source, op0, a, reverse0=reverse0, op1=op1, operand1=b, reverse1=reverse1, engine=chosen
            )

    return _elementwise(tile.shape, tile.par, kind, region, emit)


def scalar_tensor_tensor(*, data: Any, op0: Any, operand0: Any, op1: Any, operand1: Any, reverse0: bool = False,
                         reverse1: bool = False, dtype: Any = None, mask: Any = None, **_: Any) -> Tile:  # fmt: skip
    """``(data <op0> operand0) <op1> operand1`` with a scalar or column first and a tile second."""
    flush()
    tile, other = _data(data, "scalar_tensor_tensor's data"), _data(operand1, "scalar_tensor_tensor's operand1")
    region = region_of(mask, tile.shape, tile, operand0, other)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows, ranges = _par_range(region, tile.par), ranges_of(region)
    if tile.buffer is _psum and other.buffer is _psum:
        other = in_sbuf(other)
    view, second = aligned(tile, tile.shape, tile.par, ranges), aligned(other, tile.shape, tile.par, ranges)
    a = column_or_number(operand0, rows)

    def emit(dst: NkiTensor) -> None:
        isa.scalar_tensor_tensor(dst, view, op0, a, op1, second, reverse0=reverse0, reverse1=reverse1)

    return _elementwise(tile.shape, tile.par, kind, region, emit)


def tensor_scalar_reduce(*, data: Any, op0: Any, operand0: Any, reduce_op: Any, reduce_res: Any, reverse0: bool = False,
                         dtype: Any = None, mask: Any = None, **_: Any) -> Tile:  # fmt: skip
    """``data <op0> operand0``, and its reduction along the free axes in ``reduce_res`` (P, 1)."""
    flush()
    tile = _data(data, "tensor_scalar_reduce's data")
    region = region_of(mask, tile.shape, tile, operand0)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = _par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    a, res = column_or_number(operand0, rows), _written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        isa.tensor_scalar_reduce(dst, view, op0, a, reduce_op, res, reverse0=reverse0)

    return _elementwise(tile.shape, tile.par, kind, region, emit)


def tensor_tensor_scan(data0: Any, data1: Any, initial: Any, op0: Any, op1: Any, reverse0: bool = False, reverse1: bool = False, *,
                       dtype: Any = None, mask: Any = None, **_: Any) -> Tile:  # fmt: skip
    """``r[i] = (data0[i] <op0> r[i - 1]) <op1> data1[i]`` along the free axis, from ``initial``."""
    flush()
    a, b = _data(data0, "tensor_tensor_scan's data0"), _data(data1, "tensor_tensor_scan's data1")
    region = region_of(mask, a.shape, a, b)
    from opentrn.nki.earlier.operands import promote

    kind = dtype_of(dtype, promote(a.dtype, b.dtype))
    if region is False:
        return _nothing(a.shape, kind, a.par)
    if a.buffer is _psum and b.buffer is _psum:
        b = in_sbuf(b)
    ranges, rows = ranges_of(region), _par_range(region, a.par)
    first, second = aligned(a, a.shape, a.par, ranges), aligned(b, a.shape, a.par, ranges)
    start = column_or_number(initial, rows)

    def emit(dst: NkiTensor) -> None:
        isa.tensor_tensor_scan(dst, first, second, start, op0, op1, reverse0=reverse0, reverse1=reverse1)

    sources = () if is_number(start) else (start.storage,)
    return _elementwise(a.shape, a.par, kind, region, emit, sources=sources)


def reciprocal(data: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Tile:
    """``1 / data``, element by element, on the Vector engine."""
    from opentrn.nki.earlier import arithmetic

    return arithmetic.reciprocal(_data(data, "reciprocal's data"), dtype=dtype, mask=mask)


def tensor_copy(src: Any, *, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any) -> Tile:
    """A copy within SBUF and PSUM."""
    return _copy(_data(src, "tensor_copy's src"), mask=mask, dtype=dtype, engine=_engine(engine))


def tensor_copy_dynamic_src(src: Any, *, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any) -> Tile:
    """A copy of a view whose place is given by a tile: ``src[i_p, offset_tile, i_f]``."""
    return _copy(_data(src, "tensor_copy_dynamic_src's src"), mask=mask, dtype=dtype, engine=_engine(engine))


def tensor_copy_dynamic_dst(
    *, dst: Any, src: Any, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any
) -> None:
    """A copy into a view whose place is given by a tile."""
    flush()
    target, source = _data(dst, "tensor_copy_dynamic_dst's dst"), _data(src, "tensor_copy_dynamic_dst's src")
    region = region_of(mask, target.shape, target, source)
    if region is not False:
        ranges = ranges_of(region)
        isa.tensor_copy(part(target, ranges), aligned(source, target.shape, target.par, ranges), engine=_engine(engine))


def tensor_copy_predicated(*, src: Any, dst: Any, predicate: Any, mask: Any = None, dtype: Any = None, reverse_pred: bool = False,
                           **_: Any) -> None:  # fmt: skip
    """Copy the elements of ``src`` (a tile or a number) to ``dst`` where ``predicate`` is not 0."""
    flush()
    target, chosen = _data(dst, "tensor_copy_predicated's dst"), _data(predicate, "tensor_copy_predicated's predicate")
    region = region_of(mask, target.shape, target, chosen, src)
    if region is False:
        return
    ranges = ranges_of(region)
    source = (
        src if is_number(src) else aligned(_data(src, "tensor_copy_predicated's src"), target.shape, target.par, ranges)
    )
    isa.tensor_copy_predicated(
        part(target, ranges), source, aligned(chosen, target.shape, target.par, ranges), reverse_pred=reverse_pred
    )


def memset(shape: Any, value: Any, dtype: Any, *, mask: Any = None, engine: Any = None, **_: Any) -> Tile:
    """A new tile filled with a constant."""
    flush()
    sizes = tuple(int(n) for n in shape)
    if len(sizes) == 1:
        sizes = (*sizes, 1)
    region = region_of(mask, sizes)
    chosen = _engine(engine)
    regions = (_sbuf, _psum)
    return _elementwise(
        sizes,
        0,
        dtype_of(dtype, float32),
        region,
        lambda dst: isa.memset(whole(dst), value, engine=chosen),
        regions=regions,
    )


# Reductions and statistics


def tensor_reduce(op: Any, data: Any, axis: Any, *, mask: Any = None, dtype: Any = None, negate: bool = False, keepdims: bool = False,
                  **_: Any) -> Tile:  # fmt: skip
    """Reduce ``data`` along free axes on the Vector engine."""
    return reduce(op, data, axis, dtype=dtype, mask=mask, negate=negate, keepdims=keepdims, what="tensor_reduce")


def tensor_partition_reduce(op: Any, data: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Reduce ``data`` along partitions, to one partition."""
    flush()
    tile = in_sbuf(_data(data, "tensor_partition_reduce's data"))
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (1, *tile.shape[1:])
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    if not isinstance(region, bool):
        region.ranges = ((0, 1), *region.ranges[1:])
    return _elementwise(
        shape, 0, kind, region, lambda dst: isa.tensor_partition_reduce(dst, op, view), regions=(_sbuf,)
    )


def bn_stats(data: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Statistics (P, 6) of each partition, for :func:`bn_aggr`."""
    flush()
    tile = _data(data, "bn_stats' data")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (tile.shape[tile.par], 6)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return _elementwise(shape, 0, kind, _rows_only(region, tile, shape), lambda dst: isa.bn_stats(dst, view))


def bn_aggr(data: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Mean and variance (P, 2) from statistics of :func:`bn_stats`."""
    flush()
    tile = _data(data, "bn_aggr's data")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (tile.shape[tile.par], 2)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return _elementwise(shape, 0, kind, _rows_only(region, tile, shape), lambda dst: isa.bn_aggr(dst, view))


def _rows_only(region: Any, tile: Tile, shape: tuple[int, ...]) -> Any:
    """The region of a result that has the partitions of ``tile`` and free dimensions of its own."""
    if isinstance(region, bool):
        return region
    rows = region.ranges[tile.par]
    if rows == (0, shape[0]):
        return True
    region.ranges = (rows, *((0, n) for n in shape[1:]))
    region.ragged = None
    return region


def max8(src: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """The 8 largest values of each partition, descending."""
    flush()
    tile = _data(src, "max8's src")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, tile.dtype), (tile.shape[tile.par], 8)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return _elementwise(shape, 0, kind, _rows_only(region, tile, shape), lambda dst: isa.max8(dst, view))


def nc_find_index8(data: Any, vals: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """Where each of 8 values a partition first occurs in ``data``."""
    flush()
    tile, values = _data(data, "nc_find_index8's data"), _data(vals, "nc_find_index8's vals")
    region = region_of(mask, tile.shape, tile)
    kind, shape = dtype_of(dtype, uint32), (tile.shape[tile.par], 8)
    if region is False:
        return _nothing(shape, kind)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    out = _rows_only(region, tile, shape)
    wanted = part(values, None if isinstance(out, bool) else out.ranges)
    return _elementwise(shape, 0, kind, out, lambda dst: isa.nc_find_index8(dst, view, wanted))


def nc_match_replace8(
    data: Any, vals: Any, imm: Any, dst_idx: Any = None, *, mask: Any = None, dtype: Any = None, **_: Any
) -> Tile:
    """``data`` with the first occurrence of each of 8 values a partition replaced by ``imm``."""
    flush()
    tile, values = _data(data, "nc_match_replace8's data"), _data(vals, "nc_match_replace8's vals")
    region = region_of(mask, tile.shape, tile)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    rows = None if isinstance(region, bool) else (region.ranges[tile.par], (0, 8))
    wanted = part(values, rows)
    found = None if dst_idx is None else part(_data(dst_idx, "nc_match_replace8's dst_idx"), rows)

    def emit(dst: NkiTensor) -> None:
        isa.nc_match_replace8(dst, view, wanted, float(imm), dst_idx=found)

    return _elementwise(tile.shape, tile.par, kind, region, emit)


def sequence_bounds(*, segment_ids: Any, dtype: Any = None, **_: Any) -> Tile:
    """First and one past last position of each element's segment: (1, n) gives (1, 2, n)."""
    flush()
    tile = _data(segment_ids, "sequence_bounds' segment_ids")
    shape = (tile.shape[0], 2, product(tile.shape[1:]))
    view = tile.nki
    return _elementwise(shape, 0, dtype_of(dtype, tile.dtype), True, lambda dst: isa.sequence_bounds(dst, view))


def tensor_scalar_cumulative(*, src: Any, dst: Any, op0: Any, op1: Any, imm0: Any, imm1: Any = None,
                             reduce_cmd: Any = reduce_cmd.reset_reduce, mask: Any = None, **_: Any) -> None:  # fmt: skip
    """``dst`` = the running ``op1`` of ``src <op0> imm0`` along the free axis."""
    flush()
    source, target = _data(src, "tensor_scalar_cumulative's src"), _data(dst, "tensor_scalar_cumulative's dst")
    region = region_of(mask, source.shape, source, target)
    if region is False:
        return
    ranges, rows = ranges_of(region), _par_range(region, source.par)
    loads = reduce_cmd is not None and reduce_cmd.name == "load_reduce"  # the others have no use for imm1
    second = column_or_number(imm1, rows) if loads and imm1 is not None else None
    isa.tensor_scalar_cumulative(
        part(target, ranges),
        part(source, ranges),
        op0,
        op1,
        column_or_number(imm0, rows),
        imm1=second,
        reduce_cmd=reduce_cmd,
    )


# Selection, generation and gathers


def _flat(index: Index) -> Index:
    return index[None, :] if index.ndim == 1 else index


def iota(expr: Any, dtype: Any, *, mask: Any = None, **_: Any) -> Tile:
    """The values of an index expression as a tile; its first axis becomes the partition dimension."""
    flush()
    if not isinstance(expr, Index):
        raise fail(f"iota: expr is {expr!r}, not an index expression; build one from nl.arange or nl.mgrid")
    index = _flat(expr)
    shape = index.shape
    names = tuple(next((v for a, _, v in index.terms if a == n - len(shape)), None) for n in range(len(shape)))
    from opentrn.nki.earlier.masks import resolve

    region = resolve(mask, shape, [names]) if mask is not None else True
    kind = dtype_of(dtype, float32)
    if region is False:
        return _nothing(shape, kind)
    steps = {a + len(shape): c for a, c, _ in index.terms}
    ranges = tuple((0, n) for n in shape) if isinstance(region, bool) else region.ranges
    offset = index.const + sum(steps.get(d, 0) * lo for d, (lo, _) in enumerate(ranges))
    pattern = [[steps.get(d, 0), hi - lo] for d, (lo, hi) in enumerate(ranges) if d]
    emit_to = lambda dst: isa.iota(dst, pattern, offset=offset, channel_multiplier=steps.get(0, 0))  # noqa: E731
    tile = _elementwise(shape, 0, kind, region, emit_to, regions=(_sbuf,))
    return tile


_COMPARISONS = {
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
    "==": "equal",
    "!=": "not_equal",
}


def affine_select(
    pred: Any, on_true_tile: Any, on_false_value: Any, *, mask: Any = None, dtype: Any = None, **_: Any
) -> Tile:
    """``on_true_tile`` where a comparison of index expressions holds, a number elsewhere."""
    flush()
    tile = in_sbuf(_data(on_true_tile, "affine_select's on_true_tile"))
    shape, par = tile.shape, tile.par
    kind = dtype_of(dtype, tile.dtype)
    if isinstance(pred, bool):
        if pred:
            return _copy(tile, mask=mask, dtype=kind)
        region = region_of(mask, shape, tile)
        return _elementwise(shape, par, kind, region, lambda dst: isa.memset(whole(dst), on_false_value))
    if not isinstance(pred, Predicate):
        raise fail(f"affine_select: pred is {pred!r}, not a comparison of index expressions")
    region = region_of(mask, shape, tile)
    if region is False:
        return _nothing(shape, kind, par)
    ranges = ranges_of(region) or tuple((0, n) for n in shape)
    view = aligned(tile, shape, par, ranges_of(region))
    conditions = pred.parts if pred.kind == "and" else (pred,)
    if any(c.index is None for c in conditions):
        raise fail("affine_select takes one comparison, or several joined with &; for others use nl.where")
    from opentrn.nki.earlier.masks import _terms

    names = [tile.vars] if tile.vars is not None and len(tile.vars) == len(shape) else []
    plans = []
    for condition in conditions:
        assert condition.index is not None
        steps = _terms(condition.index, len(shape), names)
        offset = condition.index.const + sum(steps.get(d, 0) * lo for d, (lo, _) in enumerate(ranges))
        pattern = [[steps.get(d, 0), hi - lo] for d, (lo, hi) in enumerate(ranges) if d != par]
        plans.append((pattern, steps.get(par, 0), offset, _COMPARISONS[condition.kind]))

    def emit(dst: NkiTensor) -> None:
        source = view
        for pattern, multiplier, offset, comparison in plans:
            isa.affine_select(dst, pattern, multiplier, source, on_false_value, cmp_op=comparison, offset=offset)
            source = dst

    return _elementwise(shape, par, kind, region, emit, regions=(_sbuf,))


def range_select(*, on_true_tile: Any, comp_op0: Any, comp_op1: Any, bound0: Any, bound1: Any, reduce_cmd: Any = reduce_cmd.idle,
                 reduce_res: Any = None, reduce_op: Any = "maximum", range_start: Any = 0, on_false_value: Any = -3.4028234663852886e38,
                 mask: Any = None, dtype: Any = None, **_: Any) -> Tile:  # fmt: skip
    """``on_true_tile`` where the element's position passes two comparisons with bounds, a number elsewhere."""
    flush()
    tile = _data(on_true_tile, "range_select's on_true_tile")
    region = region_of(mask, tile.shape, tile)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = _par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    low, high = column_or_number(bound0, rows), column_or_number(bound1, rows)
    res = _written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        isa.range_select(dst, view, comp_op0, comp_op1, low, high, reduce_cmd=reduce_cmd, reduce_res=res, reduce_op=reduce_op,
                         range_start=range_start, on_false_value=on_false_value)  # fmt: skip

    return _elementwise(tile.shape, tile.par, kind, region, emit)


def select_reduce(*, dst: Any, predicate: Any, on_true: Any, on_false: Any, reduce_res: Any = None, reduce_cmd: Any = reduce_cmd.idle,
                  reduce_op: Any = "maximum", reverse_pred: bool = False, mask: Any = None, **_: Any) -> None:  # fmt: skip
    """``dst = where(predicate, on_true, on_false)``, with its maximum along the free axis in ``reduce_res``."""
    flush()
    target = _data(dst, "select_reduce's dst")
    chosen, source = _data(predicate, "select_reduce's predicate"), _data(on_true, "select_reduce's on_true")
    region = region_of(mask, target.shape, target, chosen, source)
    if region is False:
        return
    ranges, rows = ranges_of(region), _par_range(region, target.par)
    isa.select_reduce(
        part(target, ranges), aligned(chosen, target.shape, target.par, ranges), aligned(source, target.shape, target.par, ranges),
        column_or_number(on_false, rows), reduce_res=_written(reduce_res, rows), reduce_cmd=reduce_cmd, reduce_op=reduce_op,
        reverse_pred=reverse_pred,
    )  # fmt: skip


def dropout(data: Any, prob: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """``data`` with elements set to 0 at the probability ``prob`` (a number or one value a partition)."""
    flush()
    tile = _data(data, "dropout's data")
    region = region_of(mask, tile.shape, tile, prob)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rate = column_or_number(prob, _par_range(region, tile.par))
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return _elementwise(tile.shape, tile.par, kind, region, lambda dst: isa.dropout(dst, view, rate))


def local_gather(src_buffer: Any, index: Any, num_elem_per_idx: int = 1, num_valid_indices: Any = None, *, mask: Any = None,
                 **_: Any) -> Tile:  # fmt: skip
    """Gather within SBUF, each GpSimd core with the indices of its 16 partitions."""
    flush()
    source, indices = _data(src_buffer, "local_gather's src_buffer"), _data(index, "local_gather's index")
    count = num_valid_indices or product(indices.shape[1:]) * 16
    shape = (source.shape[0], int(count) * int(num_elem_per_idx))
    a, b = source.nki, indices.nki

    def emit(dst: NkiTensor) -> None:
        isa.local_gather(dst, a, b, num_elem_per_idx=num_elem_per_idx, num_valid_indices=num_valid_indices)

    return _elementwise(shape, 0, source.dtype, True, emit, regions=(_sbuf,))


def nc_stream_shuffle(src: Any, dst: Any, shuffle_mask: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> None:
    """Move partitions within each group of 32: partition i of ``dst`` from ``shuffle_mask[i]`` of ``src``."""
    flush()
    source, target = _data(src, "nc_stream_shuffle's src"), _data(dst, "nc_stream_shuffle's dst")
    region = region_of(mask, target.shape, target)
    if region is not False:
        isa.nc_stream_shuffle(part(target, ranges_of(region)), source.nki, shuffle_mask)


def gather_flattened(data: Any, indices: Any, *, mask: Any = None, dtype: Any = None, **_: Any) -> Tile:
    """``data[p, indices[p, k]]`` with the free dimensions of ``data`` flattened."""
    flush()
    source, index = _data(data, "gather_flattened's data"), _data(indices, "gather_flattened's indices")
    region = region_of(mask, index.shape, index)
    kind = dtype_of(dtype, source.dtype)
    if region is False:
        return _nothing(index.shape, kind, index.par)
    if index.dtype.kind == "int" and index.dtype.itemsize == 4:
        index = index.view(uint32)
    a, b = source.nki, part(index, ranges_of(region))
    return _elementwise(index.shape, index.par, kind, region, lambda dst: isa.nc_n_gather(dst, a, b), regions=(_sbuf,))


# DMA


def dma_copy(*, dst: Any, src: Any, mask: Any = None, dst_rmw_op: Any = None, oob_mode: Any = oob_mode.error, dge_mode: Any = None,
             **_: Any) -> None:  # fmt: skip
    """Copy through the DMA engines; ``dst_rmw_op`` adds to what is there. Indices outside the tensor: see ``oob_mode``."""
    flush()
    target, source = tile_of(dst, "dma_copy's dst"), tile_of(src, "dma_copy's src")
    mode = isa.dma_copy.instruction.operands["dge_mode"].default if dge_mode is None else dge_mode
    region = region_of(mask, target.shape if target.size >= source.size else source.shape, target, source)
    if region is False:
        return
    if region is True:
        a, b = target.nki, source.nki
    else:
        if region.ragged is not None:
            raise fail("dma_copy: the mask is not a bound of single axes; copy row by row")
        a, b = part(target, region.ranges), part(source, region.ranges)
    if b.layout.region is _psum:
        b = _converted(Tile(b), a.layout.dtype).nki
    if dst_rmw_op is None:
        isa.dma_copy(a, b, oob_mode=oob_mode, dge_mode=mode)
        return
    from opentrn.nki.earlier.atomics import read_modify_write

    read_modify_write(a, b, dst_rmw_op, oob_mode)


def dma_transpose(
    src: Any, *, axes: Any = None, mask: Any = None, dtype: Any = None, dge_mode: Any = None, **_: Any
) -> Tile:
    """A tile with the axes of ``src`` (in HBM or SBUF) reversed, or permuted as ``axes`` says, by DMA."""
    flush()
    source = tile_of(src, "dma_transpose's src")
    shape = source.shape
    order = tuple(axes) if axes is not None else tuple(reversed(range(len(shape))))
    view = source.nki
    new_shape = tuple(shape[d] for d in order)
    kind = dtype_of(dtype, source.dtype)
    return _elementwise(
        new_shape, 0, kind, True, lambda dst: transposed_copy(dst, view, order), regions=(_sbuf,), moves=True
    )


def transposed_copy(dst: NkiTensor, view: NkiTensor, order: tuple[int, ...]) -> None:
    """``dst`` = ``view`` with its dimensions permuted, through DMA descriptors."""
    layout = view.layout
    moved = view._view(tuple(layout.shape[d] for d in order), tuple(layout.strides[d] for d in order), view.offset)
    isa.dma_copy(dst, moved)


def _tiled_offloaded_memcpy(dst: Any, src: Any, **_: Any) -> None:
    """The compiler's own copy; a DMA copy."""
    dma_copy(dst=dst, src=src)
