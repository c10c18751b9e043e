"""Energy of a kernel: joules an instruction, by mechanism, and watts over time.

Dynamic energy is counted where it is spent (multiplications in the array, elements through an engine, bytes moved a memory
level), static power while the kernel lasts. The energy of a multiplication is not published: it follows from the
power of a busy chip (``hardware/power.toml``) after memory and static power are taken off, so that a chip at its full bf16
rate and HBM bandwidth draws that power. All of it is a range.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from opentrn import hardware
from opentrn.energy.rack import Watts, chip_tdp, power_figures
from opentrn.neuroncore.program import Program
from opentrn.timing import ENGINES, Timeline

__all__ = ["KernelEnergy", "UnitEnergies", "kernel_energy", "unit_energies"]

LEVELS = ("tensor", "vector", "scalar", "gpsimd", "dma", "hbm", "instructions", "static")
"""What energy is attributed to."""


@dataclass(frozen=True)
class UnitEnergies:
    """Energies of single operations on one chip, each with its range; joules, and watts for ``static_core_w``."""

    flop_j: Watts
    hbm_byte_j: Watts
    sram_byte_j: Watts
    dma_byte_j: Watts
    element_j: dict[str, Watts]
    instruction_j: Watts
    static_core_w: Watts


@cache
def _figures() -> dict[str, Watts]:
    text = (Path(hardware.__file__).parent / "energy.toml").read_text()
    figures: dict[str, Watts] = {}
    for group in tomllib.loads(text).values():
        for name, figure in group.items():
            if isinstance(figure, dict):
                figures[name] = Watts(figure["value"], figure["low"], figure["high"])
    return figures


@cache
def unit_energies(chip: Any) -> UnitEnergies:
    """Energies of single operations on ``chip`` (a hardware record or name)."""
    chip = hardware.chip(chip)
    figures = _figures()
    (tdp, _), use = chip_tdp(chip), power_figures()
    idle, busy = use.get("chip_use", "idle_ratio"), use.get("chip_use", "busy_ratio")
    hbm = figures["hbm_pj_per_byte"] * 1e-12
    dma = figures["dma_pj_per_byte"] * 1e-12
    bytes_per_s = chip.hbm_bandwidth_gb_per_s * 1e9
    peak = chip.core.peak_tflops("bfloat16") * 1e12 * chip.num_cores

    def per_flop(power: float, static: float, memory: float) -> float:
        return max(power - static - memory * bytes_per_s, 0.1 * power) / peak

    flop = Watts(
        per_flop(tdp.value * busy.value, tdp.value * idle.value, hbm.value + dma.value),
        per_flop(tdp.low * busy.low, tdp.low * idle.high, hbm.high + dma.high),
        per_flop(tdp.high * busy.high, tdp.high * idle.low, hbm.low + dma.low),
    )
    return UnitEnergies(
        flop_j=flop,
        hbm_byte_j=hbm,
        sram_byte_j=figures["sram_pj_per_byte"] * 1e-12,
        dma_byte_j=dma,
        element_j={e: figures[f"{e}_pj_per_element"] * 1e-12 for e in ("vector", "scalar", "gpsimd")},
        instruction_j=figures["instruction_nj"] * 1e-9,
        static_core_w=tdp.times(idle) * (1 / chip.num_cores),
    )


@dataclass(frozen=True)
class KernelEnergy:
    """Energy of one launch.

    Attributes:
        joules: of each instruction, dynamic only.
        by_level: joules by consumer (``LEVELS``), with the range.
        duration_s: for which static power was counted.
    """

    timeline: Timeline
    joules: np.ndarray
    by_level: dict[str, Watts]
    duration_s: float

    @cached_property
    def total_j(self) -> Watts:
        """Joules of the launch, all cores, static power included."""
        total = Watts(0.0, 0.0, 0.0)
        for part in self.by_level.values():
            total = total + part
        return total

    @property
    def mean_w(self) -> float:
        """Average power over the launch."""
        return self.total_j.value / self.duration_s if self.duration_s else 0.0

    def watts_over_time(self, num_bins: int = 400) -> tuple[np.ndarray, np.ndarray]:
        """(bin edges in us, watts in each bin); an instruction's energy is spread over its run."""
        timeline = self.timeline
        end_us = max(timeline.span_us, 1e-3)
        edges = np.linspace(0.0, end_us, num_bins + 1)
        width_s = end_us / num_bins * 1e-6
        start = np.minimum(timeline.start_ns / 1e3 / end_us * num_bins, num_bins - 1e-9)
        stop = np.maximum(np.minimum(timeline.end_ns / 1e3 / end_us * num_bins, num_bins), start + 1e-9)
        # Energy as a rate over [start, stop): add its integral at bin edges by cumulative sums of partial coverage.
        rate = self.joules / (stop - start)
        first, last = start.astype(int), np.minimum(stop.astype(int), num_bins - 1)
        joules = np.zeros(num_bins + 1)
        same = first == last
        np.add.at(joules, first[same], self.joules[same])
        spread = ~same
        np.add.at(joules, first[spread], (rate * (first + 1 - start))[spread])
        np.add.at(joules, last[spread], (rate * (stop - last))[spread])
        step = np.zeros(num_bins + 2)
        np.add.at(step, first[spread] + 1, rate[spread])
        np.add.at(step, last[spread], -rate[spread])
        joules[:num_bins] += np.cumsum(step)[:num_bins]
        static = self.by_level["static"].value / self.duration_s if self.duration_s else 0.0
        return edges, joules[:num_bins] / width_s + static


