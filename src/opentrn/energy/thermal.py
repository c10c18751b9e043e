"""Heat in a rack: chip temperatures over time, the loop that holds them with fans or pumps, and throttling.

One chip stands for all: a junction on a sink on a stream of air or coolant that warms up as it carries the heat away.
The loop moves fans or pumps to hold a target temperature; when that is not enough, the clock comes down, which is
what a user notices.
"""

from dataclasses import dataclass

import numpy as np

from opentrn.energy.rack import chip_tdp, power_figures
from opentrn.errors import OpenTrnError
from opentrn.hardware import Chip, Gpu

__all__ = ["POLICIES", "ThermalTrace", "simulate_cooling", "what_if"]

POLICIES = ("hold-temperature", "full", "quiet")


@dataclass(frozen=True)
class ThermalTrace:
    """A run of the cooling loop, one entry a second. `clock` and `flow` are parts of their maximum."""

    time_s: np.ndarray
    junction_c: np.ndarray
    flow: np.ndarray
    clock: np.ndarray
    chip_w: np.ndarray
    mover_w: np.ndarray
    cooling: str
    policy: str

    def settled(self, values: np.ndarray) -> float:
        """Mean over the last quarter of the run."""
        return float(values[-len(values) // 4 :].mean())

    @property
    def speed(self) -> float:
        """Clock that the chips keep up, as a part of full speed."""
        return self.settled(self.clock)


def simulate_cooling(
    chip: Chip | Gpu,
    activity: float,
    *,
    cooling: str = "air",
    policy: str = "hold-temperature",
    inlet_c: float | None = None,
    seconds: int = 3600,
) -> ThermalTrace:
    """Simulate one chip's cooling at a steady load, from a cold start, a second at a time.

    `policy` is "hold-temperature" (a proportional-integral loop on the junction), "full" (fans or pumps always at full
    speed) or "quiet" (at 40 %). Raises OpenTrnError for values outside their meaning.
    """
    if cooling not in ("air", "liquid") or policy not in POLICIES:
        raise OpenTrnError(
            f"cooling is air or liquid and the policy one of {', '.join(POLICIES)}, got {cooling!r}, {policy!r}"
        )
    if not 0.0 <= activity <= 1.0 or seconds < 1:
        raise OpenTrnError(f"activity must lie in 0..1 and seconds be positive, got {activity:g} and {seconds}")
    f = power_figures()

    def figure(group: str, name: str) -> float:
        return f.get(group, name).value

    tdp = chip_tdp(chip)[0].value
    idle, busy = figure("chip_use", "idle_ratio"), figure("chip_use", "busy_ratio")
    dynamic = tdp * (busy - idle) * activity
    stream = "air" if cooling == "air" else "coolant"
    to_sink = figure(cooling, "junction_to_sink_k_per_w")
    to_stream = figure(cooling, f"sink_to_{stream}_k_per_w")
    carried = figure(cooling, f"{stream}_w_per_k_per_chip")
    exponent = figure(cooling, "flow_exponent")
    mover_full = figure(cooling, "fan_w_per_chip" if cooling == "air" else "pump_w_per_chip")
    inlet = figure(cooling, "inlet_c") if inlet_c is None else inlet_c
    target, throttle = figure("control", "target_c"), figure("control", "throttle_c")
    junction_heat, sink_heat = figure("control", "junction_j_per_k"), figure("control", "sink_j_per_k")
    clock_exponent = figure("control", "power_clock_exponent")

    junction = sink = inlet
    flow, integral, clock = {"full": 1.0, "quiet": 0.4, "hold-temperature": 0.3}[policy], 0.0, 1.0
    out = np.empty((6, seconds))
    for second in range(seconds):
        watts = tdp * idle + dynamic * clock**clock_exponent
        if policy == "hold-temperature":
            error = junction - target
            integral = min(1.0, max(0.0, integral + 0.002 * error))
            flow = min(1.0, max(0.2, 0.02 * error + integral))
        # Air that has taken up half of the heat surrounds the sink on average.
        around = inlet + watts / (2.0 * carried * flow)
        into_sink = (junction - sink) / to_sink
        into_stream = (sink - around) / (to_stream * flow**-exponent)
        junction += (watts - into_sink) / junction_heat
        sink += (into_sink - into_stream) / sink_heat
        if junction > throttle:
            clock = max(0.2, clock - 0.01)
        elif junction < throttle - 2.0:
            clock = min(1.0, clock + 0.002)
        out[:, second] = (second, junction, flow, clock, watts, mover_full * flow**3)
    time_s, junctions, flows, clocks, chips, movers = out
    return ThermalTrace(time_s, junctions, flows, clocks, chips, movers, cooling, policy)


@dataclass(frozen=True)
class CoolingOption:
    """One way of cooling at one load, settled."""

    cooling: str
    policy: str
    junction_c: float
    flow: float
    speed: float
    chip_w: float
    mover_w: float
    facility_w: float

    @property
    def total_w(self) -> float:
        """At the meter, for one chip without its host."""
        return self.chip_w + self.mover_w + self.facility_w

    @property
    def w_per_speed(self) -> float:
        """Watts for full-speed work: a throttled chip needs longer."""
        return self.total_w / self.speed


def what_if(chip: Chip | Gpu, activity: float) -> list[CoolingOption]:
    """Air against liquid under each policy, settled values of one chip at the same load."""
    options = []
    for cooling in ("air", "liquid"):
        pue = power_figures().get(cooling, "facility_pue").value
        for policy in POLICIES:
            run = simulate_cooling(chip, activity, cooling=cooling, policy=policy)
            watts, mover = run.settled(run.chip_w), run.settled(run.mover_w)
            options.append(
                CoolingOption(
                    cooling,
                    policy,
                    run.settled(run.junction_c),
                    run.settled(run.flow),
                    run.speed,
                    watts,
                    mover,
                    (watts + mover) * (pue - 1.0),
                )
            )
    return options
