"""A plan: which layout, on what, how long, for how much money and energy, against the GPUs that can be rented.

`plan` searches each hardware at each number of chips and joins what the other parts know: goodput, prices, power.
Neuron hardware is simulated; GPUs run at a measured efficiency that was published. Every candidate carries its
assumptions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from opentrn.cluster.goodput import best_spares, check_goodput_inputs, closed_form
from opentrn.cluster.job import Job, software
from opentrn.cluster.layout import Layout
from opentrn.cluster.machines import find_hardware, machine
from opentrn.cluster.models import Model, load_model
from opentrn.cluster.operator_times import training_peak_tflops
from opentrn.cluster.peers import measured_step
from opentrn.cluster.search import Found, SearchResult, Workers, search
from opentrn.cluster.step import slowest_of
from opentrn.cost.prices import ChipPrice, chip_price, common_kind, stale_warning
from opentrn.energy.rack import COOLING, Watts, energy_kwh, power_figures, rack_power
from opentrn.energy.thermal import ThermalTrace, simulate_cooling
from opentrn.errors import OpenTrnError
from opentrn.hardware import Chip, Gpu, Instance, Rack, instances, region

__all__ = ["LARGE_ERROR", "OBJECTIVES", "TYPICAL_ERROR", "Candidate", "Plan", "plan"]

# What `python -m opentrn.cluster.validation` prints, rounded; a test holds them to it.
TYPICAL_ERROR, LARGE_ERROR = 0.10, 0.26

OBJECTIVES = ("cost", "time", "energy")
_DEFAULT_BATCH_TOKENS = 4 * 2**20
_DEFAULT_MAX_CHIPS = 1024


@dataclass(frozen=True)
class Candidate:
    """One way to train the model. The fields down to `assumptions` are what the JSON shows.

    `memory_gib_per_core` is of a physical core (of a GPU as a whole). `cost_range_usd` and `energy_range_kwh` are the
    ends that prices and power figures which nobody publishes allow.
    """

    hardware: str
    num_chips: int
    layout: dict[str, int]
    step_time_s: float
    tokens_per_s: float
    mfu: float
    memory_gib_per_core: float
    time_h: float
    cost_usd: float
    energy_kwh: float
    co2_kg: float
    goodput: float
    assumptions: tuple[str, ...]
    cost_range_usd: tuple[float, float] = (0.0, 0.0)
    energy_range_kwh: tuple[float, float] = (0.0, 0.0)
    found: Found | None = None
    job: Job | None = None

    def as_json(self) -> dict[str, Any]:
        """The published fields, ready for JSON."""
        names = (
            "hardware",
            "num_chips",
            "layout",
            "step_time_s",
            "tokens_per_s",
            "mfu",
            "memory_gib_per_core",
            "time_h",
            "cost_usd",
            "energy_kwh",
            "co2_kg",
            "goodput",
        )
        return {**{name: getattr(self, name) for name in names}, "assumptions": list(self.assumptions)}


@dataclass(frozen=True)
class Plan:
    """Candidates, best first, and what should be known about them all."""

    model: str
    tokens: float
    objective: str
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()
    searches: dict[tuple[str, int], SearchResult] = field(default_factory=dict)
    interrupted: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "tokens": self.tokens,
            "objective": self.objective,
            "interrupted": self.interrupted,
            "warnings": list(self.warnings),
            "candidates": [candidate.as_json() for candidate in self.candidates],
        }

    def frontier(self) -> list[Candidate]:
        """Candidates that no other beats in both cost and time, by time."""
        best: list[Candidate] = []
        for candidate in sorted(self.candidates, key=lambda c: (c.time_h, c.cost_usd)):
            if not best or candidate.cost_usd < best[-1].cost_usd:
                best.append(candidate)
        return best


@dataclass(frozen=True)
class _Request:
    """What the user asked, checked."""

    model: Model
    tokens: float
    seq_len: int
    batch_tokens: float
    dtype: str
    optimizer: str
    software_name: str
    tuning: str
    num_spares: int | None
    interval_s: float | None
    region: str | None
    cooling: str | None
    keep: int


def plan(
    model: str | Model,
    tokens: float,
    on: Sequence[str],
    *,
    chips: int | None = None,
    objective: str = "cost",
    seq_len: int | None = None,
    batch_tokens: float | None = None,
    dtype: str = "bf16",
    optimizer: str = "adamw",
    training_software: str = "neuronx-distributed",
    tuning: str = "full",
    purchase: str | None = None,
    price_overrides: dict[str, float] | None = None,
    price_catalogue: Path | None = None,
    where: str | None = None,
    cooling: str | None = None,
    num_spares: int | None = None,
    interval_s: float | None = None,
    max_days: float = 90.0,
    max_chips: int = _DEFAULT_MAX_CHIPS,
    keep: int = 3,
    workers: Workers | None = None,
    results: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    today: date | None = None,
) -> Plan:
    """Plan the training of `model` on `tokens` tokens, best candidate first.

    `on` names instance types and racks, `chips` a number of chips for each (rounded up to whole units); without it,
    powers of two of whole units up to `max_chips` are searched, and those that would take longer than `max_days` come
    last. `num_spares` servers are held and paid for (as many as pay, by default). `cooling` is a what-if ("air" or
    "liquid") in place of the hardware's own. `objective` is "cost", "time" or "energy". `progress` is called with
    (hardware, layouts decided, layouts). Raises OpenTrnError on input that means nothing and when no hardware can hold
    the model.
    """
    if objective not in OBJECTIVES:
        raise OpenTrnError(f"the objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if not on:
        raise OpenTrnError("name at least one instance type or rack to plan on")
    if not 0 < tokens < float("inf"):
        raise OpenTrnError(f"the number of tokens must be positive, got {tokens:g}")
    if chips is not None and chips < 1:
        raise OpenTrnError(f"the number of chips must be at least 1, got {chips}")
    if where:
        region(where)
    if cooling is not None and cooling not in COOLING:
        raise OpenTrnError(f"cooling must be one of {', '.join(COOLING)}, got {cooling!r}")
    check_goodput_inputs(num_spares, interval_s)
    if batch_tokens is not None and not 0 < batch_tokens < float("inf"):
        raise OpenTrnError(f"the tokens of a batch must be positive, got {batch_tokens:g}")
    if seq_len is not None and seq_len < 1:
        raise OpenTrnError(f"the sequence length must be at least 1, got {seq_len}")
    chosen = model if isinstance(model, Model) else load_model(model)
    length = seq_len or chosen.default_seq_len
    software(training_software)  # an unknown name is refused before anything is searched
    request = _Request(
        chosen,
        tokens,
        length,
        batch_tokens or _DEFAULT_BATCH_TOKENS,
        dtype,
        optimizer,
        training_software,
        tuning,
        num_spares,
        interval_s,
        where,
        cooling,
        keep,
    )
    units = {name: find_hardware(name) for name in dict.fromkeys(on)}
    named = {n.lower() for unit in units.values() for n in (unit.name, *unit.aliases)}
    for name in price_overrides or {}:
        if name.lower() not in named:
            raise OpenTrnError(f"a price is given for {name!r}, which is not planned on: {', '.join(units)}")
    kind = purchase or common_kind(list(units.values()), price_catalogue)
    candidates: list[Candidate] = []
    warnings: list[str] = []
    failures: list[str] = []
    searches: dict[tuple[str, int], SearchResult] = {}
    used: dict[str, ChipPrice] = {}
    interrupted = False
    for name, unit in units.items():
        price = chip_price(
            unit, kind=kind, region=where, overrides=price_overrides, catalogue=price_catalogue, today=today
        )
        warnings += [w for w in price.warnings if w not in warnings]
        used[unit.name] = price
        counts, rounding = _chip_counts(unit, chips, max_chips)
        if rounding:
            warnings.append(rounding)
        for count in counts:
            try:
                job = _job(request, unit, count)
                report = (lambda done, total, name=name: progress(name, done, total)) if progress else None
                if isinstance(device := _accelerator(unit), Gpu):
                    peer = measured_step(job, device, count)
                    candidates.append(
                        _candidate(
                            request,
                            job,
                            unit,
                            count,
                            price,
                            peer.step_time_s,
                            peer.memory_gib,
                            peer.layout,
                            1.0,
                            peer.assumptions,
                            None,
                            peer.step_range,
                        )
                    )
                    continue
                result = search(
                    job, machine(name, count), keep=5 * keep, workers=workers, results=results, progress=report
                )
            except OpenTrnError as reason:
                failures.append(str(reason))
                continue
            searches[unit.name, count] = result
            candidates += _neuron_candidates(request, job, name, unit, count, price, result)
            if result.interrupted:
                interrupted = True
                break
        if interrupted:
            warnings.append("interrupted: only part of the layouts was searched")
            break
    if stale := stale_warning(used):
        warnings.insert(0, stale)
    if not candidates:
        raise OpenTrnError(failures[-1] if failures else "nothing to plan")
    if chips is not None:
        warnings += [f for f in failures if f not in warnings]
    return Plan(
        chosen.name,
        tokens,
        objective,
        tuple(_ranked(candidates, objective, max_days, chips)),
        tuple(warnings),
        searches,
        interrupted,
    )


def _ranked(candidates: list[Candidate], objective: str, max_days: float, chips: int | None) -> list[Candidate]:
    key = {"cost": lambda c: c.cost_usd, "time": lambda c: c.time_h, "energy": lambda c: c.energy_kwh}[objective]
    limit = float("inf") if chips is not None else 24.0 * max_days
    return sorted(candidates, key=lambda c: (c.time_h > limit, key(c)))


def _accelerator(unit: Instance | Rack) -> Chip | Gpu:
    return unit.chip if isinstance(unit, Rack) else unit.accelerator


def _chips_per_unit(unit: Instance | Rack) -> int:
    return unit.num_chips if isinstance(unit, Rack) else unit.num_accelerators


def _chip_counts(unit: Instance | Rack, chips: int | None, max_chips: int) -> tuple[list[int], str]:
    """Numbers of chips to search, and a remark if the user's number had to be rounded."""
    each = _chips_per_unit(unit)
    if chips is not None:
        if chips <= each:
            return [chips], ""
        whole = -(-chips // each) * each
        return [
            whole
        ], f"{unit.name} comes in units of {each} chips: {chips} rounded up to {whole}" if whole != chips else ""
    counts = [each]
    while counts[-1] * 2 <= max(max_chips, each):
        counts.append(counts[-1] * 2)
    return counts, ""


def _job(request: _Request, unit: Instance | Rack, count: int) -> Job:
    """The job with a global batch near the asked one that the ranks of this hardware can share out evenly."""
    target = max(1.0, request.batch_tokens / request.seq_len)
    accelerator = _accelerator(unit)
    ranks = count * (accelerator.num_cores // accelerator.get("lnc_default", 1) if isinstance(accelerator, Chip) else 1)
    share = ranks
    while share % 2 == 0:
        share //= 2
    while share * 2 <= target:
        share *= 2
    samples = max(1, round(target / share)) * share
    stack = software(request.software_name)
    return Job(request.model, request.seq_len, samples, stack, request.dtype, request.optimizer, request.tuning)


def _num_nodes(unit: Instance | Rack, count: int) -> int:
    """Servers in use: what fails and is replaced as one."""
    if isinstance(unit, Instance):
        each = float(unit.num_accelerators)
    elif servers := unit.get("num_instances"):
        each = unit.num_chips / servers
    else:  # a cluster that is described by its chips alone: of the largest instances that carry them
        each = float(max(i.num_accelerators for i in instances() if i.accelerator is unit.chip))
    return max(1, math.ceil(count / each))


def _degrees(layout: Layout) -> dict[str, int]:
    return {name: int(value) for name, value in layout.axes().items() if not isinstance(value, str)}


def _neuron_candidates(
    request: _Request, job: Job, name: str, unit: Instance | Rack, count: int, price: ChipPrice, result: SearchResult
) -> list[Candidate]:
    on = machine(name, count)
    made = []
    for found in _distinct(result.found, request.keep):
        remarks = [
            f"schedule {found.layout.schedule}, recompute {found.layout.recompute}, {job.software.title}",
            f"rank = {on.cores_per_rank} physical cores (LNC {on.cores_per_rank}); memory is a physical core's share",
            "step simulated by mechanism; against published Trainium1 and Trainium2 training the model is off by about "
            f"{TYPICAL_ERROR:.0%} in the median and {LARGE_ERROR:.0%} at the 90th percentile "
            "(python -m opentrn.cluster.validation)",
        ]
        sigma = job.constants.chip_speed_sigma
        wait = slowest_of(count, sigma) - 1.0
        remarks.append(
            f"a step waits for the slowest of {count} chips: {wait:.1%} where chip speeds spread by {sigma:.0%}"
        )
        if found.layout.zero >= 2:
            remarks.append(
                "sharded weights or gradients are exchanged layer by layer beside the compute; no public "
                "measurement of that on Neuron hardware is known"
            )
        if found.layout.ep > 1 or any(stack.num_experts for stack in request.model.stacks):
            remarks.append("experts evenly loaded")
        if on.chip.generation >= 4:
            remarks.append(f"no training measurement of {on.chip.title} is public: its speed is a projection")
        made.append(
            _candidate(
                request,
                job,
                unit,
                count,
                price,
                found.step_time_s,
                found.memory_gib / on.cores_per_rank,
                found.layout,
                min(1.0, found.busy_s / found.step_time_s),
                tuple(remarks),
                found,
            )
        )
    return made


def _distinct(found: Sequence[Found], count: int) -> list[Found]:
    """The first `count` speeds; of equally fast layouts (context ranks for micro-batches, say) the plainest."""
    kept: list[Found] = []
    for one in found:
        if kept and abs(one.step_time_s / kept[-1].step_time_s - 1.0) <= 1e-6:
            kept[-1] = min(
                kept[-1], one, key=lambda f: (f.layout.cp, f.layout.micro_batch, f.layout.zero, f.memory_gib)
            )
        else:
            kept.append(one)
    return kept[:count]


def _candidate(
    request: _Request,
    job: Job,
    unit: Instance | Rack,
    count: int,
    price: ChipPrice,
    step_s: float,
    memory_gib: float,
    layout: Layout,
    activity: float,
    remarks: tuple[str, ...],
    found: Found | None,
    step_range: tuple[float, float] = (1.0, 1.0),
) -> Candidate:
    accelerator, nodes = _accelerator(unit), _num_nodes(unit, count)
    own = accelerator.get("cooling") or (unit.get("cooling") if isinstance(unit, Rack) else None) or "air"
    cooling, flow, clock = request.cooling or own, 0.7, 1.0
    if isinstance(accelerator, Chip):
        # A measured GPU has its throttling in the measurement; a simulated chip gets what its cooling lets it keep.
        settled = _settled_cooling(accelerator, round(activity, 2), cooling)
        flow, clock = settled.settled(settled.flow), settled.speed
        step_s = step_s / clock
    tokens_per_s = job.tokens_per_step / step_s
    peak = training_peak_tflops(accelerator, job.dtype) * 1e12
    state_gb = request.model.num_parameters * (2.0 + job.optimizer_bytes_per_parameter) / 1e9
    spares = best_spares(count, nodes, state_gb) if request.num_spares is None else request.num_spares
    reached = closed_form(count, nodes, state_gb, num_spares=spares, interval_s=request.interval_s)
    if reached.fraction < 1e-6:
        raise OpenTrnError(
            f"{count} chips of {unit.name} fail every {reached.job_mtbf_s:.0f} s: no progress; add spares or "
            "checkpoint faster"
        )
    hours = request.tokens / (tokens_per_s * reached.fraction) / 3600.0
    paid = count * (nodes + spares) / nodes
    exponent = power_figures().get("control", "power_clock_exponent").value
    power = rack_power(accelerator, count, activity * clock**exponent, cooling=cooling, flow=flow, where=request.region)
    energy = energy_kwh(power, hours)
    place = region(request.region or "fleet")
    carbon = place.grid_carbon_kg_co2e_per_kwh
    low, high = step_range
    assumptions = (
        *remarks,
        f"{job.global_batch} samples of {job.seq_len} tokens a step ({job.tokens_per_step:,.0f} tokens), "
        f"{job.optimizer}, {job.dtype}",
        f"price: {price.basis}",
        f"goodput: a failure every {reached.job_mtbf_s / 3600:.1f} h, a checkpoint every {reached.interval_s / 60:.0f} "
        f"min that takes {reached.checkpoint_s:.0f} s, {spares} spare nodes (failure rates of "
        "arXiv:2407.21783 stand in)",
        _energy_note(power.total, count, cooling, flow, clock),
        f"carbon: {carbon:g} kg CO2e/kWh, location based, {place.title if request.region is None else request.region}",
    )
    usd = paid * hours
    return Candidate(
        hardware=unit.name,
        num_chips=count,
        layout=_degrees(layout),
        step_time_s=step_s,
        tokens_per_s=tokens_per_s,
        mfu=job.flops_per_step / (step_s * count * peak),
        memory_gib_per_core=memory_gib,
        time_h=hours,
        cost_usd=usd * price.usd_per_chip_hour,
        energy_kwh=energy.value,
        co2_kg=energy.value * carbon,
        goodput=reached.fraction,
        assumptions=assumptions,
        cost_range_usd=(usd * price.low * low, usd * price.high * high),
        energy_range_kwh=(energy.low * low, energy.high * high),
        found=found,
        job=job,
    )


@cache
def _settled_cooling(chip: Chip, activity: float, cooling: str) -> ThermalTrace:
    return simulate_cooling(chip, min(1.0, activity), cooling=cooling)


def _energy_note(total: Watts, count: int, cooling: str, flow: float, clock: float) -> str:
    each = total * (1.0 / count)
    throttled = f", the clock falls to {clock:.0%}" if clock < 0.995 else ""
    return (
        f"power at the meter: {each.value:.0f} W a chip, {each.low:.0f} to {each.high:.0f} ({cooling} cooling, flow at "
        f"{flow:.0%}{throttled}; chip, host and thermal figures are estimates, none is published)"
    )
