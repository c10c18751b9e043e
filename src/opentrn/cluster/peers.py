"""The step of a job on GPUs: the peak times a published measured efficiency, on the plainest layout that fits."""

from dataclasses import dataclass

import numpy as np

from opentrn.cluster.candidates import enumerate_layouts
from opentrn.cluster.job import Job
from opentrn.cluster.layout import Layout
from opentrn.cluster.memory import GIB, memory_table
from opentrn.cost.peers import measured_efficiency
from opentrn.errors import OpenTrnError
from opentrn.hardware import Gpu

__all__ = ["MeasuredStep", "measured_step"]


@dataclass(frozen=True)
class MeasuredStep:
    """A step that was not simulated. `step_range` scales it over the range of the measured efficiencies."""

    step_time_s: float
    layout: Layout
    memory_gib: float
    step_range: tuple[float, float]
    assumptions: tuple[str, ...]


def measured_step(job: Job, device: Gpu, num_gpus: int) -> MeasuredStep:
    """A step of `job` on `num_gpus` GPUs.

    Raises OpenTrnError when nothing comparable was measured, when no layout divides the job and when none fits.
    """
    remarks: list[str] = []
    dtype, model = job.dtype, job.model
    if dtype == "fp8" and device.get("peak_fp8_tflops") is None:
        dtype = "bf16"
        remarks.append(f"{device.title} has no fp8: bf16 is taken")
    found = measured_efficiency(device, model.num_parameters, model.num_active_parameters, dtype, job.seq_len)
    speed = device.peak_tflops(dtype) * 1e12 * found.fraction * num_gpus
    layout, memory_gib = _plainest_layout(job, device, num_gpus)
    remarks += [
        *found.assumptions,
        f"measured range {found.low:.0%} to {found.high:.0%} of the peak; not simulated",
        "layout is the least model parallelism that fits into memory; the measured runs chose theirs",
    ]
    spread = (found.fraction / found.high, found.fraction / found.low)
    return MeasuredStep(job.flops_per_step / speed, layout, memory_gib, spread, tuple(remarks))


def _plainest_layout(job: Job, device: Gpu, num_gpus: int) -> tuple[Layout, float]:
    """The layout with the least model parallelism, then sharding, then recomputation that fits, and its GiB."""
    table = enumerate_layouts(job, num_gpus, max_micro_batch=1)
    if not len(table):
        raise OpenTrnError(f"no layout divides {num_gpus} GPUs with {job.global_batch} samples")
    needed, limit = memory_table(job, table).total / GIB, device.hbm_bytes / GIB
    fits = np.flatnonzero((needed <= limit) & (table.column("chunks") == 1))
    if not len(fits):
        raise OpenTrnError(
            f"{job.model.name} fits nowhere on {num_gpus} {device.title}: the closest layout needs {needed.min():.1f} "
            f"GiB a GPU of {limit:.1f}; ask for more GPUs"
        )
    kept = table.take(fits)
    model_parallel = kept.column("tp") * kept.column("pp") * kept.column("cp")
    last_first = ("recompute", "zero", "ep", "pp", "cp", "tp")
    order = np.lexsort((*(kept.column(axis) for axis in last_first), model_parallel))
    return kept.layout(int(order[0])), float(needed[fits[order[0]]])
