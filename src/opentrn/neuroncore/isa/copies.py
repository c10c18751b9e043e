"""Copies and fills on chip."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.convert import choose, number, storer, widen
from opentrn.neuroncore.cost import Cost, fast_mode, stream, two_streams
from opentrn.neuroncore.dtypes import is_packed
from opentrn.neuroncore.instruction import (
    ANY,
    ON_CHIP,
    SCALAR,
    Engine,
    In,
    Issue,
    Out,
    Plan,
    Scalar,
    Value,
    instruction,
    static,
)
from opentrn.neuroncore.isa.shapes import fit, not_both_psum, require_types, same_elements, unpacked
from opentrn.neuroncore.memory import MemoryRegion

__all__ = ["memset", "nc_stream_shuffle", "tensor_copy", "tensor_copy_predicated"]

_QUADRANT = 32
_KEEP = 255
"""Entry of a shuffle mask that leaves its partition alone."""


@instruction
class tensor_copy:
    """Copy ``src`` to ``dst`` within SBUF and PSUM, converting the type.

    Bit-exact when the types agree, NaN payloads included; otherwise the values pass through float32.
    """

    operands = dict(dst=Out(ON_CHIP, indirect=True), src=In(ON_CHIP, indirect=True), engine=static(Engine.unknown))
    engines = (Engine.vector, Engine.scalar, Engine.gpsimd)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "src")
        if i.dst.dtype is not i.src.dtype:
            unpacked(i, "dst", "src")
        if i.engine is Engine.gpsimd:
            if MemoryRegion.psum in (i.dst.region, i.src.region):
                raise i.fail("the GpSimd engine cannot reach PSUM; use the Vector or Scalar engine")
            if "tensor" in (i.dst.indirect, i.src.indirect):
                raise i.fail("tensor indirection runs on the Vector or Scalar engine, not on GpSimd")
        if i.engine is Engine.scalar and i.core.generation == 2:
            raise i.fail("the Scalar engine of NeuronCore-v2 has no tensor_copy; use nisa.activation with op=nl.copy")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, fast_mode(i, engine, i.src, i.dst))

    def compute(i: Issue):
        shaped = fit(i.src, i.dst)
        if i.src.dtype is i.dst.dtype:

            def run(core, dst, src, engine):
                dst[...] = shaped(src)

            return run

        store = storer(i.dst)

        def run_converting(core, dst, src, engine):
            store(dst, widen(shaped(src)))

        return run_converting


@instruction
class memset:
    """Fill ``dst`` with a constant of any type; packed MX types take only 0."""

    operands = dict(dst=Out(ANY), value=Value(), engine=static(Engine.unknown))
    engines = (Engine.vector, Engine.gpsimd)

    def check(i: Issue) -> None:
        if i.engine is Engine.gpsimd and i.dst.region is MemoryRegion.psum:
            raise i.fail("the GpSimd engine cannot reach PSUM; use the Vector engine")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, 0.5 if i.dst.dtype.itemsize <= 2 else 1.0)

    def compute(i: Issue):
        host, fail, store = i.dst.host, i.fail, storer(i.dst)
        packed = is_packed(i.dst.dtype)
        integer = host.kind in "iu"

        def run(core, dst, value, engine):
            if packed:
                if value != 0:
                    raise fail(f"packed types can only be set to 0, not {value}")
                dst[...] = 0
            elif integer:
                dst[...] = _integer(value, host, fail)
            else:
                store(dst, number(value))

        return run


def _integer(value: Any, host: np.dtype, fail: Any) -> Any:
    """A constant in an integer type, given as its value or as its bit pattern."""
    try:
        exact = int(value)
    except (TypeError, ValueError, OverflowError):
        raise fail(f"value={value!r} has no {host.name} representation") from None
    if isinstance(value, (float, np.floating)):
        exact = int(np.rint(value))
    bits = 8 * host.itemsize
    if not -(1 << (bits - 1)) <= exact < 1 << bits:
        raise fail(f"value={value} does not fit into {host.name}; the nearest it holds are {np.iinfo(host).min} and "
                   f"{np.iinfo(host).max}")  # fmt: skip
    return np.array(exact & ((1 << bits) - 1), dtype=f"u{host.itemsize}").view(host)


@instruction
class tensor_copy_predicated:
    """``dst = src`` where ``predicate`` is not 0 (is 0, with ``reverse_pred``); elsewhere ``dst`` keeps its values."""

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), src=Scalar(ON_CHIP), predicate=In(ON_CHIP, indirect=True),
        reverse_pred=static(False),
    )  # fmt: skip
    engines = (Engine.vector,)
    keeps = ("dst",)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "src", "predicate")
        require_types(i, "predicate", "uint8", "uint16", "uint32", "bool")
        not_both_psum(i, "src", "predicate")
        if i.src is not SCALAR and i.src.dtype is not i.dst.dtype:
            raise i.fail(f"src is {i.src.dtype} and dst {i.dst.dtype}; they must agree, convert with tensor_copy first")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, two_streams(i.dst, i.predicate, i.src))

    def compute(i: Issue):
        shaped = fit(i.src, i.dst) if i.src is not SCALAR else None
        condition, reverse, store = fit(i.predicate, i.dst), i.reverse_pred, storer(i.dst)
        host = i.dst.host

        def run(core, dst, src, predicate, reverse_pred):
            where = condition(predicate)
            where = np.equal(where, 0) if reverse else np.not_equal(where, 0)
            if shaped is not None:
                new = shaped(src)
            else:
                new = np.empty(1, host)
                store(new, np.full(1, src, np.float32))
            choose(where, new, dst, dst)

        return run

    def flow(plan: Plan, args, position, masks):
        predicate = args[2].array().reshape(args[0].shape)
        where = predicate == 0 if plan.issue.reverse_pred else predicate != 0
        return selected(where, masks.get(1), masks.get(0), args[0].shape, masks.get(2))


def selected(
    where: np.ndarray, chosen: np.ndarray | None, other: np.ndarray | None, shape: tuple[int, ...],
    predicate: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Which results of a selection are defined: by the side each was taken from, and by what decided it."""
    ok = np.where(
        where, True if chosen is None else _spread(chosen, shape), True if other is None else _spread(other, shape)
    )
    return ok if predicate is None else ok & predicate.reshape(shape)


