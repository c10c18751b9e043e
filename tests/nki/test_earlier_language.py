"""Functions of the earlier nki.language against NumPy."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from opentrn.errors import ValidationError
from opentrn.nki.earlier import language as nl
from opentrn.nki.earlier.decorators import jit
from opentrn.nki.earlier.operands import promote

RNG = np.random.default_rng(3)
X = RNG.uniform(-3, 3, (64, 48)).astype(np.float32)
Y = RNG.uniform(0.5, 2.5, (64, 48)).astype(np.float32)


def apply(function, *arrays):
    """``function`` of tiles as a kernel."""

    @jit
    def kernel(*inputs):
        tile = function(*[nl.load(i) for i in inputs])
        out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    return kernel(*arrays)


BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "mod": np.mod,
    "fmod": np.fmod,
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions(name):
    result = apply(getattr(nl, name), X, Y)
    expected = BINARY[name](X, Y)
    assert result.dtype == expected.dtype
    assert np.allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_of_a_number_on_either_side(name):
    assert np.allclose(apply(lambda x: getattr(nl, name)(x, 1.5), Y), BINARY[name](Y, np.float32(1.5)), atol=1e-5)
    assert np.allclose(apply(lambda x: getattr(nl, name)(1.5, x), Y), BINARY[name](np.float32(1.5), Y), atol=1e-5)


UNARY = {
    "exp": np.exp,
    "square": np.square,
    "tanh": np.tanh,
    "abs": np.abs,
    "sign": np.sign,
    "sin": np.sin,
    "cos": np.cos,
    "arctan": np.arctan,
    "negative": np.negative,
    "floor": np.floor,
    "ceil": np.ceil,
    "trunc": np.trunc,
    "relu": lambda v: np.maximum(v, 0),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "silu": lambda v: v / (1 + np.exp(-v)),
    "softplus": lambda v: np.log1p(np.exp(v)),
    "erf": np.vectorize(math.erf),
    "gelu": lambda v: 0.5 * v * (1 + np.vectorize(math.erf)(v / np.sqrt(2))),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions(name):
    assert np.allclose(apply(getattr(nl, name), X), UNARY[name](X.astype(np.float64)), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log", np.log),
        ("sqrt", np.sqrt),
        ("rsqrt", lambda v: 1 / np.sqrt(v)),
        ("reciprocal", lambda v: 1 / v),
        ("tan", lambda v: np.tan(v)),
    ],
)
def test_unary_functions_of_positive_numbers(name, expected):
    values = np.clip(Y, 0.5, 1.4)
    assert np.allclose(apply(getattr(nl, name), values), expected(values.astype(np.float64)), rtol=1e-3)


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
def test_bitwise_functions(name):
    a, b = (RNG.integers(-1000, 1000, (16, 8)).astype(np.int32) for _ in range(2))
    assert np.array_equal(apply(getattr(nl, name), a, b), getattr(np, name)(a, b))
    assert np.array_equal(apply(nl.invert, a), ~a)
    assert np.array_equal(apply(lambda t: t << 3, a), a << 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sum", np.sum), ("max", np.max), ("min", np.min), ("prod", np.prod), ("mean", np.mean), ("var", np.var)],
)
def test_reductions_keep_two_dimensions(name, expected):
    result = apply(lambda t: getattr(nl, name)(t, axis=1), Y[:, :10])
    assert result.shape == (64, 1)
    assert np.allclose(result, expected(Y[:, :10], axis=1, keepdims=True), rtol=1e-4)


def test_reductions_over_inner_axes_of_a_window():
    x = RNG.standard_normal((16, 12, 20)).astype(np.float32)

    def pool(tile):
        p, i, a, j, b = nl.mgrid[0:16, 0:6, 0:2, 0:5, 0:4]
        return nl.sum(tile[p, 2 * i + a, 4 * j + b], axis=[2, 4]) / 8

    assert np.allclose(apply(pool, x), x.reshape(16, 6, 2, 5, 4).mean(axis=(2, 4)), atol=1e-5)


def test_all_and_any():
    bits = RNG.integers(0, 2, (32, 3)).astype(np.float32)
    assert np.array_equal(apply(lambda t: nl.all(t, axis=1), bits), bits.all(axis=1, keepdims=True))
    assert np.array_equal(apply(lambda t: nl.any(t, axis=1), bits), bits.any(axis=1, keepdims=True))


def test_a_reduction_over_partitions_says_what_to_do():
    with pytest.raises(ValidationError, match="tensor_partition_reduce"):
        apply(lambda t: nl.sum(t, axis=0), X)


def test_where_selects_tiles_and_numbers():
    assert np.array_equal(apply(lambda x, y: nl.where(x > 0, x, y), X, Y), np.where(X > 0, X, Y))
    assert np.array_equal(apply(lambda x: nl.where(x > 0, 1.0, x), X), np.where(X > 0, 1, X))
    assert np.array_equal(
        apply(lambda x: nl.where(nl.greater(x, 0.0, dtype=nl.int8), x, -5.0), X), np.where(X > 0, X, -5)
    )


def test_softmax_and_rms_norm():
    e = np.exp(X - X.max(1, keepdims=True))
    assert np.allclose(apply(lambda t: nl.softmax(t, axis=1), X), e / e.sum(1, keepdims=True), rtol=1e-4)
    weights = RNG.standard_normal((1, 48)).astype(np.float32)
    expected = X / np.sqrt((X**2).mean(1, keepdims=True) + 1e-5) * weights
    assert np.allclose(
        apply(lambda t, w: nl.rms_norm(t, w, axis=1, n=48, epsilon=1e-5), X, weights), expected, rtol=1e-4, atol=1e-5
    )


def test_matmul_transpose_and_transposing_loads():
    a, b = X[:, :40], Y
    assert np.allclose(apply(lambda x, y: nl.matmul(nl.transpose(x), y), a, b), a.T @ b, atol=1e-4)
    assert np.allclose(apply(lambda x, y: nl.matmul(x, y, transpose_x=True), a, b), a.T @ b, atol=1e-4)

    @jit
    def kernel(x):
        out = nl.ndarray((48, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.load_transpose2d(x))
        return out

    assert np.array_equal(kernel(X), X.T)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int32])
def test_broadcast_to_repeats_partitions_exactly(dtype):
    row = (RNG.standard_normal((1, 700)) * 100).astype(dtype)
    assert np.array_equal(apply(lambda t: t.broadcast_to((128, 700)), row), np.repeat(row, 128, axis=0))


def test_conversion_rounds_to_nearest_even():
    bits = X.astype(ml_dtypes.bfloat16)
    assert np.array_equal(apply(lambda t: nl.copy(t, dtype=nl.bfloat16), X), bits)
    assert np.array_equal(apply(lambda t: nl.static_cast(t, np.float16), X), X.astype(np.float16))
    assert nl.static_cast(X, nl.bfloat16).dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (nl.bfloat16, nl.bfloat16, "bfloat16"),
        (nl.bfloat16, nl.float32, "float32"),
        (nl.float16, nl.bfloat16, "float32"),
        (nl.int32, nl.bfloat16, "bfloat16"),
        (nl.int8, nl.int32, "int32"),
        (nl.int32, 2.5, "float32"),
        (nl.bfloat16, 2.5, "bfloat16"),
        (nl.int32, 2, "int32"),
        (nl.float8_e4m3, nl.float8_e5m2, "bfloat16"),
    ],
)
def test_type_promotion(a, b, expected):
    assert promote(a, b) == expected


def test_division_of_integers_gives_floats():
    a = RNG.integers(1, 100, (8, 4)).astype(np.int32)
    assert np.allclose(apply(lambda t: t / 7, a), a / 7)
    assert np.array_equal(apply(lambda t: nl.floor(t / 7, dtype=nl.int32), a), a // 7)


def test_loop_reduce_adds_into_the_tile_it_is_assigned_to():
    x = RNG.standard_normal((5, 16, 8)).astype(np.float32)

    @jit
    def kernel(a):
        out = nl.ndarray((2, 16, 8), dtype=a.dtype, buffer=nl.shared_hbm)
        named = nl.zeros((16, 8), dtype=a.dtype)
        block = nl.ndarray((1, nl.par_dim(16), 8), dtype=a.dtype)  # the first iteration starts the sum
        for i in nl.affine_range(5):
            tile = nl.load(a[i])
            named = nl.loop_reduce(tile, op=np.add, loop_indices=[i])
            block[0, :, :] = nl.loop_reduce(tile, op=np.add, loop_indices=(i,), mask=(i != 2))
        nl.store(out[0], named)
        nl.store(out[1], block[0])
        return out

    result = kernel(x)
    assert np.allclose(result[0], x.sum(0), atol=1e-5)
    assert np.allclose(result[1], x[[0, 1, 3, 4]].sum(0), atol=1e-5)


def test_random_numbers_are_uniform_and_repeat_with_their_seed():
    @jit
    def kernel():
        out = nl.ndarray((2, 128, 256), dtype=nl.float32, buffer=nl.shared_hbm)
        for i in nl.static_range(2):
            nl.random_seed(7)
            nl.store(out[i], nl.rand((128, 256)))
        return out

    first, second = kernel()
    assert np.array_equal(first, second)
    assert first.min() >= 0 and first.max() < 1 and abs(first.mean() - 0.5) < 0.01


def test_constants_and_limits():
    @jit
    def kernel():
        out = nl.ndarray((2, 16, 16), dtype=nl.float32, buffer=nl.shared_hbm)
        nl.store(out[0], nl.load(nl.shared_identity_matrix(16, dtype=nl.bfloat16), dtype=nl.float32))
        nl.store(out[1], nl.load(nl.shared_constant(np.arange(256).reshape(16, 16), dtype=nl.float32)))
        return out

    identity, numbers = kernel()
    assert np.array_equal(identity, np.eye(16))
    assert np.array_equal(numbers, np.arange(256).reshape(16, 16))
    assert nl.tile_size.pmax == 128 and nl.tile_size.psum_fmax == 512 and nl.tile_size.gemm_stationary_fmax == 128
    assert nl.fp32.min == np.finfo(np.float32).min
    assert float(nl.finfo(nl.bfloat16).max) == float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)
