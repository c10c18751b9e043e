"""What the collectives compute: reference semantics on one NumPy array a rank.

Every function takes the inputs of all ranks of a group, in group order, and returns the outputs of all ranks as new
arrays. Sums and products of floating-point types narrower than 32 bits accumulate in fp32 and are rounded once to the
input's type; other types accumulate in their own (integers wrap). Ranks are combined in group order, so results do not
depend on an algorithm or on timing.
"""

from collections.abc import Sequence
from functools import reduce

import ml_dtypes
import numpy as np

from opentrn.errors import OpenTrnError

__all__ = [
    "REDUCTIONS",
    "all_gather",
    "all_reduce",
    "all_to_all",
    "all_to_all_v",
    "broadcast",
    "permute",
    "reduce_scatter",
    "send_recv",
]

_COMBINE = {
    "add": np.add,
    "mean": np.add,
    "multiply": np.multiply,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
_ALIASES = {"sum": "add", "avg": "mean", "prod": "multiply", "product": "multiply", "min": "minimum", "max": "maximum"}
REDUCTIONS = tuple(_COMBINE)


def all_reduce(inputs: Sequence[np.ndarray], op: str = "add") -> list[np.ndarray]:
    """Every rank gets the reduction of all inputs (equal shapes and dtypes)."""
    total = _reduced(_checked(inputs), op)
    return [total.copy() for _ in inputs]


def all_gather(inputs: Sequence[np.ndarray], axis: int = 0) -> list[np.ndarray]:
    """Every rank gets all inputs concatenated along an axis, by rank."""
    arrays = _checked(inputs)
    whole = np.concatenate(arrays, axis=_axis(arrays[0], axis))
    return [whole.copy() for _ in arrays]


def reduce_scatter(inputs: Sequence[np.ndarray], op: str = "add", axis: int = 0) -> list[np.ndarray]:
    """Rank r gets the r-th equal part, along an axis, of the reduction of all inputs."""
    arrays = _checked(inputs)
    axis = _axis(arrays[0], axis)
    _divides(arrays[0], axis, len(arrays), "reduce-scatter")
    return [part.copy() for part in np.split(_reduced(arrays, op), len(arrays), axis=axis)]


def all_to_all(inputs: Sequence[np.ndarray], split_axis: int = 0, concat_axis: int | None = None) -> list[np.ndarray]:
    """Rank r gets the r-th part of every input, concatenated by source rank.

    split_axis: the axis along which each input is cut into equal parts. concat_axis: the axis along which the received
    parts are joined, the same when None.
    """
    arrays = _checked(inputs)
    split_axis = _axis(arrays[0], split_axis)
    concat_axis = split_axis if concat_axis is None else _axis(arrays[0], concat_axis)
    _divides(arrays[0], split_axis, len(arrays), "all-to-all")
    parts = [np.split(array, len(arrays), axis=split_axis) for array in arrays]
    return [np.concatenate([part[rank] for part in parts], axis=concat_axis) for rank in range(len(arrays))]


def all_to_all_v(inputs: Sequence[np.ndarray], send_counts: np.ndarray | Sequence[Sequence[int]]) -> list[np.ndarray]:
    """All-to-all of unequal parts along axis 0: rank i sends `send_counts[i][j]` rows to rank j, in order of j."""
    arrays = [np.asarray(array) for array in inputs]
    counts = np.asarray(send_counts, dtype=np.int64)
    ranks = len(arrays)
    if counts.shape != (ranks, ranks) or counts.min(initial=0) < 0:
        raise OpenTrnError(f"all-to-all-v of {ranks} ranks needs {ranks} x {ranks} counts of 0 or more")
    for rank, array in enumerate(arrays):
        if counts[rank].sum() > len(array):
            raise OpenTrnError(f"rank {rank} sends {counts[rank].sum()} rows of an input that has {len(array)}")
    starts = np.cumsum(counts, axis=1) - counts
    return [
        np.concatenate([arrays[i][starts[i, j] : starts[i, j] + counts[i, j]] for i in range(ranks)])
        for j in range(ranks)
    ]


def permute(inputs: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]] | None = None) -> list[np.ndarray]:
    """Rank `target` gets the input of rank `source` for each (source, target); ranks that receive nothing get zeros.

    pairs: a circular shift to the next rank when None. No rank may receive twice.
    """
    arrays = _checked(inputs)
    ranks = len(arrays)
    pairs = [(rank, (rank + 1) % ranks) for rank in range(ranks)] if pairs is None else list(pairs)
    targets = [target for _, target in pairs]
    if len(set(targets)) != len(targets) or any(not 0 <= rank < ranks for pair in pairs for rank in pair):
        raise OpenTrnError(f"permute pairs name ranks 0 to {ranks - 1}, each as a target at most once; got {pairs}")
    outputs = [np.zeros_like(array) for array in arrays]
    for source, target in pairs:
        outputs[target] = arrays[source].copy()
    return outputs


