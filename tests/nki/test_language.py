"""Functions of nki.language on tiles, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import opentrn.nki as nki
import opentrn.nki.language as nl
from opentrn.errors import ValidationError

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((128, 64)) * 5).astype(np.float32)
Y = RNG.standard_normal((128, 64)).astype(np.float32) + np.float32(0.01)


def apply(function, *arrays):
    """The tile that ``function`` makes of loaded ``arrays``, as an array."""

    @nki.jit
    def kernel(*inputs):
        tile = function(*[nl.load(i) for i in inputs])
        tile = nl.copy(tile) if nl.is_psum(tile.buffer) else tile
        out = nl.ndarray(tile.shape, tile.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    return kernel(*arrays)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def rms_norm(x, w):
    return x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-6) * w


CASES = {
    "add": (nl.add, np.add),
    "subtract from a number": (lambda a, b: nl.subtract(3.0, a), lambda a, b: 3 - a),
    "divide": (nl.divide, np.divide),
    "power": (lambda a, b: nl.power(nl.abs(a), b), lambda a, b: np.abs(a) ** b),
    "mod has the sign of the divisor": (lambda a, b: nl.mod(a, 2.5), lambda a, b: np.mod(a, np.float32(2.5))),
    "fmod has the sign of the dividend": (nl.fmod, np.fmod),
    "maximum": (nl.maximum, np.maximum),
    "minimum with a number": (lambda a, b: nl.minimum(a, 0.5), lambda a, b: np.minimum(a, np.float32(0.5))),
    "abs_max keeps the sign": (nl.abs_max, lambda a, b: np.where(np.abs(a) > np.abs(b), a, b)),
    "abs_min keeps the sign": (nl.abs_min, lambda a, b: np.where(np.abs(a) < np.abs(b), a, b)),
    "negative": (lambda a, b: nl.negative(a), lambda a, b: -a),
    "sign": (lambda a, b: nl.sign(a), lambda a, b: np.sign(a)),
    "logical_not": (lambda a, b: nl.logical_not(nl.greater(a, 0)), lambda a, b: ~(a > 0)),
    "a column broadcasts": (lambda a, b: nl.add(a, b[:, 0:1]), lambda a, b: a + b[:, :1]),
    "a row broadcasts over partitions": (lambda a, b: nl.add(a, b[0:1, :]), lambda a, b: a + b[:1]),
    "sin of large angles": (
        lambda a, b: nl.sin(nl.multiply(a, 20.0)), lambda a, b: np.sin((a * np.float32(20)).astype(np.float64)),
    ),
    "cos": (lambda a, b: nl.cos(a), lambda a, b: np.cos(a.astype(np.float64))),
    "tan": (lambda a, b: nl.tan(nl.multiply(b, 0.25)), lambda a, b: np.tan(b.astype(np.float64) / 4)),
    "arctan beyond the engine's range": (lambda a, b: nl.arctan(a), lambda a, b: np.arctan(a)),
    "floor": (lambda a, b: nl.floor(a), lambda a, b: np.floor(a)),
    "ceil": (lambda a, b: nl.ceil(a), lambda a, b: np.ceil(a)),
    "trunc": (lambda a, b: nl.trunc(a), lambda a, b: np.trunc(a)),
    "prelu": (lambda a, b: nl.prelu(a, slope=0.25), lambda a, b: np.where(a > 0, a, a / 4)),
    "softplus": (lambda a, b: nl.softplus(a), lambda a, b: np.logaddexp(a, 0)),
    "average": (nl.average, lambda a, b: (a + b) / 2),
    "where": (lambda a, b: nl.where(nl.greater(a, b), a, -1.0), lambda a, b: np.where(a > b, a, -1)),
    "sum": (lambda a, b: nl.sum(a, axis=1), lambda a, b: a.sum(1, keepdims=True)),
    "mean": (lambda a, b: nl.mean(a, axis=[1]), lambda a, b: a.mean(1, keepdims=True)),
    "var": (lambda a, b: nl.var(a, axis=1), lambda a, b: a.var(1, keepdims=True)),
    "max": (lambda a, b: nl.max(a, axis=-1), lambda a, b: a.max(1, keepdims=True)),
    "prod": (lambda a, b: nl.prod(b, axis=1), lambda a, b: b.prod(1, keepdims=True)),
    "all": (lambda a, b: nl.all(nl.greater(a, -9), axis=1), lambda a, b: (a > -9).all(1, keepdims=True)),
    "softmax": (lambda a, b: nl.softmax(a, axis=1), lambda a, b: softmax(a, 1)),
    "softmax of the last of three": (
        lambda a, b: nl.softmax(a.reshape((128, 4, 16)), axis=2).reshape((128, 64)),
        lambda a, b: softmax(a.reshape(128, 4, 16), 2).reshape(128, 64),
    ),
    "rms_norm": (lambda a, b: nl.rms_norm(a, b, axis=1, n=64), rms_norm),
    "rms_norm with one row of weights": (
        lambda a, b: nl.rms_norm(a, b[0:1, :], axis=1, n=64), lambda a, b: rms_norm(a, b[:1]),
    ),
    "matmul of transposed x": (lambda a, b: nl.matmul(a, b, transpose_x=True), lambda a, b: a.T @ b),
    "matmul": (lambda a, b: nl.matmul(a, b[0:64, :]), lambda a, b: a @ b[:64]),
    "transpose": (lambda a, b: nl.transpose(a), lambda a, b: a.T),
    "broadcast_to": (lambda a, b: nl.broadcast_to(a[0:1, :], (128, 64)), lambda a, b: np.tile(a[:1], (128, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_float_functions_match_numpy(name):
    function, reference = CASES[name]
    result, expected = apply(function, X, Y), np.asarray(reference(X, Y), np.float64)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "function, reference",
    [
        (nl.bitwise_and, np.bitwise_and),
        (nl.bitwise_or, np.bitwise_or),
        (nl.bitwise_xor, np.bitwise_xor),
        (nl.left_shift, np.left_shift),
        (lambda a, b: nl.invert(a), lambda a, b: ~a),
        (lambda a, b: nl.right_shift(a, 3), lambda a, b: (a.view(np.uint32) >> 3).view(np.int32)),
    ],
)
def test_bits_are_exact(function, reference):
    a = RNG.integers(-(2**31), 2**31, (128, 16)).astype(np.int32)
    b = RNG.integers(0, 5, (128, 16)).astype(np.int32)
    np.testing.assert_array_equal(apply(function, a, b), reference(a, b))


def test_floor_passes_what_has_no_fraction():
    big = np.array([[2.0**30, -(2.0**30), np.inf, -np.inf, 2.0**24 + 2]], np.float32)
    np.testing.assert_array_equal(apply(nl.floor, big), big)
    assert np.isnan(apply(nl.floor, np.full((1, 1), np.nan, np.float32)))


def test_dtypes_promote_and_round_once():
    half = apply(lambda a, b: nl.add(a, b, dtype=nl.bfloat16), X, Y)
    np.testing.assert_array_equal(half, (X + Y).astype(half.dtype))
    assert apply(lambda a, b: nl.add(nl.copy(a, nl.bfloat16), b), X, Y).dtype == np.float32
    assert apply(lambda a: nl.multiply(nl.copy(a, nl.int32), 0.5), np.ones((4, 4), np.float32)).dtype == np.float32


def test_gather_and_transposing_load():
    index = RNG.integers(0, 64, (128, 32)).astype(np.uint32)
    gathered = apply(nl.gather_flattened, X, index)
    np.testing.assert_array_equal(gathered, np.take_along_axis(X, index.astype(np.int64), 1))

    @nki.jit
    def turned(source):
        out = nl.ndarray((64, 128), nl.float32, buffer=nl.shared_hbm)
        nl.store(out, nl.load_transpose2d(source))
        return out

    np.testing.assert_array_equal(turned(X), X.T)


def test_random_numbers_repeat_with_their_seed():
    def draw(seed):
        nl.random_seed(seed)
        return nl.rand((128, 64), nl.float32)

    first, again = (apply(draw, np.full((1, 1), 42, np.int32)) for _ in range(2))
    other = apply(draw, np.full((1, 1), 43, np.int32))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.min() >= 0 and first.max() < 1
    assert abs(first.mean() - 0.5) < 0.02 and abs(first.var() - 1 / 12) < 0.01


def test_dropout_drops_at_its_rate():
    kept = apply(lambda a: nl.dropout(a, 0.3), np.ones((128, 64), np.float32))
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert abs(1 - kept.mean() - 0.3) < 0.03


def test_constants_are_loaded():
    table = np.arange(8, dtype=np.float32).reshape(2, 4)
    seen = apply(lambda a: nl.add(nl.load(nl.shared_constant(table)), 0.0), X)
    np.testing.assert_array_equal(seen, table)
    np.testing.assert_array_equal(apply(lambda a: nl.shared_identity_matrix(16, nl.float32), X), np.eye(16))


def test_tile_size_follows_the_chip(monkeypatch):
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    assert (nl.tile_size.pmax, nl.tile_size.psum_bank_fmax, nl.tile_size.gemm_moving_fmax) == (128, 512, 512)
    small = nl.tile_size.sbuf_size_bytes
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn3")
    assert (small, nl.tile_size.sbuf_size_bytes) == (24 * 2**20, 32 * 2**20)


def test_device_print_shows_values(capsys):
    apply(lambda a: (nl.device_print("tile is", a), a)[1], np.full((1, 2), 7, np.float32))
    assert "tile is [[7. 7.]]" in capsys.readouterr().out


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda a: nl.add(1.0, 2.0), "at least one operand must be a tile"),
        (lambda a: nl.sum(a, axis=0), "the axes must be the last free dimensions"),
        (lambda a: nl.add(a, a[0:64, :]), "do not broadcast"),
        (lambda a: nl.broadcast_to(a, (128, 65)), "does not broadcast"),
        (lambda a: nl.load(a), "needs a tensor in HBM"),
        (lambda a: nl.program_id(3), "axis 3"),
    ],
)
def test_misuse_is_one_sentence_with_the_line(function, message):
    with pytest.raises(ValidationError, match=message) as caught:
        if "axis 3" in message:

            @nki.jit
            def kernel(a):
                return function(a)

            kernel[2](X)
        else:
            apply(function, X)
    assert caught.value.source[0] == __file__
