"""``neuronxcc.nki.language.constants``."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore.dtypes import as_dtype
from opentrn.nki.earlier.language import fp32, hbm, private_hbm, psum, sbuf, shared_hbm, tile_size

__all__ = ["fp32", "hbm", "private_hbm", "psum", "sbuf", "shared_hbm", "sizeinbytes", "tile_size"]


def sizeinbytes(dtype: Any) -> int:
    """Bytes of an element of a type."""
    return as_dtype(dtype).itemsize
