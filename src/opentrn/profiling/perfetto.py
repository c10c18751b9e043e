"""A trace that https://ui.perfetto.dev opens: engines and DMA queues as tracks, waits as flows, memory and power as counters."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.errors import OpenTrnError
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.profiling.occupancy import occupancy
from opentrn.profiling.profile import Profile
from opentrn.timing import ENGINES, Cause

__all__ = ["bars", "trace_bytes"]

_SEQUENCE = 1


def trace_bytes(profiles: list[Profile]) -> bytes:
    """The trace of all launches, one after another in time, as serialised protobuf.

    Raises:
        OpenTrnError: the ``perfetto`` package is not installed.
    """
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
        from perfetto.trace_builder.proto_builder import TraceProtoBuilder
    except ImportError:
        raise OpenTrnError("--trace needs the perfetto package; install it with pip install 'opentrn[trace]'") from None
    writer = _Writer(TraceProtoBuilder(), pb)
    origin = 0.0
    for number, profile in enumerate(profiles):
        writer.launch(profile, number, origin)
        origin += profile.latency_us * 1e3 + 1e3
    return writer.builder.serialize()


class _Writer:
    """Adds packets to a trace; every launch is a process with its tracks."""

    def __init__(self, builder: Any, pb: Any) -> None:
        self.builder = builder
        self.pb = pb
        self.uuid = 0
        self.first = True

    def _packet(self, timestamp_ns: float) -> Any:
        packet = self.builder.add_packet()
        packet.timestamp = int(round(timestamp_ns))
        packet.trusted_packet_sequence_id = _SEQUENCE
        if self.first:
            packet.sequence_flags = self.pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            self.first = False
        return packet

    def _track(self, name: str, parent: int = 0, *, process: int = 0, unit: str = "") -> int:
        self.uuid += 1
        packet = self._packet(0)
        descriptor = packet.track_descriptor
        descriptor.uuid = self.uuid
        descriptor.name = name
        if parent:
            descriptor.parent_uuid = parent
        if process:
            descriptor.process.pid = process
            descriptor.process.process_name = name
        if unit:
            descriptor.counter.unit_name = unit
        return self.uuid

    def launch(self, profile: Profile, number: int, origin: float) -> None:
        """All tracks of one launch, starting at ``origin`` nanoseconds."""
        timeline = profile.timeline
        root = self._track(f"{profile.name} #{number}", process=number + 1)
        tracks: dict[tuple[int, str], int] = {}
        many = len(timeline.programs) > 1
        for c in range(len(timeline.programs)):
            prefix = f"core {c} " if many else ""
            for name in (*ENGINES[:-1], *timeline.queues):
                tracks[c, name] = self._track(f"{prefix}{name}", root)
        self._instructions(profile, tracks, origin, number)
        for c in range(len(timeline.programs)):
            prefix = f"core {c} " if many else ""
            for region in (MemoryRegion.sbuf, MemoryRegion.psum):
                counter = self._track(f"{prefix}{region.value} bytes a partition", root, unit="B")
                self._counter(counter, *occupancy(timeline, region, c), origin)
        edges, watts = profile.energy.watts_over_time()
        self._counter(self._track("power", root, unit="W"), edges[:-1], watts, origin)

    def _counter(self, track: int, times_us: np.ndarray, values: np.ndarray, origin: float) -> None:
        for time, value in zip(times_us.tolist(), values.tolist(), strict=True):
            event = self._packet(origin + time * 1e3).track_event
            event.type = self.pb.TrackEvent.TYPE_COUNTER
            event.track_uuid = track
            event.double_counter_value = value

    def _instructions(self, profile: Profile, tracks: dict[tuple[int, str], int], origin: float, number: int) -> None:
        timeline, pb = profile.timeline, self.pb
        start, stop, name = bars(profile)
        waits_on = np.where(np.isin(timeline.cause, [Cause.DATA, Cause.DMA, Cause.OVERWRITE, Cause.BUFFER_REUSE]),
                            timeline.blocked_by, -1).tolist()  # fmt: skip
        producers = set(waits_on)
        base = number * (len(timeline) + 1)
        order = np.argsort(start, kind="stable").tolist()
        begin, finish = start.tolist(), stop.tolist()
        core, cause = timeline.core.tolist(), timeline.cause.tolist()
        labels = [_labels(program) for program in timeline.programs]
        offsets = timeline.offsets.tolist()
        for row in order:
            c = core[row]
            program = timeline.programs[c]
            k = row - offsets[c]
            track = tracks[c, name[row]]
            titles, operands, lines = labels[c]
            plan, site = int(program.plan[k]), int(program.site[k])
            event = self._packet(origin + begin[row]).track_event
            event.type = pb.TrackEvent.TYPE_SLICE_BEGIN
            event.track_uuid = track
            event.name = titles[plan]
            for key, value in (
                ("operands", operands[plan]),
                ("source", lines[site]),
                ("waited", Cause(cause[row]).name.lower()),
            ):
                note = event.debug_annotations.add()
                note.name, note.string_value = key, value
            if row in producers:
                event.flow_ids.append(base + row + 1)
            if waits_on[row] >= 0:
                event.terminating_flow_ids.append(base + waits_on[row] + 1)
            ended = self._packet(origin + finish[row]).track_event
            ended.type = pb.TrackEvent.TYPE_SLICE_END
            ended.track_uuid = track


def _labels(program: Any) -> tuple[list[str], list[str], list[str]]:
    titles = [p.instruction.name for p in program.plans]
    operands = [", ".join(map(repr, p.layouts)) for p in program.plans]
    lines = []
    for s in range(len(program.sites)):
        where = program.line(s)
        lines.append(f"{where[0]}:{where[1]}" if where else "")
    return titles, operands, lines


def bars(profile: Profile) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(start, stop, track name) of each instruction's bar in ns; bars of a track do not overlap, as pipelined work does."""
    timeline = profile.timeline
    moving = timeline.queue >= 0
    start = np.where(moving, timeline.dma_start_ns, timeline.start_ns)
    stop = np.where(moving, timeline.dma_end_ns, np.maximum(timeline.end_ns, timeline.start_ns))
    key = timeline.core.astype(np.int64) * 4096 + np.where(moving, 16 + timeline.queue, timeline.engine)
    order = np.lexsort((np.arange(len(start)), start, key))
    following = np.empty(len(start))
    following[:] = np.inf
    same = key[order][1:] == key[order][:-1]
    following[order[:-1][same]] = start[order[1:][same]]
    stop = np.maximum(np.minimum(stop, following), start)
    names = [
        timeline.queues[q] if q >= 0 else ENGINES[e]
        for q, e in zip(timeline.queue.tolist(), timeline.engine.tolist(), strict=True)
    ]
    return start, stop, names
