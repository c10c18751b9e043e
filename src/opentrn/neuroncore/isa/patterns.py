"""Affine patterns of indices on the GpSimd engine: generated, or used to select."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.convert import storer, widen
from opentrn.neuroncore.cost import Cost, stream
from opentrn.neuroncore.instruction import SBUF, Engine, In, Issue, Out, Plan, Value, instruction, static
from opentrn.neuroncore.isa.elementwise import alu_operator
from opentrn.neuroncore.isa.shapes import fit, same_elements, unpacked

__all__ = ["affine_select", "iota"]

_MAX_DIMS = 4


def _check_pattern(i: Issue) -> None:
    pattern = i.pattern
    if not isinstance(pattern, tuple) or not all(isinstance(p, tuple) and len(p) == 2 for p in pattern):
        raise i.fail(f"pattern must be a list of [step, num] pairs, not {pattern!r}")
    if not 1 <= len(pattern) <= _MAX_DIMS:
        raise i.fail(f"pattern has {len(pattern)} dimensions; it must have 1 to {_MAX_DIMS}")
    size = 1
    for _, num in pattern:
        size *= int(num)
    if size != i.dst.free_size:
        raise i.fail(
            f"pattern {[list(p) for p in pattern]} makes {size} values a partition and dst has {i.dst.free_size}"
        )


def _columns(i: Issue) -> np.ndarray:
    """The pattern's value at each position of a partition, without offset; int32 arithmetic, which wraps."""
    values = np.zeros(1, np.int64)
    for stride, num in i.pattern:
        values = (values[:, None] + np.arange(int(num), dtype=np.int64) * int(stride)).reshape(-1)
    return _wrap(values).reshape(1, -1)


def _lanes(i: Issue) -> np.ndarray:
    return _wrap(np.arange(i.dst.num_partitions, dtype=np.int64) * int(i.channel_multiplier)).reshape(-1, 1)


def _wrap(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32)


def _offset(value: Any) -> np.int32:
    wrapped = int(value) & 0xFFFFFFFF
    return np.int32(wrapped - (1 << 32) if wrapped >= 1 << 31 else wrapped)


@instruction
class iota:
    """Write ``offset + partition * channel_multiplier + sum(index * step)`` over up to four dimensions, in int32
    arithmetic.

    ``pattern`` lists ``[step, num]`` from the slowest dimension to the fastest.
    """

    operands = dict(dst=Out(SBUF), pattern=static(), offset=Value(default=0), channel_multiplier=static(0))
    engines = (Engine.gpsimd,)

    def check(i: Issue) -> None:
        _check_pattern(i)
        unpacked(i, "dst")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, extra_cycles=i.core.gpsimd_start_cycles)

    def compute(i: Issue):
        columns, lanes, shape, store = _columns(i), _lanes(i), i.dst.shape, storer(i.dst)
        flat_tile = i.dst.ndim == 2

        def run(core, dst, pattern, offset, channel_multiplier):
            shift = _offset(offset)
            values = lanes + (columns + shift if shift else columns)
            store(dst, values if flat_tile else values.reshape(shape))

        return run


@instruction
class affine_select:
    """``dst = on_true_tile`` where ``cmp_op(affine value, 0)`` holds, ``on_false_value`` elsewhere.

    The affine value is that of :class:`iota` with the same pattern, offset and channel multiplier.
    """

    operands = dict(
        dst=Out(SBUF), pattern=static(), channel_multiplier=static(), on_true_tile=In(SBUF), on_false_value=Value(),
        cmp_op=static("equal"), offset=Value(default=0),
    )  # fmt: skip
    engines = (Engine.gpsimd,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "on_true_tile")
        unpacked(i, "dst", "on_true_tile")
        _check_pattern(i)
        op = alu_operator(i, "cmp_op")
        if not op.comparison:
            raise i.fail(f"cmp_op={op.name} does not compare; use nl.equal, nl.greater_equal and the like")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, extra_cycles=i.core.gpsimd_start_cycles)

    def compute(i: Issue):
        columns, lanes, shape, shaped = _columns(i), _lanes(i), i.dst.shape, fit(i.on_true_tile, i.dst)
        compare, store, host = alu_operator(i, "cmp_op").function, storer(i.dst), i.dst.host
        same_type, flat_tile = i.on_true_tile.dtype is i.dst.dtype, i.dst.ndim == 2
        exact = i.dst.dtype == "float32"

        def run(core, dst, pattern, channel_multiplier, on_true, on_false, cmp_op, offset):
            shift = _offset(offset)
            where = compare(lanes + (columns + shift if shift else columns), 0)
            where = where if flat_tile else where.reshape(shape)
            if same_type and exact:
                dst[...] = np.where(where, shaped(on_true), host.type(on_false))
            else:
                fill = np.empty(1, host)
                store(fill, np.full(1, on_false, np.float32))
                if same_type:
                    dst[...] = np.where(where, shaped(on_true), fill)
                else:
                    store(dst, widen(shaped(on_true)))
                    np.copyto(dst, fill, where=~where)

        return run

    def flow(plan: Plan, args, position, masks):
        i, names = plan.issue, plan.instruction.names
        offset = _offset(args[names.index("offset")])
        where = alu_operator(i, "cmp_op").function(_lanes(i) + (_columns(i) + offset), 0)
        tile = next(iter(masks.values()))
        return (~where | tile.reshape(where.shape)).reshape(args[position].shape)
