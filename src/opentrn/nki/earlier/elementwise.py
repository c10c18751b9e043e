"""Element-wise instructions of the earlier API, on the Vector, Scalar and GpSimd engines."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import float32, is_integer
from opentrn.neuroncore.isa.settings import engine, reduce_cmd
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.arithmetic import _nothing
from opentrn.nki.earlier.issuing import (
    deferred,
    engine_of,
    on_bits,
    on_chip_tile,
    par_range,
    type_of,
    written,
)
from opentrn.nki.earlier.movement import column_or_number
from opentrn.nki.earlier.movement import copy as _copy
from opentrn.nki.earlier.operands import (
    Tile,
    aligned,
    broadcast_shape,
    dtype_of,
    flush,
    in_sbuf,
    is_number,
    part,
    pieces,
    promote,
    ranges_of,
    region_of,
)
from opentrn.nki.earlier.views import whole

_sbuf, _psum = MemoryRegion.sbuf, MemoryRegion.psum
tensor_engine, vector_engine = engine.tensor, engine.vector


def activation(
    op: Any,
    data: Any,
    *,
    bias: Any = None,
    scale: Any = 1.0,
    reduce_op: Any = None,
    reduce_res: Any = None,
    reduce_cmd: reduce_cmd = reduce_cmd.idle,
    mask: Any = None,
    dtype: Any = None,
    **_: Any,
) -> Tile:
    """``op(data * scale + bias)`` on the Scalar engine; ``scale`` and ``bias`` are numbers or one value a partition."""
    flush()
    tile = on_chip_tile(data, "activation's data")
    region = region_of(mask, tile.shape, tile, bias, scale)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    b = None if bias is None else column_or_number(bias, rows, wide=is_integer(type_of(bias)))
    a = column_or_number(scale, rows)
    a = float(a) if is_number(a) else a
    res = written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        for to, source in pieces(dst, view):
            isa.activation(to, op, source, bias=b, scale=a, reduce_op=reduce_op, reduce_res=res, reduce_cmd=reduce_cmd)

    return deferred(tile.shape, tile.par, kind, region, emit)


def activation_reduce(
    op: Any,
    data: Any,
    *,
    reduce_op: Any,
    reduce_res: Any,
    bias: Any = None,
    scale: Any = 1.0,
    mask: Any = None,
    dtype: Any = None,
    **_: Any,
) -> Tile:
    """:func:`activation`, and the sum of its result along the free axes in ``reduce_res`` (P, 1)."""
    flush()
    tile = on_chip_tile(data, "activation_reduce's data")
    region = region_of(mask, tile.shape, tile, bias, scale)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    b = None if bias is None else column_or_number(bias, rows, wide=is_integer(type_of(bias)))
    a = column_or_number(scale, rows)
    a = float(a) if is_number(a) else a
    res = written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        isa.activation_reduce(dst, op, view, reduce_op, res, bias=b, scale=a)

    return deferred(tile.shape, tile.par, kind, region, emit)


def tensor_tensor(
    data1: Any, data2: Any, op: Any, *, dtype: Any = None, mask: Any = None, engine: Any = None, **_: Any
) -> Tile:
    """``data1 <op> data2``, element by element, on the Vector or GpSimd engine."""
    flush()
    a, b = on_chip_tile(data1, "tensor_tensor's data1"), on_chip_tile(data2, "tensor_tensor's data2")
    shape = a.shape if a.shape == b.shape else broadcast_shape(a.shape, b.shape)
    par = a.par if len(a.shape) == len(shape) else b.par
    region = region_of(mask, shape, a, b)

    kind = dtype_of(dtype, promote(a.dtype, b.dtype))
    if region is False:
        return _nothing(shape, kind, par)
    if a.buffer is _psum and b.buffer is _psum:
        b = in_sbuf(b)
    ranges, chosen = ranges_of(region), engine_of(engine)
    left, right = aligned(a, shape, par, ranges), aligned(b, shape, par, ranges)

    def emit(dst: NkiTensor) -> None:
        for to, first, second in pieces(dst, left, right):
            isa.tensor_tensor(to, first, second, op, engine=chosen)

    return deferred(shape, par, kind, region, emit)


def tensor_scalar(
    data: Any,
    op0: Any,
    operand0: Any,
    reverse0: bool = False,
    op1: Any = None,
    operand1: Any = None,
    reverse1: bool = False,
    *,
    dtype: Any = None,
    mask: Any = None,
    engine: Any = None,
    **_: Any,
) -> Tile:
    """``(data <op0> operand0) <op1> operand1``; the operands are numbers or one value a partition."""
    flush()
    tile = on_chip_tile(data, "tensor_scalar's data")
    region = region_of(mask, tile.shape, tile, operand0, operand1)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows, chosen = par_range(region, tile.par), engine_of(engine)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    a = column_or_number(operand0, rows, not on_bits(op0))
    b = None if operand1 is None else column_or_number(operand1, rows, not on_bits(op1))

    def emit(dst: NkiTensor) -> None:
        for to, source in pieces(dst, view):
            isa.tensor_scalar(
                to, source, op0, a, reverse0=reverse0, op1=op1, operand1=b, reverse1=reverse1, engine=chosen
            )

    return deferred(tile.shape, tile.par, kind, region, emit)


def scalar_tensor_tensor(
    *,
    data: Any,
    op0: Any,
    operand0: Any,
    op1: Any,
    operand1: Any,
    reverse0: bool = False,
    reverse1: bool = False,
    dtype: Any = None,
    mask: Any = None,
    **_: Any,
) -> Tile:
    """``(data <op0> operand0) <op1> operand1`` with a scalar or column first and a tile second."""
    flush()
    tile, other = (
        on_chip_tile(data, "scalar_tensor_tensor's data"),
        on_chip_tile(operand1, "scalar_tensor_tensor's operand1"),
    )
    region = region_of(mask, tile.shape, tile, operand0, other)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows, ranges = par_range(region, tile.par), ranges_of(region)
    if tile.buffer is _psum and other.buffer is _psum:
        other = in_sbuf(other)
    view, second = aligned(tile, tile.shape, tile.par, ranges), aligned(other, tile.shape, tile.par, ranges)
    a = column_or_number(operand0, rows)

    def emit(dst: NkiTensor) -> None:
        isa.scalar_tensor_tensor(dst, view, op0, a, op1, second, reverse0=reverse0, reverse1=reverse1)

    return deferred(tile.shape, tile.par, kind, region, emit)


def tensor_scalar_reduce(
    *,
    data: Any,
    op0: Any,
    operand0: Any,
    reduce_op: Any,
    reduce_res: Any,
    reverse0: bool = False,
    dtype: Any = None,
    mask: Any = None,
    **_: Any,
) -> Tile:
    """``data <op0> operand0``, and its reduction along the free axes in ``reduce_res`` (P, 1)."""
    flush()
    tile = on_chip_tile(data, "tensor_scalar_reduce's data")
    region = region_of(mask, tile.shape, tile, operand0)
    kind = dtype_of(dtype, tile.dtype)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    rows = par_range(region, tile.par)
    view = aligned(tile, tile.shape, tile.par, ranges_of(region))
    a, res = column_or_number(operand0, rows), written(reduce_res, rows)

    def emit(dst: NkiTensor) -> None:
        isa.tensor_scalar_reduce(dst, view, op0, a, reduce_op, res, reverse0=reverse0)

    return deferred(tile.shape, tile.par, kind, region, emit)


def tensor_tensor_scan(
    data0: Any,
    data1: Any,
    initial: Any,
    op0: Any,
    op1: Any,
    reverse0: bool = False,
    reverse1: bool = False,
    *,
    dtype: Any = None,
    mask: Any = None,
    **_: Any,
) -> Tile:
    """``r[i] = (data0[i] <op0> r[i - 1]) <op1> data1[i]`` along the free axis, from ``initial``."""
    flush()
    a, b = on_chip_tile(data0, "tensor_tensor_scan's data0"), on_chip_tile(data1, "tensor_tensor_scan's data1")
    region = region_of(mask, a.shape, a, b)

    kind = dtype_of(dtype, promote(a.dtype, b.dtype))
    if region is False:
        return _nothing(a.shape, kind, a.par)
    if a.buffer is _psum and b.buffer is _psum:
        b = in_sbuf(b)
    ranges, rows = ranges_of(region), par_range(region, a.par)
    first, second = aligned(a, a.shape, a.par, ranges), aligned(b, a.shape, a.par, ranges)
    start = column_or_number(initial, rows)

    def emit(dst: NkiTensor) -> None:
        isa.tensor_tensor_scan(dst, first, second, start, op0, op1, reverse0=reverse0, reverse1=reverse1)

    sources = () if is_number(start) else (start.storage,)
    return deferred(a.shape, a.par, kind, region, emit, sources=sources)


def reciprocal(data: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Tile:
    """``1 / data``, element by element, on the Vector engine."""
    from opentrn.nki.earlier import arithmetic

    return arithmetic.reciprocal(on_chip_tile(data, "reciprocal's data"), dtype=dtype, mask=mask)


def tensor_copy(src: Any, *, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any) -> Tile:
    """A copy within SBUF and PSUM."""
    return _copy(on_chip_tile(src, "tensor_copy's src"), mask=mask, dtype=dtype, engine=engine_of(engine))


def tensor_copy_dynamic_src(src: Any, *, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any) -> Tile:
    """A copy of a view whose place is given by a tile: ``src[i_p, offset_tile, i_f]``."""
    return _copy(on_chip_tile(src, "tensor_copy_dynamic_src's src"), mask=mask, dtype=dtype, engine=engine_of(engine))


def tensor_copy_dynamic_dst(
    *, dst: Any, src: Any, mask: Any = None, dtype: Any = None, engine: Any = None, **_: Any
) -> None:
    """A copy into a view whose place is given by a tile."""
    flush()
    target, source = (
        on_chip_tile(dst, "tensor_copy_dynamic_dst's dst"),
        on_chip_tile(src, "tensor_copy_dynamic_dst's src"),
    )
    region = region_of(mask, target.shape, target, source)
    if region is not False:
        ranges = ranges_of(region)
        isa.tensor_copy(
            part(target, ranges), aligned(source, target.shape, target.par, ranges), engine=engine_of(engine)
        )


def tensor_copy_predicated(
    *, src: Any, dst: Any, predicate: Any, mask: Any = None, dtype: Any = None, reverse_pred: bool = False, **_: Any
) -> None:
    """Copy the elements of ``src`` (a tile or a number) to ``dst`` where ``predicate`` is not 0."""
    flush()
    target, chosen = (
        on_chip_tile(dst, "tensor_copy_predicated's dst"),
        on_chip_tile(predicate, "tensor_copy_predicated's predicate"),
    )
    region = region_of(mask, target.shape, target, chosen, src)
    if region is False:
        return
    ranges = ranges_of(region)
    source = (
        src
        if is_number(src)
        else aligned(on_chip_tile(src, "tensor_copy_predicated's src"), target.shape, target.par, ranges)
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
    chosen = engine_of(engine)
    regions = (_sbuf, _psum)
    return deferred(
        sizes,
        0,
        dtype_of(dtype, float32),
        region,
        lambda dst: isa.memset(whole(dst), value, engine=chosen),
        regions=regions,
    )
