"""One kernel for everything that works row by row: element-wise arithmetic, reductions along a row, and their fusions.

What to compute comes as a small program, so softmax, norms, losses and optimizer steps are programs and not kernels
of their own.
Rows go to partitions; every value of the program stays in SBUF, and only arguments and results touch HBM.
"""

from __future__ import annotations

from typing import Any

import opentrn.nki as nki
import opentrn.nki.isa as nisa
import opentrn.nki.language as nl

__all__ = ["Step", "fused_rows"]

Step = tuple[str, str, tuple[Any, ...]]
"""(kind, operator, operands): ``binary`` two values; ``scalar`` a value and a number; ``reverse`` a number and a
value (number on the
left); ``activation`` a value; ``reduce`` a value, giving a column. Values are numbered: the inputs first, then a
value a step."""

_TILE = 128


@nki.jit
def fused_rows(inputs: Any, steps: Any, results: Any, rows: int, columns: int, dtypes: Any) -> Any:
    """Run ``steps`` on all rows.

    Args:
        inputs: arrays (rows, columns), (rows, 1) a number a row, or (1, columns) one row for all.
        steps: a tuple of :data:`Step`.
        results: numbers of the values to return; ``dtypes``: their types.

    Returns:
        An array a result, (rows, columns), or (rows, 1) where the value is a column.
    """
    widths = _widths(inputs, steps, columns)
    outs = [nl.ndarray((rows, widths[v]), dtype=d, buffer=nl.shared_hbm) for v, d in zip(results, dtypes, strict=True)]
    shared = {k: _spread(a, columns, min(_TILE, rows)) for k, a in enumerate(inputs) if a.shape[0] == 1 and rows > 1}
    for first in range(0, rows, _TILE):
        height = min(_TILE, rows - first)
        values: list[Any] = []
        for k, a in enumerate(inputs):
            if k in shared:
                values.append(shared[k][0:height, 0:columns])
                continue
            tile = nl.ndarray((height, widths[k]), dtype=a.dtype, buffer=nl.sbuf)
            nisa.dma_copy(dst=tile, src=a[first : first + height, 0 : widths[k]])
            values.append(tile)
        for number, step in enumerate(steps, len(inputs)):
            values.append(_compute(step, values, height, widths[number]))
        for out, v, dtype in zip(outs, results, dtypes, strict=True):
            tile = values[v]
            if tile.dtype is not dtype:
                converted = nl.ndarray((height, widths[v]), dtype=dtype, buffer=nl.sbuf)
                nisa.tensor_copy(dst=converted, src=tile)
                tile = converted
            nisa.dma_copy(dst=out[first : first + height, 0 : widths[v]], src=tile)
    return tuple(outs)


def _widths(inputs: Any, steps: Any, columns: int) -> list[int]:
    widths = [a.shape[1] for a in inputs]
    for kind, _, operands in steps:
        if kind == "reduce":
            widths.append(1)
        elif kind == "binary":
            widths.append(max(widths[operands[0]], widths[operands[1]]))
        else:
            widths.append(widths[operands[1] if kind == "reverse" else operands[0]])
    return widths


def _spread(row: Any, columns: int, height: int) -> Any:
    """One row of HBM on every partition."""
    tile = nl.ndarray((height, columns), dtype=row.dtype, buffer=nl.sbuf)
    for p in range(height):
        nisa.dma_copy(dst=tile[p : p + 1, 0:columns], src=row[0:1, 0:columns])
    return tile


def _compute(step: Any, values: list[Any], height: int, width: int) -> Any:
    kind, name, operands = step
    out = nl.ndarray((height, width), dtype=nl.float32, buffer=nl.sbuf)
    if kind == "activation":
        data = values[operands[0]]
        if name == "reciprocal":
            nisa.reciprocal(dst=out, data=data)
        else:
            nisa.activation(dst=out, op=getattr(nl, name), data=data)
    elif kind == "scalar":
        nisa.tensor_scalar(dst=out, data=values[operands[0]], op0=getattr(nl, name), operand0=operands[1])
    elif kind == "reverse":
        nisa.tensor_scalar(
            dst=out, data=values[operands[1]], op0=getattr(nl, name), operand0=operands[0], reverse0=True
        )
    elif kind == "reduce":
        nisa.tensor_reduce(dst=out, op=getattr(nl, name), data=values[operands[0]], axis=1, keepdims=True)
    else:
        a, b = values[operands[0]], values[operands[1]]
        if a.shape[1] == b.shape[1]:
            nisa.tensor_tensor(dst=out, data1=a, data2=b, op=getattr(nl, name))
        elif b.shape[1] == 1:
            nisa.tensor_scalar(dst=out, data=a, op0=getattr(nl, name), operand0=_column(b))
        else:
            nisa.tensor_scalar(dst=out, data=b, op0=getattr(nl, name), operand0=_column(a), reverse0=True)
    return out


def _column(value: Any) -> Any:
    """A column operand is float32."""
    if value.dtype is nl.float32:
        return value
    wide = nl.ndarray((value.shape[0], 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_copy(dst=wide, src=value)
    return wide
