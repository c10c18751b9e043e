"""The way between the kernels of different ranks: ``nki.collectives`` over the key-value store of a launch.

Every rank posts what it gives under the group and the position of the call, and takes what the members posted.
"""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import timedelta
from typing import Any

__all__ = ["StoreCommunicator", "serve"]

_HOST = "127.0.0.1"


def serve(port: int) -> Any:
    """Keep the store of a launch, for as long as the returned object lives."""
    return _store(port, serves=True)


def _store(port: int, *, serves: bool) -> Any:
    import torch.distributed as dist

    return dist.TCPStore(_HOST, port, is_master=serves, wait_for_workers=False, timeout=timedelta(days=1))


class StoreCommunicator:
    """Connects the kernels of the ranks that share a ``torch.distributed.TCPStore``.

    Args:
        rank: of this process; port: where the launch keeps the store (see :func:`serve`).
    """

    def __init__(self, rank: int, port: int) -> None:
        self.rank = rank
        self._calls: Counter[tuple[int, ...]] = Counter()
        self._store = _store(port, serves=False)

    def share(self, core: Any, members: tuple[int, ...], value: Any) -> dict[int, Any]:
        """Give ``value`` to every member; what each gave, by rank."""
        call = self._calls[members]
        self._calls[members] += 1
        place = f"{'-'.join(map(str, members))}/{call}/"
        self._store.set(f"{place}{self.rank}", pickle.dumps(value))
        found = {r: value if r == self.rank else pickle.loads(self._store.get(f"{place}{r}")) for r in members}  # noqa: S301
        if call >= 2:  # everybody that reached this call has read the one before the last
            self._store.delete_key(f"{'-'.join(map(str, members))}/{call - 2}/{self.rank}")
        return found
