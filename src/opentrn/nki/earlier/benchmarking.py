"""``nki.benchmark`` and ``nki.profile``: the time a kernel takes on the chip, from its instruction stream.

Neither needs values, so neither computes any: the kernel is traced, its Program scheduled, and the call returns None
for ``benchmark`` (as on the device, where it measures with data of its own). The files asked for with
``save_neff_name`` and ``save_trace_name`` are written as JSON with the schedule's summary; they are no executables and
no captures of a device.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from opentrn.nki import launch
from opentrn.nki.earlier.launching import Kernel, _chip

__all__ = ["Baremetal", "Benchmark", "BenchmarkResult", "Latency", "Profile"]


@dataclass(frozen=True)
class Latency:
    """Latencies of one kernel in microseconds. The model is deterministic, so every percentile is the same number."""

    latency_us: float

    def get_latency_percentile(self, percentile: float) -> float:
        """The latency that ``percentile`` per cent of the runs do not exceed, in microseconds."""
        return self.latency_us

    def __repr__(self) -> str:
        return f"Latency({self.latency_us:.2f} us)"


@dataclass(frozen=True)
class BenchmarkResult:
    """What ``nki.benchmark`` measured: ``nc_latency``, and the number of runs asked for."""

    nc_latency: Latency
    warmup: int
    iters: int


class _Traced(Kernel):
    """A kernel that is traced without values and timed."""

    def _trace(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, launch.Launch]:
        outer = launch.current_session()
        with launch.session(chip=outer.chip, execute=False, record=True, on_launch=outer.on_launch) as session:
            result = Kernel.run(self, args, kwargs)
        return result, session.launches[-1]


def _schedule(record: launch.Launch) -> Any:
    from opentrn import timing

    return timing.schedule(record.programs)


def _summary(record: launch.Launch, timeline: Any, chip: str) -> dict[str, Any]:
    return {
        "format": "opentrn schedule summary (JSON); neither an executable nor a device capture",
        "kernel": record.name,
        "source": f"{record.source[0]}:{record.source[1]}" if record.source else None,
        "chip": chip,
        "grid": list(record.grid),
        "num_instructions": sum(len(p) for p in record.programs),
        "latency_us": float(timeline.latency_us),
    }


def _write(path: str, content: dict[str, Any]) -> None:
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def _write_asked(options: dict[str, Any], content: dict[str, Any]) -> None:
    for name in ("save_neff_name", "save_trace_name"):
        if options.get(name):
            _write(options[name], content)


class Baremetal(_Traced):
    """A kernel that runs as usual, and is also scheduled where files of it are asked for."""

    def run(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run the kernel and write the files that ``save_neff_name`` and ``save_trace_name`` name."""
        options = self.options
        if options.get("save_neff_name") or options.get("save_trace_name"):
            _, record = self._trace(args, kwargs)
            _write_asked(options, _summary(record, _schedule(record), _chip(options)))
        return Kernel.run(self, args, kwargs)


class Benchmark(_Traced):
    """A kernel that is timed when it is called; see ``benchmark_result`` afterwards."""

    benchmark_result: BenchmarkResult | None = None

    def run(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """Trace the kernel for these arguments and schedule it."""
        _, record = self._trace(args, kwargs)
        timeline = _schedule(record)
        options = self.options
        self.benchmark_result = BenchmarkResult(
            Latency(float(timeline.latency_us)), int(options.get("warmup", 10)), int(options.get("iters", 100))
        )
        _write_asked(options, _summary(record, timeline, _chip(options)))
        print(f"{record.name}: {timeline.latency_us:.2f} us on {_chip(options)} (modelled)")


class Profile(_Traced):
    """A kernel that runs as usual and leaves a profile of itself in ``working_directory``."""

    def run(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run the kernel, then write its files."""
        options = self.options
        _, record = self._trace(args, kwargs)
        content = _summary(record, _schedule(record), _chip(options))
        folder = options.get("working_directory") or os.getcwd()
        _write(os.path.join(folder, options.get("save_neff_name") or "file.neff"), content)
        stem = os.path.splitext(os.path.basename(options.get("save_trace_name") or "profile.ntff"))[0]
        step, runs = int(options.get("profile_nth") or 1), int(options.get("num_execs") or 1)
        for n in range(step, runs + 1, step) if runs >= step else [step]:
            suffix = "" if n == 1 else f"_exec_{n}"
            _write(os.path.join(folder, f"{stem}{suffix}.ntff"), content)
            _write(os.path.join(folder, "json_reports", f"{stem}{suffix}.json"), content)
        return Kernel.run(self, args, kwargs)
