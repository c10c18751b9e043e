"""Which engine a compiler gives an instruction to that several can run: the one with less to do around it."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["choose"]

_MEMORY = 0.97
"""Share of the load that is still counted one instruction later: some thirty instructions are looked at."""


def choose(plan: np.ndarray, alternative: np.ndarray, engine: np.ndarray, busy: np.ndarray) -> np.ndarray:
    """Entry of each instruction: its plan's own, or the alternative where that engine is less loaded."""
    if not (alternative >= 0).any():
        return plan.astype(np.int64)
    return _choose(plan, alternative, engine, busy, _MEMORY)


@numba.njit(cache=True)
def _choose(plan, alternative, engine, busy, memory):
    load = np.zeros(8)
    chosen = np.empty(len(plan), np.int64)
    for i in range(len(plan)):
        k = plan[i]
        if k < len(alternative) and alternative[k] >= 0:
            a = alternative[k]
            if load[engine[a]] + busy[a] < load[engine[k]] + busy[k]:
                k = a
        chosen[i] = k
        for e in range(8):
            load[e] *= memory
        load[engine[k]] += busy[k]
    return chosen
