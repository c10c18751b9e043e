"""Direct allocation, ``nki.compiler.sbuf`` and ``nki.compiler.psum``: where the kernel itself says each tile lies.

An allocator maps the index of a block to an address. Tiles at overlapping addresses share bytes, as on the chip.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from opentrn.neuroncore import machine
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.nki.earlier.views import fail

__all__ = ["Placement", "psum", "sbuf", "tape"]


class _Tape(threading.local):
    """The allocators of a kernel in the order of its text.

    The compiler sees the body of a loop once, so ``address += size`` in it happens once. Here the body runs every time,
    and from the second time on its allocators are those of the first: each iteration starts at the same position of the
    tape.
    """

    def __init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        """Forget a kernel."""
        self.entries: list[tuple[Any, Any]] = []
        self.position = 0

    def place(self, site: Any, asked: Placement) -> Placement:
        """The allocator to use for the one that the code at ``site`` asks for now."""
        at = self.position
        while at < len(self.entries) and self.entries[at][0] != site:
            at += 1  # passed over a branch that was not taken this time
        if at < len(self.entries):
            self.position = at + 1
            return self.entries[at][1]
        self.entries.append((site, asked))
        self.position = len(self.entries)
        return asked


tape = _Tape()


class Placement:
    """What ``alloc`` and ``mod_alloc`` return: a memory and the address of each block, for ``buffer=``."""

    def __init__(self, region: MemoryRegion, address: Callable[[tuple[int, ...], int, int], tuple[int, int]]) -> None:
        self.region = region
        self.address = address

    def __repr__(self) -> str:
        return f"<placement in {self.region.value}>"


def _linear(index: tuple[int, ...], sizes: Sequence[int], what: str) -> int:
    """Position of a block among ``sizes`` physical tiles, each dimension of the index taken modulo its size."""
    sizes = tuple(sizes) or (1,) * len(index)
    if not index:
        return 0
    if len(sizes) != len(index):
        raise fail(
            f"{what}={sizes} has {len(sizes)} sizes and the tensor {len(index)} block dimensions; "
            "give one size a block dimension"
        )
    position = 0
    for n, size in zip(index, sizes, strict=True):
        position = position * size + n % size
    return position


class _Sbuf:
    """``nki.compiler.sbuf``."""

    region = MemoryRegion.sbuf

    def mod_alloc(
        self,
        *,
        base_addr: int,
        base_partition: int = 0,
        num_par_tiles: Sequence[int] = (),
        num_free_tiles: Sequence[int] = (),
    ) -> Placement:
        """Blocks in turn over ``num_free_tiles`` places of a partition, from byte ``base_addr``."""

        def address(index: tuple[int, ...], num_partitions: int, free_bytes: int) -> tuple[int, int]:
            row = base_partition + _linear(index, num_par_tiles, "num_par_tiles") * num_partitions
            return row, base_addr + _linear(index, num_free_tiles, "num_free_tiles") * free_bytes

        return Placement(self.region, address)

    def alloc(self, func: Callable[..., Any]) -> Placement:
        """Blocks where ``func(idx, pdim_size, fdim_size)`` says: (partition, byte)."""

        def address(index: tuple[int, ...], num_partitions: int, free_bytes: int) -> tuple[int, int]:
            found = _call(func, index, num_partitions, free_bytes, 2)
            return int(found[0]), int(found[1])

        return Placement(self.region, address)

    def auto_alloc(self) -> MemoryRegion:
        """Leave the place to the allocator."""
        return self.region

    def __repr__(self) -> str:
        return "nki.compiler.sbuf"


class _Psum:
    """``nki.compiler.psum``."""

    region = MemoryRegion.psum

    def mod_alloc(
        self,
        *,
        base_bank: int,
        base_addr: int = 0,
        base_partition: int = 0,
        num_bank_tiles: Sequence[int] = (),
        num_par_tiles: Sequence[int] = (),
        num_free_tiles: Sequence[int] = (),
    ) -> Placement:
        """Blocks in turn over ``num_bank_tiles`` banks, from bank ``base_bank``."""

        def address(index: tuple[int, ...], num_partitions: int, free_bytes: int) -> tuple[int, int]:
            bank = base_bank + _linear(index, num_bank_tiles, "num_bank_tiles")
            row = base_partition + _linear(index, num_par_tiles, "num_par_tiles") * num_partitions
            return row, _bank_byte(bank, base_addr + _linear(index, num_free_tiles, "num_free_tiles") * free_bytes)

        return Placement(self.region, address)

    def alloc(self, func: Callable[..., Any]) -> Placement:
        """Blocks where ``func(idx, pdim_size, fdim_size)`` says: (bank, partition, byte within the bank)."""

        def address(index: tuple[int, ...], num_partitions: int, free_bytes: int) -> tuple[int, int]:
            bank, row, byte = _call(func, index, num_partitions, free_bytes, 3)
            return int(row), _bank_byte(int(bank), int(byte))

        return Placement(self.region, address)

    def auto_alloc(self) -> MemoryRegion:
        """Leave the place to the allocator."""
        return self.region

    def __repr__(self) -> str:
        return "nki.compiler.psum"


def _bank_byte(bank: int, byte: int) -> int:
    hardware = machine.current().hardware
    banks = hardware.psum_bytes_per_partition // hardware.psum_bank_bytes
    if not 0 <= bank < banks:
        raise fail(f"PSUM bank {bank}; there are banks 0 to {banks - 1}")
    return bank * hardware.psum_bank_bytes + byte


def _call(func: Callable[..., Any], index: tuple[int, ...], num_partitions: int, free_bytes: int, count: int) -> Any:
    found = (
        func(idx=index, pdim_size=num_partitions, fdim_size=free_bytes)
        if _takes_names(func)
        else func(index, num_partitions, free_bytes)
    )
    if not isinstance(found, (tuple, list)) or len(found) != count:
        raise fail(f"the allocation function returned {found!r} for block {index}; it must return {count} integers")
    return found


def _takes_names(func: Callable[..., Any]) -> bool:
    import inspect

    try:
        inspect.signature(func).bind(idx=(), pdim_size=0, fdim_size=0)
    except (TypeError, ValueError):
        return False
    return True


sbuf = _Sbuf()
psum = _Psum()
