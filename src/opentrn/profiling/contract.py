"""The JSON that tools read: one object a run, one entry a kernel launch. Described by ``docs/schemas/profile.schema.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentrn import __version__
from opentrn.errors import OpenTrnError
from opentrn.profiling.advice import advice
from opentrn.profiling.profile import Profile

__all__ = ["document", "load", "write_atomically"]


def document(chip: str, profiles: Sequence[Profile], *, what_if: bool = True) -> dict[str, Any]:
    """The contract's object for a run of ``profiles`` on ``chip``, in launch order."""
    return {"chip": chip, "opentrn_version": __version__, "launches": [_launch(p, what_if) for p in profiles]}


def _launch(p: Profile, what_if: bool) -> dict[str, Any]:
    energy = p.energy.total_j
    return {
        "name": p.name,
        "source": p.source,
        "latency_us": p.latency_us,
        "engine_busy_us": p.timeline.engine_busy_us,
        "dma_busy_us": p.timeline.dma_busy_us,
        "hbm_bytes": p.timeline.hbm_bytes,
        "flops": p.timeline.total_flops,
        "mfu": p.mfu,
        "mbu": p.mbu,
        "energy_j": energy.value,
        "energy_j_range": [energy.low, energy.high],
        "energy_j_by_level": {name: part.value for name, part in p.energy.by_level.items()},
        "critical_path": p.path.by_cause,
        "sbuf_peak_bytes": p.sbuf_peak_bytes,
        "psum_peak_bytes": p.psum_peak_bytes,
        "grid": list(p.launch.grid),
        "num_cores": p.num_cores,
        "num_instructions": len(p.timeline),
        "metrics": p.metrics,
        "what_if_latency_us": p.what_ifs if what_if else {},
        "lines": [
            {
                "source": f"{e.file}:{e.line}", "text": e.text, "instructions": list(e.instructions), "count": e.count,
                "busy_us": e.busy_us, "critical_us": e.critical_us, "hbm_bytes": e.hbm_bytes,
            }
            for e in p.lines
        ],
        "advice": [{"saving_us": a.saving_us, "source": a.line, "text": a.text} for a in advice(p)],
        "error": str(p.launch.error) if p.launch.error is not None else None,
    }  # fmt: skip


def load(path: str) -> dict[str, Any]:
    """Read a document written by :func:`document`.

    Raises:
        OpenTrnError: the file is missing, not JSON, or not a profile.
    """
    try:
        found = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise OpenTrnError(f"{path} does not exist; write one with trn profile SCRIPT --json {path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise OpenTrnError(f"{path} is not a profile in JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("launches"), list):
        raise OpenTrnError(f"{path} holds no launches; write it with trn profile SCRIPT --json {path}")
    return found


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        OpenTrnError: the place cannot be written.
    """
    import os
    import tempfile

    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent or Path("."), prefix=f".{target.name}.")
    except OSError as error:
        raise OpenTrnError(f"cannot write {target}: {error.strerror}; choose another path") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except OSError as error:
        os.unlink(name)
        raise OpenTrnError(f"cannot write {target}: {error.strerror}; choose another path") from None
    except BaseException:
        os.unlink(name)
        raise
