"""Gathers within SBUF on the GpSimd engine, whose eight processors each reach 16 partitions."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.cost import Cost, elements, stream
from opentrn.neuroncore.instruction import SBUF, Engine, In, Issue, Out, Plan, instruction, static
from opentrn.neuroncore.isa.shapes import flat, require_types, same_elements, same_partitions

__all__ = ["local_gather", "nc_n_gather"]

_GROUP = 16
"""Partitions of one GpSimd processor."""


def _check_bounds(values: np.ndarray, limit: int, fail: Any) -> None:
    if values.size and int(values.max()) >= limit:
        where = int(values.reshape(-1).argmax())
        raise fail(
            f"index {int(values.max())} (element {where} of the indices) reaches outside data, which has {limit} "
            "elements a "
            "partition; clamp the indices"
        )


@instruction
class local_gather:
    """Gather along the free axis with indices shared by each group of 16 partitions.

    The indices of a group, read down its partitions and then along the free axis, are element offsets into every one
    of its partitions; ``num_elem_per_idx`` elements are read from each, ``num_valid_indices`` indices used (all by
    default).
    """

    operands = dict(dst=Out(SBUF), src_buffer=In(SBUF), index=In(SBUF), num_elem_per_idx=static(1),
                    num_valid_indices=static(None))  # fmt: skip
    engines = (Engine.gpsimd,)

    def check(i: Issue) -> None:
        same_partitions(i, "src_buffer", "index", "dst")
        require_types(i, "index", "uint16")
        if i.dst.dtype is not i.src_buffer.dtype:
            raise i.fail(
                f"dst is {i.dst.dtype} and src_buffer {i.src_buffer.dtype}; a gather does not convert, they must agree"
            )
        if i.src_buffer.num_partitions % _GROUP:
            raise i.fail(
                f"src_buffer spans {i.src_buffer.num_partitions} partitions; it must be a multiple of {_GROUP}"
            )
        if i.num_elem_per_idx not in (1, 2, 4, 8, 16, 32):
            raise i.fail(f"num_elem_per_idx={i.num_elem_per_idx}; it must be 1, 2, 4, 8, 16 or 32")
        given, count = _GROUP * i.index.free_size, _count(i)
        if not 0 < count <= given:
            raise i.fail(f"num_valid_indices={count}; each group of {_GROUP} partitions holds {given} indices")
        if count > 4096:
            raise i.fail(f"{count} indices a group; at most 4096 are gathered at once, split the index")
        if i.dst.free_size != count * i.num_elem_per_idx:
            raise i.fail(f"dst must have {count * i.num_elem_per_idx} elements a partition ({count} indices of "
                         f"{i.num_elem_per_idx}), not {i.dst.free_size}")  # fmt: skip

    def cost(i: Issue, engine: Engine) -> Cost:
        width, count = (
            i.num_elem_per_idx,
            i.num_valid_indices or i.index.num_partitions * i.index.free_size // i.core.num_gpsimd_cores,
        )
        rate = (28 + 4 * width) / (4 * width) / min(4 / i.dst.dtype.itemsize, width)
        return stream(i, engine, rate, extra_cycles=i.core.gpsimd_start_cycles, num_elements=count * width)

    def compute(i: Issue):
        width, count, shape, fail = i.num_elem_per_idx, _count(i), i.dst.shape, i.fail
        limit = i.src_buffer.free_size

        def run(core, dst, src_buffer, index, num_elem_per_idx, num_valid_indices):
            columns = _group_columns(index, count, width)
            _check_bounds(columns, limit, fail)
            dst[...] = _take_groups(flat(src_buffer), columns).reshape(shape)

        return run

    def flow(plan: Plan, args, position, masks):
        i = plan.issue
        columns = _group_columns(args[2].array(), _count(i), i.num_elem_per_idx)
        ok = (
            _take_groups(flat(masks[1]), columns)
            if 1 in masks
            else np.ones((args[0].shape[0], columns.shape[1]), np.bool_)
        )
        if 2 in masks:
            groups = flat(masks[2]).reshape(-1, _GROUP, masks[2].reshape(masks[2].shape[0], -1).shape[1])
            valid = groups.transpose(0, 2, 1).reshape(len(groups), -1)[:, : _count(i)]
            ok &= np.repeat(np.repeat(valid, i.num_elem_per_idx, axis=1), _GROUP, axis=0)
        return ok.reshape(args[0].shape)


def _count(i: Issue) -> int:
    return _GROUP * i.index.free_size if i.num_valid_indices is None else int(i.num_valid_indices)


def _group_columns(index: np.ndarray, count: int, width: int) -> np.ndarray:
    """The columns that each group reads, (groups, count * width)."""
    groups = flat(index).reshape(index.shape[0] // _GROUP, _GROUP, -1)
    starts = groups.transpose(0, 2, 1).reshape(len(groups), -1)[:, :count].astype(np.int64)
    return starts if width == 1 else (starts[:, :, None] + np.arange(width)).reshape(len(groups), -1)


def _take_groups(data: np.ndarray, columns: np.ndarray) -> np.ndarray:
    groups = data.reshape(len(columns), _GROUP, -1)
    return np.take_along_axis(groups, columns[:, None, :], axis=2).reshape(data.shape[0], -1)


@instruction
class nc_n_gather:
    """``dst[p, k] = data[p, indices[p, k]]``, the free dimensions of each taken as one."""

    operands = dict(dst=Out(SBUF), data=In(SBUF), indices=In(SBUF))
    engines = (Engine.gpsimd,)

    def check(i: Issue) -> None:
        same_partitions(i, "data", "dst")
        same_elements(i, "dst", "indices")
        require_types(i, "indices", "uint32")
        if i.dst.dtype is not i.data.dtype:
            raise i.fail(f"dst is {i.dst.dtype} and data {i.data.dtype}; a gather does not convert, they must agree")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, extra_cycles=-(-elements(i) // 512) * i.core.gpsimd_start_cycles)

    def compute(i: Issue):
        shape, limit, fail = i.dst.shape, i.data.free_size, i.fail
        row_starts = (np.arange(i.data.num_partitions) * limit).reshape(-1, 1)

        def run(core, dst, data, indices):
            columns = flat(indices)
            _check_bounds(columns, limit, fail)
            dst[...] = data.reshape(-1).take(columns + row_starts).reshape(shape)

        return run

    def flow(plan: Plan, args, position, masks):
        columns = np.minimum(flat(args[2].array()).astype(np.int64), plan.issue.data.free_size - 1)
        ok = np.take_along_axis(flat(masks[1]), columns, axis=1) if 1 in masks else np.ones(columns.shape, np.bool_)
        return (ok & flat(masks[2]) if 2 in masks else ok).reshape(args[0].shape)