def _spread(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.size == int(np.prod(shape)):
        return mask.reshape(shape)
    return np.broadcast_to(mask.reshape((shape[0],) + (1,) * (len(shape) - 1)), shape)


@instruction
class nc_stream_shuffle:
    """Move whole partitions within each quadrant of 32: output partition i takes input partition ``shuffle_mask[i]``.

    An entry of 255 leaves its output partition as it was. ``dst`` may be ``src``. The same mask serves every quadrant.
    """

    operands = dict(dst=Out(ON_CHIP), src=In(ON_CHIP), shuffle_mask=static())
    engines = (Engine.vector,)
    keeps = ("dst",)

    def check(i: Issue) -> None:
        mask = i.shuffle_mask
        if not isinstance(mask, tuple) or len(mask) != _QUADRANT:
            raise i.fail(f"shuffle_mask must be a list of {_QUADRANT} partitions, not {mask!r}")
        for entry in mask:
            if not isinstance(entry, (int, np.integer)) or not (0 <= entry < _QUADRANT or entry == _KEEP):
                raise i.fail(
                    f"shuffle_mask holds {entry!r}; entries are 0 to {_QUADRANT - 1}, or {_KEEP} to leave a partition"
                )
        if i.dst.dtype is not i.src.dtype:
            raise i.fail(f"dst is {i.dst.dtype} and src {i.src.dtype}; a shuffle does not convert, they must agree")
        if i.dst.free_size != i.src.free_size:
            raise i.fail(f"dst has {i.dst.free_size} elements a partition and src {i.src.free_size}; they must agree")
        outside = [s for _, s in _moves(mask, i.dst.num_partitions) if s >= i.src.num_partitions]
        if outside:
            raise i.fail(f"shuffle_mask reads partition {outside[0]} of src, which has {i.src.num_partitions}; "
                         "give src a whole quadrant, or mark the entry 255")  # fmt: skip

    def place(plan: Plan, args):
        active = -(-max(args[0].shape[0], args[1].shape[0]) // _QUADRANT) * _QUADRANT
        step = {32: 32, 64: 64}.get(active, 128)
        for tensor, name in ((args[0], "dst"), (args[1], "src")):
            if tensor.storage.allocation.address is not None and tensor.partition_start() % step:
                raise plan.issue.fail(
                    f"{name} starts at partition {tensor.partition_start()}; a shuffle of {active} partitions "
                    "starts at a "
                    f"multiple of {step}"
                )
        return args

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        moves = _moves(i.shuffle_mask, i.dst.num_partitions)
        to, source = (np.array([move[side] for move in moves], np.intp) for side in (0, 1))
        whole = len(to) == i.dst.num_partitions
        one = slice(source[0], source[0] + 1) if len(set(source.tolist())) == 1 else None
        shaped = i.src.shape[1:] == i.dst.shape[1:]
        free = i.dst.shape[1:]

        def run(core, dst, src, shuffle_mask):
            if not shaped:
                src = src.reshape(src.shape[0], *free)
            if whole:
                dst[...] = src[one] if one is not None else src.take(source, axis=0)
            else:
                dst[to] = src.take(source, axis=0)

        return run

    def flow(plan: Plan, args, position, masks):
        moves = _moves(plan.issue.shuffle_mask, args[0].shape[0])
        ok = np.ones(args[0].shape, np.bool_) if 0 not in masks else masks[0].copy()
        source = masks.get(1)
        for to, origin in moves:
            ok[to] = True if source is None else source[origin].reshape(ok.shape[1:])
        return ok


def _moves(mask: tuple[int, ...], num_partitions: int) -> list[tuple[int, int]]:
    """(output partition, input partition) of everything that moves."""
    return [(p, p - p % _QUADRANT + mask[p % _QUADRANT]) for p in range(num_partitions) if mask[p % _QUADRANT] != _KEEP]
