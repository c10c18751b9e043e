"""Dynamic addressing: reading and writing views whose place is known only when the instruction runs.

Three kinds exist (see :class:`~opentrn.neuroncore.tensor.Indirection`). A scalar offset moves a view; a vector offset
gives each partition a row of an HBM tensor; tensor indirection picks columns on chip in snake order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import undefined
from opentrn.neuroncore.memory import EMPTY, FULL, MemoryRegion, Storage
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

if TYPE_CHECKING:
    from opentrn.neuroncore.instruction import Plan
    from opentrn.neuroncore.machine import Core

__all__ = ["check_placement", "index_values", "read", "read_mask", "require_distinct", "run", "write"]

_TENSOR_ENGINE_GROUP = 32
_OTHER_ENGINE_GROUP = 16
_QUADRANT = 32


def index_values(core: Core, index: Any, down_columns: bool = False) -> np.ndarray:
    """The integers of a register or index tensor, partition-major, or column by column."""
    if isinstance(index, NkiTensor):
        undefined.require(core, index, "an index")
        values = index.array()
        if down_columns:
            values = values.reshape(values.shape[0], -1).T
        return values.reshape(-1).astype(np.int64)
    if isinstance(index, VirtualRegister):
        return np.array([index.read()], dtype=np.int64)
    return np.array([int(index)], dtype=np.int64)


def _fail_outside(tensor: NkiTensor, values: np.ndarray, where: np.ndarray) -> ValidationError:
    indirection = tensor.indirection
    assert indirection is not None
    first = int(np.flatnonzero(where)[0])
    label = f"tensor {tensor.name!r}" if tensor.name else "the tensor"
    more = f" (and {int(where.sum()) - 1} more)" if where.sum() > 1 else ""
    return ValidationError(
        f"index {int(values[first])} at position {first}{more} reaches outside {label}, whose indexed dimension holds "
        f"0:{indirection.limit}; clamp the indices, or pass oob_mode=nki.isa.oob_mode.skip to leave such rows alone",
        caller(),
    )


def _rows(
    core: Core, tensor: NkiTensor, skip: bool, down_columns: bool = False, of_mask: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vector-indirect view as (all rows of the storage, row of each partition, which rows are in bounds).

    ``of_mask`` gives the rows of the written-bytes mask, by the first byte of each element, instead of the values.
    """
    indirection, layout = tensor.indirection, tensor.layout
    assert indirection is not None
    values = index_values(core, indirection.index, down_columns)[: layout.shape[0]]
    if len(values) < layout.shape[0]:
        raise ValidationError(
            f"{layout.shape[0]} rows are addressed by an index of {len(values)} elements; give one index a row",
            caller(),
        )
    total = tensor.storage.size_bytes // layout.itemsize
    span = 1 + sum((n - 1) * s for n, s in zip(layout.shape[1:], layout.strides[1:], strict=True))
    start = tensor.offset + values * indirection.stride
    good = (values >= 0) & (start + span <= total)
    if indirection.strict:
        good &= values < indirection.limit
    if not good.all() and not skip:
        raise _fail_outside(tensor, values, ~good)
    stride = max(indirection.stride, 1)
    count = max((total - tensor.offset - span) // stride + 1, 0)
    item = layout.itemsize
    shape, strides = (count, *layout.shape[1:]), (stride * item, *layout.byte_strides[1:])
    storage = tensor.storage
    if of_mask:
        return np.ndarray(shape, np.bool_, storage.mask, tensor.offset * item, strides), values, good
    return np.ndarray(shape, layout.host, storage.data, storage.base + tensor.offset * item, strides), values, good


def _place(core: Core, tensor: NkiTensor, skip: bool) -> NkiTensor | None:
    """A scalar-indirect view as a direct one at its resolved place; None where that is out of bounds and may be
    skipped."""
    indirection, layout = tensor.indirection, tensor.layout
    assert indirection is not None
    values = index_values(core, indirection.index)
    value = int(values[0])
    offset = tensor.offset + value * indirection.stride
    total = tensor.storage.size_bytes // layout.itemsize
    reach = offset + sum((n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True))
    if value < 0 or offset < 0 or reach >= total or (indirection.strict and value >= indirection.limit):
        if skip:
            return None
        raise _fail_outside(tensor, values, np.array([True]))
    return tensor.resolved(offset)


def _moved(core: Core, tensor: NkiTensor, skip: bool) -> np.ndarray | None:
    """The elements of a scalar-indirect view, as :func:`_place` finds it."""
    view = _place(core, tensor, skip)
    return None if view is None else view.array()


def _columns(core: Core, tensor: NkiTensor, group: int, of_mask: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A tensor-indirect view as (the storage's columns, the column of every element); ``of_mask`` as in
    :func:`_rows`."""
    indirection, layout = tensor.indirection, tensor.layout
    assert indirection is not None
    num_partitions, num_elem = layout.shape
    undefined.require(core, indirection.index, "an index")
    index = indirection.index.array().reshape(num_partitions, -1).astype(np.int64)
    available = min(group, num_partitions) * index.shape[1]
    if num_elem > available:
        raise ValidationError(
            f"indirect() of {num_elem} elements with an index of {list(index.shape)}: each group of {group} "
            "partitions gives "
            f"{available} offsets to this engine; pass num_elem={available} or fewer, or more columns of offsets",
            caller(),
        )
    # Offsets run down a group's partitions first, then to the next column of the index.
    columns = np.empty((num_partitions, num_elem), dtype=np.int64)
    for first in range(0, num_partitions, group):
        block = index[first : first + group]
        columns[first : first + group] = block.T.reshape(-1)[:num_elem]
    limit = indirection.limit
    outside = (columns < 0) | (columns >= limit)
    if outside.any():
        raise _fail_outside(tensor, columns.reshape(-1), outside.reshape(-1))
    storage, item = tensor.storage, layout.itemsize
    free = layout.storage_free
    partition, within = divmod(tensor.offset, free)
    if of_mask:
        placed = storage.arena is not None
        start = storage.base * placed + partition * storage.pitch + within * item
        mask = storage.arena if placed else storage.mask
        return np.ndarray((num_partitions, limit), np.bool_, mask, start, (storage.pitch, item)), columns
    table = np.ndarray(
        (num_partitions, limit), layout.host, storage.data,
        storage.base + partition * storage.pitch + within * item, (storage.pitch, item),
    )  # fmt: skip
    return table, columns


def read(
    core: Core, tensor: NkiTensor, *, skip: bool = False, group: int = _OTHER_ENGINE_GROUP, down_columns: bool = False
) -> tuple[np.ndarray | None, Any]:
    """The elements of any view, and which of its rows are valid (None: all).

    Elements are a view of the storage where the address allows it, a copy otherwise; None where a skipped scalar index
    leaves nothing to read.
    """
    indirection = tensor.indirection
    if indirection is None:
        return tensor.array(), None
    if indirection.kind == "scalar":
        return _moved(core, tensor, skip), None
    if indirection.kind == "vector":
        table, values, good = _rows(core, tensor, skip, down_columns)
        if good.all():
            return table[values], None
        gathered = np.zeros((len(values), *table.shape[1:]), dtype=table.dtype)
        gathered[good] = table[values[good]]
        return gathered, good
    table, columns = _columns(core, tensor, group)
    return np.take_along_axis(table, columns, axis=1), None


def read_mask(
    core: Core, tensor: NkiTensor, *, skip: bool = False, group: int = _OTHER_ENGINE_GROUP, down_columns: bool = False
) -> np.ndarray | None:
    """Which elements of any view were written, in the shape of what :func:`read` gives; None where all were."""
    storage = tensor.storage
    if storage.state == FULL:
        return None
    indirection = tensor.indirection
    if indirection is None:
        return undefined.defined(tensor)
    if storage.state == EMPTY:
        storage.begin_partial()
        if storage.state == FULL:
            return None
    if indirection.kind == "scalar":
        view = _place(core, tensor, skip)
        return None if view is None else undefined.defined(view)
    if indirection.kind == "vector":
        table, values, good = _rows(core, tensor, skip, down_columns, of_mask=True)
        mask = np.ones((len(values), *table.shape[1:]), np.bool_)
        mask[good] = table[values[good]]
    else:
        table, columns = _columns(core, tensor, group, of_mask=True)
        mask = np.take_along_axis(table, columns, axis=1)
    return None if mask.all() else mask


def require_distinct(core: Core, tensor: NkiTensor) -> None:
    """Refuse a scatter that adds to one row twice: which of the two sums stays would be chance."""
    table, values, good = _rows(core, tensor, skip=True)
    found, count = np.unique(values[good], return_counts=True)
    if (count > 1).any():
        label = f"tensor {tensor.name!r}" if tensor.name else "the tensor"
        raise ValidationError(
            f"index {int(found[count > 1][0])} occurs {int(count.max())} times among the rows of {label} that are "
            "added to; "
            "their indices must be distinct, combine equal rows first",
            caller(),
        )


def write(
    core: Core, tensor: NkiTensor, value: np.ndarray, *, skip: bool = False, rows: Any = None,
    group: int = _OTHER_ENGINE_GROUP, mask: np.ndarray | None = None, origin: Any = None,
) -> None:  # fmt: skip
    """Put ``value`` (of the view's shape) where the view points.

    ``rows`` selects rows of dimension 0; ``mask`` says which elements of ``value`` are defined, ``origin`` who read the
    others.
    """
    storage = tensor.storage
    storage.wide = None
    indirection = tensor.indirection
    if indirection is not None and indirection.kind == "scalar":
        view = _place(core, tensor, skip)
        if view is None:
            return
        tensor, indirection = view, None
    if indirection is None:
        if rows is not None:
            _write_rows(core, tensor, value, rows, mask, origin)
            return
        if storage.state != FULL:
            core._writing(tensor, storage)
        tensor.array()[...] = value
        if mask is not None:
            undefined.mark(tensor, mask, origin)
        return
    tracked = storage.state != FULL or mask is not None
    if storage.state == EMPTY:
        storage.begin_partial()
    if indirection.kind == "vector":
        table, values, good = _rows(core, tensor, skip)
        if rows is not None:
            good = good & rows
        table[values[good]] = value[good]
        if tracked:
            _track(storage)
            written, values, good = _rows(core, tensor, True, of_mask=True)
            good = good if rows is None else good & rows
            written[values[good]] = True if mask is None else mask[good]
    else:
        table, columns = _columns(core, tensor, group)
        np.put_along_axis(table, columns, np.asarray(value, dtype=table.dtype), axis=1)
        if tracked:
            _track(storage)
            written, columns = _columns(core, tensor, group, of_mask=True)
            np.put_along_axis(written, columns, np.ones(columns.shape, np.bool_) if mask is None else mask, axis=1)
    if tracked:
        undefined.settle(storage, tensor.layout.itemsize, origin if mask is not None else None)


def _write_rows(
    core: Core, tensor: NkiTensor, value: np.ndarray, rows: np.ndarray, mask: np.ndarray | None, origin: Any
) -> None:
    """Write some rows of a direct view, one by one where they are not all of them."""
    for row in np.flatnonzero(rows):
        where = tensor[int(row) : int(row) + 1]
        if tensor.storage.state != FULL:
            core._writing(where, tensor.storage)
        where.array()[...] = value[row]
        if mask is not None:
            undefined.mark(where, mask[row : row + 1], origin)


def _track(storage: Storage) -> None:
    if storage.state == FULL:
        storage.track()


def check_placement(plan: Plan, args: tuple) -> None:
    """The partitions at which manually placed operands of tensor indirection may start.

    An index starts on a quadrant, a gathered operand where its index does, the index of a scattered result where the
    operand that leads the instruction does (or that operand's own index, if it is gathered from PSUM).

    Raises:
        ValidationError: one of them starts elsewhere.
    """
    names = plan.instruction.names
    reads = [p for p in plan.reads if p < len(names)]
    lead = next((p for p in reads if names[p] == "predicate"), reads[0] if reads else None)
    for position in plan.operands:
        tensor = args[position]
        if tensor.layout.indirect != "tensor":
            continue
        index, name = tensor.indirection.index, names[position]
        if _placed(index) and index.partition_start() % _QUADRANT:
            raise plan.issue.fail(
                f"the index of {name} starts at partition {index.partition_start()}; it must start at a multiple of "
                f"{_QUADRANT}"
            )
        if position in plan.reads:
            other, what = tensor, name
        elif lead is None:
            continue
        else:
            other, what = args[lead], names[lead]
            if other.layout.region is MemoryRegion.psum:
                if other.layout.indirect != "tensor":
                    continue
                other, what = other.indirection.index, f"the index of {what}"
        if _placed(index) and _placed(other) and index.partition_start() != other.partition_start():
            raise plan.issue.fail(
                f"the index of {name} starts at partition {index.partition_start()} and {what} at "
                f"{other.partition_start()}; "
                "they must start at the same one"
            )


def _placed(tensor: NkiTensor) -> bool:
    return tensor.storage.allocation.address is not None


def run(core: Core, plan: Plan, args: tuple) -> None:
    """Run an instruction with dynamic operands, or one that resolves its own."""
    if plan.on_tensors:
        if not plan.instruction.follows_undefined:
            for position in plan.reads:
                undefined.require_defined(core, plan, args[position])
        plan.run(core, *(args[: plan.arity] if plan.indirect else args))
        return
    resolved = list(args[: plan.arity])
    group = _TENSOR_ENGINE_GROUP if plan.engine.name == "tensor" else _OTHER_ENGINE_GROUP
    operands = [p for p in plan.operands if p < plan.arity]
    for position in operands:
        if args[position].indirection is not None and args[position].indirection.kind == "scalar":
            resolved[position] = _place(core, args[position], False)
    masks = {}
    for position in plan.watched:
        if position < plan.arity:
            mask = read_mask(core, resolved[position], group=group)
            if mask is not None:
                masks[position] = mask
    if plan.adds and args[plan.adds] and resolved[0].indirection is None:
        mask = undefined.added_to(core, plan, resolved[0])
        if mask is not None:
            masks[0] = mask
    results, origin = undefined.follow(plan, tuple(resolved), masks)
    values = list(resolved)
    for position in operands:
        values[position] = read(core, resolved[position], group=group)[0]
    for position in plan.writes:
        tensor = resolved[position]
        if tensor.indirection is None:
            if tensor.storage.state != FULL:
                core._writing(tensor, tensor.storage)
            tensor.storage.wide = None
    plan.run(core, *values)
    for position in plan.writes:
        tensor, mask = resolved[position], results.get(position)
        if tensor.indirection is not None:
            write(core, tensor, values[position], group=group, mask=mask, origin=origin)
        elif mask is not None:
            undefined.mark(tensor, mask, origin)
