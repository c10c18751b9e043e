"""Vector-engine instructions that compute a tile and fold it into the engine's accumulator registers on the way."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.alu import Operator, named
from opentrn.neuroncore.convert import choose, number, storer, widen
from opentrn.neuroncore.cost import Cost, stream, two_streams
from opentrn.neuroncore.instruction import (
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
from opentrn.neuroncore.isa.accumulators import Registers, accumulation, first_lane
from opentrn.neuroncore.isa.copies import selected
from opentrn.neuroncore.isa.elementwise import alu_operator, arithmetic, check_operand, step
from opentrn.neuroncore.isa.settings import reduce_cmd as commands
from opentrn.neuroncore.isa.shapes import (
    column,
    direct,
    expand,
    fit,
    flat,
    not_both_psum,
    require_types,
    same_elements,
    unpacked,
)

__all__ = ["exponential", "range_select", "select_reduce", "tensor_scalar_cumulative", "tensor_scalar_reduce"]

_FLOATS = ("float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "tfloat32")
_SMALL_INTEGERS = ("int8", "int16", "uint8", "uint16")
_LOWEST = float(np.finfo(np.float32).min)
_MAXIMUM = named("maximum")
_ADD = named("add")


def _command(i: Issue, *allowed: commands) -> None:
    if i.reduce_cmd not in allowed:
        names = ", ".join(c.name for c in allowed)
        raise i.fail(f"reduce_cmd={getattr(i.reduce_cmd, 'name', i.reduce_cmd)}; this instruction knows {names}")


def _initial(i: Issue, name: str) -> Any:
    """A function that gives the start value of the registers, one number or one a lane."""
    lanes = i.fields[name]
    return (lambda v: v) if lanes is None or lanes is SCALAR else (lambda v: widen(v).reshape(-1))


@instruction
class tensor_scalar_reduce:
    """``dst = data <op0> operand0``, and ``reduce_res = reduce_op(dst)`` along the free axis through the accumulators.

    ``reduce_init`` starts the accumulators with ``reduce_cmd.load_reduce``; ``reduce_res_negate`` flips the sign of
    what is written to ``reduce_res``, not the registers.
    """

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), data=In(ON_CHIP, indirect=True), op0=static(),
        operand0=Scalar(ON_CHIP, optional=True), reduce_op=static(), reduce_res=Out(ON_CHIP, None),
        reverse0=static(False),
        reduce_cmd=static(commands.reset_reduce), reduce_init=Scalar(ON_CHIP, None), reduce_res_negate=static(False),
    )  # fmt: skip
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data")
        column(i, "data", "operand0", "reduce_res", "reduce_init")
        unpacked(i, "dst", "data")
        op = arithmetic(i, "op0")
        check_operand(i, op, "op0", "operand0")
        require_types(i, "operand0", "float32")
        require_types(i, "reduce_init", "float32")
        if i.reverse0:
            raise i.fail("reverse0 is not supported by this instruction; use tensor_scalar and tensor_reduce")
        _reduction(i)
        _command(i, commands.reset_reduce, commands.reduce, commands.load_reduce)
        if (i.reduce_cmd is commands.load_reduce) != (i.reduce_init is not None):
            raise i.fail("reduce_init and reduce_cmd.load_reduce go together: give both or neither")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, extra_cycles=i.core.scalar_read_accumulator_cycles)

    def compute(i: Issue):
        shaped, col, initial = fit(i.data, i.dst), expand(i.operand0, i.dst), _initial(i, "reduce_init")
        one, update, in_place, store = (
            step(arithmetic(i, "op0")),
            accumulation(i, "vector", _reduction(i)),
            direct(i.dst),
            storer(i.dst),
        )
        logical, shape = arithmetic(i, "op0").logical, i.dst.shape
        store_result = storer(i.reduce_res) if i.reduce_res is not None else None
        negate = i.reduce_res_negate

        def run(
            core, dst, data, op0, operand0, reduce_op, reduce_res, reverse0, reduce_cmd, reduce_init, reduce_res_negate
        ):
            out = dst if in_place else np.empty(shape, np.float32) if logical else None
            result = one(widen(shaped(data)), None if operand0 is None else number(col(operand0)), out)
            registers = update(core, result, initial(reduce_init))
            if not in_place:
                store(dst, result)
            if store_result is not None:
                store_result(reduce_res, (-registers if negate else registers).reshape(reduce_res.shape))

        return run


def _reduction(i: Issue) -> Operator:
    op = alu_operator(i, "reduce_op")
    if op.name not in ("add", "multiply", "maximum", "minimum"):
        raise i.fail(f"reduce_op={op.name}; this instruction reduces with add, multiply, maximum or minimum")
    return op


@instruction
class tensor_scalar_cumulative:
    """Running reduction along the free axis: ``reg = (src[i] <op0> imm0) <op1> reg; dst[i] = reg``.

    The register starts at the identity of ``op1`` (``reset_reduce``), at ``imm1`` (``load_reduce``), or goes on
    (``reduce``).
    """

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), src=In(ON_CHIP, indirect=True), op0=static(), op1=static(),
        imm0=Scalar(ON_CHIP),
        imm1=Scalar(ON_CHIP, None), reduce_cmd=static(commands.reset_reduce),
    )  # fmt: skip
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "src")
        column(i, "src", "imm0", "imm1")
        for name in ("dst", "src"):
            require_types(i, name, *_FLOATS, *_SMALL_INTEGERS)
        require_types(i, "imm0", "float32")
        require_types(i, "imm1", "float32")
        arithmetic(i, "op0")
        op = arithmetic(i, "op1")
        if op.name not in ("add", "subtract", "multiply", "maximum", "minimum"):
            raise i.fail(f"op1={op.name}; a running reduction takes add, subtract, multiply, maximum or minimum")
        _command(i, commands.reset_reduce, commands.reduce, commands.load_reduce)
        if (i.reduce_cmd is commands.load_reduce) != (i.imm1 is not None):
            raise i.fail("imm1 and reduce_cmd.load_reduce go together: give both or neither")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        one, op, store = step(arithmetic(i, "op0")), arithmetic(i, "op1"), storer(i.dst)
        shape, col, initial, lanes = i.dst.shape, expand(i.imm0, i.src), _initial(i, "imm1"), i.src.num_partitions
        identity, command = np.float32(op.identity), i.reduce_cmd

        def run(core, dst, src, op0, op1, imm0, imm1, reduce_cmd):
            x = flat(np.asarray(one(widen(src), number(col(imm0)), None), np.float32))
            if core.vector_accumulator is None:
                core.vector_accumulator = Registers(core.hardware.num_partitions)
            where = slice(core.lane, core.lane + lanes)
            registers = core.vector_accumulator
            if command is commands.reset_reduce:
                registers.values[where] = identity
            elif command is commands.load_reduce:
                registers.values[where] = initial(imm1)
            registers.known[where] = True
            y = running(op, x, registers.values[where])
            registers.values[where] = y[:, -1]
            store(dst, y.reshape(shape))

        return run

    def flow(plan: Plan, args, position, masks):
        return prefix_defined(masks, args[position].shape)


def running(op: Operator, x: np.ndarray, start: np.ndarray) -> np.ndarray:
    """``y[i] = x[i] <op> y[i - 1]`` along rows in float32, from ``start``."""
    y = np.empty_like(x)
    if op.name == "subtract":
        previous = start
        for k in range(x.shape[1]):
            previous = np.subtract(x[:, k], previous, out=y[:, k])
        return y
    y[...] = x
    op.function(y[:, 0], start, out=y[:, 0])
    return op.function.accumulate(y, axis=1, out=y)


def prefix_defined(masks: dict[int, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Which results of a scan are defined: those before the first undefined input of their row."""
    ok = np.ones((shape[0], int(np.prod(shape[1:]))), np.bool_)
    for mask in masks.values():
        mask = mask.reshape(mask.shape[0], -1)
        ok &= (
            np.logical_and.accumulate(mask, axis=1) if mask.shape[1] == ok.shape[1] else mask.all(axis=1, keepdims=True)
        )
    return ok.reshape(shape)


