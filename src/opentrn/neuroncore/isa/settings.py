"""The enumerations that instructions take as settings, with the values that NKI documents.

Settings are part of every call's key, so they hash by identity; the enum's own hash is ten times slower.
"""

from __future__ import annotations

import enum

from opentrn.neuroncore.instruction import Engine

__all__ = ["dge_mode", "dma_engine", "engine", "matmul_perf_mode", "nc_version", "oob_mode", "reduce_cmd"]

engine = Engine


class reduce_cmd(enum.Enum):
    """What an instruction does with its engine's accumulator registers."""

    idle = 0
    reset = 1
    reduce = 2
    reset_reduce = 3
    load_reduce = 4

    __hash__ = object.__hash__


class dge_mode(enum.Enum):
    """Who generates the descriptors of a DMA transfer."""

    unknown = 0
    swdge = 1
    hwdge = 2
    none = 3

    __hash__ = object.__hash__


class oob_mode(enum.Enum):
    """What a dynamic address outside its tensor does."""

    error = 0
    skip = 1

    __hash__ = object.__hash__


class matmul_perf_mode(enum.Enum):
    """Performance mode of a matmul."""

    none = "none"
    double_row = "double_row"

    __hash__ = object.__hash__


class nc_version(enum.Enum):
    """Generation of a NeuronCore; ordered."""

    gen2 = 2
    gen3 = 3
    gen4 = 4
    gen5 = 5

    def __lt__(self, other: nc_version) -> bool:
        return self.value < other.value

    def __le__(self, other: nc_version) -> bool:
        return self.value <= other.value

    def __gt__(self, other: nc_version) -> bool:
        return self.value > other.value

    def __ge__(self, other: nc_version) -> bool:
        return self.value >= other.value

    __hash__ = object.__hash__


class dma_engine(enum.Enum):
    """Which DMA engine carries a transfer between cores."""

    dma = 1
    gpsimd_dma = 2

    __hash__ = object.__hash__
