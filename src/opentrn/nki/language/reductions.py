"""Reductions along the last free dimensions, and the normalisations made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import as_dtype, float32, is_float
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.language.operands import broadcast_shape, expanded, fail, new_tile, promoted, require_tile

__all__ = ["all", "max", "mean", "min", "prod", "rms_norm", "softmax", "sum", "var"]

Axis = int | Sequence[int]


def _axes(x: NkiTensor, axis: Axis, what: str) -> tuple[int, ...]:
    """The axes as positive numbers, checked to be the last free dimensions."""
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(sorted(a + x.ndim if a < 0 else a for a in given))
    if not axes or axes[0] < 1 or axes != tuple(range(axes[0], x.ndim)):
        raise fail(what, f"axis {axis} of {list(x.shape)}: the axes must be the last free dimensions, never 0")
    return axes


def _count(x: NkiTensor, axes: tuple[int, ...]) -> int:
    count = 1
    for a in axes:
        count *= x.shape[a]
    return count


def _reduced(
    op: str, x: NkiTensor, axes: tuple[int, ...], dtype: Any, keepdims: bool, negate: bool = False
) -> NkiTensor:
    shape = x.shape[: axes[0]]
    result = new_tile((*shape, *(1,) * len(axes)), dtype)
    isa.tensor_reduce(result, op, x, axes, negate)
    return (
        result
        if keepdims or len(shape) < 2 and x.ndim == 2
        else result.reshape(shape if len(shape) > 1 else (*shape, 1))
    )


def _reduction(what: str, op: str, x: NkiTensor, axis: Axis, dtype: Any, keepdims: bool) -> NkiTensor:
    axes = _axes(require_tile(x, what), axis, what)
    return _reduced(op, x, axes, promoted(x, dtype=dtype), keepdims)


def sum(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Sum along the last free dimensions, accumulated in float32."""
    return _reduction("sum", "add", x, axis, dtype, keepdims)


def max(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Largest element along the last free dimensions."""
    return _reduction("max", "maximum", x, axis, dtype, keepdims)


def min(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Smallest element along the last free dimensions."""
    return _reduction("min", "minimum", x, axis, dtype, keepdims)


def prod(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Product along the last free dimensions, in float32."""
    return _reduction("prod", "multiply", x, axis, dtype, keepdims)


def all(x: NkiTensor, axis: Axis, dtype: Any = None) -> NkiTensor:
    """1 where every element along the last free dimensions is nonzero, else 0."""
    return _reduction("all", "logical_and", x, axis, dtype, False)


def mean(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Arithmetic mean along the last free dimensions, in float32."""
    axes = _axes(require_tile(x, "mean"), axis, "mean")
    total = _reduced("add", x, axes, float32, keepdims)
    result = new_tile(total.shape, promoted(x, dtype=dtype))
    isa.tensor_scalar(result, total, "multiply", 1.0 / _count(x, axes))
    return result


def var(x: NkiTensor, axis: Axis, dtype: Any = None, keepdims: bool = False) -> NkiTensor:
    """Variance (population) along the last free dimensions, in float32; reduced dimensions always stay, as size 1."""
    axes = _axes(require_tile(x, "var"), axis, "var")
    centre = mean(x, axis, float32, keepdims=True)
    difference = new_tile(x.shape, float32)
    isa.tensor_tensor(difference, x, expanded(centre, x.shape), "subtract")
    isa.activation(difference, "square", difference)
    total = _reduced("add", difference, axes, float32, True)
    result = new_tile(total.shape, promoted(x, dtype=dtype))
    isa.tensor_scalar(result, total, "multiply", 1.0 / _count(x, axes))
    return result


def softmax(x: NkiTensor, axis: Axis = -1, dtype: Any = None) -> NkiTensor:
    """Exponentials that sum to 1 along the last free dimensions; the largest element is subtracted first."""
    axes = _axes(require_tile(x, "softmax"), axis, "softmax")
    negated = _reduced("maximum", x, axes, float32, True, negate=True)
    exponentials = new_tile(x.shape, float32)
    if axes[0] == 1:
        totals = new_tile(negated.shape, float32)
        column = negated.reshape((x.shape[0], 1))
        isa.activation_reduce(exponentials, "exp", x, "add", totals.reshape((x.shape[0], 1)), column)
    else:
        isa.tensor_tensor(exponentials, x, expanded(negated, x.shape), "add")
        isa.activation(exponentials, "exp", exponentials)
        totals = _reduced("add", exponentials, axes, float32, True)
    isa.reciprocal(totals, totals)
    result = new_tile(x.shape, promoted(x, dtype=dtype))
    isa.tensor_tensor(result, exponentials, expanded(totals, x.shape), "multiply")
    return result


def rms_norm(
    x: NkiTensor, w: NkiTensor, axis: Axis, n: int, epsilon: float = 1e-06, dtype: Any = None, compute_dtype: Any = None
) -> NkiTensor:
    """``x / sqrt(sum(x ** 2) / n + epsilon) * w``.

    Args:
        n: number of values the mean is taken over, which may be more than this tile holds.
        compute_dtype: type of the intermediate results; float32 unless given.
    """
    axes = _axes(require_tile(x, "rms_norm"), axis, "rms_norm")
    require_tile(w, "rms_norm")
    kind = float32 if compute_dtype is None else as_dtype(compute_dtype)
    if not is_float(kind):
        raise fail("rms_norm", f"compute_dtype {kind} is not a float")
    squares = new_tile(x.shape, kind)
    isa.activation(squares, "square", x)
    scale = _reduced("add", squares, axes, kind, True)
    isa.tensor_scalar(scale, scale, "multiply", 1.0 / n, False, "add", epsilon)
    isa.activation(scale, "rsqrt", scale)
    scaled = new_tile(x.shape, kind)
    isa.tensor_tensor(scaled, x, expanded(scale, x.shape), "multiply")
    result = new_tile(x.shape, promoted(x, dtype=dtype))
    isa.tensor_tensor(result, scaled, expanded(w, broadcast_shape("rms_norm", x, w)), "multiply")
    return result
