"""Orders that the compiler of the earlier interface keeps between loops that meet in HBM.

It knows that the iterations of one loop do not meet, but not which of its tiles another loop reads: a load waits for
all stores that earlier loops made to its tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["loop_order"]

_LAST_STORES = 16


def loop_order(program: Program) -> list[tuple[int, int]]:
    """(store, load) pairs: every load after the last stores of the loops before its own."""
    num = max(len(program.allocations), 1)
    moves = {k for k, p in enumerate(program.plans) if p.instruction.name == "dma_copy" and len(p.layouts) == 2}
    if not moves:
        return []
    widths = np.array([len(p.layouts) for p in program.plans], dtype=np.int64)
    start = np.concatenate(([0], np.cumsum(widths[program.plan])))
    rows = np.flatnonzero(np.isin(program.plan, list(moves)))
    written = program.operand_allocation[start[rows]] % num
    read = program.operand_allocation[start[rows] + 1] % num
    in_hbm = np.array([not a.region.on_chip for a in program.allocations] or [False])
    both = np.intersect1d(written[in_hbm[written]], read[in_hbm[read]])
    pairs: list[tuple[int, int]] = []
    for tensor in both.tolist():
        stores, loads = rows[written == tensor], rows[read == tensor]
        for site in np.unique(program.site[loads]).tolist():
            mine = loads[program.site[loads] == site]
            before = stores[stores < mine[0]][-_LAST_STORES:]
            pairs += [(int(s), int(load)) for load in mine for s in before]
    return pairs
