"""Algorithms as schedules: who sends how much to whom, and what must have arrived before.

A schedule is a list of batches. A batch belongs to a colour (an independent part of the data) and a round. Rule: a rank
sends its messages of a round once everything addressed to it in the previous round of the same colour has arrived, so
a rank's progress depends on its neighbours alone and there is no barrier.
Ranks here are positions in the group, 0 to n - 1.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one colour and round: `source[i]` sends `size_bytes` (a number, or one each) to `target[i]`.

    engine_bytes_per_us: the rate of a sender's DMA engine for these messages (infinite: it does not limit).
    start_us: software time before the messages start, which other messages' transfers may overlap.
    issue_us: how long issuing one message keeps its sender, beside its bytes.
    """

    colour: int
    round: int
    source: np.ndarray
    target: np.ndarray
    size_bytes: np.ndarray | float
    engine_bytes_per_us: float
    start_us: float
    issue_us: float


@dataclass(slots=True)
class Schedule:
    """Batches of one algorithm over `num_ranks` ranks.

    start_us, issue_us: its messages' times where a batch does not say otherwise.
    """

    num_ranks: int
    start_us: float
    issue_us: float
    batches: list[Batch] = field(default_factory=list)

    @property
    def num_messages(self) -> int:
        return sum(len(batch.source) for batch in self.batches)

    @property
    def num_colours(self) -> int:
        return 1 + max((batch.colour for batch in self.batches), default=0)

    @property
    def num_rounds(self) -> int:
        return 1 + max((batch.round for batch in self.batches), default=0)

    def add(
        self,
        colour: int,
        round: int,
        source,
        target,
        size_bytes,
        engine_bytes_per_us: float,
        start_us: float | None = None,
        issue_us: float | None = None,
    ) -> None:
        """Append a batch; messages to oneself are left out."""
        start_us = self.start_us if start_us is None else start_us
        issue_us = self.issue_us if issue_us is None else issue_us
        source, target = np.asarray(source, dtype=np.int64), np.asarray(target, dtype=np.int64)
        keep = source != target
        if not keep.all():
            if isinstance(size_bytes, np.ndarray):
                size_bytes = size_bytes[keep]
            source, target = source[keep], target[keep]
        if len(source):
            self.batches.append(
                Batch(colour, round, source, target, size_bytes, engine_bytes_per_us, start_us, issue_us)
            )
