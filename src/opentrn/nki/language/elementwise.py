"""Arithmetic, comparison, logic and bits, element by element.

Each function issues one instruction: ``tensor_tensor`` for two tiles, ``tensor_scalar`` for a tile and a number or a
(P, 1) column. Arithmetic is float32 (integers of 32 bits exact, between tiles); the result is rounded to its type once.
"""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import isa
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.language.operands import broadcast_shape, expanded, fail, in_sbuf, new_tile, promoted, require_tile

__all__ = [
    "abs", "abs_max", "abs_min", "add", "average", "bitwise_and", "bitwise_or", "bitwise_xor", "bypass", "divide",
    "equal",
    "fmod", "greater", "greater_equal", "invert", "left_shift", "less", "less_equal", "logical_and", "logical_not",
    "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply", "negative", "not_equal", "power",
    "right_shift",
    "subtract",
]  # fmt: skip


def binary(op: str, x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """A tile of ``x <op> y``; at least one of them a tile, the other a tile that broadcasts or a number."""
    tiles = [v for v in (x, y) if isinstance(v, NkiTensor)]
    if not tiles:
        raise fail(op, f"at least one operand must be a tile, not {x!r} and {y!r}")
    for tile in tiles:
        require_tile(tile, op)
    kind = promoted(x, y, dtype=dtype)
    if len(tiles) == 1:
        result = new_tile(tiles[0].shape, kind)
        isa.tensor_scalar(result, tiles[0], op, y if tiles[0] is x else x, tiles[0] is not x)
        return result
    shape = broadcast_shape(op, x, y)
    result = new_tile(shape, kind)
    x, y = expanded(x, shape), expanded(y, shape)
    if x.buffer is MemoryRegion.psum and y.buffer is MemoryRegion.psum:
        y = in_sbuf(y)  # one instruction reads PSUM through one operand only
    isa.tensor_tensor(result, x, y, op)
    return result


def unary(op: str, x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """A tile of ``<op> x`` by an ALU operator of one operand."""
    result = new_tile(require_tile(x, op).shape, promoted(x, dtype=dtype))
    isa.tensor_scalar(result, x, op, 0)
    return result


def add(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """``x + y``."""
    return binary("add", x, y, dtype)


def subtract(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """``x - y``."""
    return binary("subtract", x, y, dtype)


def multiply(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """``x * y``."""
    return binary("multiply", x, y, dtype)


def divide(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """``x / y``."""
    return binary("divide", x, y, dtype)


def maximum(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """The larger of ``x`` and ``y``."""
    return binary("maximum", x, y, dtype)


def minimum(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """The smaller of ``x`` and ``y``."""
    return binary("minimum", x, y, dtype)


def abs_max(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Whichever of ``x`` and ``y`` is larger in magnitude, with its sign; ``y`` on a tie (NeuronCore-v4 and later)."""
    return binary("abs_max", x, y, dtype)


def abs_min(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Whichever of ``x`` and ``y`` is smaller in magnitude, with its sign; ``y`` on a tie (NeuronCore-v4 and later)."""
    return binary("abs_min", x, y, dtype)


def power(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """``x`` to the power of ``y``."""
    return binary("power", x, y, dtype)


def mod(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Remainder of ``x / y`` with the sign of ``y``."""
    return binary("mod", x, y, dtype)


def fmod(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Remainder of ``x / y`` with the sign of ``x``."""
    return binary("fmod", x, y, dtype)


def equal(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where ``x == y``, else 0; in the type of the tiles unless ``dtype`` is given."""
    return binary("equal", x, y, dtype)


def not_equal(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where ``x != y``, else 0; in the type of the tiles unless ``dtype`` is given."""
    return binary("not_equal", x, y, dtype)


def less(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where ``x < y``, else 0; in the type of the tiles unless ``dtype`` is given."""
    return binary("less", x, y, dtype)


def less_equal(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where ``x <= y``, else 0; in the type of the tiles unless ``dtype`` is given."""
    return binary("less_equal", x, y, dtype)


def greater(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where ``x > y``, else 0; in the type of the tiles unless ``dtype`` is given."""
    return binary("greater", x, y, dtype)


def greater_equal(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where ``x >= y``, else 0; in the type of the tiles unless ``dtype`` is given."""
    return binary("greater_equal", x, y, dtype)


def logical_and(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where both are nonzero, else 0."""
    return binary("logical_and", x, y, dtype)


def logical_or(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where either is nonzero, else 0."""
    return binary("logical_or", x, y, dtype)


def logical_xor(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """1 where exactly one is nonzero, else 0."""
    return binary("logical_xor", x, y, dtype)


def logical_not(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x`` exclusive-or 1, for tiles of 0 and 1."""
    return binary("logical_xor", x, 1, dtype)


def bitwise_and(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Bits set in both; integers only."""
    return binary("bitwise_and", x, y, dtype)


def bitwise_or(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Bits set in either; integers only."""
    return binary("bitwise_or", x, y, dtype)


def bitwise_xor(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Bits set in exactly one; integers only."""
    return binary("bitwise_xor", x, y, dtype)


def invert(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """All bits flipped; integers only."""
    return binary("bitwise_xor", x, -1, dtype)


def left_shift(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Bits of ``x`` moved up by ``y``; integers only."""
    return binary("left_shift", x, y, dtype)


def right_shift(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Bits of ``x`` moved down by ``y``, zeros entering; integers only."""
    return binary("right_shift", x, y, dtype)


def negative(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``-x``."""
    return binary("multiply", require_tile(x, "negative"), -1, dtype)


def abs(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """Magnitude of ``x``."""
    return unary("abs", x, dtype)


def bypass(x: NkiTensor, dtype: Any = None) -> NkiTensor:
    """``x`` unchanged; as an ``op`` it skips a stage of an instruction."""
    return unary("bypass", x, dtype)


def average(x: Any, y: Any, dtype: Any = None) -> NkiTensor:
    """Mean of ``x`` and ``y``; as an ``op`` it names the averaging reduction."""
    kind = promoted(x, y, dtype=dtype)
    return binary("multiply", binary("add", x, y, "float32"), 0.5, kind)
