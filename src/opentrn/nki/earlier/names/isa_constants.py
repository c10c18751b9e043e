"""``neuronxcc.nki.isa.constants``: the settings of instructions."""

from __future__ import annotations

from opentrn.neuroncore.isa.settings import (
    dge_mode,
    dma_engine,
    engine,
    matmul_perf_mode,
    nc_version,
    oob_mode,
    reduce_cmd,
)

__all__ = ["dge_mode", "dma_engine", "engine", "matmul_perf_mode", "nc_version", "oob_mode", "reduce_cmd"]
