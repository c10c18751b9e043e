"""The arithmetic of the compute engines: operators, activation functions, and conversion between types.

Vector, Scalar and GpSimd compute in float32 whatever the operands' types; bit-vector operators work on integers as they
stand. The callables that a kernel passes as ``op`` (``nl.add``, ``np.add``) are matched by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Operator", "activation_function", "as_float32", "operator", "operators"]

Function = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Operator:
    """An ALU operator.

    Attributes:
        name: as in ``nki.language``.
        function: on float32 arrays, or integers for bit-vector operators; ``None`` for ``bypass``.
        bitvec: works on bit patterns of integers, without conversion.
        unary: takes no second operand.
        reduction: NumPy ufunc for use as a reduction, where the hardware allows one.
        identity: start value of a reduction.
        logical: result is 0 or 1.
    """

    name: str
    function: Function
    bitvec: bool = False
    unary: bool = False
    reduction: np.ufunc | None = None
    identity: float = 0.0
    logical: bool = False


def as_float32(array: Any) -> Any:
    """Values as the engines see them; float32 arrays and numbers pass unchanged."""
    if type(array) is not np.ndarray:
        return np.float32(array) if not isinstance(array, np.generic) else array.astype(np.float32)
    return array if array.dtype == np.float32 else array.astype(np.float32)


def _shift_left(a: np.ndarray, b: Any) -> np.ndarray:
    return np.left_shift(a, np.asarray(b).astype(a.dtype))


def _shift_right(a: np.ndarray, b: Any) -> np.ndarray:
    """Logical shift: zeros enter from the left whatever the sign."""
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return np.right_shift(a.view(unsigned), np.asarray(b).astype(unsigned)).view(a.dtype)


def _logical(function: np.ufunc) -> Function:
    return lambda a, b: function(a != 0, b != 0)


def _abs_max(a: Any, b: Any) -> Any:
    return np.maximum(np.abs(a), np.abs(b))


def _abs_min(a: Any, b: Any) -> Any:
    return np.minimum(np.abs(a), np.abs(b))


def _rsqrt(a: Any, b: Any = None) -> Any:
    return np.float32(1) / np.sqrt(a)


def _reciprocal(a: Any, b: Any = None) -> Any:
    return np.float32(1) / a


def _relu(a: Any, b: Any = None) -> Any:
    return np.maximum(a, np.float32(0))


_OPERATORS = (
    Operator("add", np.add, reduction=np.add),
    Operator("subtract", np.subtract, reduction=np.subtract),
    Operator("multiply", np.multiply, reduction=np.multiply, identity=1.0),
    Operator("divide", np.divide),
    Operator("maximum", np.maximum, reduction=np.maximum, identity=-np.inf),
    Operator("minimum", np.minimum, reduction=np.minimum, identity=np.inf),
    Operator("abs_max", _abs_max),
    Operator("abs_min", _abs_min, identity=np.inf),
    Operator("power", np.power),
    Operator("mod", np.mod),
    Operator("fmod", np.fmod),
    Operator("average", np.add, reduction=np.add),
    Operator("equal", np.equal, logical=True),
    Operator("not_equal", np.not_equal, logical=True),
    Operator("greater_equal", np.greater_equal, logical=True),
    Operator("greater", np.greater, logical=True),
    Operator("less_equal", np.less_equal, logical=True),
    Operator("less", np.less, logical=True),
    Operator("logical_and", _logical(np.logical_and), logical=True, identity=1.0),
    Operator("logical_or", _logical(np.logical_or), logical=True),
    Operator("logical_xor", _logical(np.logical_xor), logical=True),
    Operator("abs", lambda a, b=None: np.abs(a), unary=True),
    Operator("square", lambda a, b=None: np.square(a), unary=True),
    Operator("relu", _relu, unary=True),
    Operator("rsqrt", _rsqrt, unary=True),
    Operator("reciprocal", _reciprocal, unary=True),
    Operator("bypass", lambda a, b=None: a, unary=True),
    Operator("invert", lambda a, b=None: np.invert(a), bitvec=True, unary=True),
    Operator("bitwise_and", np.bitwise_and, bitvec=True, reduction=np.bitwise_and, identity=-1),
    Operator("bitwise_or", np.bitwise_or, bitvec=True, reduction=np.bitwise_or),
    Operator("bitwise_xor", np.bitwise_xor, bitvec=True, reduction=np.bitwise_xor),
    Operator("left_shift", _shift_left, bitvec=True),
    Operator("right_shift", _shift_right, bitvec=True),
)
_BY_NAME = {op.name: op for op in _OPERATORS}
# Names of NumPy functions and earlier API releases for the same operators.
_BY_NAME.update(
    {
        "max": _BY_NAME["maximum"], "min": _BY_NAME["minimum"], "true_divide": _BY_NAME["divide"],
        "absolute": _BY_NAME["abs"], "sum": _BY_NAME["add"], "prod": _BY_NAME["multiply"], "mult": _BY_NAME["multiply"],
        "bitwise_not": _BY_NAME["invert"], "remainder": _BY_NAME["mod"], "copy": _BY_NAME["bypass"],
        "amax": _BY_NAME["maximum"], "amin": _BY_NAME["minimum"], "pow": _BY_NAME["power"], "float_power": _BY_NAME["power"],
    }
)  # fmt: skip


def operators() -> tuple[Operator, ...]:
    """Every ALU operator."""
    return _OPERATORS


def _name_of(op: Any) -> str:
    return op if isinstance(op, str) else getattr(op, "__name__", str(op))


def operator(op: Any) -> Operator | None:
    """The operator that ``op`` (a function of ``nki.language``, a NumPy ufunc or a name) stands for."""
    return _BY_NAME.get(_name_of(op))


# Activation functions of the Scalar engine, on float32 arrays.

_SQRT_2 = np.float32(np.sqrt(2.0))
_TANH_SCALE = np.float32(np.sqrt(2.0 / np.pi))


def _erf(x: np.ndarray) -> np.ndarray:
    """Error function; rational approximation of Numerical Recipes' erfc, relative error below 1.2e-7."""
    z = np.abs(x)
    t = np.float32(1) / (np.float32(1) + np.float32(0.5) * z)
    coefficients = (0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196,
                    1.00002368, -1.26551223)  # fmt: skip
    poly = np.zeros_like(t)
    for c in coefficients:
        poly = poly * t + np.float32(c)
    tail = t * np.exp(-z * z + poly)
    return np.where(x >= 0, np.float32(1) - tail, tail - np.float32(1)).astype(np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, np.float32(0))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.float32(0.5) * x * (1 + np.tanh(_TANH_SCALE * (x + np.float32(0.044715) * x * x * x)))


