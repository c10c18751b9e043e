"""Microscaling (MX) formats: matrix multiplication of packed 8- and 4-bit floats with block scales, and quantisation.

A group of 32 values, 8 partitions by the 4 elements of a packed word, shares one power-of-two scale. The scales of the
32 partitions of a quadrant lie on 4 partitions of the same quadrant.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from opentrn.neuroncore.convert import storer, widen
from opentrn.neuroncore.cost import Cost, array_cost, stream
from opentrn.neuroncore.dtypes import as_dtype, is_packed
from opentrn.neuroncore.instruction import PSUM, SBUF, Engine, In, Issue, Out, Plan, Value, instruction, static
from opentrn.neuroncore.isa.accumulation import accumulation, check_output, within_tile
from opentrn.neuroncore.layout import Layout, intern_layout
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["nc_matmul_mx", "quantize_mx", "scale_rows", "unpack"]

_QUADRANT = 32
_GROUP_PARTITIONS = 8
_PACKED = 4
_SCALES = ("float8_e8m0fnu", "uint8")
_SCALE_OFFSETS = (0, 4, 8, 12)
_SCALE_BIAS = 127
_NAN_SCALE = 0xFF

_ELEMENTS = {
    "float8_e5m2_x4": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e4m3fn_x4": np.dtype(ml_dtypes.float8_e4m3fn),
}
# Largest exponent of an element: with it the scale of a group is 2**(floor(log2(amax)) - (emax - 1)).
_EMAX = {"float8_e5m2_x4": 15, "float8_e4m3fn_x4": 8}
_BYTE_VALUES = {
    name: np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32) for name, dtype in _ELEMENTS.items()
}
_NIBBLE_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


def unpack(words: np.ndarray, dtype: Any) -> np.ndarray:
    """Packed words of type ``dtype``, (P, F), as float32 values (P, 4, F); the first element of a word is the
    lowest."""
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, words.dtype.itemsize)
    if dtype == "float4_e2m1fn_x4":
        octets = np.stack([octets & 15, octets >> 4], axis=-1).reshape(*words.shape, _PACKED)
        return _NIBBLE_VALUES.take(octets.transpose(0, 2, 1))
    return _BYTE_VALUES[str(dtype)].take(octets.transpose(0, 2, 1))


def scale_rows(num_partitions: int) -> np.ndarray:
    """Partition of the scale tile that holds the scale of each partition of the data."""
    p = np.arange(num_partitions)
    return p // _QUADRANT * _QUADRANT + p % _QUADRANT // _GROUP_PARTITIONS


def _scale_factors(scales: np.ndarray) -> np.ndarray:
    """float32 powers of two of e8m0 bytes; 0xFF is NaN."""
    exponents = scales.view(np.uint8).astype(np.int32)
    factors = np.ldexp(np.float32(1), exponents - _SCALE_BIAS).astype(np.float32)
    return np.where(exponents == _NAN_SCALE, np.float32(np.nan), factors)


def _check_scale(i: Issue, data: Layout, name: str, columns: int) -> None:
    scale = i.fields[name]
    if scale.dtype not in _SCALES:
        raise i.fail(f"{name} is {scale.dtype}; scales are float8_e8m0fnu (or uint8)")
    needed = int(scale_rows(data.num_partitions)[-1]) + 1
    if scale.num_partitions < needed:
        raise i.fail(
            f"{name} spans {scale.num_partitions} partitions and the scales of {data.num_partitions} partitions of "
            "data lie on "
            f"the first 4 of each 32; allocate {data.num_partitions} partitions (or {needed} at least)"
        )
    if scale.free_size != columns:
        raise i.fail(
            f"{name} has {scale.free_size} columns and its data {columns}; one scale belongs to each packed column"
        )


def _check_scale_start(plan: Plan, tensor: NkiTensor, name: str) -> None:
    start = tensor.partition_start() % _QUADRANT
    if start not in _SCALE_OFFSETS:
        raise plan.issue.fail(f"{name} starts at partition {start} of its quadrant; scales start at 0, 4, 8 or 12")


@instruction
class nc_matmul_mx:
    """``dst = stationary.T @ moving`` of MX-quantised matrices, scaled and accumulated in float32.

    ``stationary`` (K, M) and ``moving`` (K, N) hold packed words in SBUF, so that the contraction is over 4 K values;
    K is 32, 64, 96 or 128, M even and at most 128. Scales have the layout that :func:`quantize_mx` writes. ``dst`` is
    (M, N) in PSUM, float32 or bfloat16.
    """

    operands = dict(
        dst=Out(PSUM, indirect=True), stationary=In(SBUF, indirect=True), moving=In(SBUF, indirect=True),
        stationary_scale=In(SBUF, indirect=True, any_start=True),
        moving_scale=In(SBUF, indirect=True, any_start=True), tile_position=static(None),
        tile_size=static(None), accumulate=Value(default=None),
    )  # fmt: skip
    engines = (Engine.tensor,)
    generations = (4, 5)
    flow = "matmul"
    accumulates = "accumulate"

    def check(i: Issue) -> None:
        s, m, d = i.stationary, i.moving, i.dst
        for name, layout in (("stationary", s), ("moving", m)):
            if not is_packed(layout.dtype):
                raise i.fail(
                    f"{name} is {layout.dtype}; it must be float8_e5m2_x4, float8_e4m3fn_x4 or float4_e2m1fn_x4, "
                    "reinterpret packed bytes with .view(dtype)"
                )
        if s.num_partitions != m.num_partitions:
            raise i.fail(f"stationary has {s.num_partitions} partitions and moving {m.num_partitions}; they must agree")
        if s.num_partitions % _QUADRANT:
            raise i.fail(
                f"the contraction spans {s.num_partitions} partitions; it must be a multiple of {_QUADRANT}, pad it"
            )
        rows, columns = within_tile(i, row_only=True)
        if s.num_partitions > rows:
            raise i.fail(f"the contraction spans {s.num_partitions} partitions; it must not exceed {rows}")
        if s.free_size > columns or s.free_size % 2:
            raise i.fail(f"stationary has {s.free_size} columns; they must be even and at most {columns}")
        check_output(i, s.free_size, m.free_size)
        if d.dtype not in ("float32", "bfloat16"):
            raise i.fail(f"dst is {d.dtype}; it must be float32 or bfloat16")
        _check_scale(i, s, "stationary_scale", s.free_size)
        _check_scale(i, m, "moving_scale", m.free_size)
        for data, scale in (("stationary", "stationary_scale"), ("moving", "moving_scale")):
            if (i.fields[data].indirect is None) != (i.fields[scale].indirect is None):
                raise i.fail(
                    f"{data} and {scale} form one tensor; both or neither must use .indirect(), with one index"
                )

    def place(plan: Plan, args: tuple) -> tuple:
        _check_scale_start(plan, args[3], "stationary_scale")
        _check_scale_start(plan, args[4], "moving_scale")
        return (*args[:7], accumulation(plan, args[0], args[7]))

    def cost(i: Issue, engine: Engine) -> Cost:
        # Four contracted values a word: as many columns as a bfloat16 matmul of a quarter of the depth.
        flops = 8 * i.stationary.size * i.moving.free_size
        rows = i.tile_size or ()
        at = i.tile_position or (0, 0)
        return array_cost(i, i.moving.free_size, 1, flops, (at[0], rows[0], at[1], rows[1]) if len(rows) == 2 else ())

    def compute(i: Issue):
        s, m, d = i.stationary, i.moving, i.dst
        k = s.num_partitions
        rows = scale_rows(k)
        shape = d.shape

        def matrix(words, dtype, scales):
            values = unpack(words.reshape(k, -1), dtype)
            factors = _scale_factors(np.ascontiguousarray(scales.reshape(scales.shape[0], -1)))
            values *= factors[rows][:, None, :]
            return values.reshape(k * _PACKED, -1)

        def run(core, dst, stationary, moving, stationary_scale, moving_scale, tp, ts, accumulate):
            product = matrix(stationary, s.dtype, stationary_scale).T @ matrix(moving, m.dtype, moving_scale)
            product = product.reshape(shape)
            dst[...] = product if not accumulate else dst.astype(np.float32, copy=False) + product

        return run


@instruction
class quantize_mx:
    """Quantise float16 or bfloat16 ``src`` (P, 4 F) to MXFP8: packed words ``dst`` (P, F) and scales ``dst_scale``.

    A group of 8 partitions by 4 elements gets the scale ``2**(floor(log2(amax)) - (emax - 1))``, twice that of the OCP
    sample algorithm, so that the largest values round without saturation; a group of zeros gets ``2**-127``.
    """

    operands = dict(dst=Out(SBUF), src=In(SBUF), dst_scale=Out(SBUF, any_start=True))
    engines = (Engine.vector,)
    generations = (4, 5)
    flow = "rows"

    def check(i: Issue) -> None:
        src, dst = i.src, i.dst
        if src.dtype not in ("float16", "bfloat16"):
            raise i.fail(f"src is {src.dtype}; it must be float16 or bfloat16")
        if dst.dtype not in ("float8_e5m2_x4", "float8_e4m3fn_x4"):
            raise i.fail(f"dst is {dst.dtype}; it must be float8_e5m2_x4 or float8_e4m3fn_x4")
        if src.num_partitions % _QUADRANT:
            raise i.fail(f"src has {src.num_partitions} partitions; they must be a multiple of {_QUADRANT}")
        if src.free_size % _PACKED:
            raise i.fail(f"src has {src.free_size} elements a partition; they must be a multiple of {_PACKED}")
        if dst.num_partitions != src.num_partitions or dst.free_size * _PACKED != src.free_size:
            raise i.fail(
                f"dst must have {src.num_partitions} partitions of {src.free_size // _PACKED} packed words for src "
                f"{list(src.shape)}, not {list(dst.shape)}"
            )
        _check_scale(i, src, "dst_scale", dst.free_size)

    def place(plan: Plan, args: tuple) -> tuple:
        _check_scale_start(plan, args[2], "dst_scale")
        return args

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, 0.25)

    def compute(i: Issue):
        partitions, words = i.dst.num_partitions, i.dst.free_size
        element, emax = _ELEMENTS[str(i.dst.dtype)], _EMAX[str(i.dst.dtype)]
        rows = scale_rows(partitions)[::_GROUP_PARTITIONS]
        dst_shape = i.dst.shape

        store = storer(
            intern_layout(
                (partitions, words * _PACKED),
                (words * _PACKED, 1),
                as_dtype(element),
                element,
                MemoryRegion.sbuf,
                words * _PACKED,
            )
        )

        def run(core, dst, src, dst_scale):
            values = widen(src.reshape(partitions, -1))
            quads = np.abs(values).reshape(partitions, words, _PACKED)
            largest = np.maximum(np.maximum(quads[..., 0], quads[..., 1]), np.maximum(quads[..., 2], quads[..., 3]))
            largest = largest.reshape(-1, _GROUP_PARTITIONS, words).max(axis=1)
            _, exponent = np.frexp(largest)  # largest = m * 2**exponent with 0.5 <= m < 1
            exponent = exponent - 1 - (emax - 1)
            exponent = np.where(largest == 0, -_SCALE_BIAS, np.clip(exponent, -_SCALE_BIAS, _SCALE_BIAS))
            inverse = np.ldexp(np.float32(1), -exponent).astype(np.float32)
            groups = values.reshape(-1, _GROUP_PARTITIONS, words, _PACKED)
            packed = np.empty((partitions, words * _PACKED), element)
            store(packed, (groups * inverse[:, None, :, None]).reshape(partitions, -1))
            dst[...] = packed.view(dst.dtype).reshape(dst_shape)
            codes = np.where(np.isfinite(largest), exponent + _SCALE_BIAS, _NAN_SCALE).astype(np.uint8)
            codes = codes.view(dst_scale.dtype)
            dst_scale[rows] = codes if dst_scale.ndim == 2 else codes.reshape(-1, *dst_scale.shape[1:])

        return run
