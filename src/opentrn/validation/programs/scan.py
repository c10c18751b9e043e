"""The selective scan of Mamba in three loop orders."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import load, out, rows_of_one, sbuf, store


def _row_on_all(row: Any) -> Any:
    """A row of HBM on 128 partitions, repeated by the Tensor engine: in PSUM if a bank holds it, else copied to
    SBUF.
    """
    loaded = load(row)
    if row.shape[1] <= 512:
        return rows_of_one(loaded, row.shape[1], "float32")
    tile = sbuf(128, row.shape[1])
    for j in range(0, row.shape[1], 512):
        part = slice(j, min(j + 512, row.shape[1]))
        nisa.tensor_copy(tile[:, part], rows_of_one(loaded[:, part], part.stop - j, "float32"))
    return tile


def _step(delta: Any, u: Any, a: Any, b: Any, c: Any, init: Any, total: Any) -> Any:
    """One state's contribution: exp(delta a), delta u b, the scan, times c, added to ``total``."""
    n = delta.shape[1]
    decay, drive, forced, scanned, seen = (sbuf(128, n) for _ in range(5))
    nisa.activation(decay, nl.exp, delta, scale=a)
    nisa.tensor_tensor(drive, delta, u, nl.multiply)
    nisa.tensor_tensor(forced, drive, b, nl.multiply)
    nisa.tensor_tensor_scan(scanned, decay, forced, initial=init, op0=nl.multiply, op1=nl.add)
    nisa.tensor_tensor(seen, scanned, c, nl.multiply)
    nisa.tensor_tensor(total, total, seen, nl.add)
    return scanned


def _arguments(channels: int, length: int, state: int) -> tuple[Spec, ...]:
    wide = Spec((channels, length), "float32")
    return (
        wide,
        wide,
        Spec((channels, state), "float32"),
        Spec((state, length), "float32"),
        Spec((state, length), "float32"),
    )


@builder
def scan_by_state(channels: int, seqlen: int, state: int = 16) -> Any:
    """States outermost: the wide inputs are loaded again for each."""

    def scan_by_state_kernel(delta, u, a, b, c):
        result = out(channels, seqlen)
        totals = [sbuf(128, seqlen) for _ in range(channels // 128)]
        for total in totals:
            nisa.memset(total, 0.0)
        for s in range(state):
            for t, total in enumerate(totals):
                rows = slice(t * 128, t * 128 + 128)
                _step(
                    load(delta[rows]),
                    load(u[rows]),
                    load(a[rows, s : s + 1]),
                    _row_on_all(b[s : s + 1]),
                    _row_on_all(c[s : s + 1]),
                    0.0,
                    total,
                )
        for t, total in enumerate(totals):
            store(result[t * 128 : t * 128 + 128], total)
        return result

    return scan_by_state_kernel, _arguments(channels, seqlen, state)


@builder
def scan_by_channel(channels: int, seqlen: int, state: int = 16) -> Any:
    """Channels outermost: the wide inputs are loaded once."""

    def scan_by_channel_kernel(delta, u, a, b, c):
        result = out(channels, seqlen)
        for t in range(channels // 128):
            rows = slice(t * 128, t * 128 + 128)
            total = sbuf(128, seqlen)
            nisa.memset(total, 0.0)
            step, drive = load(delta[rows]), load(u[rows])
            for s in range(state):
                _step(
                    step,
                    drive,
                    load(a[rows, s : s + 1]),
                    _row_on_all(b[s : s + 1]),
                    _row_on_all(c[s : s + 1]),
                    0.0,
                    total,
                )
            store(result[rows], total)
        return result

    return scan_by_channel_kernel, _arguments(channels, seqlen, state)


@builder
def scan_tiled(channels: int, seqlen: int, state: int = 16, tile: int = 512) -> Any:
    """Channels outermost and the sequence in tiles, each starting from the state the last one left."""

    def scan_tiled_kernel(delta, u, a, b, c):
        result = out(channels, seqlen)
        for t in range(channels // 128):
            rows = slice(t * 128, t * 128 + 128)
            total = sbuf(128, seqlen)
            nisa.memset(total, 0.0)
            step, drive = load(delta[rows]), load(u[rows])
            for s in range(state):
                factor, last = load(a[rows, s : s + 1]), 0.0
                for j in range(0, seqlen, tile):
                    at = slice(j, j + tile)
                    scanned = _step(
                        step[:, at],
                        drive[:, at],
                        factor,
                        _row_on_all(b[s : s + 1, at]),
                        _row_on_all(c[s : s + 1, at]),
                        last,
                        total[:, at],
                    )
                    last = sbuf(128, 1)
                    nisa.tensor_copy(last, scanned[:, tile - 1 : tile], engine=nisa.vector_engine)
            store(result[rows], total)
        return result

    return scan_tiled_kernel, _arguments(channels, seqlen, state)