@instruction
class exponential:
    """``dst = exp(src - max_value)`` on the Vector engine of NeuronCore-v4, with an optional running sum.

    The sum goes to the Vector engine's accumulators as ``reduce_cmd`` says (``reduce_init`` starts it with
    ``load_reduce``); ``reduce_res`` (P, 1) reads them out. With ``idle`` the accumulators are left in an unknown state.
    """

    operands = dict(
        dst=Out(ON_CHIP, indirect=True), src=In(ON_CHIP, indirect=True), max_value=Scalar(ON_CHIP, 0.0),
        reduce_res=Out(ON_CHIP, None), reduce_cmd=static(commands.idle), reduce_init=Scalar(ON_CHIP, 0.0),
    )  # fmt: skip
    engines = (Engine.vector,)
    generations = (4, 5)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "src")
        column(i, "src", "max_value", "reduce_res", "reduce_init")
        if max(i.dst.ndim, i.src.ndim) > 4:
            raise i.fail(
                f"tiles have at most 4 dimensions here, not {max(i.dst.ndim, i.src.ndim)}; flatten_dims merges them"
            )
        require_types(i, "dst", *_EXP_FLOATS, "tfloat32", *_SMALL_INTEGERS, "int32")
        require_types(i, "src", *_EXP_FLOATS, *_SMALL_INTEGERS, "int32", "uint32")
        require_types(i, "max_value", "float32")
        require_types(i, "reduce_init", "float32")
        require_types(i, "reduce_res", *_EXP_FLOATS, "tfloat32")
        _command(i, commands.idle, commands.reset_reduce, commands.reduce, commands.load_reduce)
        if i.reduce_init is not SCALAR and i.reduce_cmd is not commands.load_reduce:
            raise i.fail("reduce_init is only read with reduce_cmd.load_reduce; leave it out")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        # Four elements a cycle, the figure that NeuronCore-v4 was announced with.
        return stream(i, engine, 0.25)

    def compute(i: Issue):
        shaped, col, initial = fit(i.src, i.dst), expand(i.max_value, i.dst), _initial(i, "reduce_init")
        update, in_place, store = accumulation(i, "vector", _ADD, spoils=True), direct(i.dst), storer(i.dst)
        store_result = storer(i.reduce_res) if i.reduce_res is not None else None
        loads, fail = i.reduce_cmd is commands.load_reduce, i.fail

        def run(core, dst, src, max_value, reduce_res, reduce_cmd, reduce_init):
            if not loads and not isinstance(reduce_init, np.ndarray) and reduce_init != 0:
                raise fail(f"reduce_init={reduce_init} is only read with reduce_cmd.load_reduce; leave it out")
            x = np.subtract(widen(shaped(src)), number(col(max_value)))
            result = np.exp(x, out=dst if in_place else x)
            registers = update(core, result, initial(reduce_init))
            if not in_place:
                store(dst, result)
            if store_result is not None:
                store_result(reduce_res, registers.reshape(reduce_res.shape))

        return run


