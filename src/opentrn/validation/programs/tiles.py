"""The few moves that all programs share: tiles, loads, stores, transposes, sums across partitions."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl

__all__ = ["accumulate", "load", "out", "psum", "rows_of_one", "sbuf", "store", "transpose"]


def sbuf(rows: int, *free: int, dtype: Any = "float32") -> Any:
    """A fresh tile in SBUF."""
    return nl.ndarray((rows, *free), dtype=dtype, buffer=nl.sbuf)


def psum(rows: int, columns: int, dtype: Any = "float32") -> Any:
    """A fresh tile in PSUM."""
    return nl.ndarray((rows, columns), dtype=dtype, buffer=nl.psum)


def out(*shape: int, dtype: Any = "float32") -> Any:
    """A result tensor."""
    return nl.ndarray(shape, dtype=dtype, buffer=nl.shared_hbm)


def load(view: Any) -> Any:
    """A fresh tile with what ``view`` holds in HBM."""
    tile = nl.ndarray(view.shape if len(view.shape) > 1 else (view.shape[0], 1), dtype=view.dtype, buffer=nl.sbuf)
    nisa.dma_copy(tile, view)
    return tile


def store(view: Any, tile: Any) -> None:
    """Write ``tile`` to HBM."""
    nisa.dma_copy(view, tile)


def transpose(tile: Any, copy_to: Any, engine: Any = None) -> None:
    """Transpose a tile of at most 128 x 128 through the Tensor engine into ``copy_to``."""
    turned = psum(copy_to.shape[0], copy_to.shape[1], tile.dtype)
    nisa.nc_transpose(turned, tile)
    nisa.tensor_copy(copy_to, turned, engine=engine or nisa.engine.unknown)


def rows_of_one(row: Any, columns: int, dtype: Any) -> Any:
    """A (1, columns) tile repeated on 128 partitions: a matmul with a column of ones, in PSUM."""
    ones = sbuf(1, 128, dtype=dtype)
    nisa.memset(ones, 1.0)
    wide = psum(128, columns)
    nisa.nc_matmul(wide, ones, row)
    return wide


def accumulate(target: Any, pairs: Any) -> Any:
    """Sum of the products of (stationary, moving) pairs in ``target``."""
    for stationary, moving in pairs:
        nisa.nc_matmul(target, stationary, moving)
    return target
