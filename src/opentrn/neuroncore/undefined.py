"""Use of memory that was never written: found at the instruction that reads it, followed to where it matters.

A kernel may legally compute on lanes it never filled, as long as nothing of them reaches a result. So a read of
undefined elements is remembered, its results are marked undefined in turn, and the fault is raised when they reach
something a user can see: a tensor that the kernel returns, an address, a register. The report names the line of the
first read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.neuroncore.memory import EMPTY, FULL, PARTIAL, Storage
from opentrn.neuroncore.source import Source, caller
from opentrn.neuroncore.tensor import NkiTensor

if TYPE_CHECKING:
    from opentrn.neuroncore.instruction import Plan
    from opentrn.neuroncore.machine import Core

__all__ = ["begin", "defined", "mark", "mark_indirect", "require", "require_defined", "run", "settle"]


def defined(tensor: NkiTensor) -> np.ndarray | None:
    """Which elements of a direct view were written, or None when all were."""
    storage = tensor.storage
    if storage.state == FULL:
        return None
    if storage.state == EMPTY:
        storage.begin_partial()
    mask = tensor.mask_array().all(axis=-1)
    return None if mask.all() else mask


def _describe(tensor: NkiTensor, mask: np.ndarray) -> str:
    missing = int(mask.size - np.count_nonzero(mask))
    first = np.unravel_index(int(np.argmin(mask)), mask.shape)
    label = f"tensor {tensor.name!r}" if tensor.name else f"a {tensor.layout.region.value} tensor"
    origin = tensor.storage.allocation.source
    where = f" allocated at line {origin[1]}" if origin else ""
    return (
        f"{missing} of {mask.size} elements read from {label} {list(tensor.shape)}{where} were never written "
        f"(the first at {[int(i) for i in first]})"
    )


def require(core: Core, tensor: NkiTensor, what: str) -> None:
    """Report a direct view with undefined elements that is used as ``what`` (an address, a register)."""
    mask = defined(tensor)
    if mask is not None:
        source = tensor.storage.undefined_by or caller()
        core.report_undefined(f"{_describe(tensor, mask)} and are used as {what}; write them first", source)


def require_defined(core: Core, plan: Plan, tensor: NkiTensor) -> None:
    """Report undefined elements read by an instruction whose results cannot be followed (dynamic addressing)."""
    if tensor.indirection is None:
        mask = defined(tensor)
    else:
        storage = tensor.storage
        mask = np.zeros((1,), np.bool_) if storage.state == EMPTY else None
    if mask is not None and not plan.instruction.follows_undefined:
        source = tensor.storage.undefined_by or caller()
        core.report_undefined(f"{plan.instruction.name}: {_describe(tensor, mask)}; write them first", source)


def mark_indirect(core: Core, tensor: NkiTensor) -> None:
    """Count the whole storage as written: where a dynamic write lands is not tracked."""
    storage = tensor.storage
    if storage.state == EMPTY:
        storage.begin_partial()
    storage.state = FULL
    storage.mask = None


def run(core: Core, plan: Plan, args: tuple) -> None:
    """Execute an instruction that may read undefined elements, and mark what it writes from them."""
    masks: dict[int, np.ndarray] = {}
    for position in plan.watched:
        mask = defined(args[position])
        if mask is not None:
            masks[position] = mask
    origin = _origin(args, masks) if masks else None
    results = {p: _flow(plan, args, p, masks) for p in plan.writes} if masks else {}
    for position in plan.writes:
        tensor = args[position]
        if tensor.storage.state != FULL:
            core._writing(tensor, tensor.storage)
        tensor.storage.wide = None
    plan.run(core, *[a.array() if type(a) is NkiTensor else a for a in args])
    for position, mask in results.items():
        if mask is not None:
            mark(args[position], mask, origin)


def _origin(args: tuple, masks: dict[int, np.ndarray]) -> Source | None:
    for position in masks:
        if args[position].storage.undefined_by is not None:
            return args[position].storage.undefined_by
    return caller()


def begin(storage: Storage) -> None:
    """Start to track a storage that was completely written."""
    if storage.state == FULL:
        storage.mask = np.ones(storage.size_bytes, dtype=np.bool_)
        storage.unwritten = 0
        storage.state = PARTIAL


def mark(tensor: NkiTensor, mask: np.ndarray, origin: Source | None) -> None:
    """Mark elements of a view just written as undefined where ``mask`` is False."""
    storage: Storage = tensor.storage
    begin(storage)
    tensor.mask_array()[...] = mask[..., None]
    storage.unwritten += int(mask.size - np.count_nonzero(mask)) * tensor.layout.itemsize
    if storage.undefined_by is None:
        storage.undefined_by = origin


def settle(storage: Storage, itemsize: int, origin: Source | None) -> None:
    """Bring a storage up to date after the first byte of some elements of its mask was set."""
    assert storage.mask is not None
    if itemsize > 1:
        elements = storage.mask.reshape(-1, itemsize)
        elements[...] = elements[:, :1]
    storage.unwritten = int(storage.mask.size - np.count_nonzero(storage.mask))
    if storage.unwritten == 0:
        storage.state = FULL
        storage.mask = None
    elif origin is not None and storage.undefined_by is None:
        storage.undefined_by = origin


def _flow(plan: Plan, args: tuple, position: int, masks: dict[int, np.ndarray]) -> np.ndarray | None:
    """Which elements of an output are defined, given the undefined inputs."""
    if callable(plan.flow):
        found = plan.flow(plan, args, position, masks)
        return None if found is None or found.all() else found
    layout = args[position].layout
    shape = layout.shape
    result = np.ones(shape, np.bool_)
    rows = np.ones((shape[0], *(1,) * (len(shape) - 1)), np.bool_)
    for source, mask in masks.items():
        if plan.flow == "matmul":
            columns = mask.reshape(mask.shape[0], -1).all(axis=0)
            name = plan.operand_name(source)
            if name.startswith("stationary") and columns.size == shape[0]:
                result &= columns.reshape(rows.shape)
            elif name.startswith("moving") and columns.size == layout.free_size:
                result &= columns.reshape(1, *shape[1:])
            else:
                result[...] = False
        elif plan.flow == "transpose":
            flat = mask.reshape(mask.shape[0], -1).T
            result &= flat.reshape(shape) if flat.size == result.size else np.False_
        elif plan.flow == "elementwise" and mask.size == result.size:
            result &= mask.reshape(shape)
        elif mask.shape[0] == shape[0]:
            result &= mask.reshape(mask.shape[0], -1).all(axis=1).reshape(rows.shape)
        else:
            result[...] = False
    return None if result.all() else result