_EXP_FLOATS = ("float8_e4m3", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32")


@instruction
class range_select:
    """``dst = on_true_tile`` where both comparisons of the column number with the bounds hold, ``on_false_value``
    elsewhere.

    The column number is the flat index along the free axis plus ``range_start``. The maximum of ``dst`` goes to the
    accumulators as ``reduce_cmd`` says; ``reduce_res`` (P, 1) reads them out. ``on_false_value`` is the lowest float32.
    """

    operands = dict(
        dst=Out(ON_CHIP), on_true_tile=In(ON_CHIP), comp_op0=static(), comp_op1=static(), bound0=In(ON_CHIP),
        bound1=In(ON_CHIP), reduce_cmd=static(commands.reset_reduce), reduce_res=Out(ON_CHIP, None),
        reduce_op=static("maximum"), range_start=Value(default=0), on_false_value=static(_LOWEST),
    )  # fmt: skip
    engines = (Engine.vector,)
    generations = (3, 4, 5)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "on_true_tile")
        column(i, "on_true_tile", "bound0", "bound1", "reduce_res")
        require_types(i, "on_true_tile", *_FLOATS)
        require_types(i, "bound0", "float32")
        require_types(i, "bound1", "float32")
        for name in ("comp_op0", "comp_op1"):
            op = alu_operator(i, name)
            if op.name not in ("equal", "less", "less_equal", "greater", "greater_equal"):
                raise i.fail(f"{name}={op.name}; compare with equal, less, less_equal, greater or greater_equal")
        if alu_operator(i, "reduce_op").name != "maximum":
            raise i.fail(f"reduce_op={alu_operator(i, 'reduce_op').name}; only nl.maximum is supported")
        if not np.float32(i.on_false_value) == np.float32(_LOWEST):
            raise i.fail(f"on_false_value={i.on_false_value}; the engine only fills with the lowest float32, {_LOWEST}")
        _command(i, commands.reset_reduce, commands.reduce, commands.idle)

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, extra_cycles=i.core.scalar_read_accumulator_cycles if i.reduce_res is not None else 0)

    def compute(i: Issue):
        shape, size, flat_tile = i.dst.shape, i.dst.free_size, i.dst.ndim == 2
        shaped, store = fit(i.on_true_tile, i.dst), storer(i.dst)
        first, second = alu_operator(i, "comp_op0").function, alu_operator(i, "comp_op1").function
        update = accumulation(i, "vector", _MAXIMUM, spoils=True)
        store_result = storer(i.reduce_res) if i.reduce_res is not None else None
        columns, lowest = np.arange(size, dtype=np.float32), np.float32(_LOWEST)
        fail = i.fail

        def run(core, dst, on_true, c0, c1, bound0, bound1, reduce_cmd, reduce_res, reduce_op, range_start, on_false):
            start = int(range_start)
            if abs(start) + size > 1 << 24:
                raise fail(
                    f"range_start={start} with {size} columns leaves the integers that float32 compares exactly, 2**24"
                )
            index = columns + np.float32(start) if start else columns
            where = _within(first, second, index, bound0, bound1)
            result = np.where(where if flat_tile else where.reshape(shape), widen(shaped(on_true)), lowest)
            registers = update(core, result)
            store(dst, result)
            if store_result is not None:
                store_result(reduce_res, registers.reshape(reduce_res.shape))

        return run

    def flow(plan: Plan, args, position, masks):
        i, names = plan.issue, plan.instruction.names
        tile, b0, b1 = (masks.get(names.index(n)) for n in ("on_true_tile", "bound0", "bound1"))
        data = [args[names.index(n)].array() for n in ("bound0", "bound1")]
        index = np.arange(i.on_true_tile.free_size, dtype=np.float32) + np.float32(
            int(args[names.index("range_start")])
        )
        where = _within(alu_operator(i, "comp_op0").function, alu_operator(i, "comp_op1").function, index, *data)
        ok = np.where(where, True if tile is None else tile.reshape(where.shape), True)
        for bound in (b0, b1):
            if bound is not None:
                ok &= bound.reshape(-1, 1)
        shape = args[position].shape
        return ok.reshape(shape) if args[position] is args[0] else ok.all(axis=1).reshape(shape)


