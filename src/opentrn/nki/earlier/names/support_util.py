"""``neuronxcc.starfish.support.util``: the comparison that kernel tests use."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["allclose"]


def allclose(
    actual: Any,
    desired: Any,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    verbose: int = 0,
    allow_outliers: Any = None,
    **_: Any,
) -> bool:
    """Whether two arrays agree; ``verbose`` prints how far they differ where they do not."""
    a, b = np.asarray(actual).astype(np.float64), np.asarray(desired).astype(np.float64)
    close = np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if verbose and not close.all():
        wrong = int(close.size - np.count_nonzero(close))
        print(f"{wrong} of {close.size} elements differ, the largest difference is {np.abs(a - b)[~close].max():.6g}")
    return bool(close.all())
