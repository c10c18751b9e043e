"""Goodput: the part of the time in which a job that fails, restarts and checkpoints makes progress.

A synchronous job stops when any of its chips, links, nodes or switches fails. It then loses the work since its last
checkpoint, waits for a spare (or for the repair, if none is left), restarts and goes on. The closed form is Daly's
(Future Generation Computer Systems 22, 2006); the Monte-Carlo beside it makes none of its assumptions about spares.
"""

import math
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from opentrn.errors import OpenTrnError

__all__ = ["Goodput", "Reliability", "best_interval_s", "best_spares", "closed_form", "monte_carlo", "reliability"]


@dataclass(frozen=True)
class Reliability:
    """Failure and recovery of a cluster's parts. MTBFs are of one part; `source` names where they come from."""

    chip_mtbf_h: float
    node_mtbf_h: float
    link_mtbf_h: float
    switch_mtbf_h: float
    restart_s: float
    repair_h: float
    checkpoint_gb_per_s_per_node: float
    chips_per_switch: int
    source: str = ""

    def job_mtbf_s(self, num_chips: int, num_nodes: int) -> float:
        """Mean time between failures of a job on that many parts, in seconds."""
        switches = math.ceil(num_chips / self.chips_per_switch)
        per_h = num_chips / self.chip_mtbf_h + num_chips / self.link_mtbf_h + num_nodes / self.node_mtbf_h
        return 3600.0 / (per_h + switches / self.switch_mtbf_h)


@dataclass(frozen=True)
class Goodput:
    """`fraction` of the wall time is progress; the rest goes to checkpoints, lost work, restarts and waiting."""

    fraction: float
    interval_s: float
    job_mtbf_s: float
    checkpoint_s: float
    failures_per_day: float
    standard_error: float = 0.0


@cache
def reliability() -> Reliability:
    """The shipped figures of `hardware/reliability.toml`."""
    from opentrn import hardware

    with (Path(hardware.__file__).parent / "reliability.toml").open("rb") as file:
        table = tomllib.load(file)
    values = {k: v["value"] for group in table.values() for k, v in group.items() if isinstance(v, dict)}
    return Reliability(**values, source=table["rates"]["source"])


def best_interval_s(checkpoint_s: float, mtbf_s: float) -> float:
    """Daly's higher-order estimate of the time between checkpoints that loses least."""
    if checkpoint_s >= 2.0 * mtbf_s:
        return mtbf_s
    x = checkpoint_s / (2.0 * mtbf_s)
    return math.sqrt(2.0 * checkpoint_s * mtbf_s) * (1.0 + math.sqrt(x) / 3.0 + x / 9.0) - checkpoint_s


def _availability(figures: Reliability, mtbf_s: float, num_spares: int) -> float:
    """Part of the time in which enough nodes are whole: repairs run in parallel, failures only come while the job runs,
    so the job stands still with the probability of Erlang's loss formula for `num_spares` + 1 servers."""
    load = figures.repair_h * 3600.0 / mtbf_s
    blocked = 1.0
    for servers in range(1, num_spares + 2):
        blocked = load * blocked / (servers + load * blocked)
    return 1.0 - blocked


def _checkpoint_s(figures: Reliability, checkpoint_gb: float, num_nodes: int, checkpoint_s: float | None) -> float:
    if checkpoint_s is not None:
        return checkpoint_s
    return checkpoint_gb / (figures.checkpoint_gb_per_s_per_node * num_nodes)