def broadcast(inputs: Sequence[np.ndarray], root: int = 0) -> list[np.ndarray]:
    """Every rank gets the root's input."""
    arrays = _checked(inputs)
    if not 0 <= root < len(arrays):
        raise OpenTrnError(f"the root of a broadcast over {len(arrays)} ranks is 0 to {len(arrays) - 1}, got {root}")
    return [arrays[root].copy() for _ in arrays]


def send_recv(inputs: Sequence[np.ndarray], source: int, target: int) -> list[np.ndarray]:
    """Rank `target` gets the input of rank `source`; the others keep their own."""
    arrays = _checked(inputs)
    outputs = [array.copy() for array in arrays]
    if not (0 <= source < len(arrays) and 0 <= target < len(arrays)):
        raise OpenTrnError(f"a transfer over {len(arrays)} ranks names ranks 0 to {len(arrays) - 1}")
    outputs[target] = arrays[source].copy()
    return outputs


def _reduced(arrays: list[np.ndarray], op: str) -> np.ndarray:
    name = _ALIASES.get(op, op)
    if name not in _COMBINE:
        raise OpenTrnError(f"unknown reduction {op!r}; use one of {', '.join((*_COMBINE, *_ALIASES))}")
    dtype = arrays[0].dtype
    floating = ml_dtypes.finfo(dtype).bits if _is_float(dtype) else None
    # Minimum and maximum are exact in any type; comparing in fp32 gives the same and avoids gaps in narrow types.
    wide = np.dtype(np.float32) if floating is not None and floating < 32 else dtype
    total = reduce(_COMBINE[name], (array.astype(wide) for array in arrays))
    if name == "mean":
        if floating is None:
            raise OpenTrnError(f"a mean needs a floating-point type, got {dtype}")
        total = total / wide.type(len(arrays))
    return np.asarray(total).astype(dtype)


def _is_float(dtype: np.dtype) -> bool:
    try:
        ml_dtypes.finfo(dtype)
    except (ValueError, TypeError):
        return False
    return dtype.kind in "fV"


def _checked(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    arrays = [np.asarray(array) for array in inputs]
    if not arrays:
        raise OpenTrnError("a collective needs at least one rank")
    for rank, array in enumerate(arrays):
        if array.shape != arrays[0].shape or array.dtype != arrays[0].dtype:
            raise OpenTrnError(
                f"rank {rank} brings {array.dtype}{list(array.shape)} to a collective of "
                f"{arrays[0].dtype}{list(arrays[0].shape)}; shapes and types must be equal on all ranks"
            )
    return arrays


def _axis(array: np.ndarray, axis: int) -> int:
    if not -array.ndim <= axis < array.ndim:
        raise OpenTrnError(f"axis {axis} does not exist in a tensor of {array.ndim} dimensions")
    return axis % array.ndim


def _divides(array: np.ndarray, axis: int, ranks: int, what: str) -> None:
    if array.shape[axis] % ranks:
        raise OpenTrnError(f"{what} over {ranks} ranks cannot split {array.shape[axis]} elements of axis {axis} evenly")
