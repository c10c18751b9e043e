"""Host memory of temporaries: kept by the process when they are freed, because the next instruction needs it again.

NumPy allocates an array for every intermediate tile. With the C library's defaults those of some hundred kilobytes go
back to the operating system when freed, and each new one pays for its pages again: several times the cost of the
arithmetic on them.
"""

from __future__ import annotations

import ctypes
import functools

__all__ = ["keep_temporaries"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT_BYTES = 32 << 20
_KEPT_BYTES = 512 << 20


@functools.cache
def keep_temporaries() -> bool:
    """Let this process keep up to half a gigabyte of freed memory; whether the C library has such a setting (glibc
    has)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