def closed_form(
    num_chips: int,
    num_nodes: int,
    checkpoint_gb: float,
    *,
    num_spares: int = 1,
    interval_s: float | None = None,
    checkpoint_s: float | None = None,
    figures: Reliability | None = None,
) -> Goodput:
    """Daly's expected efficiency with the best (or a given) time between checkpoints.

    `checkpoint_gb` is the whole state that is saved, `checkpoint_s` overrides how long that takes; training waits.
    """
    figures = figures or reliability()
    mtbf = figures.job_mtbf_s(num_chips, num_nodes)
    save = _checkpoint_s(figures, checkpoint_gb, num_nodes, checkpoint_s)
    interval = interval_s or max(1.0, best_interval_s(save, mtbf))
    exponent = (interval + save) / mtbf
    if exponent > 500.0 or figures.restart_s / mtbf > 500.0:
        return Goodput(0.0, interval, mtbf, save, 86400.0 / mtbf)
    running = interval / (mtbf * math.exp(figures.restart_s / mtbf) * math.expm1(exponent))
    fraction = min(1.0, running) * _availability(figures, mtbf, num_spares)
    return Goodput(fraction, interval, mtbf, save, 86400.0 / mtbf)


def best_spares(num_chips: int, num_nodes: int, checkpoint_gb: float, figures: Reliability | None = None) -> int:
    """The number of spare nodes that gives most progress for the money: goodput over nodes paid for."""

    def value(spares: int) -> float:
        found = closed_form(num_chips, num_nodes, checkpoint_gb, num_spares=spares, figures=figures)
        return found.fraction / (num_nodes + spares)

    spares, best = 0, value(0)
    while (following := value(spares + 1)) > best:
        spares, best = spares + 1, following
    return spares


def monte_carlo(
    num_chips: int,
    num_nodes: int,
    checkpoint_gb: float,
    *,
    num_spares: int = 1,
    interval_s: float | None = None,
    checkpoint_s: float | None = None,
    figures: Reliability | None = None,
    days: float = 90.0,
    num_runs: int = 200,
    seed: int = 0,
) -> Goodput:
    """The same by simulating `num_runs` jobs of `days` each, failure by failure; reproducible by `seed`."""
    figures = figures or reliability()
    base = closed_form(
        num_chips,
        num_nodes,
        checkpoint_gb,
        num_spares=num_spares,
        interval_s=interval_s,
        checkpoint_s=checkpoint_s,
        figures=figures,
    )
    rng = np.random.default_rng(seed)
    horizon = days * 86400.0
    fractions = np.array([_one_run(rng, base, figures, num_spares, horizon) for _ in range(num_runs)])
    error = float(fractions.std(ddof=1) / math.sqrt(num_runs)) if num_runs > 1 else 0.0
    return replace(base, fraction=float(fractions.mean()), standard_error=error)


def _one_run(rng: np.random.Generator, base: Goodput, figures: Reliability, num_spares: int, horizon_s: float) -> float:
    """Progress of one job until `horizon_s`, as a part of it."""
    cycle = base.interval_s + base.checkpoint_s
    now = progress = 0.0
    returning: list[float] = []  # when nodes in repair come back
    while now < horizon_s:
        failure = now + rng.exponential(base.job_mtbf_s)
        end = min(failure, horizon_s)
        saved = math.floor((end - now) / cycle)
        progress += saved * base.interval_s
        if failure >= horizon_s:
            # What runs at the horizon is not lost, it only is not saved yet.
            progress += min(base.interval_s, (end - now) - saved * cycle)
            break
        now = failure
        returning = [time for time in returning if time > now]
        returning.append(failure + rng.exponential(figures.repair_h * 3600.0))
        if len(returning) > num_spares:
            now = min(returning)  # nobody is left to take the place: wait for the first to come back
            returning.remove(now)
        # A restart can fail as well; it then starts again.
        while now < horizon_s:
            strike = rng.exponential(base.job_mtbf_s)
            if strike >= figures.restart_s:
                now += figures.restart_s
                break
            now += strike
    return progress / horizon_s


def check_goodput_inputs(num_spares: int | None, interval_s: float | None) -> None:
    """Raise OpenTrnError for values that mean nothing."""
    if num_spares is not None and num_spares < 0:
        raise OpenTrnError(f"the number of spare nodes must be 0 or more, got {num_spares}")
    if interval_s is not None and interval_s <= 0:
        raise OpenTrnError(f"the time between checkpoints must be positive, got {interval_s:g} s")
