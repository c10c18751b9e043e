"""What a tile may be on the core that runs the kernel: ``nl.tile_size``, and which memory is which."""

from __future__ import annotations

import os
from typing import Any

from opentrn.neuroncore import machine
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NKIObject

__all__ = ["TileSize", "is_hbm", "is_on_chip", "is_psum", "is_sbuf", "tile_size"]

_FP32_BYTES = 4


class TileSize(NKIObject):
    """Limits of tiles, read from the hardware record of the current core (bytes, or elements where the name says
    so)."""

    @property
    def pmax(self) -> int:
        """Partitions."""
        return machine.current().hardware.num_partitions

    @property
    def psum_bank_fmax_bytes(self) -> int:
        """Bytes of one PSUM bank in one partition."""
        return machine.current().hardware.psum_bank_bytes

    @property
    def psum_bank_fmax(self) -> int:
        """float32 elements of one PSUM bank in one partition."""
        return self.psum_bank_fmax_bytes // _FP32_BYTES

    @property
    def psum_fmax(self) -> int:
        """Earlier name of :attr:`psum_bank_fmax`."""
        return self.psum_bank_fmax

    @property
    def psum_num_banks(self) -> int:
        """PSUM banks that a kernel may use; one is taken when DMA transposes are lowered to the Tensor engine."""
        core = machine.current().hardware
        lowered = os.environ.get("NKI_DMA_TRANSPOSE_AS_PE_TRANSPOSE", "").lower() in ("1", "true")
        return core.psum_num_banks - (1 if lowered and core.generation >= 3 else 0)

    @property
    def psum_min_align(self) -> int:
        """Byte alignment of addresses within a PSUM partition."""
        return machine.current().hardware.psum_min_align_bytes

    @property
    def sbuf_min_align(self) -> int:
        """Byte alignment of addresses within an SBUF partition."""
        return machine.current().hardware.sbuf_min_align_bytes

    @property
    def sbuf_size_bytes(self) -> int:
        """SBUF of all partitions."""
        return machine.current().hardware.sbuf_bytes

    @property
    def sbuf_fmax_bytes(self) -> int:
        """SBUF bytes of one partition that a kernel may use."""
        return machine.current().hardware.sbuf_usable_bytes_per_partition

    @property
    def sbuf_fmax(self) -> int:
        """float32 elements of one SBUF partition that a kernel may use."""
        return self.sbuf_fmax_bytes // _FP32_BYTES

    @property
    def total_available_sbuf_size(self) -> int:
        """Earlier name of :attr:`sbuf_fmax_bytes`."""
        return self.sbuf_fmax_bytes

    @property
    def gemm_stationary_fmax(self) -> int:
        """Columns of the stationary operand of a matmul."""
        return machine.current().hardware.gemm_stationary_fmax

    @property
    def gemm_moving_fmax(self) -> int:
        """Columns of the moving operand of a matmul."""
        return machine.current().hardware.gemm_moving_fmax

    @property
    def bn_stats_fmax(self) -> int:
        """Elements of a partition that ``nisa.bn_stats`` takes at once."""
        return machine.current().hardware.bn_stats_fmax


tile_size = TileSize()


def _region(buffer: Any) -> MemoryRegion | None:
    if isinstance(buffer, MemoryRegion):
        return buffer
    if buffer == "hbm":
        return MemoryRegion.private_hbm
    try:
        return MemoryRegion(buffer)
    except ValueError:
        return None


def is_hbm(buffer: Any) -> bool:
    """Whether a memory is HBM, private or shared."""
    return _region(buffer) in (MemoryRegion.private_hbm, MemoryRegion.shared_hbm)


def is_psum(buffer: Any) -> bool:
    """Whether a memory is PSUM."""
    return _region(buffer) is MemoryRegion.psum


def is_sbuf(buffer: Any) -> bool:
    """Whether a memory is SBUF."""
    return _region(buffer) is MemoryRegion.sbuf


def is_on_chip(buffer: Any) -> bool:
    """Whether a memory is SBUF or PSUM."""
    return is_sbuf(buffer) or is_psum(buffer)
