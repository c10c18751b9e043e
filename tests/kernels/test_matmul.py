"""Matrix products of any shape, layout and type agree with NumPy in float64."""

import ml_dtypes
import numpy as np
import pytest

from opentrn.kernels.dense import bmm, matmul
from opentrn.nki import launch

TYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
TOLERANCE = {"float32": 1e-5, "bfloat16": 8e-3, "float16": 1e-3}


def random(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(TYPES[dtype])


def close(result, expected, dtype):
    error = np.abs(result.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-9)
    return error < TOLERANCE[dtype]


@pytest.mark.parametrize("chip", ["trn1", "trn2", "trn3"])
@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("shape", [(1, 1, 1), (130, 70, 300), (257, 640, 129), (3, 1000, 256)])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_product_matches_numpy(chip, dtype, shape, turned):
    m, n, k = shape
    a, b = random((m, k), dtype, 0), random((k, n), dtype, 1)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    lhs = np.ascontiguousarray(a.T) if turned[0] else a
    rhs = np.ascontiguousarray(b.T) if turned[1] else b
    with launch.session(chip=chip):
        result = matmul(lhs, rhs, transpose_lhs=turned[0], transpose_rhs=turned[1])
    assert result.dtype == TYPES[dtype] and close(result, expected, dtype)


@pytest.mark.parametrize("dtype", list(TYPES))
def test_bias_activation_and_residual_are_applied_in_this_order(dtype):
    a, b, bias, residual = (random(s, dtype, i) for i, s in enumerate([(140, 200), (200, 530), (530,), (140, 530)]))
    total = a.astype(np.float64) @ b.astype(np.float64) + bias.astype(np.float64)
    expected = np.maximum(total, 0) + residual.astype(np.float64)
    assert close(matmul(a, b, bias=bias, activation="relu", residual=residual), expected, dtype)


def test_long_contractions_are_summed_in_parts():
    a, b = random((130, 33000), "bfloat16", 0), random((33000, 520), "bfloat16", 1)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert close(matmul(a, b, out_dtype=np.float32), expected, "float32")


@pytest.mark.parametrize("turned", [(False, False), (True, True)])
def test_batches(turned):
    a, b = random((3, 65, 40), "float32", 0), random((3, 40, 129), "float32", 1)
    lhs = np.ascontiguousarray(a.transpose(0, 2, 1)) if turned[0] else a
    rhs = np.ascontiguousarray(b.transpose(0, 2, 1)) if turned[1] else b
    assert close(bmm(lhs, rhs, transpose_lhs=turned[0], transpose_rhs=turned[1]), a.astype(np.float64) @ b, "float32")
