"""The Scalar engine: functions against their mathematics in float64, scale, bias and the accumulator registers."""

import math

import numpy as np
import pytest

from opentrn.errors import UninitializedError
from opentrn.neuroncore import isa
from opentrn.neuroncore.activations import activation_names, erf
from opentrn.neuroncore.isa.settings import reduce_cmd

X = np.linspace(-3, 3, 128 * 16).reshape(128, 16)
ERF = np.vectorize(math.erf)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cdf(x):
    return 0.5 * (1 + ERF(x / math.sqrt(2)))


TANH = math.sqrt(2 / math.pi)
REFERENCE = {
    "copy": lambda x: x,
    "identity": lambda x: x,
    "square": np.square,
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * cdf(x),
    "gelu_dx": lambda x: cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "gelu_apprx_tanh": lambda x: 0.5 * x * (1 + np.tanh(TANH * (x + 0.044715 * x**3))),
    "gelu_apprx_sigmoid": lambda x: x * sigmoid(1.702 * x),
    "gelu_apprx_sigmoid_dx": lambda x: sigmoid(1.702 * x) * (1 + 1.702 * x * (1 - sigmoid(1.702 * x))),
    "silu": lambda x: x * sigmoid(x),
    "silu_dx": lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "erf": ERF,
    "erf_dx": lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x),
    "exp": np.exp,
    "log": lambda x: np.log(np.abs(x)),
    "sin": np.sin,
    "arctan": np.arctan,
    "sqrt": lambda x: np.sqrt(np.abs(x)),
    "rsqrt": lambda x: 1 / np.sqrt(np.abs(x)),
    "reciprocal": lambda x: 1 / x,
    "sign": np.sign,
    "abs": np.abs,
    "absolute": np.abs,
}


def test_every_function_has_a_reference():
    assert set(REFERENCE) == set(activation_names())


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("in_place", [False, True])
def test_function_is_accurate_to_a_few_parts_in_ten_million(chip, name, in_place):
    x = np.abs(X) if name in ("log", "sqrt", "rsqrt") else X
    data = chip.tile(x)
    dst = data if in_place else chip.tile(shape=x.shape)
    isa.activation(dst, name, data)
    np.testing.assert_allclose(
        dst.array(), REFERENCE[name](x.astype(np.float32).astype(np.float64)), rtol=2e-6, atol=4e-7
    )


def test_erf_is_within_six_units_in_the_last_place():
    x = np.linspace(-6, 6, 100001).astype(np.float32)
    exact = np.array([math.erf(float(v)) for v in x])
    unit = np.spacing(np.abs(exact).astype(np.float32))
    assert (np.abs(erf(x) - exact) / unit).max() < 6
    np.testing.assert_array_equal(erf(np.float32([np.inf, -np.inf, np.nan, 0])), np.float32([1, -1, np.nan, 0]))


def test_sin_extrapolates_a_cubic_outside_pi(chip):
    dst = chip.tile(shape=(1, 2))
    isa.activation(dst, np.sin, chip.tile([[9.0, -9.0]]))
    np.testing.assert_allclose(dst.array(), [[27.65, -27.65]], atol=0.005)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e4m3"])
def test_scale_and_bias_are_applied_in_float32_before_the_function(chip, dtype):
    rng = np.random.default_rng(0)
    scale, bias = rng.standard_normal((128, 1)).astype(np.float32), rng.standard_normal((128, 1)).astype(np.float32)
    dst, data = chip.tile(shape=(128, 4, 4), dtype=dtype), chip.tile(X, dtype)
    isa.activation(dst, "tanh", data, chip.tile(bias), chip.tile(scale))
    x = data.array().astype(np.float32) * scale + bias
    expected = np.tanh(x).astype(dst.array().dtype).reshape(128, 4, 4)
    np.testing.assert_array_equal(dst.array().astype(np.float32), expected.astype(np.float32))
    isa.activation(dst, "copy", data, bias=0.5, scale=2.0)
    expected = (data.array().astype(np.float32) * 2 + np.float32(0.5)).astype(dst.array().dtype)
    np.testing.assert_array_equal(dst.array().astype(np.float32).reshape(128, 16), expected.astype(np.float32))