def _gelu_dx(x: np.ndarray) -> np.ndarray:
    density = np.exp(np.float32(-0.5) * x * x) * np.float32(1 / np.sqrt(2 * np.pi))
    return np.float32(0.5) * (1 + _erf(x / _SQRT_2)) + x * density


def _sigmoid_gate_dx(x: np.ndarray, slope: float) -> np.ndarray:
    s = _sigmoid(np.float32(slope) * x)
    return s + np.float32(slope) * x * s * (1 - s)


def _sin_without_reduction(x: np.ndarray) -> np.ndarray:
    """sin inside [-pi, pi]; outside, the cubic that the engine's last polynomial piece extrapolates to."""
    inside = np.abs(x) <= np.float32(np.pi)
    # Near +-pi the sine is -(d - d^3/6) with d the distance from the edge: the third-order expansion continued outwards.
    edge = np.where(x >= 0, np.float32(np.pi), np.float32(-np.pi))
    d = x - edge
    return np.where(inside, np.sin(x), -(d - d * d * d / np.float32(6))).astype(np.float32)


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "copy": lambda x: x,
    "identity": lambda x: x,
    "square": np.square,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "gelu": lambda x: np.float32(0.5) * x * (1 + _erf(x / _SQRT_2)),
    "gelu_dx": _gelu_dx,
    "gelu_apprx_tanh": _gelu_tanh,
    "gelu_apprx_sigmoid": lambda x: x * _sigmoid(np.float32(1.702) * x),
    "gelu_apprx_sigmoid_dx": lambda x: _sigmoid_gate_dx(x, 1.702),
    "silu": lambda x: x * _sigmoid(x),
    "silu_dx": lambda x: _sigmoid_gate_dx(x, 1.0),
    "tanh": np.tanh,
    "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "erf": _erf,
    "erf_dx": lambda x: np.float32(2 / np.sqrt(np.pi)) * np.exp(-x * x),
    "exp": np.exp,
    "log": np.log,
    "sin": _sin_without_reduction,
    "arctan": np.arctan,
    "sqrt": np.sqrt,
    "rsqrt": _rsqrt,
    "reciprocal": _reciprocal,
    "sign": np.sign,
    "abs": np.abs,
    "absolute": np.abs,
}


def activation_function(op: Any) -> Callable[[np.ndarray], np.ndarray] | None:
    """The Scalar-engine function that ``op`` stands for (``prelu`` apart, which takes a slope)."""
    return _ACTIVATIONS.get(_name_of(op))
