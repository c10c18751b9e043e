"""Moving tiles: loads and stores, copies, transposes, broadcasts, gathers and the matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import float32, uint32
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.language.operands import expanded, fail, in_sbuf, new_tile, promoted, require_tile

__all__ = [
    "broadcast_to", "copy", "expand_dims", "gather_flattened", "load", "load_transpose2d", "matmul", "store",
    "transpose",
]  # fmt: skip


def _require_hbm(tensor: Any, what: str) -> NkiTensor:
    if not isinstance(tensor, NkiTensor) or tensor.layout.on_chip:
        where = tensor.buffer.value if isinstance(tensor, NkiTensor) else type(tensor).__name__
        raise fail(what, f"needs a tensor in HBM, not {where}; use nisa.tensor_copy between SBUF and PSUM")
    return tensor


def load(src: NkiTensor, dtype: Any = None) -> NkiTensor:
    """A new SBUF tile with the values of an HBM tensor."""
    result = new_tile(_require_hbm(src, "load").shape, src.dtype if dtype is None else dtype)
    isa.dma_copy(result, src)
    return result


def store(dst: NkiTensor, value: NkiTensor) -> None:
    """Write a tile to an HBM tensor of as many elements, converting the type."""
    _require_hbm(dst, "store")
    if isinstance(value, (int, float)):
        value = _filled(dst, value)
    isa.dma_copy(dst, in_sbuf(require_tile(value, "store")))


def _filled(like: NkiTensor, value: float) -> NkiTensor:
    tile = new_tile(like.shape, like.dtype)
    isa.memset(tile, value)
    return tile


def load_transpose2d(src: NkiTensor, dtype: Any = None) -> NkiTensor:
    """A new SBUF tile with the values of a 2-D HBM tensor, rows and columns swapped."""
    if _require_hbm(src, "load_transpose2d").ndim != 2:
        raise fail("load_transpose2d", f"needs a tensor of 2 dimensions, not {list(src.shape)}")
    turned = new_tile((src.shape[1], src.shape[0]), src.dtype)
    isa.dma_transpose(turned, src)
    return turned if dtype is None or turned.dtype == dtype else copy(turned, dtype)


def copy(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """A new SBUF tile with the values of a tile in SBUF or PSUM."""
    result = new_tile(require_tile(x, "copy").shape, promoted(x, dtype=dtype))
    isa.tensor_copy(result, x)
    return result


def expand_dims(x: NkiTensor, axis: int) -> NkiTensor:
    """A view with a dimension of size 1 inserted at ``axis``."""
    return require_tile(x, "expand_dims").expand_dim(axis)


def broadcast_to(x: NkiTensor, shape: Sequence[int], dtype: Any = None) -> NkiTensor:
    """``x`` repeated along its dimensions of size 1 to ``shape``, which has the same rank; a new tile unless nothing
    changes."""
    target = tuple(int(n) for n in shape)
    require_tile(x, "broadcast_to")
    if len(target) != x.ndim or any(n not in (1, t) for n, t in zip(x.shape, target, strict=False)):
        raise fail(
            "broadcast_to", f"{list(x.shape)} does not broadcast to {list(target)}; only dimensions of size 1 repeat"
        )
    kind = promoted(x, dtype=dtype)
    if target == x.shape and kind is x.dtype:
        return x
    result = new_tile(target, kind)
    isa.tensor_copy(result, expanded(x, target))
    return result


def transpose(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """A new PSUM tile with partitions and columns of a 2-D tile swapped, by the Tensor engine (128 x 128 at most)."""
    if require_tile(x, "transpose").ndim != 2:
        raise fail("transpose", f"needs a tile of 2 dimensions, not {list(x.shape)}")
    result = new_tile((x.shape[1], x.shape[0]), promoted(x, dtype=dtype), MemoryRegion.psum)
    isa.nc_transpose(result, in_sbuf(x))
    return result


def matmul(x: NkiTensor, y: NkiTensor, transpose_x: bool = False) -> NkiTensor:
    """``x @ y`` (``x.T @ y`` with ``transpose_x``) as a new float32 PSUM tile.

    The Tensor engine contracts over partitions, so without ``transpose_x`` a transpose of ``x`` is inserted.
    """
    require_tile(x, "matmul")
    require_tile(y, "matmul")
    stationary = in_sbuf(x) if transpose_x else copy(transpose(x))
    result = new_tile((stationary.shape[1], y.shape[1]), float32, MemoryRegion.psum)
    isa.nc_matmul(result, stationary, in_sbuf(y))
    return result


def gather_flattened(data: NkiTensor, indices: NkiTensor, axis: int = 0, dtype: Any = None) -> NkiTensor:
    """``data[p, indices[p, ...]]`` for each partition p, the free dimensions of ``data`` counted as one.

    Args:
        axis: 0, the only axis of the flattened free dimensions.
    """
    require_tile(data, "gather_flattened")
    require_tile(indices, "gather_flattened")
    if axis not in (0, 1, -1):
        raise fail("gather_flattened", f"axis {axis}: elements are gathered along the flattened free dimensions only")
    gathered = new_tile(indices.shape, data.dtype)
    if indices.dtype is not uint32:
        indices = copy(indices, uint32)
    isa.nc_n_gather(gathered, in_sbuf(data), in_sbuf(indices))
    return gathered if promoted(data, dtype=dtype) is data.dtype else copy(gathered, dtype)
