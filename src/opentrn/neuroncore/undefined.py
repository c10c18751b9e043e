"""Use of memory that was never written: found at the instruction that reads it, followed to where it matters.

A kernel may legally compute on lanes it never filled, as long as nothing of them reaches a result. So a read of
undefined elements is remembered, its results are marked undefined in turn, and the fault is raised when they reach
something a user can see: a tensor that the kernel returns, an address, a register. The report names the line of the
first read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.neuroncore.memory import EMPTY, FULL, Storage
from opentrn.neuroncore.source import Source, caller
from opentrn.neuroncore.tensor import NkiTensor

if TYPE_CHECKING:
    from opentrn.neuroncore.instruction import Plan
    from opentrn.neuroncore.machine import Core

__all__ = ["added_to", "defined", "follow", "mark", "require", "require_defined", "run", "settle"]


def defined(tensor: NkiTensor) -> np.ndarray | None:
    """Which elements of a direct view were written, or None when all were."""
    storage = tensor.storage
    if storage.state == FULL:
        return None
    if storage.state == EMPTY:
        storage.begin_partial()
        if storage.state == FULL:
            return None
    mask = np.logical_and.reduce(tensor.mask_array(), axis=-1)
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
    """Report undefined elements read by an instruction that resolves addresses itself and does not follow them."""
    from opentrn.neuroncore import indirection

    mask = indirection.read_mask(core, tensor)
    if mask is not None:
        source = tensor.storage.undefined_by or caller()
        core.report_undefined(f"{plan.instruction.name}: {_describe(tensor, mask)}; write them first", source)


def run(core: Core, plan: Plan, args: tuple) -> None:
    """Execute an instruction that may read undefined elements, and mark what it writes from them."""
    masks: dict[int, np.ndarray] = {}
    for position in plan.watched:
        mask = defined(args[position])
        if mask is not None:
            masks[position] = mask
    if plan.adds and args[plan.adds]:
        mask = added_to(core, plan, args[0])
        if mask is not None:
            masks[0] = mask
    results, origin = follow(plan, args, masks)
    for position in plan.writes:
        tensor = args[position]
        if tensor.storage.state != FULL:
            core._writing(tensor, tensor.storage)
        tensor.storage.wide = None
    plan.run(core, *[a.array() if type(a) is NkiTensor else a for a in args])
    for position, mask in results.items():
        if mask is not None:
            mark(args[position], mask, origin)


def added_to(core: Core, plan: Plan, dst: NkiTensor) -> np.ndarray | None:
    """Which elements of an accumulated output are defined; one that nothing ever wrote is reported."""
    mask = defined(dst)
    if mask is not None and dst.storage.undefined_by is None:
        missing = int(mask.size - np.count_nonzero(mask))
        core.report_undefined(
            f"{plan.instruction.name}: {missing} of {mask.size} elements of dst {list(dst.shape)} are accumulated "
            "onto PSUM that "
            "was never written; the first matmul into a place must overwrite, use accumulate=False (or None)",
            caller(),
        )
    return mask


def follow(plan: Plan, args: tuple, masks: dict[int, np.ndarray]) -> tuple[dict[int, np.ndarray | None], Source | None]:
    """Which elements of each output are defined, from those of the inputs that are not, and the line that is to
    blame."""
    if not masks:
        return {}, None
    return {p: _flow(plan, args, p, masks) for p in plan.writes}, _origin(args, masks)


def _origin(args: tuple, masks: dict[int, np.ndarray]) -> Source | None:
    for position in masks:
        if args[position].storage.undefined_by is not None:
            return args[position].storage.undefined_by
    return caller()


def mark(tensor: NkiTensor, mask: np.ndarray, origin: Source | None) -> None:
    """Mark elements of a view just written as undefined where ``mask`` is False."""
    storage: Storage = tensor.storage
    if storage.state == FULL:
        storage.track()
        storage.unwritten = 0
    tensor.mask_array()[...] = mask[..., None]
    storage.unwritten += int(mask.size - np.count_nonzero(mask)) * tensor.layout.itemsize
    if storage.undefined_by is None:
        storage.undefined_by = origin


def settle(storage: Storage, itemsize: int, origin: Source | None) -> None:
    """Bring a storage up to date after the first byte of some elements of its mask was set."""
    mask = storage.mask_bytes()
    for byte in range(1, itemsize):
        mask[:, byte::itemsize] = mask[:, ::itemsize]
    storage.recount()
    if storage.state != FULL and origin is not None and storage.undefined_by is None:
        storage.undefined_by = origin


def _flow(plan: Plan, args: tuple, position: int, masks: dict[int, np.ndarray]) -> np.ndarray | None:
    """Which elements of an output are defined, given the undefined inputs."""
    if callable(plan.flow):
        follow_masks: Any = plan.flow
        found = follow_masks(plan, args, position, masks)
        return None if found is None or found.all() else found
    layout = args[position].layout
    shape = layout.shape
    result = np.ones(shape, np.bool_)
    rows = np.ones((shape[0], *(1,) * (len(shape) - 1)), np.bool_)
    for source, mask in masks.items():
        if plan.flow == "matmul":
            if source == position:  # accumulated onto
                result &= mask
                continue
            columns = np.logical_and.reduce(mask.reshape(mask.shape[0], -1), axis=0)
            name = plan.operand_name(source)
            if name.startswith(("stationary", "moving")):
                columns = _contracted(columns, shape[0] if name.startswith("stationary") else layout.free_size)
            if name.startswith("stationary") and columns.size == shape[0]:
                result &= columns.reshape(rows.shape)
            elif name.startswith("moving") and columns.size == layout.free_size:
                result &= columns.reshape(1, *shape[1:])
            else:
                result[...] = False
        elif plan.flow == "transpose":
            axes = (mask.ndim - 1, *range(1, mask.ndim - 1), 0) if plan.engine.name == "dma" else None
            flat = mask.transpose(axes) if axes else mask.reshape(mask.shape[0], -1).T
            result &= flat.reshape(shape) if flat.size == result.size else np.False_
        elif plan.flow == "elementwise" and mask.size == result.size:
            result &= mask.reshape(shape)
        elif mask.shape[0] == shape[0]:
            result &= mask.reshape(mask.shape[0], -1).all(axis=1).reshape(rows.shape)
        else:
            result[...] = False
    return None if result.all() else result


def _contracted(columns: np.ndarray, count: int) -> np.ndarray:
    """Columns of a matmul operand with a second contraction dimension (double_row) brought down to the output's."""
    return (
        np.logical_and.reduce(columns.reshape(-1, count), axis=0)
        if columns.size > count and columns.size % count == 0
        else columns
    )
