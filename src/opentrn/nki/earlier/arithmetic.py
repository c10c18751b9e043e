"""Element-wise functions of ``nki.language``: operators, comparisons, activation functions, selection.

Operands broadcast as in NumPy. A number or one value a partition becomes the scalar operand of one ``tensor_scalar``;
two tiles one ``tensor_tensor``; functions of one operand one ``activation``. The result has the type of the widest
operand unless ``dtype`` says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from opentrn.neuroncore import alu, isa, machine
from opentrn.neuroncore.dtypes import DType, bool_, float32, is_float, is_integer
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.earlier.movement import column_or_number
from opentrn.nki.earlier.operands import (
    Deferred,
    Tile,
    aligned,
    broadcast_shape,
    dtype_of,
    flush,
    in_sbuf,
    is_number,
    number,
    on_chip,
    pieces,
    promote,
    ranges_of,
    region_of,
    tile_of,
)

_psum = MemoryRegion.psum
_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "maximum": max,
    "minimum": min,
    "power": lambda a, b: a**b,
    "mod": lambda a, b: a % b,
}


def _is_column(tile: Tile, shape: tuple[int, ...], par: int) -> bool:
    """Whether a tile is one value a partition of an instruction on ``shape``."""
    own = tile.shape
    n = own[tile.par]
    return tile.size == n and n == shape[par] and (tile.par == par or len(own) != len(shape) or n == 1)


def _binary(op: str, x: Any, y: Any, dtype: Any, mask: Any, default: DType | None = None) -> Any:
    flush()
    if is_number(x) and is_number(y):
        return _NUMBERS[op](x, y) if op in _NUMBERS else getattr(np, op)(x, y)
    reverse = is_number(x)
    if reverse:
        x, y = y, x
    a = on_chip(tile_of(x), f"an operand of nl.{op}")
    if is_number(y):
        y = number(y)
        return _with_scalar(op, a, y, reverse, _result_type(op, a.dtype, y, dtype, default), mask, a.shape, a.par)
    b = on_chip(tile_of(y), f"an operand of nl.{op}")
    kind = _result_type(op, a.dtype, b.dtype, dtype, default)
    shape = a.shape if a.shape == b.shape else broadcast_shape(a.shape, b.shape)
    par = a.par if len(a.shape) == len(shape) else b.par
    if a.size != a.shape[a.par] or b.size != b.shape[b.par]:
        # (P, 1) against a tile: the scalar operand of one instruction.
        if _is_column(b, shape, par) and a.shape == shape:
            return _with_scalar(op, a, b, False, kind, mask, shape, par)
        if _is_column(a, shape, par) and b.shape == shape:
            return _with_scalar(op, b, a, True, kind, mask, shape, b.par)
    region = region_of(mask, shape, x, y)
    if region is False:
        return _nothing(shape, kind, par)
    ranges = ranges_of(region)
    if a.buffer is _psum and b.buffer is _psum:
        b = in_sbuf(b)
    left, right = aligned(a, shape, par, ranges), aligned(b, shape, par, ranges)

    def emit(dst: NkiTensor) -> None:
        for to, first, second in pieces(dst, left, right):
            isa.tensor_tensor(to, first, second, op)

    return Deferred(shape, kind, emit, par=par, region=region).defer()


def _result_type(op: str, a: DType, b: Any, dtype: Any, default: DType | None) -> DType:
    if dtype is not None:
        return dtype_of(dtype, a)
    if default is not None:
        return default
    kind = promote(a, b)
    return float32 if op == "divide" and is_integer(kind) else kind


def _with_scalar(op: str, a: Tile, scalar: Any, reverse: bool, kind: DType, mask: Any, shape: tuple, par: int) -> Tile:
    region = region_of(mask, shape, a, scalar)
    if region is False:
        return _nothing(shape, kind, par)
    ranges = ranges_of(region)
    data = aligned(a, shape, par, ranges)
    operand = scalar
    if type(scalar) is Tile:
        found = alu.operator(op)
        operand = column_or_number(scalar, ranges[par] if ranges is not None else None, not (found and found.bitvec))

    def emit(dst: NkiTensor) -> None:
        for to, source in pieces(dst, data):
            isa.tensor_scalar(to, source, op, operand, reverse0=reverse)

    return Deferred(shape, kind, emit, par=par, region=region).defer()


def _nothing(shape: tuple[int, ...], kind: DType, par: int = 0) -> Tile:
    """The result of a call whose mask leaves no element: a tile that nothing writes."""
    return Deferred(shape, kind, lambda *_: None, par=par, region=False).defer()


def _operator(name: str, op: str, doc: str, default: DType | None = None) -> Callable[..., Any]:
    def function(x: Any, y: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
        return _binary(op, x, y, dtype, mask, default)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}, element by element; tiles and numbers broadcast."
    return function


add = _operator("add", "add", "x + y")
subtract = _operator("subtract", "subtract", "x - y")
multiply = _operator("multiply", "multiply", "x * y")
divide = _operator("divide", "divide", "x / y")
power = _operator("power", "power", "x ** y")
maximum = _operator("maximum", "maximum", "The larger of x and y")
minimum = _operator("minimum", "minimum", "The smaller of x and y")
mod = _operator("mod", "mod", "x mod y, with the sign of y")
fmod = _operator("fmod", "fmod", "x mod y, with the sign of x")
equal = _operator("equal", "equal", "x == y", bool_)
not_equal = _operator("not_equal", "not_equal", "x != y", bool_)
less = _operator("less", "less", "x < y", bool_)
less_equal = _operator("less_equal", "less_equal", "x <= y", bool_)
greater = _operator("greater", "greater", "x > y", bool_)
greater_equal = _operator("greater_equal", "greater_equal", "x >= y", bool_)
logical_and = _operator("logical_and", "logical_and", "x and y", bool_)
logical_or = _operator("logical_or", "logical_or", "x or y", bool_)
logical_xor = _operator("logical_xor", "logical_xor", "x differs from y as a truth value", bool_)
bitwise_and = _operator("bitwise_and", "bitwise_and", "x & y on the bits of integers")
bitwise_or = _operator("bitwise_or", "bitwise_or", "x | y on the bits of integers")
bitwise_xor = _operator("bitwise_xor", "bitwise_xor", "x ^ y on the bits of integers")
left_shift = _operator("left_shift", "left_shift", "x << y")
right_shift = _operator("right_shift", "right_shift", "x >> y")


def floor_divide(x: Any, y: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """floor(x / y), element by element."""
    kind = dtype_of(
        dtype,
        _result_type("add", x.dtype if type(x) is Tile else y.dtype, y.dtype if type(y) is Tile else y, None, None),
    )
    return floor(divide(x, y, dtype=float32, mask=mask), dtype=kind, mask=mask)


# Functions of one operand


def unary(
    op: str,
    x: Any,
    dtype: Any,
    mask: Any,
    emit_with: Callable[[NkiTensor, NkiTensor], None],
    default: DType | None = None,
) -> Any:
    """A tile of the shape of ``x`` that ``emit_with(dst, data)`` computes."""
    flush()
    tile = on_chip(tile_of(x, f"the operand of nl.{op}"), f"the operand of nl.{op}")
    kind = dtype_of(dtype, default or tile.dtype)
    region = region_of(mask, tile.shape, tile)
    if region is False:
        return _nothing(tile.shape, kind, tile.par)
    data = aligned(tile, tile.shape, tile.par, ranges_of(region))
    return Deferred(tile.shape, kind, lambda dst: emit_with(dst, data), par=tile.par, region=region).defer()


_HOST = {
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "tanh": math.tanh,
    "sin": math.sin,
    "abs": abs,
    "square": lambda v: v * v,
    "rsqrt": lambda v: 1 / math.sqrt(v),
    "reciprocal": lambda v: 1 / v,
}


def _activate(op: str, dst: NkiTensor, data: NkiTensor) -> None:
    for to, source in pieces(dst, data):
        isa.activation(to, op, source)


def _activation(name: str, doc: str, op: str | None = None) -> Callable[..., Any]:
    chosen = op or name

    def function(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
        if is_number(x) and name in _HOST:
            return _HOST[name](x)
        default = (
            float32
            if type(x) is Tile and is_integer(x.dtype) and name not in ("abs", "sign", "square", "relu")
            else None
        )
        return unary(name, x, dtype, mask, lambda dst, data: _activate(chosen, dst, data), default)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}, element by element, on the Scalar engine."
    return function


exp = _activation("exp", "e ** x")
log = _activation("log", "Natural logarithm")
sin = _activation("sin", "Sine, for x in [-pi, pi]")
tanh = _activation("tanh", "Hyperbolic tangent")
arctan = _activation("arctan", "Inverse tangent")
sqrt = _activation("sqrt", "Square root")
rsqrt = _activation("rsqrt", "Reciprocal square root")
square = _activation("square", "x * x")
abs = _activation("abs", "Absolute value")
sign = _activation("sign", "-1, 0 or 1")
relu = _activation("relu", "max(x, 0)")
sigmoid = _activation("sigmoid", "1 / (1 + e ** -x)")
silu = _activation("silu", "x * sigmoid(x)")
silu_dx = _activation("silu_dx", "Derivative of silu")
gelu = _activation("gelu", "Gaussian error linear unit")
gelu_dx = _activation("gelu_dx", "Derivative of gelu")
gelu_apprx_tanh = _activation("gelu_apprx_tanh", "gelu with the tanh approximation")
gelu_apprx_sigmoid = _activation("gelu_apprx_sigmoid", "gelu with the sigmoid approximation")
softplus = _activation("softplus", "log(1 + e ** x)")
mish = _activation("mish", "x * tanh(softplus(x))")
erf = _activation("erf", "Error function")
erf_dx = _activation("erf_dx", "Derivative of the error function")


def reciprocal(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """1 / x, element by element, on the Vector engine."""
    if is_number(x):
        return 1 / x
    return unary("reciprocal", x, dtype, mask, lambda dst, data: isa.reciprocal(dst, data))


def negative(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """-x, element by element."""
    return multiply(x, -1, dtype=dtype, mask=mask)


def cos(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """Cosine, as sin(x + pi/2) brought into the sine's range of [-pi, pi]."""

    def emit(dst: NkiTensor, data: NkiTensor) -> None:
        turned = machine.current().allocate(data.layout.shape, float32, MemoryRegion.sbuf)
        isa.tensor_scalar(turned, data, "add", 1.5 * math.pi, op1="mod", operand1=2 * math.pi)
        isa.tensor_scalar(turned, turned, "subtract", math.pi)
        isa.activation(dst, "sin", turned)

    return unary("cos", x, dtype, mask, emit, float32 if type(x) is Tile and is_integer(x.dtype) else None)