def kernel_energy(timeline: Timeline, chip: Any) -> KernelEnergy:
    """Price a Timeline in joules on ``chip``; static power counts for every core that took part."""
    units = unit_energies(chip)
    core = hardware.chip(chip).core
    count = len(timeline)
    engine_elements = {e: np.zeros(count) for e in units.element_j}
    sram_bytes, array_flops = np.zeros(count), np.zeros(count)
    for c, program in enumerate(timeline.programs):
        rows = slice(timeline.offsets[c], timeline.offsets[c + 1])
        elements, onchip, passes = _per_plan(program, core)
        sram_bytes[rows] = onchip[program.plan]
        array_flops[rows] = timeline.flops[rows] * passes[program.plan]
        for name, values in engine_elements.items():
            mine = timeline.engine[rows] == ENGINES.index(name)
            values[rows] = elements[program.plan] * mine
    hbm_bytes = timeline.read_bytes + timeline.written_bytes
    parts = {
        "tensor": (array_flops, units.flop_j),
        "dma": (timeline.moved_bytes, units.dma_byte_j),
        "hbm": (hbm_bytes, units.hbm_byte_j),
        "instructions": (np.ones(count), units.instruction_j),
        **{name: (values, units.element_j[name]) for name, values in engine_elements.items()},
    }
    joules = sram_bytes * units.sram_byte_j.value
    by_level: dict[str, Watts] = {}
    for name, (amount, unit) in parts.items():
        joules = joules + amount * unit.value
        by_level[name] = unit * float(np.sum(amount))
    # SRAM traffic belongs to the engine that makes it.
    for index, name in enumerate(ENGINES):
        level = name if name in by_level else "instructions"
        by_level[level] = by_level[level] + units.sram_byte_j * float(sram_bytes[timeline.engine == index].sum())
    duration_s = timeline.latency_us * 1e-6
    by_level["static"] = units.static_core_w * (duration_s * max(len(timeline.programs), 1))
    return KernelEnergy(timeline, joules, {name: by_level[name] for name in LEVELS}, duration_s)


def _per_plan(program: Program, core: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(elements streamed, on-chip bytes touched, array passes a multiplication takes against bf16) of each plan."""
    elements, onchip, passes = [], [], []
    for plan in program.plans:
        layouts = plan.layouts
        elements.append(max((layout.size for layout in layouts), default=0))
        onchip.append(sum(layout.size * layout.dtype.itemsize for layout in layouts if layout.on_chip))
        narrow = [layout.dtype for layout in layouts[1:]]
        ratio = 1.0
        if any(d in ("float32",) for d in narrow):
            ratio = 1.0 / core.get("tensor_rate_fp32_ratio", 0.25)
        elif narrow and all(d.itemsize == 1 for d in narrow):
            ratio = 1.0 / core.get("tensor_rate_fp8_ratio", 1.0)
        passes.append(ratio)
    return np.array(elements, float), np.array(onchip, float), np.array(passes, float)
