"""Functions of the Scalar engine on tiles, and the trigonometric ones with their arguments brought into the engine's
range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import float32, int32
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.language.operands import new_tile, promoted, require_tile

__all__ = [
    "arctan", "cos", "erf", "erf_dx", "exp", "gelu", "gelu_apprx_sigmoid", "gelu_apprx_sigmoid_dx", "gelu_apprx_tanh",
    "gelu_dx", "log", "mish", "prelu", "reciprocal", "relu", "rsqrt", "sigmoid", "sign", "silu", "silu_dx", "sin",
    "softplus", "sqrt", "square", "tan", "tanh",
]  # fmt: skip

# 2 pi in three parts (Cody and Waite): the first two have so few bits that their products with a count of turns are
# exact.
_TURN = (6.28125, 0.0019350051879882812, 2.0 * math.pi - 6.28125 - 0.0019350051879882812)
_PI = float(np.float32(math.pi))


def _apply(op: str, x: NkiTensor, dtype: Any) -> NkiTensor:
    result = new_tile(require_tile(x, op).shape, promoted(x, dtype=dtype))
    isa.activation(result, op, x)
    return result


def exp(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """e to the power of ``x``."""
    return _apply("exp", x, dtype)


def log(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Natural logarithm."""
    return _apply("log", x, dtype)


def sqrt(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Square root."""
    return _apply("sqrt", x, dtype)


def rsqrt(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Reciprocal of the square root."""
    return _apply("rsqrt", x, dtype)


def square(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x`` squared."""
    return _apply("square", x, dtype)


def sign(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """-1, 0 or 1."""
    return _apply("sign", x, dtype)


def tanh(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Hyperbolic tangent."""
    return _apply("tanh", x, dtype)


def sigmoid(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``1 / (1 + exp(-x))``."""
    return _apply("sigmoid", x, dtype)


def relu(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x`` where positive, else 0."""
    return _apply("relu", x, dtype)


def prelu(x: NkiTensor, dtype: Any = None, slope: float = 0.0) -> NkiTensor:
    """``x`` where positive, ``slope * x`` elsewhere; as an ``op``, the slope is the instruction's ``relu_param``."""
    scaled = new_tile(require_tile(x, "prelu").shape, float32)
    result = new_tile(x.shape, promoted(x, dtype=dtype))
    isa.tensor_scalar(scaled, x, "minimum", 0.0, False, "multiply", slope)
    isa.scalar_tensor_tensor(result, x, "maximum", 0.0, "add", scaled)
    return result


def gelu(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x`` times the normal distribution function of ``x``."""
    return _apply("gelu", x, dtype)


def gelu_dx(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Derivative of :func:`gelu`."""
    return _apply("gelu_dx", x, dtype)


def gelu_apprx_tanh(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """GELU by its approximation with tanh."""
    return _apply("gelu_apprx_tanh", x, dtype)


def gelu_apprx_sigmoid(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """GELU by its approximation ``x * sigmoid(1.702 x)``."""
    return _apply("gelu_apprx_sigmoid", x, dtype)


def gelu_apprx_sigmoid_dx(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Derivative of :func:`gelu_apprx_sigmoid`."""
    return _apply("gelu_apprx_sigmoid_dx", x, dtype)


def silu(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x * sigmoid(x)``."""
    return _apply("silu", x, dtype)


def silu_dx(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Derivative of :func:`silu`."""
    return _apply("silu_dx", x, dtype)


def softplus(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``log(1 + exp(x))``."""
    return _apply("softplus", x, dtype)


def mish(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x * tanh(softplus(x))``."""
    return _apply("mish", x, dtype)


def erf(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Error function."""
    return _apply("erf", x, dtype)


def erf_dx(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Derivative of :func:`erf`."""
    return _apply("erf_dx", x, dtype)


def reciprocal(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``1 / x``, on the Vector engine."""
    result = new_tile(require_tile(x, "reciprocal").shape, promoted(x, dtype=dtype))
    isa.reciprocal(result, x)
    return result


def _wrapped(x: NkiTensor, shift: float) -> NkiTensor:
    """``x + shift`` less whole turns, in [-pi, pi] (float32)."""
    turns, count, angle = new_tile(x.shape, float32), new_tile(x.shape, int32), new_tile(x.shape, float32)
    isa.tensor_scalar(turns, x, "add", shift, False, "multiply", 1.0 / (2.0 * math.pi))
    isa.tensor_copy(count, turns)
    isa.tensor_copy(turns, count)
    isa.tensor_copy(angle, x)
    for part in _TURN:
        isa.scalar_tensor_tensor(angle, turns, "multiply", -part, "add", angle)
    # The sum may end a rounding error outside.
    isa.tensor_scalar(angle, angle, "add", shift, False, "minimum", _PI)
    isa.tensor_scalar(angle, angle, "maximum", -_PI)
    return angle


def sin(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Sine of any angle; as an ``op`` of an instruction, valid in [-pi, pi] only."""
    result = new_tile(require_tile(x, "sin").shape, promoted(x, dtype=dtype))
    isa.activation(result, "sin", _wrapped(x, 0.0))
    return result


def cos(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Cosine of any angle: the sine a quarter turn on."""
    result = new_tile(require_tile(x, "cos").shape, promoted(x, dtype=dtype))
    isa.activation(result, "sin", _wrapped(x, math.pi / 2))
    return result


def tan(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Tangent of any angle: sine over cosine."""
    result = new_tile(require_tile(x, "tan").shape, promoted(x, dtype=dtype))
    isa.tensor_tensor(result, sin(x, float32), cos(x, float32), "divide")
    return result


def arctan(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Inverse tangent of any number.

    The engine's function is valid in [-pi/2, pi/2]; beyond 1 in magnitude, ``sign(x) * pi/2 - arctan(1/x)`` is taken.
    """
    require_tile(x, "arctan")
    shape = x.shape
    wide, magnitude, inside = (new_tile(shape, float32) for _ in range(3))
    isa.tensor_copy(wide, x)
    isa.tensor_scalar(magnitude, wide, "abs", 0, False, "maximum", 1.0)
    # 1/x where |x| > 1 and x elsewhere, both as sign(x) * min(|x|, 1/max(|x|, 1)).
    isa.reciprocal(magnitude, magnitude)
    isa.tensor_scalar(inside, wide, "abs", 0)
    isa.tensor_tensor(inside, inside, magnitude, "minimum")
    angle, far, sign_x = (new_tile(shape, float32) for _ in range(3))
    isa.activation(angle, "arctan", inside)
    isa.tensor_scalar(far, wide, "abs", 0, False, "greater", 1.0)
    # far ? pi/2 - angle : angle, as angle + far * (pi/2 - 2 angle).
    rest = new_tile(shape, float32)
    isa.tensor_scalar(rest, angle, "multiply", -2.0, False, "add", math.pi / 2)
    isa.tensor_tensor(rest, rest, far, "multiply")
    isa.tensor_tensor(angle, angle, rest, "add")
    isa.activation(sign_x, "sign", wide)
    result = new_tile(shape, promoted(x, dtype=dtype))
    isa.tensor_tensor(result, angle, sign_x, "multiply")
    return result
