"""One instruction, issued back to back, for measurements of single instructions."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import psum, sbuf

_REPEAT = 12


def _place(where: str, *shape: int, dtype: str = "float32") -> Any:
    rows, columns = shape
    return psum(rows, columns, dtype) if where == "psum" else sbuf(rows, columns, dtype=dtype)


@builder
def instruction(
    name: str,
    size: int,
    source: str = "sbuf",
    dtype: str = "float32",
    engine: str = "vector",
    result: str = "",
    partitions: int = 128,
    repeat: int = _REPEAT,
) -> Any:
    """``name`` on (partitions, size) tiles, ``repeat`` times on separate tiles, so that only the engine is shared."""
    to = result or dtype

    def instruction_kernel():
        engines = {"vector": nisa.vector_engine, "scalar": nisa.scalar_engine, "gpsimd": nisa.gpsimd_engine}
        one, two = sbuf(partitions, 1), sbuf(partitions, 1)
        tiles = [_place(source, partitions, size, dtype=dtype) for _ in range(2)]
        results = [sbuf(partitions, 1 if name.startswith("reduce") else size, dtype=to) for _ in range(2)]
        for k in range(repeat):
            data, done = tiles[k % 2], results[k % 2]
            if name == "copy":
                nisa.tensor_copy(done, data, engine=engines[engine])
            elif name == "exp":
                nisa.activation(done, nl.exp, data, bias=one, scale=two)
            elif name == "identity":
                nisa.activation(done, nl.copy, data)
            elif name == "reduce_max":
                nisa.tensor_reduce(done, nl.maximum, data, axis=1)
            elif name == "reduce_add":
                nisa.tensor_reduce(done, nl.add, data, axis=1)
            elif name == "multiply_column":
                nisa.tensor_scalar(done, data, nl.multiply, one, engine=engines[engine])
            elif name == "multiply":
                nisa.tensor_tensor(done, data, tiles[(k + 1) % 2], nl.multiply)
            elif name == "reciprocal":
                nisa.reciprocal(done, data)

    return instruction_kernel, ()


@builder
def products(columns: int, dtype: str = "bfloat16", transposes: bool = False, repeat: int = 64) -> Any:
    """Matmuls of a 128 x 128 stationary matrix and ``columns`` moving ones, long enough for the clock to settle."""

    def products_kernel():
        stationary = [sbuf(128, 128, dtype=dtype) for _ in range(2)]
        moving = sbuf(128, columns, dtype=dtype)
        for k in range(repeat):
            if transposes:
                nisa.nc_transpose(psum(128, 128, dtype), stationary[k % 2])
            else:
                nisa.nc_matmul(psum(128, columns), stationary[k % 2], moving)

    return products_kernel, ()


@builder
def transfers(
    bytes_per_row: int, rows: int = 128, direction: str = "load", repeat: int = 1, mode: str = "hwdge"
) -> Any:
    """Transfers of ``rows`` pieces between HBM and as many partitions."""
    size = bytes_per_row // 4

    def transfers_kernel(x):
        y = nl.ndarray((repeat, rows, size), dtype="float32", buffer=nl.shared_hbm)
        modes = {"hwdge": nisa.dge_mode.hwdge, "swdge": nisa.dge_mode.swdge, "any": nisa.dge_mode.unknown}
        for k in range(repeat):
            tile = sbuf(min(rows, 128), max(rows // 128, 1), size)
            outside = y[k] if direction == "store" else x[k]
            if rows > 128:
                outside = outside.reshape_dim(0, (rows // 128, 128)).permute((1, 0, 2))
            inside = tile if rows > 128 else tile[:, 0]
            if direction == "load":
                nisa.dma_copy(inside, outside, dge_mode=modes[mode])
            else:
                nisa.dma_copy(outside, inside, dge_mode=modes[mode])
        return y

    return transfers_kernel, (Spec((repeat, rows, size), "float32"),)
