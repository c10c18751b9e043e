"""A kernel on several ranks that adds up its tiles with a collective of its own.

trn launch --chip trn2 --cores 4 examples/distributed/all_reduce_kernel.py
"""

from __future__ import annotations

import os

import nki.collectives as ncc
import nki.isa as nisa
import nki.language as nl
import numpy as np

import nki


@nki.jit
def square_and_sum(x, ranks):
    """sum over ranks of x * x, on every rank."""
    mine = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    total = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_tensor(dst=tile, data1=tile, data2=tile, op=nl.multiply)
    nisa.dma_copy(dst=mine, src=tile)
    ncc.all_reduce(srcs=[mine], dsts=[total], replica_group=ncc.ReplicaGroup([ranks]), op=nl.add)
    return total


def main() -> None:
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    x = np.full((128, 256), rank + 1, np.float32)
    result = square_and_sum(x, tuple(range(world)))
    expected = sum((r + 1) ** 2 for r in range(world))
    assert (result == expected).all(), f"rank {rank}: {result[0, 0]} instead of {expected}"
    if rank == 0:
        print(f"{world} ranks: every element is {result[0, 0]:g}, as it should be")


if __name__ == "__main__":
    main()
