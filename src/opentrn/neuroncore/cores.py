"""Several cores of one launch: shared HBM, rendezvous, and the detection of deadlocks.

The cores of a logical NeuronCore run as threads of which exactly one is awake at a time; it passes the baton when it
waits. So a launch is deterministic, and when every core waits for something that none of them will do, that is known at
once.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from opentrn.errors import DeadlockError
from opentrn.neuroncore.memory import Storage
from opentrn.neuroncore.source import Source, caller

__all__ = ["CoreGroup"]


class _Abandoned(BaseException):
    """Unwinds the threads of the other cores after one of them failed."""


class CoreGroup:
    """The cores of one launch."""

    def __init__(self, size: int, allocations: list[Any] | None = None) -> None:
        self.size = size
        # Tensors of the launch rather than of one core: they have negative numbers, the same on every core.
        self.allocations: list[Any] = [] if allocations is None else allocations
        self._shared: dict[tuple, Storage] = {}
        self._nth: dict[tuple, int] = {}
        self._turn = threading.Condition()
        self._active = 0
        self._done = [False] * size
        self._waiting: list[tuple[str, Source | None, Callable[[], bool]] | None] = [None] * size
        self._error: BaseException | None = None
        self._mail: dict[Any, deque[Any]] = defaultdict(deque)
        self._arrivals: dict[Any, int] = defaultdict(int)
        self._exchanges: dict[Any, int] = defaultdict(int)

    # Shared memory

    def restart(self) -> None:
        """Begin the next program of a grid, which meets the same shared tensors in the same order."""
        self._nth.clear()

    def shared(self, core: Any, allocation: Any, layout: Any, host: Any, free_bytes: int) -> Storage:
        """The one storage that all cores get for the same ``shared_hbm`` allocation of the kernel."""
        site = (allocation.site, layout, allocation.name)
        nth = self._nth.get((core.index, site), 0)
        self._nth[core.index, site] = nth + 1
        storage = self._shared.get((site, nth))
        if storage is None:
            allocation.id = -1 - len(self.allocations)
            self.allocations.append(allocation)
            storage = self._shared[site, nth] = core._storage(layout, host, 1, free_bytes, allocation, None)
        return storage

    # Threads

    def run(self, bodies: list[Callable[[], Any]]) -> list[Any]:
        """Run one body a core to the end; the first error of any core is raised.

        Raises:
            DeadlockError: every core that is not done waits for another.
        """
        results: list[Any] = [None] * self.size
        threads = [
            threading.Thread(target=self._thread, args=(n, body, results), name=f"core {n}", daemon=True)
            for n, body in enumerate(bodies)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.1)  # short, so that Ctrl-C is noticed
        except BaseException as error:
            with self._turn:
                self._error = self._error or error
                self._turn.notify_all()
            raise
        if self._error is not None:
            raise self._error
        return results

    def _thread(self, index: int, body: Callable[[], Any], results: list[Any]) -> None:
        try:
            with self._turn:
                self._await_turn(index)
            results[index] = body()
        except _Abandoned:
            return
        except BaseException as error:  # handed to the launching thread
            with self._turn:
                self._error = self._error or error
                self._turn.notify_all()
            return
        with self._turn:
            self._done[index] = True
            self._pass_on(index)

    def _await_turn(self, index: int) -> None:
        while self._active != index:
            if self._error is not None:
                raise _Abandoned
            self._turn.wait()
        if self._error is not None:
            raise _Abandoned

    def _pass_on(self, index: int) -> None:
        """Wake the next core that can make progress; report a deadlock when there is none."""
        for step in range(1, self.size + 1):
            other = (index + step) % self.size
            if self._done[other]:
                continue
            waiting = self._waiting[other]
            if waiting is None or waiting[2]():
                self._active = other
                self._turn.notify_all()
                return
        if all(self._done):
            return
        stuck = [f"core {n} waits for {w[0]}" + (f" at line {w[1][1]}" if w[1] else "")
                 for n, w in enumerate(self._waiting) if w is not None and not self._done[n]]  # fmt: skip
        ended = [f"core {n} has finished" for n, done in enumerate(self._done) if done]
        first = next((w[1] for n, w in enumerate(self._waiting) if w is not None and not self._done[n]), None)
        self._error = DeadlockError(
            f"the cores wait for each other and none can go on: {'; '.join(stuck + ended)}; "
            "make every core reach the same barriers and match each send with a receive",
            first,
        )
        self._turn.notify_all()

    def wait(self, core: Any, what: str, ready: Callable[[], bool]) -> None:
        """Let the other cores run until ``ready()`` holds."""
        if ready():
            return
        index = core.index
        from opentrn.neuroncore import machine

        with self._turn:
            self._waiting[index] = (what, caller(), ready)
            self._pass_on(index)
            if self._active == index and not ready():
                self._active = -1
            self._await_turn(index)
            self._waiting[index] = None
        machine.state.core = core

    def take_turns(self, core: Any) -> None:
        """Let the other cores run up to their next write to shared memory, so that all advance side by side."""
        with self._turn:
            self._pass_on(core.index)
            self._await_turn(core.index)

    # Rendezvous

    def barrier(self, core: Any, cores: tuple[int, ...]) -> tuple:
        """Wait until every one of ``cores`` has come here as often as ``core`` has; returns the name of the meeting."""
        self._arrivals[cores, core.index] += 1
        nth = self._arrivals[cores, core.index]
        self.wait(core, "core_barrier", lambda: all(self._arrivals[cores, other] >= nth for other in cores))
        return ("barrier", cores, nth)

    def exchange(self, core: Any, message: Any, send_to: int, receive_from: int, pipe: int) -> tuple[Any, tuple]:
        """Send a message and wait for the one that comes; returns it and the name of the meeting."""
        index = core.index
        self._exchanges[pipe, index] += 1
        self._mail[pipe, index, send_to].append(message)
        incoming = self._mail[pipe, receive_from, index]
        self.wait(core, f"sendrecv (from core {receive_from}, pipe {pipe})", lambda: bool(incoming))
        return incoming.popleft(), ("sendrecv", pipe, self._exchanges[pipe, index])
