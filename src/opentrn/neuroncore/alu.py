"""The operators of the compute engines' arithmetic units.

Vector, Scalar and GpSimd compute in float32 whatever the operands' types; bit-vector operators work on integers as they
stand. The callables that a kernel passes as ``op`` (``nl.add``, ``np.add``) are matched by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from opentrn.neuroncore.activations import activation_function
from opentrn.neuroncore.convert import as_float32

__all__ = ["Operator", "activation_function", "as_float32", "named", "operator", "operators"]

Function = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Operator:
    """An ALU operator.

    Attributes:
        name: as in ``nki.language``.
        function: ``f(a, b, out=None)`` on float32 arrays, or on integers for bit-vector operators; unary ones ignore
        ``b``.
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

    @property
    def comparison(self) -> bool:
        """Whether it compares two numbers."""
        return self.name in _COMPARISONS


_COMPARISONS = ("equal", "not_equal", "greater_equal", "greater", "less_equal", "less")


def _shift_left(a: np.ndarray, b: Any, out: np.ndarray | None = None) -> np.ndarray:
    """Shift on the bit pattern; a shift by the width or more leaves nothing."""
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return np.left_shift(a.view(unsigned), np.asarray(b).astype(unsigned)).view(a.dtype)


def _shift_right(a: np.ndarray, b: Any, out: np.ndarray | None = None) -> np.ndarray:
    """Logical shift: zeros enter from the left whatever the sign."""
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return np.right_shift(a.view(unsigned), np.asarray(b).astype(unsigned)).view(a.dtype)


def _abs_max(a: Any, b: Any, out: np.ndarray | None = None) -> Any:
    """The operand of larger magnitude, with its sign; ``b`` where they tie."""
    return _bypass(np.where(np.abs(a) > np.abs(b), a, b), out=out)


def _abs_min(a: Any, b: Any, out: np.ndarray | None = None) -> Any:
    """The operand of smaller magnitude, with its sign; ``b`` where they tie."""
    return _bypass(np.where(np.abs(a) < np.abs(b), a, b), out=out)


def _abs(a: Any, b: Any = None, out: np.ndarray | None = None) -> Any:
    return np.abs(a, out=out)


def _square(a: Any, b: Any = None, out: np.ndarray | None = None) -> Any:
    return np.multiply(a, a, out=out)


def _rsqrt(a: Any, b: Any = None, out: np.ndarray | None = None) -> Any:
    return np.divide(np.float32(1), np.sqrt(a, out=out), out=out)


def _reciprocal(a: Any, b: Any = None, out: np.ndarray | None = None) -> Any:
    return np.divide(np.float32(1), a, out=out)


def _relu(a: Any, b: Any = None, out: np.ndarray | None = None) -> Any:
    return np.maximum(a, np.float32(0), out=out)


def _bypass(a: Any, b: Any = None, out: np.ndarray | None = None) -> Any:
    if out is None or out is a:
        return a
    out[...] = a
    return out


def _invert(a: Any, b: Any = None, out: np.ndarray | None = None) -> Any:
    return np.invert(a)


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
    Operator("logical_and", np.logical_and, reduction=np.logical_and, logical=True, identity=1.0),
    Operator("logical_or", np.logical_or, reduction=np.logical_or, logical=True),
    Operator("logical_xor", np.logical_xor, reduction=np.logical_xor, logical=True),
    Operator("abs", _abs, unary=True),
    Operator("square", _square, unary=True),
    Operator("relu", _relu, unary=True),
    Operator("rsqrt", _rsqrt, unary=True),
    Operator("reciprocal", _reciprocal, unary=True),
    Operator("bypass", _bypass, unary=True),
    Operator("invert", _invert, bitvec=True, unary=True),
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
        "amax": _BY_NAME["maximum"], "amin": _BY_NAME["minimum"], "pow": _BY_NAME["power"],
        "float_power": _BY_NAME["power"],
        "mean": _BY_NAME["average"],
    }
)  # fmt: skip


def operators() -> tuple[Operator, ...]:
    """Every ALU operator."""
    return _OPERATORS


def named(name: str) -> Operator:
    """The operator of that name."""
    return _BY_NAME[name]


def operator(op: Any) -> Operator | None:
    """The operator that ``op`` (a function of ``nki.language``, a NumPy ufunc or a name) stands for."""
    return _BY_NAME.get(op if isinstance(op, str) else getattr(op, "__name__", str(op)))
