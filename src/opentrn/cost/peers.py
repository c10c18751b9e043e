"""Peer GPUs by roofline with published measured efficiency.

The step of a peer is not simulated: its speed is the peak of the GPU times an efficiency that somebody measured and
published for training on it (`gpu_efficiency.csv`). The runs nearest in size, kind (dense or mixture of experts) and
number format are taken; every step away from the asked configuration is an assumption that the result carries.
"""

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from opentrn.errors import OpenTrnError
from opentrn.hardware import Gpu, gpu

__all__ = ["Efficiency", "MeasuredRun", "measured_efficiency", "measured_runs"]

# GPUs with the same compute silicon, for which a measurement on one stands for the other.
_SAME_COMPUTE = {
    "h200": ("h100",),
    "h100": ("h200",),
    "a100-40gb": ("a100-80gb",),
    "a100-80gb": ("a100-40gb",),
    "b300": ("b200",),
    "b200": ("gb200",),
    "gb200": ("b200",),
}


@dataclass(frozen=True)
class MeasuredRun:
    """One published training run on GPUs; parameters in units of 1e9, speed in model TFLOP/s of one GPU."""

    gpu: str
    model: str
    parameters_b: float
    active_parameters_b: float
    dtype: str
    seq_len: int
    num_gpus: int
    tflops_per_gpu: float
    software: str
    date: str
    id: str
    source: str

    @property
    def is_sparse(self) -> bool:
        return self.active_parameters_b < 0.9 * self.parameters_b


@dataclass(frozen=True)
class Efficiency:
    """Part of the peak at `dtype` that measured training reaches: the middle of the nearest runs and their range."""

    fraction: float
    low: float
    high: float
    runs: tuple[MeasuredRun, ...]
    assumptions: tuple[str, ...]


@cache
def measured_runs() -> tuple[MeasuredRun, ...]:
    """Every published run that OpenTrn knows."""
    with Path(__file__).with_name("gpu_efficiency.csv").open(newline="") as file:
        return tuple(
            MeasuredRun(
                r["gpu"],
                r["model"],
                float(r["parameters_b"]),
                float(r["active_parameters_b"]),
                r["dtype"],
                int(r["seq_len"]),
                int(r["num_gpus"]),
                float(r["tflops_per_gpu"]),
                r["software"],
                r["date"],
                r["id"],
                r["source"],
            )
            for r in csv.DictReader(file)
        )


def measured_efficiency(
    device: Gpu, parameters: float, active_parameters: float, dtype: str = "bf16", seq_len: int = 4096
) -> Efficiency:
    """The efficiency that measured training suggests for a model of this size on this GPU.

    Raises OpenTrnError when nothing comparable was ever published.
    """
    sparse = active_parameters < 0.9 * parameters
    runs, owner, format_used, assumptions = _candidates(device, dtype, sparse)

    def distance(run: MeasuredRun) -> float:
        size = abs(math.log(run.active_parameters_b * 1e9 / active_parameters))
        return size + 0.15 * abs(math.log(run.seq_len / seq_len))

    nearest = sorted(runs, key=distance)[:5]
    peak = owner.peak_tflops(format_used)
    fractions = sorted(run.tflops_per_gpu / peak for run in nearest)
    names = ", ".join(dict.fromkeys(f"{run.model} {run.tflops_per_gpu:.0f} TFLOP/s ({run.id})" for run in nearest))
    middle = fractions[len(fractions) // 2]
    assumptions.insert(
        0, f"{owner.title}: {middle:.0%} of the {format_used} peak of {peak:g} TFLOP/s, the middle of {names}"
    )
    return Efficiency(middle, fractions[0], fractions[-1], tuple(nearest), tuple(assumptions))


def _candidates(device: Gpu, dtype: str, sparse: bool) -> tuple[list[MeasuredRun], Gpu, str, list[str]]:
    """The nearest group of runs: the same kind of model before the same silicon before the same number format."""
    known, kinds = measured_runs(), ("dense", "mixture-of-experts")
    formats = [dtype, *(other for other in ("bf16", "fp8") if other != dtype)]
    for kind in (sparse, not sparse):
        for used in formats:
            for name in (device.name, *_SAME_COMPUTE.get(device.name, ())):
                runs = [r for r in known if r.gpu == name and r.dtype == used and r.is_sparse == kind]
                if not runs:
                    continue
                owner, assumptions = gpu(name), []
                if name != device.name:
                    assumptions.append(
                        f"{device.title} is taken to reach the part of its peak that {owner.title} reaches"
                    )
                if used != dtype:
                    assumptions.append(
                        f"no {kinds[kind]} training in {dtype} on {device.title} was published; the part of the peak "
                        f"that {used} reaches stands in"
                    )
                if kind != sparse:
                    assumptions.append(
                        f"no {kinds[sparse]} training on {device.title} was published; {kinds[kind]} runs stand in"
                    )
                return runs, owner, used, assumptions
    raise OpenTrnError(f"no published training measurement of {device.title} is known; choose another GPU instance")
