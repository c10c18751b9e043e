"""The Tensor engine: matrix multiplication and transposes through the systolic array."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.convert import round_to_tfloat32, widen
from opentrn.neuroncore.cost import Cost, array_cost, stream
from opentrn.neuroncore.dtypes import float32, tfloat32
from opentrn.neuroncore.instruction import ON_CHIP, PSUM, SBUF, Engine, In, Issue, Out, Plan, Value, instruction, static
from opentrn.neuroncore.isa.accumulation import accumulation, check_bank, check_output, within_tile
from opentrn.neuroncore.isa.settings import matmul_perf_mode
from opentrn.neuroncore.memory import MemoryRegion

__all__ = ["nc_matmul", "nc_transpose"]

_FP8 = ("float8_e4m3", "float8_e5m2", "float8_e4m3fn")
_FLOATS = ("float8_e3m4", *_FP8, "bfloat16", "float16", "tfloat32", "float32")
_WIDE = ("float32", "tfloat32")
_INDIRECT = ("float16", "bfloat16", *_FP8)


def _check_types(i: Issue, double: bool) -> None:
    s, m, generation = i.stationary.dtype, i.moving.dtype, i.core.generation
    for name, dtype in (("stationary", s), ("moving", m)):
        if i.is_transpose and dtype.kind != "packed":
            continue  # bits pass through
        if dtype not in _FLOATS or (dtype == "float8_e4m3fn" and generation < 4):
            raise i.fail(f"{name} is {dtype}, which the Tensor engine of NeuronCore-v{generation} does not multiply")
        if double and dtype not in _FP8:
            raise i.fail(f"{name} is {dtype}; double_row multiplies float8_e4m3 and float8_e5m2"
                         + (" and float8_e4m3fn" if generation >= 4 else ""))  # fmt: skip
    if (s in _WIDE) != (m in _WIDE) and not i.is_transpose:
        raise i.fail(f"stationary is {s} and moving {m}; float32 only multiplies float32, cast one of them")
    if {s, m} == {"float8_e4m3", "float8_e4m3fn"}:
        raise i.fail("float8_e4m3 and float8_e4m3fn cannot meet in one matmul; use one of the two formats")


def _check_indirect(i: Issue) -> None:
    used = [name for name in ("dst", "stationary", "moving") if i.fields[name].indirect]
    if not used:
        return
    if i.tile_position and any(i.tile_position):
        raise i.fail(
            f"tile_position={i.tile_position} with an indirect {used[0]}; indirection uses the whole array, leave it "
            "out"
        )
    if i.is_transpose and "moving" in used:
        raise i.fail("moving cannot be indirect with is_transpose")
    for name in used:
        if name != "dst" and i.fields[name].dtype not in _INDIRECT:
            raise i.fail(f"{name} is {i.fields[name].dtype}; an indirect operand is one of {', '.join(_INDIRECT)}")


@instruction
class nc_matmul:
    """``dst = stationary.T @ moving`` on the systolic array, accumulated in PSUM.

    ``stationary`` is (K, M) and ``moving`` (K, N) in SBUF, K <= 128 on partitions, M <= 128; ``dst`` is (M, N) in PSUM
    within one bank (NeuronCore-v4: the whole PSUM). ``accumulate`` None overwrites at the first write of a place and
    adds afterwards. ``perf_mode`` double_row takes fp8 operands (K, 2, M) and (K, 2, N). ``tile_size`` and
    ``tile_position`` choose a part of the array. Products are exact and summed in float32; a bfloat16 ``dst``
    (NeuronCore-v4) rounds after every addition.
    """

    operands = dict(
        dst=Out(PSUM, indirect=True), stationary=In(SBUF, indirect=True), moving=In(SBUF, indirect=True),
        is_stationary_onezero=static(False), is_moving_onezero=static(False), is_transpose=static(False),
        accumulate=Value(default=None), tile_position=static(()), tile_size=static(()),
        perf_mode=static(matmul_perf_mode.none),
    )  # fmt: skip
    engines = (Engine.tensor,)
    flow = "matmul"
    accumulates = "accumulate"
    widen = ("stationary", "moving")

    def check(i: Issue) -> None:
        s, m, d, g = i.stationary, i.moving, i.dst, i.core.generation
        double = i.perf_mode is matmul_perf_mode.double_row
        if double and g < 3:
            raise i.fail("perf_mode double_row needs NeuronCore-v3 or newer")
        if double and i.is_transpose:
            raise i.fail("double_row cannot transpose; leave perf_mode out")
        _check_types(i, double)
        _check_indirect(i)
        if s.num_partitions != m.num_partitions:
            raise i.fail(
                f"stationary has {s.num_partitions} partitions and moving {m.num_partitions}; both hold the "
                "contraction "
                "dimension on partitions and must agree"
            )
        size_m, size_n = s.free_size, m.free_size
        if double:
            if s.ndim < 3 or m.ndim < 3 or s.shape[1] != 2 or m.shape[1] != 2:
                raise i.fail(
                    "double_row splits the contraction over partitions and a first free dimension of 2: "
                    f"[K, 2, N], not {list(s.shape)} and {list(m.shape)}"
                )
            size_m, size_n = size_m // 2, size_n // 2
        rows, columns = within_tile(i)
        if double and columns != i.core.num_partitions:
            raise i.fail("double_row cannot be combined with column tiling; use a column size of 128")
        if s.num_partitions > rows:
            raise i.fail(
                f"the contraction dimension is {s.num_partitions}; it must not exceed {rows}, split it and accumulate"
            )
        if size_m > columns:
            raise i.fail(f"stationary has {size_m} columns; it must not exceed {columns}, split the output rows")
        check_output(i, size_m, size_n)
        if i.is_transpose and g >= 3:
            data = _transposed(i)
            if d.dtype is not data.dtype:
                raise i.fail(
                    f"dst is {d.dtype} and the data {data.dtype}; a transpose moves bits, make the types equal"
                )
            return
        allowed = ("float32",) if g < 4 else ("float32", "bfloat16")
        if d.dtype not in allowed and not i.is_transpose:
            raise i.fail(f"dst is {d.dtype}; PSUM accumulates {' or '.join(allowed)} on NeuronCore-v{g}")

    def place(plan: Plan, args: tuple) -> tuple:
        return (*args[:6], accumulation(plan, args[0], args[6]), *args[7:])

    def cost(i: Issue, engine: Engine) -> Cost:
        double = i.perf_mode is matmul_perf_mode.double_row
        columns = i.moving.free_size // (2 if double else 1)
        fp32 = i.stationary.dtype is float32 or i.moving.dtype is float32
        # float32 goes through in four passes; a matrix of zeros and ones needs half of them, a pure movement two.
        passes = (2 if i.is_transpose or i.is_stationary_onezero or i.is_moving_onezero else 4) if fp32 else 1
        rows, wide = i.tile_size or (0, 0)
        at = i.tile_position or (0, 0)
        flops = 0 if i.is_transpose else 2 * i.stationary.size * i.moving.free_size // (2 if double else 1)
        return array_cost(i, columns, passes, flops, (at[0], rows, at[1], wide) if rows else ())

    def compute(i: Issue):
        s, m, d = i.stationary, i.moving, i.dst
        k = s.num_partitions * (2 if i.perf_mode is matmul_perf_mode.double_row else 1)
        round_s = round_to_tfloat32 if s.dtype is tfloat32 else None
        round_m = round_to_tfloat32 if m.dtype is tfloat32 else None
        two_dims = s.ndim == 2 and m.ndim == 2 and d.ndim == 2
        out_shape = d.shape
        matmul = np.matmul
        narrow = d.host != np.float32

        def product(stationary, moving):
            if not two_dims:
                stationary, moving = stationary.reshape(k, -1), moving.reshape(k, -1)
            stationary, moving = widen(stationary), widen(moving)
            if round_s is not None:
                stationary = round_s(np.ascontiguousarray(stationary))
            if round_m is not None:
                moving = round_m(np.ascontiguousarray(moving))
            return matmul(stationary.T, moving)

        if i.is_transpose and i.core.generation >= 3:

            def transpose(core, dst, stationary, moving, *settings):
                flat_s, flat_m = stationary.reshape(k, -1), moving.reshape(k, -1)
                if _is_identity(flat_m):
                    dst[...] = flat_s.T.reshape(out_shape)
                elif _is_identity(flat_s):
                    dst[...] = flat_m.reshape(out_shape)
                else:
                    dst[...] = product(stationary, moving).reshape(out_shape)

            transpose.widens = False
            return transpose
        if narrow:

            def round_sums(core, dst, stationary, moving, os, om, is_transpose, accumulate, tp, ts, pm):
                result = product(stationary, moving).reshape(out_shape)
                dst[...] = result + dst.astype(np.float32) if accumulate else result

            return round_sums
        direct = two_dims and round_s is None and round_m is None

        def run(core, dst, stationary, moving, os, om, is_transpose, accumulate, tp, ts, pm):
            if accumulate:
                dst += product(stationary, moving).reshape(out_shape)
            elif direct and stationary.dtype == np.float32 == moving.dtype:
                matmul(stationary.T, moving, out=dst)
            else:
                dst[...] = product(stationary, moving).reshape(out_shape)

        return run


def _transposed(i: Issue):
    """The operand of a transpose-mode matmul that carries the data: the other one is the identity, usually
    ``moving``."""
    return i.moving if i.moving.dtype is i.dst.dtype and i.stationary.dtype is not i.dst.dtype else i.stationary


def _is_identity(array: np.ndarray) -> bool:
    rows, columns = array.shape
    if rows != columns:
        return False
    diagonal = np.einsum("ii->i", array)
    return bool((diagonal == 1).all()) and np.count_nonzero(array) == rows


@instruction
class nc_transpose:
    """Swap the partition and free axes of ``data``, which keeps its type and its bits (NaN and infinities from
    NeuronCore-v3 on).

    On the Tensor engine up to 128 x 128, SBUF to PSUM; on the Vector engine up to 32 x 32, SBUF or PSUM.
    """

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP), engine=static(Engine.unknown))
    engines = (Engine.tensor, Engine.vector)
    flow = "transpose"

    def check(i: Issue) -> None:
        if i.dst.num_partitions != i.data.free_size or i.dst.free_size != i.data.num_partitions:
            raise i.fail(
                f"dst must be [{i.data.free_size}, {i.data.num_partitions}], the transpose of {list(i.data.shape)}, "
                f"not {list(i.dst.shape)}"
            )
        if i.dst.dtype is not i.data.dtype:
            raise i.fail(
                f"data is {i.data.dtype} and dst {i.dst.dtype}; a transpose does not convert, make the types equal"
            )

    def select_engine(i: Issue) -> Engine:
        largest = max(i.data.num_partitions, i.data.free_size)
        vector_limit, tensor_limit = i.core.transpose_vector_fmax, i.core.transpose_tensor_fmax
        tensor_can = i.data.region is MemoryRegion.sbuf and i.dst.region is MemoryRegion.psum
        chosen = i.engine
        if chosen is Engine.unknown:
            chosen = Engine.tensor if tensor_can else Engine.vector
        if chosen is Engine.tensor:
            if not tensor_can:
                raise i.fail(
                    f"the Tensor engine transposes from sbuf to psum, not {i.data.region.value} to {i.dst.region.value}"
                )
            if largest > tensor_limit:
                raise i.fail(
                    f"the Tensor engine transposes at most {tensor_limit} x {tensor_limit}, not {list(i.data.shape)}"
                )
        elif chosen is Engine.vector and largest > vector_limit:
            raise i.fail(
                f"the Vector engine transposes at most {vector_limit} x {vector_limit}, not {list(i.data.shape)}; "
                "use the Tensor engine, from sbuf to psum"
            )
        return chosen

    def place(plan: Plan, args: tuple) -> tuple:
        if plan.engine is Engine.tensor and plan.issue.core.generation < 4:
            check_bank(plan, args[0])
        return args

    def cost(i: Issue, engine: Engine) -> Cost:
        if engine is Engine.vector:
            return stream(i, engine)
        # The data are loaded as the stationary matrix and an identity streams through.
        return array_cost(i, i.data.num_partitions, 2 if i.data.dtype is float32 else 1, 0)

    def compute(i: Issue):
        shape, partitions = i.dst.shape, i.data.num_partitions
        # NeuronCore-v2 multiplies by an identity, where 0 * inf and 0 * NaN spoil the sums they take part in.
        multiplies = i.core.generation == 2 and i.data.dtype.kind == "float" and _engine_of(i) is Engine.tensor

        def run(core, dst, data, engine):
            dst[...] = data.reshape(partitions, -1).T.reshape(shape)

        def run_v2(core, dst, data, engine):
            values = widen(data.reshape(partitions, -1))
            dst[...] = (values.T @ np.eye(partitions, dtype=np.float32)).reshape(shape)

        return run_v2 if multiplies else run


def _engine_of(i: Issue) -> Engine:
    return nc_transpose.instruction.select_engine(i)
