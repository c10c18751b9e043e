"""How a view walks its storage: shape, strides and type, shared by every view that walks alike.

Layouts are interned, so that two views with the same access pattern carry the same object. Legality,
cost and the code that executes an instruction depend only on the layouts of its operands, and are
looked up by them.
"""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.dtypes import DType
from opentrn.neuroncore.memory import MemoryRegion

__all__ = ["ELSEWHERE", "Layout", "contiguous_strides", "intern_layout", "start_class"]

_QUADRANT = 32
ELSEWHERE = -1
"""Start of a view at a partition that is no multiple of 32."""


def start_class(partition: int) -> int:
    """What instructions need to know of the partition that a view starts at."""
    return partition if partition % _QUADRANT == 0 else ELSEWHERE


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides of ``shape``, in elements."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


class Layout:
    """An access pattern without its start: what an instruction needs to know of an operand but where it is.

    Attributes:
        shape, strides: in elements; dimension 0 is the partition dimension on chip.
        dtype, host: NeuronCore type, and the NumPy type that stores it.
        region: memory.
        storage_free: elements of one partition of the storage, in ``dtype`` units (on chip: the stride of a partition).
        indirect: None, ``"scalar"``, ``"vector"`` or ``"tensor"`` (dynamic addressing).
        start: on chip, the partition it starts at: 0, 32, 64 or 96 within the memory, ELSEWHERE for any other.
        num_partitions, free_size: the view's extent as the engines see it.
        byte_strides: strides in host bytes for a storage without padding.
        slices: layouts of the slices taken of this one so far, by their shape and start.
    """

    __slots__ = (
        "shape",
        "strides",
        "dtype",
        "host",
        "region",
        "storage_free",
        "indirect",
        "ndim",
        "size",
        "num_partitions",
        "free_size",
        "itemsize",
        "byte_strides",
        "span",
        "on_chip",
        "slices",
        "start",
        "id",
    )

    def __init__(
        self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: DType, host: np.dtype, region: MemoryRegion,
        storage_free: int, indirect: str | None, start: int, id: int,
    ) -> None:  # fmt: skip
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.host = host
        self.region = region
        self.storage_free = storage_free
        self.indirect = indirect
        self.start = start
        self.id = id
        self.slices: dict[tuple[tuple[int, ...], int], Layout] = {}
        self.ndim = len(shape)
        size = 1
        for n in shape:
            size *= n
        self.size = size
        self.on_chip = region.on_chip
        self.num_partitions = shape[0] if self.on_chip else 1
        self.free_size = size // shape[0] if self.on_chip and shape[0] else size
        self.itemsize = host.itemsize
        self.byte_strides = tuple(s * host.itemsize for s in strides)
        # Elements from the first to one past the last along the free dimensions (all of them in HBM).
        free = range(1 if self.on_chip else 0, len(shape))
        self.span = 1 + sum((shape[d] - 1) * strides[d] for d in free) if size else 0

    @property
    def free_shape(self) -> tuple[int, ...]:
        """Shape without the partition dimension."""
        return self.shape[1:]

    def is_contiguous(self) -> bool:
        """Row-major and dense; on chip over the free dimensions only."""
        step = 1
        for d in range(self.ndim - 1, 0 if self.on_chip else -1, -1):
            if self.shape[d] != 1 and self.strides[d] != step:
                return False
            step *= self.shape[d]
        return True

    def __repr__(self) -> str:
        return f"{self.dtype}[{'x'.join(map(str, self.shape))}]@{self.region.value}"


_INTERNED: dict[tuple, Layout] = {}


def intern_layout(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: DType, host: np.dtype, region: MemoryRegion,
    storage_free: int, indirect: str | None = None, start: int = 0,
) -> Layout:  # fmt: skip
    """The one Layout object for this access pattern."""
    # Types and regions live for ever, so their identity is a key, and a far cheaper one than their hash.
    key = (shape, strides, id(dtype), id(host), id(region), storage_free, indirect, start)
    layout = _INTERNED.get(key)
    if layout is None:
        layout = _INTERNED[key] = Layout(
            shape, strides, dtype, host, region, storage_free, indirect, start, len(_INTERNED)
        )
    return layout
