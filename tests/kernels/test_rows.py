"""Programs of the row kernel compute what torch computes, on rows that do not fill a tile too."""

from __future__ import annotations

import numpy as np
import pytest

import opentrn.nki.language as nl
from opentrn.kernels.rows import fused_rows

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (5, 17), (130, 40)])
def test_softmax(rows, columns):
    x = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    steps = (
        ("reduce", "maximum", (0,)),
        ("binary", "subtract", (0, 1)),
        ("activation", "exp", (2,)),
        ("reduce", "add", (3,)),
        ("activation", "reciprocal", (4,)),
        ("binary", "multiply", (3, 5)),
    )
    (found,) = fused_rows((x,), steps, (6,), rows, columns, (nl.float32,))
    np.testing.assert_allclose(found, torch.from_numpy(x).softmax(-1).numpy(), rtol=1e-4, atol=1e-6)


def test_one_row_for_all_and_a_number_on_the_left():
    x, bias = np.random.default_rng(1).standard_normal((6, 9), np.float32), np.arange(9, dtype=np.float32)[None]
    steps = (("binary", "add", (0, 1)), ("reverse", "subtract", (1.0, 2)))
    (found,) = fused_rows((x, bias), steps, (3,), 6, 9, (nl.float32,))
    np.testing.assert_allclose(found, 1.0 - (x + bias), rtol=1e-6, atol=1e-6)
