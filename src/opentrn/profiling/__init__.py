"""What a kernel's Timeline means: metrics, the critical path, lines, memory over time, and advice.

:func:`profile` makes a :class:`Profile` of a launch; tables, traces, pages and the JSON contract are written from it.
"""

from __future__ import annotations

from opentrn.profiling.profile import Profile, profile

__all__ = ["Profile", "profile"]