def tan(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """Tangent, as sin(x) / cos(x)."""
    return divide(sin(x, dtype=float32, mask=mask), cos(x, dtype=float32, mask=mask), dtype=dtype or x.dtype, mask=mask)


def _rounding(name: str, doc: str, emit_float: Callable[[NkiTensor, NkiTensor], None]) -> Callable[..., Any]:
    def function(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
        if is_number(x):
            return getattr(np, name)(x)
        if type(x) is Tile and not is_float(x.dtype):
            return unary(name, x, dtype, mask, lambda dst, data: isa.tensor_copy(dst, data))
        return unary(name, x, dtype, mask, emit_float)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}, element by element, by a modulus and a subtraction on the Vector engine."
    return function


def _fraction(data: NkiTensor, op: str, scale: float = 1.0) -> NkiTensor:
    part = machine.current().allocate(data.layout.shape, float32, MemoryRegion.sbuf)
    if scale == 1.0:
        isa.tensor_scalar(part, data, op, 1.0)
    else:
        isa.tensor_scalar(part, data, "multiply", scale, op1=op, operand1=1.0)
    return part


def _floor(dst: NkiTensor, data: NkiTensor) -> None:
    isa.tensor_tensor(dst, data, _fraction(data, "mod"), "subtract")


def _ceil(dst: NkiTensor, data: NkiTensor) -> None:
    isa.tensor_tensor(dst, data, _fraction(data, "mod", -1.0), "add")


def _trunc(dst: NkiTensor, data: NkiTensor) -> None:
    isa.tensor_tensor(dst, data, _fraction(data, "fmod"), "subtract")


floor = _rounding("floor", "The largest integer not above x", _floor)
ceil = _rounding("ceil", "The smallest integer not below x", _ceil)
trunc = _rounding("trunc", "x without its fraction", _trunc)


def invert(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """~x on the bits of integers."""
    return unary("invert", x, dtype, mask, lambda dst, data: isa.tensor_scalar(dst, data, "invert", 0))


bitwise_not = invert


def logical_not(x: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """Whether x is 0, element by element."""
    return equal(x, 0, dtype=dtype, mask=mask)


def where(condition: Any, x: Any, y: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """x where the condition holds and y elsewhere: a copy or fill with y, and a predicated copy of x over it."""
    flush()
    chosen = on_chip(tile_of(condition, "the condition of nl.where"), "the condition of nl.where")
    shape, par = chosen.shape, chosen.par
    tiles = [t if is_number(t) else on_chip(tile_of(t), "an operand of nl.where") for t in (x, y)]
    for t in tiles:
        if type(t) is Tile:
            wider = broadcast_shape(shape, t.shape)
            par = par if wider == shape else t.par
            shape = wider
    a, b = (number(t) if is_number(t) else t for t in tiles)
    own = [t.dtype for t in tiles if type(t) is Tile]
    default = (
        promote(own[0], own[1]) if len(own) == 2 else promote(own[0], a if is_number(a) else b) if own else float32
    )
    kind = dtype_of(dtype, default)
    region = region_of(mask, shape, chosen, a, b)
    if region is False:
        return _nothing(shape, kind, par)
    ranges = ranges_of(region)
    if chosen.buffer is _psum:
        chosen = in_sbuf(chosen)
    if is_float(chosen.dtype):
        chosen = not_equal(chosen, 0.0, dtype="uint8")
        flush()
    elif chosen.dtype.kind == "int":
        chosen = chosen.view(f"u{chosen.dtype}")
    predicate = aligned(chosen, shape, par, ranges)
    on_true: Any = a if is_number(a) else aligned(a, shape, par, ranges)
    on_false = b if is_number(b) else aligned(b, shape, par, ranges)

    def emit(dst: NkiTensor) -> None:
        if is_number(on_false):
            isa.memset(dst, on_false)
        else:
            isa.tensor_copy(dst, on_false)
        source: Any = on_true
        if is_number(on_true):
            source = machine.current().allocate(dst.layout.shape, kind, MemoryRegion.sbuf)
            isa.memset(source, on_true)
        elif on_true.layout.dtype is not dst.layout.dtype:
            source = machine.current().allocate(dst.layout.shape, kind, MemoryRegion.sbuf)
            isa.tensor_copy(source, on_true)
        isa.tensor_copy_predicated(dst, source, predicate)

    sources = (predicate.storage,) if is_number(on_true) else (predicate.storage, on_true.storage)
    return Deferred(shape, kind, emit, par=par, region=region, sources=sources).defer()


def dropout(x: Any, rate: Any, *, dtype: Any = None, mask: Any = None, **_: Any) -> Any:
    """x with elements set to 0 at the probability ``rate`` (a number or one value a partition)."""
    from opentrn.nki.earlier.isa import dropout as instruction

    return instruction(x, rate, mask=mask, dtype=dtype)


__all__ = [
    "abs",
    "add",
    "arctan",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "ceil",
    "cos",
    "divide",
    "dropout",
    "equal",
    "erf",
    "erf_dx",
    "exp",
    "floor",
    "floor_divide",
    "fmod",
    "gelu",
    "gelu_apprx_sigmoid",
    "gelu_apprx_tanh",
    "gelu_dx",
    "greater",
    "greater_equal",
    "invert",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mish",
    "mod",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "reciprocal",
    "relu",
    "right_shift",
    "rsqrt",
    "sigmoid",
    "sign",
    "silu",
    "silu_dx",
    "sin",
    "softplus",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]
