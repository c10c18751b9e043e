"""``neuronxcc.nki.compiler.psum``, for ``from ... import``."""

from __future__ import annotations

from opentrn.nki.earlier.allocation import psum

alloc, auto_alloc, mod_alloc = psum.alloc, psum.auto_alloc, psum.mod_alloc
