"""Search within a partition: largest values, positions of values, nonzero elements, bounds of segments."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.convert import storer, widen
from opentrn.neuroncore.cost import Cost, stream
from opentrn.neuroncore.instruction import ON_CHIP, SBUF, Engine, In, Issue, Out, Plan, Value, instruction, static
from opentrn.neuroncore.isa.shapes import flat, require_types, same_elements, same_partitions, unpacked
from opentrn.neuroncore.layout import Layout

__all__ = ["max8", "nc_find_index8", "nc_match_replace8", "nonzero_with_count", "sequence_bounds", "topk"]

_EIGHT = 8
_GROUP = 16
"""Partitions of one GpSimd processor."""


def _check_searched(i: Issue, name: str) -> None:
    layout: Layout = i.fields[name]
    low, high = i.core.max8_fmin, i.core.max8_fmax
    if not low <= layout.free_size <= high:
        raise i.fail(f"{name} has {layout.free_size} elements a partition; the search takes {low} to {high}, split "
                     "the tile or "
                     "pad it with the lowest value")  # fmt: skip
    if layout.ndim > 3:
        raise i.fail(f"{name} has {layout.ndim} dimensions; the search takes up to 3, flatten_dims merges them")
    unpacked(i, name)


def _check_eight(i: Issue, *names: str) -> None:
    for name in names:
        if i.fields[name] is not None and i.fields[name].free_size != _EIGHT:
            raise i.fail(f"{name} must have {_EIGHT} elements a partition, not {i.fields[name].free_size}")


def _comparable(data: np.ndarray) -> np.ndarray:
    """Values to compare: integers as they stand, floats widened."""
    return flat(data if data.dtype.kind in "iu" else widen(data))


@instruction
class max8:
    """The 8 largest values of each partition in descending order, compared in float32."""

    operands = dict(dst=Out(ON_CHIP), src=In(ON_CHIP))
    engines = (Engine.vector,)
    flow = "rows"

    def check(i: Issue) -> None:
        same_partitions(i, "src", "dst")
        _check_searched(i, "src")
        _check_eight(i, "dst")
        unpacked(i, "dst")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        shape, store = i.dst.shape, storer(i.dst)
        rest = i.src.free_size - _EIGHT

        def run(core, dst, src):
            x = flat(widen(src))
            top = np.partition(x, rest, axis=1)[:, rest:] if rest else x
            store(dst, np.sort(top, axis=1)[:, ::-1].reshape(shape))

        return run


def _positions(data: np.ndarray, vals: np.ndarray, last_first: bool) -> np.ndarray:
    """Where each of 8 values occurs in its row, (P, 8); -1 where it does not.

    Of equal values each finds the next occurrence, in the order of the columns or, ``last_first``, against it.
    """
    order = slice(None, None, -1) if last_first else slice(None)
    vals = vals[:, order]
    equals = vals[:, :, None] == vals[:, None, :]
    if (equals & _BEFORE).any():
        return _ranked(data, vals)[:, order]
    rows, positions = np.arange(len(data))[:, None], np.empty(vals.shape, np.int64)
    step = max(1, _CHUNK // data.size)
    for first in range(0, _EIGHT, step):
        part = slice(first, first + step)
        found = (data[:, None, :] == vals[:, part, None]).argmax(axis=2)
        positions[:, part] = np.where(data[rows, found] == vals[:, part], found, -1)
    return positions[:, order]


_BEFORE = np.tri(_EIGHT, k=-1, dtype=np.bool_)
_CHUNK = 1 << 14
"""Comparisons held at once."""


def _ranked(data: np.ndarray, vals: np.ndarray) -> np.ndarray:
    """Positions of values, each taking an element of its own, one column of ``vals`` after the other."""
    rows = np.arange(len(data))
    positions = np.full(vals.shape, -1, np.int64)
    taken = np.zeros(data.shape, np.bool_)
    for k in range(_EIGHT):
        equal = data == vals[:, k : k + 1]
        equal &= ~taken
        first = equal.argmax(axis=1)
        hit = equal[rows, first]
        positions[hit, k] = first[hit]
        taken[rows[hit], first[hit]] = True
    return positions


@instruction
class nc_find_index8:
    """Position of the first occurrence of each of 8 values in each partition; all ones where a value does not occur.

    Equal values find successive occurrences, in ascending order across the columns of ``dst``.
    """

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP), vals=In(ON_CHIP))
    engines = (Engine.vector,)
    flow = "rows"

    def check(i: Issue) -> None:
        same_partitions(i, "data", "vals", "dst")
        _check_searched(i, "data")
        _check_eight(i, "vals", "dst")
        require_types(i, "dst", "uint16", "uint32")
        if i.vals.ndim > 3:
            raise i.fail(f"vals has {i.vals.ndim} dimensions; at most 3 are taken")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        shape, host = i.dst.shape, i.dst.host

        def run(core, dst, data, vals):
            positions = _positions(_comparable(data), _comparable(vals), last_first=False)
            dst[...] = positions.astype(host).reshape(shape)

        return run


@instruction
class nc_match_replace8:
    """``dst = data`` with the first occurrence of each of 8 values replaced by ``imm``; ``dst_idx`` receives their
    positions.

    The values are looked up from the last to the first, so that equal values find successive occurrences in descending
    order across the columns of ``dst_idx``. A value that does not occur gives all ones there.
    """

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP), vals=In(ON_CHIP), imm=Value(), dst_idx=Out(ON_CHIP, None))
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "data", "dst")
        same_partitions(i, "data", "vals", "dst_idx")
        _check_searched(i, "data")
        unpacked(i, "dst")
        _check_eight(i, "vals", "dst_idx")
        require_types(i, "dst_idx", "uint16", "uint32")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        shape, store = i.dst.shape, storer(i.dst)
        same = i.dst.dtype is i.data.dtype and i.dst.host.kind not in "iu"
        index = i.dst_idx

        def run(core, dst, data, vals, imm, dst_idx):
            positions = _positions(_comparable(data), _comparable(vals), last_first=True)
            rows, columns = np.nonzero(positions >= 0)
            found = rows, positions[rows, columns]
            result = flat(data).copy() if same else flat(widen(data)).copy()
            result[found] = float(imm)
            if same:
                dst[...] = result.reshape(shape)
            else:
                store(dst, result.reshape(shape))
            if index is not None:
                dst_idx[...] = positions.astype(index.host).reshape(index.shape)

        return run

    def flow(plan: Plan, args, position, masks):
        ok = np.ones((args[1].shape[0], plan.issue.data.free_size), np.bool_)
        if 1 in masks:
            ok &= flat(masks[1])
        if 2 in masks:
            ok &= flat(masks[2]).all(axis=1, keepdims=True)
        shape = args[position].shape
        if args[position] is args[0]:
            return ok.reshape(shape)
        return np.broadcast_to(ok.all(axis=1).reshape((shape[0],) + (1,) * (len(shape) - 1)), shape)


@instruction
class nonzero_with_count:
    """Positions of the nonzero elements of partitions 0, 16, 32, ... of the tile, then padding, then their count.

    Every GpSimd processor works on the first of its 16 partitions; the other partitions of ``dst`` keep their values.
    """

    operands = dict(dst=Out(SBUF), src=In(SBUF), index_offset=Value(default=0), padding_val=Value(default=-1))
    engines = (Engine.gpsimd,)
    generations = (3, 4, 5)
    keeps = ("dst",)

    def check(i: Issue) -> None:
        same_partitions(i, "src", "dst")
        require_types(i, "src", "float32", "int32")
        require_types(i, "dst", "int32")
        if i.dst.free_size != i.src.free_size + 1:
            raise i.fail(
                f"dst must have {i.src.free_size + 1} elements a partition, one more than src, not {i.dst.free_size}"
            )

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, extra_cycles=i.core.gpsimd_start_cycles)

    def compute(i: Issue):
        size = i.src.free_size
        free = i.dst.shape[1:]

        def run(core, dst, src, index_offset, padding_val):
            x = flat(src[::_GROUP])
            result = np.full((len(x), size + 1), int(padding_val), np.int32)
            for row, values in zip(result, x, strict=True):
                found = np.flatnonzero(values)
                row[: len(found)] = found + int(index_offset)
                row[size] = len(found)
            dst[::_GROUP] = result.reshape(len(x), *free)

        return run

    def flow(plan: Plan, args, position, masks):
        ok = masks[0].copy() if 0 in masks else np.ones(args[0].shape, np.bool_)
        rows = flat(masks[1])[::_GROUP].all(axis=1) if 1 in masks else np.ones(len(ok[::_GROUP]), np.bool_)
        ok[::_GROUP] = rows.reshape((-1,) + (1,) * (ok.ndim - 1))
        return ok


@instruction
class topk:
    """The k largest of the ``n`` bfloat16 elements that each group of 16 partitions holds, ascending, with their
    positions.

    Element e of a group lies in partition ``e % 16``, column ``e // 16``. k is the free size of ``val_dst``; every
    partition of the group receives the result.
    """

    operands = dict(val_dst=Out(SBUF), idx_dst=Out(SBUF), src=In(SBUF), n=static())
    engines = (Engine.gpsimd,)

    def check(i: Issue) -> None:
        same_partitions(i, "src", "val_dst", "idx_dst")
        require_types(i, "src", "bfloat16")
        require_types(i, "val_dst", "bfloat16")
        require_types(i, "idx_dst", "uint32")
        k = i.val_dst.free_size
        if not isinstance(i.n, (int, np.integer)) or not 8 <= i.n < 65536:
            raise i.fail(f"n={i.n}; it must be an integer from 8 to 65535")
        if not 1 <= k < 32768 or k > i.n:
            raise i.fail(f"val_dst asks for {k} values of n={i.n}; k must be 1 to 32767 and at most n")
        if i.idx_dst.free_size != k:
            raise i.fail(f"idx_dst has {i.idx_dst.free_size} elements a partition and val_dst {k}; they must agree")
        if i.src.num_partitions % _GROUP:
            raise i.fail(f"src spans {i.src.num_partitions} partitions; it must be a multiple of {_GROUP}")
        if i.src.free_size < -(-i.n // _GROUP):
            raise i.fail(f"src has {i.src.free_size} elements a partition; n={i.n} needs {-(-i.n // _GROUP)}")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, 1.0, num_elements=4 * i.n + i.val_dst.free_size)

    def compute(i: Issue):
        k, n = i.val_dst.free_size, int(i.n)
        val_shape, idx_shape = i.val_dst.shape, i.idx_dst.shape

        def run(core, val_dst, idx_dst, src, n_):
            elements = _snake(flat(src), n)
            # Stable, so that of equal values the earlier ones are left behind first.
            order = np.argsort(widen(elements), axis=1, kind="stable")[:, n - k :]
            values = np.take_along_axis(elements, order, axis=1)
            val_dst[...] = np.repeat(values, _GROUP, axis=0).reshape(val_shape)
            idx_dst[...] = np.repeat(order, _GROUP, axis=0).reshape(idx_shape)

        return run

    def flow(plan: Plan, args, position, masks):
        ok = _snake(flat(masks[2]), int(plan.issue.n)).all(axis=1)
        shape = args[position].shape
        return np.broadcast_to(np.repeat(ok, _GROUP).reshape((-1,) + (1,) * (len(shape) - 1)), shape)


def _snake(tile: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` elements of each group of 16 partitions, down the partitions and then along the free axis."""
    groups = tile.reshape(len(tile) // _GROUP, _GROUP, -1)
    return groups.transpose(0, 2, 1).reshape(len(groups), -1)[:, :n]


@instruction
class sequence_bounds:
    """First and one-past-last position of the segment that each element belongs to; (n, -1) for elements of segment 0.

    ``segment_ids`` is one partition of n; ``dst`` (1, 2, n) receives starts, then ends. Equal neighbours form a
    segment.
    """

    operands = dict(dst=Out(SBUF), segment_ids=In(SBUF))
    engines = (Engine.gpsimd,)

    def check(i: Issue) -> None:
        require_types(i, "segment_ids", "float32", "int32")
        require_types(i, "dst", "float32", "int32")
        if i.segment_ids.num_partitions != 1 or i.dst.num_partitions != 1:
            raise i.fail("segment_ids and dst must be one partition; call once a sequence")
        if i.dst.free_size != 2 * i.segment_ids.free_size:
            raise i.fail(f"dst must have {2 * i.segment_ids.free_size} elements, two rows of "
                         f"{i.segment_ids.free_size}, "
                         f"not {i.dst.free_size}")  # fmt: skip

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, extra_cycles=i.core.gpsimd_start_cycles)

    def compute(i: Issue):
        shape, n = i.dst.shape, i.segment_ids.free_size

        def run(core, dst, segment_ids):
            ids = segment_ids.reshape(-1)
            edges = np.concatenate(([0], np.flatnonzero(ids[1:] != ids[:-1]) + 1, [n]))
            lengths = np.diff(edges)
            bounds = np.stack((np.repeat(edges[:-1], lengths), np.repeat(edges[1:], lengths)))
            bounds[:, ids == 0] = [[n], [-1]]
            dst[...] = bounds.reshape(shape)

        return run

    def flow(plan: Plan, args, position, masks):
        return np.broadcast_to(masks[1].all(), args[0].shape)
