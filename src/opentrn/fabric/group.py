"""Which ranks take part in a collective.

Parallel layouts produce regular groups: every `stride`-th rank (one axis of a device mesh) or a product of several
mesh axes. Regular groups are described, not listed, so that a data-parallel group of a hundred thousand ranks is as
cheap to name as a pair.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from opentrn.errors import OpenTrnError


@dataclass(frozen=True, slots=True)
class RankGroup:
    """`size` ranks `start`, `start + stride`, ...; `outer` adds further (size, stride) mesh axes around that one.

    `ranks`, when given (see `RankGroup.of`), lists an irregular group explicitly and wins over the rest.
    """

    size: int
    stride: int = 1
    start: int = 0
    outer: tuple[tuple[int, int], ...] = ()
    ranks: tuple[int, ...] | None = None
    # Groups key the cost curves; hashing five fields would be half of a lookup.
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.size, self.stride, self.start, self.outer, self.ranks or ())))
        if self.size < 1 or self.stride < 1 or any(n < 1 or s < 1 for n, s in self.outer):
            raise OpenTrnError(
                f"a rank group needs positive sizes and strides, got size {self.size}, stride {self.stride}"
                + (f", outer {self.outer}" if self.outer else "")
            )
        if self.start < 0:
            raise OpenTrnError(f"a rank group starts at rank 0 or above, got {self.start}")

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def of(cls, ranks: Iterable[int]) -> "RankGroup":
        """An explicit list of ranks, in group order."""
        listed = tuple(int(rank) for rank in ranks)
        if not listed or min(listed) < 0 or len(set(listed)) != len(listed):
            raise OpenTrnError("a rank group lists distinct ranks from 0 up, at least one")
        return cls(size=len(listed), start=min(listed), ranks=listed)

    @classmethod
    def product(cls, *axes: tuple[int, int], start: int = 0) -> "RankGroup":
        """The product of several mesh axes, innermost first, each as (size, stride)."""
        (size, stride), *outer = axes
        return cls(size=size, stride=stride, start=start, outer=tuple(outer))

    @property
    def num_ranks(self) -> int:
        count = self.size
        for size, _ in self.outer:
            count *= size
        return count

    @property
    def last_rank(self) -> int:
        if self.ranks is not None:
            return max(self.ranks)
        return self.start + (self.size - 1) * self.stride + sum((n - 1) * s for n, s in self.outer)

    def members(self) -> np.ndarray:
        """Global rank numbers in group order (int64)."""
        if self.ranks is not None:
            return np.array(self.ranks, dtype=np.int64)
        members = self.start + self.stride * np.arange(self.size, dtype=np.int64)
        for size, stride in self.outer:
            members = (members[None, :] + stride * np.arange(size, dtype=np.int64)[:, None]).reshape(-1)
        return members
