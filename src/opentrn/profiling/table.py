"""Every instruction as a row of an Arrow table, for SQL and notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from opentrn.errors import OpenTrnError
from opentrn.profiling.profile import Profile
from opentrn.timing import ENGINES, Cause

__all__ = ["instructions", "write_parquet"]


def instructions(profile: Profile) -> Any:
    """A ``pyarrow.Table`` with one row an instruction: what, where in the source, when, and what it waited for.

    Times are nanoseconds from the first instruction; bytes are HBM traffic; ``energy_j`` is dynamic energy.
    """
    import pyarrow as pa

    timeline = profile.timeline
    names, operands, files, lines = [], [], [], []
    for program in timeline.programs:
        plan_names = np.array([p.instruction.name for p in program.plans], dtype=object)
        plan_operands = np.array([", ".join(map(repr, p.layouts)) for p in program.plans], dtype=object)
        where = [program.line(s) or ("", 0) for s in range(len(program.sites))]
        site_files = np.array([w[0] for w in where], dtype=object)
        site_lines = np.array([w[1] for w in where], dtype=np.int32)
        names.append(plan_names[program.plan])
        operands.append(plan_operands[program.plan])
        files.append(site_files[program.site] if len(where) else np.zeros(0, object))
        lines.append(site_lines[program.site] if len(where) else np.zeros(0, np.int32))
    engine = pa.DictionaryArray.from_arrays(pa.array(timeline.engine.astype(np.int32)), list(ENGINES))
    issuer = pa.DictionaryArray.from_arrays(pa.array(timeline.issuer.astype(np.int32)), list(ENGINES))
    cause = pa.DictionaryArray.from_arrays(pa.array(timeline.cause.astype(np.int32)), [c.name.lower() for c in Cause])

    def text(parts: list[np.ndarray]) -> Any:
        return pa.array(np.concatenate(parts) if parts else [], type=pa.string()).dictionary_encode()

    return pa.table(
        {
            "index": np.arange(len(timeline)),
            "core": timeline.core,
            "name": text(names),
            "operands": text(operands),
            "file": text(files),
            "line": np.concatenate(lines) if lines else np.zeros(0, np.int32),
            "engine": engine,
            "issuer": issuer,
            "queue": timeline.queue,
            "ready_ns": timeline.ready_ns,
            "start_ns": timeline.start_ns,
            "free_ns": timeline.free_ns,
            "end_ns": timeline.end_ns,
            "busy_ns": timeline.busy_ns,
            "cause": cause,
            "blocked_by": timeline.blocked_by,
            "dma_start_ns": timeline.dma_start_ns,
            "dma_end_ns": timeline.dma_end_ns,
            "hbm_read_bytes": timeline.read_bytes,
            "hbm_write_bytes": timeline.written_bytes,
            "moved_bytes": timeline.moved_bytes,
            "num_descriptors": timeline.num_descriptors,
            "flops": timeline.flops,
            "energy_j": profile.energy.joules,
        }
    )


def write_parquet(profiles: list[Profile], directory: str) -> list[Path]:
    """Write ``NN_kernel.parquet`` for each launch into ``directory``, which is made if needed.

    Raises:
        OpenTrnError: pyarrow is not installed, or the directory cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise OpenTrnError("--parquet needs pyarrow; install it with pip install 'opentrn[trace]'") from None
    from opentrn.profiling.contract import write_atomically

    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OpenTrnError(f"cannot write to {folder}: {error.strerror}; choose another directory") from None
    written = []
    for k, profile in enumerate(profiles):
        buffer = pa.BufferOutputStream()
        pq.write_table(instructions(profile), buffer, compression="zstd")
        path = folder / f"{k:02d}_{profile.name}.parquet"
        write_atomically(path, buffer.getvalue().to_pybytes())
        written.append(path)
    return written
