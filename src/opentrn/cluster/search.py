"""The best layouts of a job on a machine: enumerate, drop what does not fit, bound, simulate.

Every layout that divides the job is considered. Layouts over the memory limit are dropped; the rest are taken in order
of a lower bound on their step, and simulated until the next bound is above the worst of the best found: what is left
cannot be better. Shards of the space run in this process, in local processes or on a Ray cluster, by one interface.
"""

import hashlib
import heapq
import json
import re
import socket
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from opentrn.cluster.candidates import COLUMNS, LayoutTable, enumerate_layouts
from opentrn.cluster.job import Job
from opentrn.cluster.layout import Layout
from opentrn.cluster.machines import Machine, machine
from opentrn.cluster.memory import GIB, memory_table
from opentrn.cluster.step import StepModel
from opentrn.errors import OpenTrnError

__all__ = ["Found", "SearchResult", "Workers", "local_workers", "ray_workers", "search"]

_BATCH = 256  # layouts simulated between two looks at the bound
_ROUNDING = 1.0 - 1e-9  # bounds are sums of the same terms in another order


@dataclass(frozen=True)
class Found:
    """A layout with its simulated step."""

    step_time_s: float
    layout: Layout
    memory_gib: float
    memory_parts_gib: dict[str, float]
    exchange_s: float
    update_s: float
    busy_s: float


@dataclass(frozen=True)
class SearchResult:
    """The best layouts, fastest first, and what was done to find them."""

    found: tuple[Found, ...]
    num_layouts: int
    num_fitting: int
    num_simulated: int
    seconds: float
    interrupted: bool = False

    @property
    def layouts_per_s(self) -> float:
        """Layouts decided (dropped, bounded or simulated) a second."""
        return self.num_layouts / self.seconds if self.seconds else float("inf")


