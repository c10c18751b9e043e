"""The ranks of a distributed script: forked processes that share one import of PyTorch, watched from outside.

A rank that fails ends the job and is named with its error. When no rank has used the CPU for a while and none has ended, they
wait for each other: then every rank's Python stack is asked for and the job ends with what each was waiting in.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentrn.errors import DeadlockError, OpenTrnError

__all__ = ["Job", "launch", "priced"]

_POLL_S = 0.2
_IDLE_RATIO = 0.01
_MAX_RANKS = 512


@dataclass(frozen=True)
class Job:
    """A finished job: the chip, its shape, and the collectives of rank 0."""

    chip: str
    num_nodes: int
    ranks_per_node: int
    collectives: list[dict[str, Any]]


def launch(
    script: str, arguments: Sequence[str], *, chip: str, num_nodes: int = 1, ranks_per_node: int = 2,
    stall_timeout_s: float = 60.0, quiet: bool = False,
) -> Job:  # fmt: skip
    """Run ``script`` on ``num_nodes * ranks_per_node`` ranks and wait for them.

    Raises:
        OpenTrnError: the script cannot be read, a count is out of range, or a rank failed (its error has been shown).
        DeadlockError: all ranks wait for each other.
    """
    size = num_nodes * ranks_per_node
    if num_nodes < 1 or ranks_per_node < 1 or size > _MAX_RANKS:
        raise OpenTrnError(f"{num_nodes} nodes of {ranks_per_node} ranks: give 1 to {_MAX_RANKS} ranks in all; "
                           "jobs too large to compute are timed by trn plan")  # fmt: skip
    from opentrn import hardware
    from opentrn.cli import run

    hardware.chip(chip)
    run.check(script)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a stopped rank makes its peers' sockets complain at length
    try:
        import torch
        import torch.distributed
    except ImportError:
        raise OpenTrnError("trn launch needs PyTorch; install it with pip install 'opentrn[torch]'") from None
    from opentrn.pytorch import communicator

    torch.set_num_threads(1)  # ranks share the CPUs; and a process with a thread pool cannot be forked
    with tempfile.TemporaryDirectory(prefix="opentrn-") as folder:
        ports = _free_ports(2)
        pids: dict[int, int] = {}
        try:
            for rank in range(size):
                pids[rank] = _fork(rank, size, ranks_per_node, ports, script, arguments, chip, Path(folder), quiet)
            store = communicator.serve(ports[1])  # after the forks: a thread of the parent must not be copied
            _watch(pids, Path(folder), stall_timeout_s)
            del store
        finally:
            _kill(pids)
        found = Path(folder) / "collectives-0.json"
        rows = json.loads(found.read_text()) if found.exists() else []
    return Job(chip, num_nodes, ranks_per_node, rows)


def _free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


def _fork(rank: int, size: int, ranks_per_node: int, ports: list[int], script: str, arguments: Sequence[str], chip: str, folder: Path,
          quiet: bool) -> int:  # fmt: skip
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _rank_main(rank, size, ranks_per_node, ports, script, arguments, chip, folder, quiet)
    except BaseException as error:  # the last resort of a rank: its message is read by the parent
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        if code:
            (folder / f"failed-{rank}").write_text(repr(time.monotonic()))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _rank_main(rank: int, size: int, ranks_per_node: int, ports: list[int], script: str, arguments: Sequence[str], chip: str, folder: Path,
               quiet: bool) -> int:  # fmt: skip
    import faulthandler

    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank % ranks_per_node), LOCAL_WORLD_SIZE=str(ranks_per_node),
        GROUP_RANK=str(rank // ranks_per_node), NODE_RANK=str(rank // ranks_per_node), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ports[0]),
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    if rank or quiet:
        out = os.open(folder / f"out-{rank}", os.O_WRONLY | os.O_CREAT)
        os.dup2(out if rank else 2, 1)
    errors = os.open(folder / f"err-{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    stacks = open(folder / f"stack-{rank}", "w")  # noqa: SIM115  (faulthandler keeps it)
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=False)

    from opentrn import pytorch
    from opentrn.cli import run
    from opentrn.nki import launch as kernels
    from opentrn.pytorch import distributed
    from opentrn.pytorch.communicator import StoreCommunicator

    kernels.set_default(communicator=StoreCommunicator(rank, ports[1]))
    os.environ["NEURON_PLATFORM_TARGET_OVERRIDE"] = chip
    pytorch.enable()
    distributed.register()
    code = run.execute(run.prepare(script, arguments, chip), script)
    distributed.write_events(str(folder / f"collectives-{rank}.json"))
    return code


def _watch(pids: dict[int, int], folder: Path, stall_timeout_s: float) -> None:
    """Wait for all ranks; end the job when one fails or all of them stall."""
    waiting = dict(pids)
    samples: deque[tuple[float, float]] = deque()  # (time, CPU seconds of the ranks that still run)
    while waiting:
        for rank, pid in list(waiting.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done:
                continue
            del waiting[rank], pids[rank]
            code = os.waitstatus_to_exitcode(status)
            if code:
                raise _failed(rank, code, folder)
            samples.clear()
        if not waiting:
            break
        used = sum(_cpu_seconds(pid) for pid in waiting.values())
        now = time.monotonic()
        samples.append((now, used))
        while len(samples) > 1 and samples[1][0] <= now - stall_timeout_s:
            samples.popleft()
        since, before = samples[0]
        # Threads of the communication libraries wake up now and then; a rank at work uses most of a CPU, or its share of one.
        if now - since >= stall_timeout_s and used - before < _IDLE_RATIO * (now - since) * len(waiting):
            raise _stalled(waiting, folder, stall_timeout_s)
        time.sleep(_POLL_S)
    _relay(folder / "err-0")


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process, where the system tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return time.monotonic()  # no such view here: never count as stalled
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _relay(path: Path) -> None:
    """Show what a rank wrote to standard error."""
    if path.exists() and (text := path.read_text(errors="replace")).strip():
        sys.stderr.write(text if text.endswith("\n") else text + "\n")


def _failed(rank: int, code: int, folder: Path) -> OpenTrnError:
    # A rank that dies takes its peers along, and they may end before it does: the first to fail is the cause.
    time.sleep(5 * _POLL_S)
    failures = {int(p.name.removeprefix("failed-")): float(p.read_text() or "inf") for p in folder.glob("failed-*")}
    if failures and code > 0:
        rank = min(failures, key=lambda r: failures[r])
    _relay(folder / f"err-{rank}")
    reason = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    return OpenTrnError(f"rank {rank} {reason}; its error is above, the other ranks were stopped")


def _stalled(waiting: dict[int, int], folder: Path, timeout_s: float) -> DeadlockError:
    for pid in waiting.values():
        os.kill(pid, signal.SIGUSR1)
    time.sleep(1.0)
    places = []
    for rank in sorted(waiting):
        stack = (folder / f"stack-{rank}").read_text(errors="replace")
        places.append(f"rank {rank} waits in {_place(stack)}")
    shown = "; ".join(places[:8]) + (f"; and {len(places) - 8} more" if len(places) > 8 else "")
    return DeadlockError(
        f"no rank has done anything for {timeout_s:g} s: {shown}; every rank of a group must call the same collectives in the same "
        "order, and match each send with a receive"
    )


def _place(stack: str) -> str:
    """``function at script.py:line`` of a dumped stack: what was called in PyTorch, and where the user's code stands."""
    called = ""
    for line in stack.splitlines():
        if not line.startswith("  File "):
            continue
        path, rest = line.strip().removeprefix('File "').split('"', 1)
        number = rest.split("line ", 1)[1].split(" ", 1)[0]
        function = rest.rsplit(" in ", 1)[-1]
        if "/torch/" in path or "/opentrn/" in path or "/lib/python" in path:
            called = function if "/distributed/" in path and function not in ("wrapper", "wait") else called
            continue
        return f"{called or function} at {Path(path).name}:{number}"
    return called or "an unknown place"


def _kill(pids: dict[int, int]) -> None:
    for pid in pids.values():
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def priced(job: Job, instance: str | None = None) -> tuple[list[dict[str, Any]], str]:
    """(collectives with their time, name of the topology) on ``instance``, by default the largest of the job's chip."""
    from opentrn import hardware
    from opentrn.pytorch import distributed

    name = instance
    if name is None:
        candidates = [
            i for i in hardware.instances() if getattr(i.accelerator, "name", "") == hardware.chip(job.chip).name
        ]
        if not candidates:
            raise OpenTrnError(f"no instance has {job.chip} chips; name a topology with --on")
        name = max(candidates, key=lambda i: (i.num_accelerators, i.name)).name
    return distributed.priced(job.collectives, name, job.num_nodes), name
