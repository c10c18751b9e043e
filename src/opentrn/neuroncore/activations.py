"""The activation functions of the Scalar engine, in float32.

The engine evaluates piecewise polynomials whose tables are not published; here each function is computed to float32
accuracy, except that ``sin`` runs out of its domain as the engine's does. Every function takes a float32 array and the
float32 array that receives the result, which may be the same array or None for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["Activation", "activation_function", "activation_names", "parametric_relu"]

Activation = Callable[..., np.ndarray]
"""``f(x, out=None)``; ``out`` may be ``x`` itself, or overlap nothing of it."""

_ONE = np.float32(1)
_HALF = np.float32(0.5)
_PI = np.float32(np.pi)
_INV_SQRT_2 = np.float32(np.sqrt(0.5))
_TANH_SCALE = np.float32(np.sqrt(2.0 / np.pi))

# erf(x) = x P(x^2) / Q(x^2) on [-3.92, 3.92], relative error 5.3e-8, a least-squares fit reweighted to minimax;
# beyond, float32 is 1.
_ERF_LIMIT = np.float32(3.92)
_ERF_P = (1.12837911139, 0.199721345213, 0.0505457727496, 0.0036928794133, 0.000141637371491, -1.95700008771e-6,
          1.99284968879e-8)  # fmt: skip
_ERF_Q = (1.0, 0.510330126058, 0.114913837077, 0.0143355181627, 0.000953912696685)


def _polynomial(t: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    value = t * np.float32(coefficients[-1])
    for c in coefficients[-2:0:-1]:
        value += np.float32(c)
        value *= t
    value += np.float32(coefficients[0])
    return value


def erf(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Error function to 3 units in the last place."""
    z = np.maximum(x, -_ERF_LIMIT)
    np.minimum(z, _ERF_LIMIT, out=z)
    t = z * z
    z *= _polynomial(t, _ERF_P)
    z /= _polynomial(t, _ERF_Q)
    out = np.maximum(z, -_ONE, out=out)
    return np.minimum(out, _ONE, out=out)


def _erf_dx(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    out = np.multiply(x, x, out=out)
    np.negative(out, out=out)
    np.exp(out, out=out)
    out *= np.float32(2 / np.sqrt(np.pi))
    return out


def _sigmoid(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    out = np.negative(x, out=out)
    np.exp(out, out=out)
    out += _ONE
    return np.divide(_ONE, out, out=out)


def _softplus(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``log(1 + exp(x))`` as ``max(x, 0) + log(1 + u)``, u = exp(-|x|); the quotient restores what 1 + u rounded
    away."""
    u = np.abs(x)
    np.negative(u, out=u)
    np.exp(u, out=u)
    w = u + _ONE
    tail = np.log(w)
    w -= _ONE
    tail *= u
    np.divide(tail, w, out=tail, where=w != 0)
    np.copyto(tail, u, where=w == 0)
    return np.add(np.maximum(x, np.float32(0)), tail, out=tail if out is None else out)


def _times(x: np.ndarray, gate: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    return np.multiply(x, gate, out=gate if out is None else out)


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    t = erf(x * _INV_SQRT_2)
    t += _ONE
    t *= _HALF
    return t


def _gelu(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return _times(x, _normal_cdf(x), out)


def _gelu_dx(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    density = np.multiply(x, x)
    density *= np.float32(-0.5)
    np.exp(density, out=density)
    density *= np.float32(1 / np.sqrt(2 * np.pi))
    density *= x
    return np.add(density, _normal_cdf(x), out=density if out is None else out)


def _gelu_tanh(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    t = np.multiply(x, x)
    t *= np.float32(0.044715)
    t += _ONE
    t *= x
    t *= _TANH_SCALE
    np.tanh(t, out=t)
    t += _ONE
    t *= _HALF
    return _times(x, t, out)


def _gated(slope: float) -> Activation:
    """``x * sigmoid(slope * x)``."""
    factor = np.float32(slope)

    def f(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        gate = np.multiply(x, -factor)
        np.exp(gate, out=gate)
        gate += _ONE
        return np.divide(x, gate, out=gate if out is None else out)

    return f


def _gated_dx(slope: float) -> Activation:
    """Derivative of ``x * sigmoid(slope * x)``: ``s + slope * x * s * (1 - s)``."""
    factor = np.float32(slope)

    def f(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        s = _sigmoid(x * factor)
        t = _ONE - s
        t *= s
        t *= x
        t *= factor
        return np.add(s, t, out=s if out is None else out)

    return f


def _mish(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    t = _softplus(x)
    return _times(x, np.tanh(t, out=t), out)


def _sin(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """sin inside [-pi, pi]; outside, the cubic that the engine's last polynomial piece extrapolates to.

    With d the distance from +-pi the sine is -(d - d^3 / 6); continued outwards that gives the documented sin(9.0) =
    27.65.
    """
    outside = np.abs(x) > _PI
    if not outside.any():
        return np.sin(x, out=out)
    d = x[outside]
    d -= np.copysign(_PI, d)
    result = np.sin(x, out=out)
    result[outside] = d * d * d / np.float32(6) - d
    return result


def _relu(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return np.maximum(x, np.float32(0), out=out)


def _square(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return np.multiply(x, x, out=out)


def _rsqrt(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    out = np.sqrt(x, out=out)
    return np.divide(_ONE, out, out=out)


def _reciprocal(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return np.divide(_ONE, x, out=out)


def _identity(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    if out is None or out is x:
        return x
    out[...] = x
    return out


def parametric_relu(x: np.ndarray, slope: np.ndarray | float, out: np.ndarray | None = None) -> np.ndarray:
    """``x`` where positive, ``slope * x`` elsewhere."""
    result = np.where(x > 0, x, x * slope).astype(np.float32, copy=False)
    return _identity(result, out)


_ACTIVATIONS: dict[str, Activation] = {
    "copy": _identity,
    "identity": _identity,
    "square": _square,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "gelu": _gelu,
    "gelu_dx": _gelu_dx,
    "gelu_apprx_tanh": _gelu_tanh,
    "gelu_apprx_sigmoid": _gated(1.702),
    "gelu_apprx_sigmoid_dx": _gated_dx(1.702),
    "silu": _gated(1.0),
    "silu_dx": _gated_dx(1.0),
    "tanh": np.tanh,
    "softplus": _softplus,
    "mish": _mish,
    "erf": erf,
    "erf_dx": _erf_dx,
    "exp": np.exp,
    "log": np.log,
    "sin": _sin,
    "arctan": np.arctan,
    "sqrt": np.sqrt,
    "rsqrt": _rsqrt,
    "reciprocal": _reciprocal,
    "sign": np.sign,
    "abs": np.abs,
    "absolute": np.abs,
}


def activation_names() -> tuple[str, ...]:
    """Names of the functions; ``prelu``, which takes a slope, is apart."""
    return tuple(_ACTIVATIONS)


def activation_function(op: Any) -> Activation | None:
    """The function that ``op`` (of ``nki.language``, NumPy, or a name) stands for."""
    return _ACTIVATIONS.get(op if isinstance(op, str) else getattr(op, "__name__", str(op)))