class Workers(Protocol):
    """Something that runs functions elsewhere: in this process, in processes, or on Ray."""

    num_workers: int

    def run(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Generator[Any, None, None]:
        """Results of `function(*arguments)`, in order of completion."""
        ...

    def close(self) -> None: ...


@dataclass
class _Local:
    num_workers: int = 1
    _pool: ProcessPoolExecutor | None = field(default=None, repr=False)

    def run(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Generator[Any, None, None]:
        if self.num_workers == 1:
            for each in arguments:
                yield function(*each)
            return
        from multiprocessing import get_context

        self._pool = self._pool or ProcessPoolExecutor(self.num_workers, mp_context=get_context("spawn"))
        pending: set[Future] = set()
        source = iter(arguments)
        while True:
            # Arguments are drawn as workers become free, so that each shard starts with the newest bound.
            while len(pending) < self.num_workers and (each := next(source, None)) is not None:
                pending.add(self._pool.submit(function, *each))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)


class _Ray:
    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise OpenTrnError("searching on a Ray cluster needs Ray: pip install 'opentrn[ray]'") from None
        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            _check_reachable(address)
            try:
                ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level=40)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise OpenTrnError(f"cannot reach a Ray cluster at {address!r}: {error}") from None
        self.num_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def run(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Generator[Any, None, None]:
        remote = self._ray.remote(function)
        pending: list[Any] = []
        source = iter(arguments)
        while True:
            while len(pending) < self.num_workers and (each := next(source, None)) is not None:
                pending.append(remote.remote(*each))
            if not pending:
                return
            done, pending = self._ray.wait(pending, num_returns=1)
            yield self._ray.get(done[0])

    def close(self) -> None:
        if self._started:
            self._ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OpenTrnError if nobody listens at HOST:PORT; Ray itself would keep trying."""
    match = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if not match:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=5.0).close()
    except OSError as error:
        raise OpenTrnError(f"cannot reach a Ray cluster at {address!r}: {error}") from None


def local_workers(num_workers: int = 1) -> Workers:
    """`num_workers` local processes; one worker runs in this process."""
    if num_workers < 1:
        raise OpenTrnError(f"the number of jobs must be at least 1, got {num_workers}")
    return _Local(num_workers)


def ray_workers(address: str) -> Workers:
    """The CPUs of the Ray cluster at `address` ("auto", "HOST:PORT", "ray://...", or "local" to start one here)."""
    return _Ray(address)


def search(
    job: Job,
    machine: Machine,
    *,
    keep: int = 10,
    workers: Workers | None = None,
    results: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    table: LayoutTable | None = None,
) -> SearchResult:
    """The `keep` fastest layouts that fit into memory.

    `results` is a file that takes each finished shard; a later search of the same job on the same machine reads it and
    does the rest. `progress` is called with (layouts decided, layouts in all). Ctrl-C ends the search with what was
    found. `table` replaces the enumeration. Raises OpenTrnError when nothing divides the job, and when nothing fits:
    how close the best layout comes and what would fit.
    """
    started = time.perf_counter()
    table = enumerate_layouts(job, machine.num_ranks) if table is None else table
    if not len(table):
        raise OpenTrnError(
            f"no layout of {job.model.name} divides {machine.num_ranks} ranks with a global batch of "
            f"{job.global_batch} samples; choose a batch that shares more divisors with {machine.num_ranks}"
        )
    limit = machine.memory_gib_per_rank
    needed = memory_table(job, table).total / GIB
    fitting = table.take(np.flatnonzero(needed <= limit))
    if not len(fitting):
        raise OpenTrnError(_fits_nowhere(job, machine, table, needed))
    shards = _shards(fitting)
    journal = _Journal(results, job, machine, len(fitting), keep)
    best: list[tuple[float, int, Found]] = []
    done = simulated = 0
    order = 0
    interrupted = False

    def add(found: list[Found]) -> None:
        nonlocal order, best
        for one in found:
            order += 1
            best.append((one.step_time_s, order, one))
        best = heapq.nsmallest(keep, best)

    def worst() -> float:
        return best[-1][0] if len(best) == keep else float("inf")

    for index, (count, ran, found) in journal.finished.items():
        add(found)
        done, simulated = done + count, simulated + ran
        shards[index] = None
    workers = workers or local_workers(1)
    spec = (machine.spec, machine.num_chips, machine.cores_per_rank, machine.collective_runtime)
    arguments = ((i, job, spec, s.rows, worst(), keep) for i, s in enumerate(shards) if s is not None)
    try:
        with closing(workers.run(_search_shard, arguments)) as finished:
            for index, count, ran, found in finished:
                add(found)
                done, simulated = done + count, simulated + ran
                journal.write(index, count, ran, found)
                if progress:
                    progress(done, len(fitting))
    except KeyboardInterrupt:
        interrupted = True
        if not best:
            raise
    return SearchResult(
        tuple(one for _, _, one in best),
        len(table),
        len(fitting),
        simulated,
        time.perf_counter() - started,
        interrupted,
    )


def _shards(table: LayoutTable) -> list[LayoutTable | None]:
    """Split so that layouts with the same layer times stay together: one shard for each (tp, micro-batch)."""
    keys = table.column("tp") * 1000 + table.column("micro_batch")
    # Small micro-batches and moderate tensor parallelism tend to hold the best layouts; early bounds prune the rest.
    order = sorted(np.unique(keys), key=lambda key: (key % 1000, abs(int(key) // 1000 - 4)))
    return [table.take(np.flatnonzero(keys == key)) for key in order]


def _search_shard(
    index: int, job: Job, spec: tuple[str, int, int, str | None], rows: np.ndarray, bound_s: float, keep: int
) -> tuple[int, int, int, list[Found]]:
    """Search one shard: (shard, layouts decided, layouts simulated, best found below `bound_s`)."""
    model = StepModel(job, machine(*spec))
    table = LayoutTable(rows)
    bounds = model.lower_bounds_s(table) * _ROUNDING
    order = np.argsort(bounds, kind="stable")
    best: list[tuple[float, int]] = []
    simulated = 0
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        worst = min(bound_s, best[-1][0] if len(best) == keep else float("inf"))
        batch = batch[bounds[batch] <= worst]
        if not len(batch):
            break
        times = model.evaluate(table.take(batch)).step_time_s
        simulated += len(batch)
        best = heapq.nsmallest(keep, best + [(float(t), int(i)) for t, i in zip(times, batch, strict=True)])
    return index, len(table), simulated, details(model, table.take(np.array([i for _, i in best], dtype=np.int64)))


def details(model: StepModel, table: LayoutTable) -> list[Found]:
    """Full results of a few layouts."""
    if not len(table):
        return []
    steps = model.evaluate(table)
    return [
        Found(
            float(steps.step_time_s[i]),
            table.layout(i),
            float(steps.memory_gib[i]),
            steps.memory.parts(i),
            float(steps.exchange_s[i]),
            float(steps.update_s[i]),
            float(steps.busy_s[i]),
        )
        for i in range(len(table))
    ]


def _fits_nowhere(job: Job, on: Machine, table: LayoutTable, needed: np.ndarray) -> str:
    """How far the least hungry layout is from fitting, and the smallest number of chips that would do."""
    closest = int(np.argmin(needed))
    parts = memory_table(job, table.take(np.array([closest]))).parts(0)
    largest = ", ".join(f"{name} {gib:.1f}" for name, gib in sorted(parts.items(), key=lambda p: -p[1])[:3])
    message = (
        f"{job.model.name} fits nowhere on {on.num_chips} chips of {on.name}: the closest layout "
        f"({table.layout(closest)}) needs {needed[closest]:.1f} GiB a rank ({largest}) of {on.memory_gib_per_rank:.1f}"
    )
    count = on.num_chips
    for _ in range(10):
        count = count * 2 if count * 2 <= on.chips_per_node else -(-count * 2 // on.chips_per_node) * on.chips_per_node
        larger = machine(on.spec, count, on.cores_per_rank, on.collective_runtime)
        options = enumerate_layouts(job, larger.num_ranks)
        if len(options) and (memory_table(job, options).total / GIB).min() <= larger.memory_gib_per_rank:
            return f"{message}; {count} chips would do"
    return f"{message}; a smaller global batch, a shorter sequence or chips with more memory are the way out"


class _Journal:
    """The results file: a line that identifies the search, then a line for each finished shard."""

    def __init__(self, path: str | Path | None, job: Job, on: Machine, num_fitting: int, keep: int) -> None:
        self.path = Path(path) if path else None
        self.finished: dict[int, tuple[int, int, list[Found]]] = {}
        text = repr((job, on.spec, on.num_chips, on.cores_per_rank, num_fitting, keep))
        self._identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        if self.path and self.path.exists():
            self._read()

    def _read(self) -> None:
        assert self.path
        try:
            lines = self.path.read_text().splitlines()
        except OSError as error:
            raise OpenTrnError(f"cannot read results from {self.path}: {error.strerror or error}") from None
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a search that was killed while it wrote
            if entry.get("search") != self._identity:
                continue
            found = [Found(**{**one, "layout": Layout(**one["layout"])}) for one in entry["found"]]
            self.finished[entry["shard"]] = (entry["layouts"], entry["simulated"], found)

    def write(self, index: int, count: int, simulated: int, found: list[Found]) -> None:
        if not self.path:
            return
        entry = {
            "search": self._identity,
            "shard": index,
            "layouts": count,
            "simulated": simulated,
            "found": [{**vars(one), "layout": {axis: getattr(one.layout, axis) for axis in COLUMNS}} for one in found],
        }
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OpenTrnError(f"cannot write results to {self.path}: {error.strerror or error}") from None