def test_sums_accumulate_in_the_registers_until_reset(chip):
    data, dst, out = chip.tile(np.ones((128, 16))), chip.tile(shape=(128, 16)), chip.tile(shape=(128, 1))
    isa.activation(dst, "copy", data, reduce_cmd=reduce_cmd.reset_reduce)
    isa.activation(dst, "copy", data, scale=2.0, reduce_op=np.add, reduce_cmd=reduce_cmd.reduce)
    isa.activation(dst, "copy", data)  # idle
    isa.activation(dst, "copy", data, reduce_res=out)
    assert (out.array() == 48).all()
    isa.activation(dst, "copy", data, reduce_res=out, reduce_cmd=reduce_cmd.reset)
    assert (out.array() == 0).all()
    isa.activation_reduce(dst, "square", data, np.add, out, scale=3.0)
    assert (out.array() == 16 * 9).all()


def test_a_lane_is_a_partition(chip):
    data, dst, out = chip.tile(np.ones((128, 4))), chip.tile(shape=(128, 4)), chip.tile(shape=(128, 1))
    low, high = slice(0, 64), slice(64, 128)
    isa.activation(dst[low], "copy", data[low], reduce_cmd=reduce_cmd.reset_reduce)
    isa.activation(dst[high], "copy", data[high], scale=10.0, reduce_cmd=reduce_cmd.reset_reduce)
    isa.activation(dst[low], "copy", data[low], reduce_res=out[low], reduce_cmd=reduce_cmd.reduce)
    isa.activation(dst[high], "copy", data[high], reduce_res=out[high], reduce_cmd=reduce_cmd.reduce)
    assert (out.array()[low] == 8).all()
    assert (out.array()[high] == 44).all()


def test_going_on_from_registers_never_set_is_reported(chip):
    data, dst = chip.tile(np.ones((8, 4))), chip.tile(shape=(8, 4))
    with pytest.raises(UninitializedError, match="reset_reduce"):
        isa.activation(dst, "copy", data, reduce_cmd=reduce_cmd.reduce)


@pytest.mark.parametrize("reverse", [False, True])
def test_activate2_has_six_tensor_scalar_stages_and_five_reductions(chip, reverse):
    data, dst, out = chip.tile(X), chip.tile(shape=X.shape), chip.tile(shape=(128, 1))
    x = X.astype(np.float32)
    isa.activate2(dst, "copy", data, 2.0, 0.5, np.multiply, np.subtract, reverse1=reverse)
    np.testing.assert_array_equal(dst.array(), np.float32(0.5) - x * 2 if reverse else x * 2 - np.float32(0.5))
    isa.activate2(dst, "relu", data, 0.25, 0.0, np.subtract, "bypass", reverse0=reverse)
    np.testing.assert_array_equal(dst.array(), np.maximum(np.float32(0.25) - x if reverse else x - np.float32(0.25), 0))
    isa.activate2(dst, "prelu", data, 0.0, 0.0, "bypass", "bypass", relu_param=0.125)
    np.testing.assert_array_equal(dst.array(), np.where(x > 0, x, x * np.float32(0.125)))
    by_magnitude = np.array([r[np.abs(r).argmax()] for r in x])
    for op, expected in (("maximum", x.max(1)), ("minimum", x.min(1)), ("abs_max", by_magnitude)):
        isa.activate2(
            dst,
            "copy",
            data,
            0,
            0,
            "bypass",
            "bypass",
            reduce_op=op,
            reduce_res=out,
            reduce_cmd=reduce_cmd.reset_reduce,
        )
        np.testing.assert_array_equal(out.array()[:, 0], expected)
