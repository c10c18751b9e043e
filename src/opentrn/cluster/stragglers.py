"""Chips that are slower than others, by simulation: what a spread of speeds or one slow chip costs a synchronous step.

`StepModel` slows every pass by the expected slowest chip of the whole job, which is a bound: in a pipeline a slow stage
is partly hidden behind the others' bubbles. Here each replica's pipeline runs with the speeds of its own chips, and the
step ends with the slowest replica.
"""

from dataclasses import dataclass

import numpy as np

from opentrn.cluster.layout import Layout
from opentrn.cluster.pipeline import pipeline_makespan
from opentrn.cluster.step import StepModel
from opentrn.errors import OpenTrnError

__all__ = ["StragglerCost", "one_slow_chip", "spread_of_speeds"]


@dataclass(frozen=True)
class StragglerCost:
    """Time of a step's passes against the same step on equal chips (1.0 is no cost): mean, and a bad draw in twenty."""

    mean: float
    p95: float


def _passes(model: StepModel, layout: Layout, factors: np.ndarray) -> float:
    """Makespan of one replica whose pipeline ranks run `factors` [rank] times as long."""
    forward, backward, weight, send = model.pass_times_us(layout)
    scale = factors[:, None]
    micro = layout.micro_batches(model.job.global_batch)
    return pipeline_makespan(layout.schedule, micro, forward * scale, backward * scale, weight * scale, send)


def one_slow_chip(model: StepModel, layout: Layout, slowdown: float, rank: int = 0) -> float:
    """Factor on the passes when one chip of pipeline rank `rank` runs `slowdown` times as long as the others.

    Raises OpenTrnError for a rank that the layout does not have or a slowdown below 1.
    """
    if not 0 <= rank < layout.pp:
        raise OpenTrnError(f"pipeline rank {rank} does not exist in a layout with pp={layout.pp}")
    if slowdown < 1.0:
        raise OpenTrnError(f"a slowdown is 1 or more, got {slowdown:g}")
    even = np.ones(layout.pp)
    slow = even.copy()
    slow[rank] = slowdown
    return _passes(model, layout, slow) / _passes(model, layout, even)


def spread_of_speeds(
    model: StepModel, layout: Layout, sigma: float | None = None, *, num_draws: int = 20, seed: int = 0
) -> StragglerCost:
    """Cost of chip speeds that spread by `sigma` (relative, normal; the calibrated spread by default).

    Every draw gives each chip a speed, each replica the pipeline of its chips, and takes the slowest replica. The ranks
    of a chip share its speed; tensor- and context-parallel ranks of a stage wait for the slowest of them.
    """
    sigma = model.job.constants.chip_speed_sigma if sigma is None else sigma
    if sigma < 0.0:
        raise OpenTrnError(f"a spread of speeds is 0 or more, got {sigma:g}")
    rng = np.random.default_rng(seed)
    chips_a_stage = max(1, layout.tp * layout.cp // model.machine.ranks_per_chip)
    even = _passes(model, layout, np.ones(layout.pp))
    costs = []
    for _ in range(num_draws):
        speeds = 1.0 + sigma * rng.standard_normal((layout.dp, layout.pp, chips_a_stage))
        stages = np.maximum(speeds.max(axis=2), 0.1)
        # A replica cannot be slower than with its slowest stage everywhere: look only where that bound is worst.
        order = np.argsort(-stages.max(axis=1))
        worst = 0.0
        for replica in order:
            if stages[replica].max() * even <= worst:
                break
            worst = max(worst, _passes(model, layout, stages[replica]))
        costs.append(worst / even)
    return StragglerCost(float(np.mean(costs)), float(np.quantile(costs, 0.95)))
