"""A profile: one launch of a kernel, its Timeline and everything derived from it.

Metrics carry the names that ``neuron-profile`` uses, so that numbers can be laid side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from opentrn import hardware
from opentrn.energy.kernel import KernelEnergy, kernel_energy
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.nki.launch import Launch
from opentrn.profiling.lines import LineTime, by_line
from opentrn.profiling.occupancy import peak_bytes
from opentrn.profiling.path import CriticalPath, critical_path
from opentrn.timing import WHAT_IFS, Timeline, schedule

__all__ = ["Profile", "profile"]


@dataclass(frozen=True)
class Profile:
    """One launch, scheduled.

    Attributes:
        launch: what ran; ``launch.error`` is set when the kernel raised half-way.
        timeline: when.
        chip: hardware record.
        reorder: whether the schedule was free to reorder within dependencies; None: where the kernel's compiler does so.
    """

    launch: Launch
    timeline: Timeline
    chip: Any
    reorder: bool | None = None

    @property
    def name(self) -> str:
        return self.launch.name

    @property
    def source(self) -> str:
        """``file:line`` of the kernel's definition."""
        return f"{self.launch.source[0]}:{self.launch.source[1]}" if self.launch.source else ""

    @property
    def latency_us(self) -> float:
        return self.timeline.latency_us

    @cached_property
    def path(self) -> CriticalPath:
        return critical_path(self.timeline)

    @cached_property
    def lines(self) -> list[LineTime]:
        return by_line(self.timeline, self.path)

    @cached_property
    def energy(self) -> KernelEnergy:
        return kernel_energy(self.timeline, self.chip)

    @property
    def num_cores(self) -> int:
        return max(len(self.timeline.programs), 1)

    @cached_property
    def peak_flops_per_s(self) -> float:
        """bf16 rate of the Tensor engines in use: 2 x elements x clock, as neuron-profile counts it."""
        core = self.chip.core
        return 2 * core.pe_num_rows * core.pe_num_columns * core.tensor_clock_ghz * 1e9 * self.num_cores

    @cached_property
    def hbm_bytes_per_s(self) -> float:
        """Bandwidth of the HBM stack that the cores in use share."""
        return self.chip.hbm_bandwidth_gb_per_s * 1e9 / max(self.chip.get("hbm_stacks", 1) or 1, 1)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation, 0 to 1: multiplications of matmuls (transposes apart) against the bf16 peak."""
        return self.timeline.total_flops / (self.peak_flops_per_s * self.latency_us * 1e-6) if self.latency_us else 0.0

    @property
    def mbu(self) -> float:
        """Memory bandwidth utilisation, 0 to 1: HBM bytes against the stack's bandwidth."""
        return self.timeline.hbm_bytes / (self.hbm_bytes_per_s * self.latency_us * 1e-6) if self.latency_us else 0.0

    @cached_property
    def sbuf_peak_bytes(self) -> int:
        return peak_bytes(self.timeline, MemoryRegion.sbuf)

    @cached_property
    def psum_peak_bytes(self) -> int:
        return peak_bytes(self.timeline, MemoryRegion.psum)

    @cached_property
    def what_ifs(self) -> dict[str, float]:
        """Latency in us if one thing were free or ideal, by rerunning the schedule."""
        programs = list(self.timeline.programs)
        return {
            name: schedule(programs, reorder=self.reorder, what_if=name).latency_us
            for name in WHAT_IFS
            if self._applies(name)
        }

    def _applies(self, name: str) -> bool:
        """Whether a counterfactual can change anything: freeing an engine that does nothing cannot."""
        engine = name.removeprefix("free_")
        busy = {**self.timeline.engine_busy_us, "dma": self.timeline.dma_busy_us}
        return busy.get(engine, 1.0) > 0

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Summary metrics under neuron-profile's names."""
        timeline, total = self.timeline, max(self.latency_us, 1e-9)
        cores = self.num_cores
        values: dict[str, float] = {"total_time": self.latency_us * 1e-6}
        for name, busy in timeline.engine_busy_us.items():
            values[f"{name}_engine_active_time"] = busy * 1e-6
            values[f"{name}_engine_active_time_percent"] = 100 * busy / total / cores
        values["dma_active_time"] = timeline.dma_busy_us * 1e-6
        values["dma_active_time_percent"] = 100 * timeline.dma_busy_us / total / cores
        values["hbm_read_bytes"] = int(timeline.read_bytes.sum())
        values["hbm_write_bytes"] = int(timeline.written_bytes.sum())
        values["hardware_flops"] = timeline.total_flops
        values["mfu_estimated_percent"] = 100 * self.mfu
        values["mbu_estimated_percent"] = 100 * self.mbu
        intensity = timeline.total_flops / max(timeline.hbm_bytes, 1)
        ridge = self.peak_flops_per_s / self.hbm_bytes_per_s
        values["mfu_max_achievable_estimated_percent"] = 100 * min(intensity / ridge, 1.0)
        transfers = timeline.queue >= 0
        moved = float(timeline.moved_bytes[transfers].sum())
        count = int(transfers.sum())
        values["dma_transfer_count"] = count
        values["dma_transfer_average_bytes"] = moved / count if count else 0.0
        values["dma_transfer_total_bytes"] = moved
        values["dma_efficiency_percent"] = 100 * self.dma_efficiency
        values["num_instructions"] = len(timeline)
        return values

    @cached_property
    def dma_efficiency(self) -> float:
        """Bytes moved against what the DMA engines could move while they were busy, 0 to 1."""
        core = self.chip.core
        busy_s = float(self.timeline.dma_engine_busy_ns.sum()) * 1e-9
        rate = core.get("dma_engine_peak_gb_per_s", core.get("dma_engine_gb_per_s", 27.2)) * 1e9
        moved = float(self.timeline.moved_bytes.sum())
        return min(moved / (busy_s * rate), 1.0) if busy_s else 0.0

    @cached_property
    def bottleneck(self) -> str:
        """The largest part of the critical path."""
        return next(iter(self.path.by_cause), "launch_overhead")


def profile(launch: Launch, *, reorder: bool | None = None) -> Profile:
    """Schedule a recorded launch and wrap it for analysis."""
    return Profile(launch, schedule(launch.programs, reorder=reorder), hardware.chip(launch.chip), reorder)
