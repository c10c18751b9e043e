"""The Tensor engine: matrix multiplication and transposes through the systolic array."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.dtypes import float32, tfloat32
from opentrn.neuroncore.instruction import ON_CHIP, PSUM, SBUF, Engine, In, Issue, Out, Plan, Value, instruction, static
from opentrn.neuroncore.isa.settings import matmul_perf_mode
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["nc_matmul", "nc_transpose", "starts_accumulation"]

_FLOATS = ("float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "tfloat32", "float32")
_WIDE = ("float32", "tfloat32")


def starts_accumulation(dst: NkiTensor) -> bool:
    """Whether a matmul with ``accumulate=None`` is the first into this part of PSUM, and so overwrites it."""
    storage = dst.storage
    groups = storage.psum_started
    key = (dst.offset, dst.layout.id)
    if groups is None:
        storage.psum_started = {key: dst.layout}
        return True
    if key in groups:
        return False
    first, last = _span(dst.offset, dst.layout)
    rows = range(*_partitions(dst.offset, dst.layout))
    for (offset, _), layout in groups.items():
        low, high = _span(offset, layout)
        begin, end = _partitions(offset, layout)
        if first < high and low < last and rows.start < end and begin < rows.stop:
            groups[key] = dst.layout
            return False
    groups[key] = dst.layout
    return True


def _span(offset: int, layout) -> tuple[int, int]:
    within = offset % layout.storage_free
    return within, within + layout.span


def _partitions(offset: int, layout) -> tuple[int, int]:
    first = offset // layout.storage_free
    return first, first + layout.num_partitions


def _truncate_tf32(array: np.ndarray) -> np.ndarray:
    """Round float32 to the 10-bit mantissa of tfloat32, to nearest even."""
    bits = array.view(np.uint32)
    return ((bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(np.float32)


@instruction
class nc_matmul:
    """``dst = stationary.T @ moving`` on the systolic array, accumulated in PSUM.

    ``stationary`` is (K, M) and ``moving`` (K, N) in SBUF, K <= 128 on partitions, M <= 128; ``dst`` is (M, N) in PSUM within one
    bank (NeuronCore-v4: the whole PSUM). ``accumulate`` None overwrites at the first write of a place and adds afterwards.
    """

    operands = dict(
        dst=Out(PSUM, indirect=True), stationary=In(SBUF, indirect=True), moving=In(SBUF, indirect=True),
        is_stationary_onezero=static(False), is_moving_onezero=static(False), is_transpose=static(False),
        accumulate=Value(default=None), tile_position=static(()), tile_size=static(()),
        perf_mode=static(matmul_perf_mode.none),
    )  # fmt: skip
    engines = (Engine.tensor,)
    flow = "matmul"
    widen = ("stationary", "moving")

    def check(i: Issue) -> None:
        s, m, d, g = i.stationary, i.moving, i.dst, i.core.generation
        double = i.perf_mode is matmul_perf_mode.double_row
        if double and g < 3:
            raise i.fail("perf_mode double_row needs NeuronCore-v3 or newer")
        for name, layout in (("stationary", s), ("moving", m)):
            if layout.dtype not in _FLOATS or (layout.dtype == "float8_e4m3fn" and g < 4):
                raise i.fail(f"{name} is {layout.dtype}, which the Tensor engine of NeuronCore-v{g} does not multiply")
        if (s.dtype in _WIDE) != (m.dtype in _WIDE) and not i.is_transpose:
            raise i.fail(f"stationary is {s.dtype} and moving {m.dtype}; float32 only multiplies float32, cast one of them")
        if {s.dtype, m.dtype} == {"float8_e4m3", "float8_e4m3fn"}:
            raise i.fail("float8_e4m3 and float8_e4m3fn cannot meet in one matmul; use one of the two formats")
        if s.num_partitions != m.num_partitions:
            raise i.fail(
                f"stationary has {s.num_partitions} partitions and moving {m.num_partitions}; both hold the contraction "
                "dimension on partitions and must agree"
            )
        size_m, size_n = s.free_size, m.free_size
        if double:
            if s.ndim < 3 or m.ndim < 3 or s.shape[1] != 2 or m.shape[1] != 2:
                raise i.fail("double_row splits the contraction over partitions and a first free dimension of 2: "
                             f"[K, 2, N], not {list(s.shape)} and {list(m.shape)}")  # fmt: skip
            size_m, size_n = size_m // 2, size_n // 2
        rows, columns = i.tile_size or (i.core.num_partitions, i.core.gemm_stationary_fmax)
        if i.tile_size and i.tile_position:
            for what, start, step in zip(("row", "column"), i.tile_position, i.tile_size, strict=True):
                if start % step or start + step > i.core.num_partitions:
                    raise i.fail(f"tile_position {what} {start} is not a multiple of the tile's {step} within 128")
        if s.num_partitions > rows:
            raise i.fail(f"the contraction dimension is {s.num_partitions}; it must not exceed {rows}, split it and accumulate")
        if size_m > columns:
            raise i.fail(f"stationary has {size_m} columns; it must not exceed {columns}, split the output rows")
        bank = i.core.psum_bank_bytes // d.dtype.itemsize
        limit = bank if g < 4 else i.core.psum_bytes_per_partition // d.dtype.itemsize
        if size_n > limit:
            raise i.fail(f"moving has {size_n} columns; NeuronCore-v{g} takes at most {limit}, split the output columns")
        if d.num_partitions != size_m or d.free_size != size_n:
            raise i.fail(f"dst must be [{size_m}, {size_n}] for stationary {list(s.shape)} and moving {list(m.shape)}, "
                         f"not {list(d.shape)}")  # fmt: skip
        allowed = ("float32",) if g < 4 and not i.is_transpose else ("float32", "bfloat16") if not i.is_transpose else _FLOATS
        if d.dtype not in allowed:
            raise i.fail(f"dst is {d.dtype}; PSUM accumulates {' or '.join(allowed)} on NeuronCore-v{g}")

    def place(plan: Plan, args: tuple) -> tuple:
        dst, core = args[0], plan.issue.core
        # A matmul of NeuronCore-v2 and v3 writes within one PSUM bank.
        if core.generation < 4:
            layout = dst.layout
            item = layout.dtype.itemsize
            start = dst.offset % layout.storage_free * item
            address = dst.storage.allocation.address
            start += address[1] if address else 0
            bank = core.psum_bank_bytes
            if start // bank != (start + layout.span * item - 1) // bank:
                raise plan.issue.fail(
                    f"dst covers bytes {start}:{start + layout.span * item} of its PSUM partition and crosses a bank of {bank} "
                    f"bytes; keep each matmul's output within one bank ({bank // item} elements of {layout.dtype})"
                )
        first = starts_accumulation(dst)
        return (*args[:6], not first, *args[7:]) if args[6] is None else args

    def compute(i: Issue):
        s, m, d = i.stationary, i.moving, i.dst
        double = i.perf_mode is matmul_perf_mode.double_row
        k = s.num_partitions
        shape_s, shape_m = (k * (2 if double else 1), -1), (k * (2 if double else 1), -1)
        round_s = _truncate_tf32 if s.dtype is tfloat32 else None
        round_m = _truncate_tf32 if m.dtype is tfloat32 else None
        two_dims = s.ndim == 2 and m.ndim == 2 and d.ndim == 2
        out_shape = d.shape
        exact = d.dtype is float32
        transpose = i.is_transpose and i.core.generation >= 3

        def run(core, dst, stationary, moving, os, om, is_transpose, accumulate, tp, ts, pm):
            if not two_dims:
                stationary, moving = stationary.reshape(shape_s), moving.reshape(shape_m)
            if round_s is not None:
                stationary = round_s(np.ascontiguousarray(stationary))
            if round_m is not None:
                moving = round_m(np.ascontiguousarray(moving))
            if not accumulate:
                if exact and two_dims and not transpose:
                    np.matmul(stationary.T, moving, out=dst)
                else:
                    dst[...] = (_permuted(stationary, moving) if transpose else stationary.T @ moving).reshape(out_shape)
            else:
                dst += (stationary.T @ moving).reshape(out_shape)

        return run


def _permuted(stationary: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """A transpose-mode matmul: data pass bit-exactly, NaN and Inf included, along a permutation matrix."""
    if moving.shape[0] == moving.shape[1] and np.array_equal(moving, np.eye(len(moving), dtype=moving.dtype)):
        return stationary.T
    if stationary.shape[0] == stationary.shape[1] and np.array_equal(stationary, np.eye(len(stationary), dtype=stationary.dtype)):
        return moving
    return stationary.T @ moving


@instruction
class nc_transpose:
    """Swap the partition and free axes of ``data``: on the Tensor engine up to 128 x 128, SBUF to PSUM; on Vector up to 32 x 32."""

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP), engine=static(Engine.unknown))
    engines = (Engine.tensor, Engine.vector)
    flow = "transpose"

    def check(i: Issue) -> None:
        if i.dst.num_partitions != i.data.free_size or i.dst.free_size != i.data.num_partitions:
            raise i.fail(f"dst must be [{i.data.free_size}, {i.data.num_partitions}], the transpose of {list(i.data.shape)}, "
                         f"not {list(i.dst.shape)}")  # fmt: skip

    def select_engine(i: Issue) -> Engine:
        small = max(i.data.num_partitions, i.data.free_size) <= 32
        tensor_can = i.data.region is MemoryRegion.sbuf and i.dst.region is MemoryRegion.psum
        chosen = i.engine
        if chosen is Engine.unknown:
            chosen = Engine.tensor if tensor_can else Engine.vector
        if chosen is Engine.tensor:
            if not tensor_can:
                raise i.fail("the Tensor engine transposes from SBUF to PSUM")
            if max(i.data.num_partitions, i.data.free_size) > 128:
                raise i.fail(f"the Tensor engine transposes at most 128 x 128, not {list(i.data.shape)}")
        elif not small:
            raise i.fail(f"the Vector engine transposes at most 32 x 32, not {list(i.data.shape)}; "
                         "use the Tensor engine, from SBUF to PSUM")  # fmt: skip
        return chosen

    def compute(i: Issue):
        shape = i.dst.shape

        def run(core, dst, data, engine):
            dst[...] = data.reshape(data.shape[0], -1).T.reshape(shape)

        return run