def _within(first: Any, second: Any, index: np.ndarray, bound0: np.ndarray, bound1: np.ndarray) -> np.ndarray:
    """Where both comparisons of a column number with the bounds of its row hold."""
    where = first(index, bound0.reshape(-1, 1))
    where &= second(index, bound1.reshape(-1, 1))
    return where


@instruction
class select_reduce:
    """``dst = on_true`` where ``predicate`` is not 0 (is 0, with ``reverse_pred``), ``on_false`` elsewhere, with a
    maximum.

    ``on_false`` is a number or a (P, 1) column. The maximum of ``dst`` goes to the accumulators as ``reduce_cmd`` says;
    ``reduce_res`` (P, 1) reads them out. With ``idle`` the accumulators are left in an unknown state.
    """

    operands = dict(
        dst=Out(ON_CHIP), predicate=In(ON_CHIP), on_true=In(ON_CHIP), on_false=Scalar(ON_CHIP),
        reduce_res=Out(ON_CHIP, None),
        reduce_cmd=static(commands.idle), reduce_op=static("maximum"), reverse_pred=static(False),
    )  # fmt: skip
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "predicate", "on_true")
        column(i, "on_true", "on_false", "reduce_res")
        not_both_psum(i, "on_true", "predicate")
        unpacked(i, "dst", "on_true")
        if i.on_true.dtype in ("tfloat32", "int32", "uint32"):
            raise i.fail(f"on_true is {i.on_true.dtype}, which this instruction does not select; convert it to float32")
        require_types(i, "predicate", *_SMALL_INTEGERS, "bool")
        require_types(i, "reduce_res", *_FLOATS)
        if alu_operator(i, "reduce_op").name != "maximum":
            raise i.fail(f"reduce_op={alu_operator(i, 'reduce_op').name}; only nl.maximum is supported")
        _command(i, commands.idle, commands.reset_reduce, commands.reduce)

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, two_streams(i.dst, i.predicate, i.on_true))

    def compute(i: Issue):
        shaped, condition, col = fit(i.on_true, i.dst), fit(i.predicate, i.dst), expand(i.on_false, i.dst)
        store, in_place, reverse = storer(i.dst), direct(i.dst), i.reverse_pred
        update = accumulation(i, "vector", _MAXIMUM, spoils=True)
        store_result = storer(i.reduce_res) if i.reduce_res is not None else None

        def run(core, dst, predicate, on_true, on_false, reduce_res, reduce_cmd, reduce_op, reverse_pred):
            yes, no = widen(shaped(on_true)), np.asarray(number(col(on_false)), np.float32)
            where = condition(predicate)
            where = np.equal(where, 0) if reverse else np.not_equal(where, 0)
            result = dst if in_place else np.empty(dst.shape, np.float32)
            choose(where, yes, no, result)
            registers = update(core, result)
            if not in_place:
                store(dst, result)
            if store_result is not None:
                store_result(reduce_res, registers.reshape(reduce_res.shape))

        return run

    def flow(plan: Plan, args, position, masks):
        predicate = args[1].array().reshape(args[0].shape)
        where = predicate == 0 if plan.issue.reverse_pred else predicate != 0
        ok = selected(where, masks.get(2), masks.get(3), args[0].shape, masks.get(1))
        return (
            ok if args[position] is args[0] else ok.reshape(ok.shape[0], -1).all(axis=1).reshape(args[position].shape)
        )
