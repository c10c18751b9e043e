"""``nki.experimental``: loops under the path of their first release."""

from __future__ import annotations

from opentrn.nki.language.loops import dynamic_range, fori_loop, while_loop

__all__ = ["dynamic_range", "fori_loop", "while_loop"]
