"""Where the cores of a launch wait for each other: barriers, and messages sent and received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from opentrn.timing.dependencies import EXPLICIT

if TYPE_CHECKING:
    from opentrn.neuroncore.program import Program

__all__ = ["join"]

_Edges = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def join(cores: list[Program], offsets: np.ndarray, stream: np.ndarray, edges: _Edges) -> _Edges:
    """``edges`` with those between cores: nobody leaves a meeting before everything that the others wait for there
    is done.
    """
    groups: dict[object, list[int]] = {}
    for c, program in enumerate(cores):
        for position, kind, name in program.markers:
            if kind in ("barrier", "sendrecv") and position < len(program):
                groups.setdefault((kind, name), []).append(int(offsets[c]) + position)
    begin, producer, kind, reuse = edges
    extra: list[tuple[int, int]] = []
    for members in groups.values():
        needed = {i: [*producer[begin[i] : begin[i + 1]].tolist(), *_before(i, offsets, stream)] for i in members}
        extra += [(i, p) for i in members for j in members if j != i for p in needed[j]]
    if not extra:
        return edges
    extra.sort()
    consumers = np.array([i for i, _ in extra], dtype=np.int64)
    where = begin[consumers + 1]
    grown = begin.copy()
    np.add.at(grown, consumers + 1, 1)
    shift = np.cumsum(grown - begin)
    return (begin + shift, np.insert(producer, where, [p for _, p in extra]),
            np.insert(kind, where, np.int8(EXPLICIT)), np.insert(reuse, where, False))  # fmt: skip


def _before(i: int, offsets: np.ndarray, stream: np.ndarray) -> list[int]:
    """The instruction that its queue issues before ``i``, if any."""
    first = int(offsets[np.searchsorted(offsets, i, side="right") - 1])
    same = np.flatnonzero(stream[first:i] == stream[i])
    return [first + int(same[-1])] if len(same) else []
