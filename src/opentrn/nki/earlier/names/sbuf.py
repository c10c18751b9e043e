"""``neuronxcc.nki.compiler.sbuf``, for ``from ... import``."""

from __future__ import annotations

from opentrn.nki.earlier.allocation import sbuf

alloc, auto_alloc, mod_alloc = sbuf.alloc, sbuf.auto_alloc, sbuf.mod_alloc
