"""HBM, SBUF and PSUM: who owns which bytes, what has been written, and what is still free.

A :class:`Storage` is one allocation. On chip it is a rectangle of partitions by bytes; in HBM it is
linear. Values are optional: a trace without values allocates none. Every storage knows which of its
bytes were ever written, at no cost in the common case that the first write covers all of it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import numpy as np

from opentrn.neuroncore.dtypes import DType, float32
from opentrn.neuroncore.source import line_of

if TYPE_CHECKING:
    from opentrn.neuroncore.source import Site, Source

__all__ = ["EMPTY", "FULL", "PARTIAL", "Allocation", "MemoryRegion", "Storage", "poison"]


class MemoryRegion(enum.Enum):
    """Where a tensor lives."""

    sbuf = "sbuf"
    psum = "psum"
    private_hbm = "private_hbm"
    shared_hbm = "shared_hbm"

    @property
    def on_chip(self) -> bool:
        """Whether this is SBUF or PSUM."""
        return self is MemoryRegion.sbuf or self is MemoryRegion.psum

    __hash__ = object.__hash__  # members are singletons; the enum's own hash is ten times slower


EMPTY, PARTIAL, FULL = 0, 1, 2
"""How much of a storage has been written."""


class Allocation:
    """What a program remembers of a storage after its values are gone.

    ``first_use`` and ``last_use`` are positions in the instruction stream of the owning core (-1: never).
    """

    __slots__ = (
        "id",
        "region",
        "num_partitions",
        "bytes_per_partition",
        "name",
        "site",
        "address",
        "first_use",
        "last_use",
        "dtype",
        "shape",
    )

    def __init__(
        self, id: int, region: MemoryRegion, num_partitions: int, bytes_per_partition: int, name: str,
        site: Site | None, address: tuple[int, int] | None, dtype: DType, shape: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.id = id
        self.region = region
        self.num_partitions = num_partitions
        self.bytes_per_partition = bytes_per_partition
        self.name = name
        self.site = site
        self.address = address
        self.dtype = dtype
        self.shape = shape
        self.first_use = -1
        self.last_use = -1

    @property
    def source(self) -> Source | None:
        """File and line that allocated it."""
        return line_of(self.site)


def poison(dtype: DType, host: np.dtype) -> Any:
    """The value that marks memory never written: NaN for floats, 4 for integers (as AWS's simulator uses)."""
    if dtype.kind == "float" or host == float32.numpy:
        return np.array(np.nan, dtype=np.float32).astype(host)
    if dtype.kind == "scale":
        return np.array(0xFF, dtype=np.uint8).view(host)
    if dtype.kind == "bool":
        return True
    return host.type(4)


# Of placed tensors, whose bytes have no type of their own: NaN in every float type.
_POISON_BYTE = 0xFF


class Storage:
    """Bytes of one tensor and the record of what was written to them.

    Attributes:
        region: memory that holds it.
        dtype: type it was declared with.
        num_partitions: partitions it spans on chip; 1 in HBM.
        free_bytes: bytes of one partition (HBM: of the whole tensor), in host representation.
        pitch: host bytes from one partition to the next.
        base: host byte where it starts within ``data``.
        data: flat uint8 array, or None when the program is traced without values.
        state: EMPTY, PARTIAL or FULL.
        mask: which bytes were written, while PARTIAL.
        arena: for a tensor placed by address, the mask of the whole memory that it shares with the others.
        external: the caller's array that in-place updates must reach, if any.
        undefined_by: line that first wrote values derived from memory never written.
    """

    # What most storages never need has its default on the class and costs nothing to create.
    __slots__ = (
        "region",
        "dtype",
        "host",
        "num_partitions",
        "free_bytes",
        "pitch",
        "base",
        "data",
        "state",
        "allocation",
        "wide",
        "__dict__",
        "__weakref__",
    )

    mask: np.ndarray | None = None
    arena: np.ndarray | None = None
    unwritten: int = 0
    external: Any = None
    undefined_by: Source | None = None
    psum_started: Any = None

    def __init__(
        self, region: MemoryRegion, dtype: DType, host: np.dtype, num_partitions: int, free_bytes: int,
        data: np.ndarray | None, allocation: Allocation, state: int = EMPTY, base: int = 0, pitch: int = 0,
    ) -> None:  # fmt: skip
        self.region = region
        self.dtype = dtype
        self.host = host
        self.num_partitions = num_partitions
        self.free_bytes = free_bytes
        self.pitch = pitch or free_bytes
        self.base = base
        self.data = data
        self.state = state
        self.allocation = allocation
        self.wide: np.ndarray | None = None

    @property
    def size_bytes(self) -> int:
        """Host bytes of the whole storage."""
        return self.num_partitions * self.free_bytes

    def begin_partial(self) -> None:
        """Poison a storage of which only a part is about to be written or read, and start to track its bytes.

        A placed tensor finds what others left at its address, and is FULL at once where all of it was written.
        """
        if self.arena is None:
            self.whole()[...] = poison(self.dtype, self.host)
            self.mask = np.zeros(self.size_bytes, dtype=np.bool_)
            self.unwritten = self.size_bytes
            self.state = PARTIAL
            return
        mask = self.track()
        self.unwritten = int(mask.size - np.count_nonzero(mask))
        if self.unwritten == 0:
            self.state = FULL
            return
        octets = np.ndarray(mask.shape, np.uint8, self.data, self.base, (self.pitch, 1))
        octets[~mask] = _POISON_BYTE

    def track(self) -> np.ndarray:
        """Start to track the bytes of a storage; returns its mask as (partitions, bytes)."""
        if self.arena is not None:
            self.mask = self.arena
        elif self.mask is None:
            self.mask = np.ones(self.size_bytes, dtype=np.bool_)
        self.state = PARTIAL
        return self.mask_bytes()

    def mask_bytes(self) -> np.ndarray:
        """The written-bytes mask as (partitions, bytes)."""
        if self.arena is None:
            assert self.mask is not None
            return self.mask.reshape(self.num_partitions, self.free_bytes)
        return np.ndarray((self.num_partitions, self.free_bytes), np.bool_, self.arena, self.base, (self.pitch, 1))

    def fill(self) -> None:
        """Record that all bytes are being written."""
        self.state = FULL
        self.mask = None
        if self.arena is not None:
            self.mask_bytes()[...] = True

    def whole(self) -> np.ndarray:
        """All elements as a (partitions, elements) array of the host type."""
        itemsize = self.host.itemsize
        return np.ndarray(
            (self.num_partitions, self.free_bytes // itemsize), self.host, self.data, self.base, (self.pitch, itemsize)
        )

    def written(self, mask_view: np.ndarray) -> None:
        """Record that the bytes under ``mask_view`` were written."""
        mask_view[...] = True
        self.unwritten -= mask_view.size
        if self.unwritten <= 0:  # a lower bound: regions may have been written twice
            self.recount()

    def recount(self) -> None:
        """Count the bytes not written yet; FULL when there are none."""
        mask = self.mask_bytes()
        self.unwritten = int(mask.size - np.count_nonzero(mask))
        if self.unwritten == 0:
            self.state = FULL
            self.mask = None
