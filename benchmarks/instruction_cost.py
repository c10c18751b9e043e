"""Host time of each compute instruction: at a tile where arithmetic is negligible, and at a full one against bare
NumPy.

    python benchmarks/instruction_cost.py

Microseconds a call, the fastest of several runs. The NumPy column is the least that the same values need: the
operations on float32 arrays that exist already, without any conversion, check or record.
"""

from __future__ import annotations

import argparse
import timeit
from collections.abc import Callable

import ml_dtypes
import numpy as np

from opentrn import hardware
from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.isa.settings import engine, reduce_cmd
from opentrn.neuroncore.program import Recorder


def per_call_us(call: Callable[[], object], slice_s: float = 0.002, repeats: int = 25) -> float:
    """Fastest of many short runs, in microseconds a call; short ones, because other processes share the machine."""
    call()
    timer = timeit.Timer(call)
    number = max(1, int(slice_s / max(min(timer.repeat(3, 1)), 1e-7)))
    return min(timer.repeat(repeats, number)) / number * 1e6


def cases(columns: int) -> dict[str, tuple[Callable[[], object], Callable[[], object] | None]]:
    """Name -> (instruction, the same in NumPy)."""
    core = machine.current()
    rng = np.random.default_rng(0)

    def tile(dtype: str = "float32", width: int = columns, values: np.ndarray | None = None):
        tensor = core.allocate((128, width), dtype)
        array = tensor.array()
        array[...] = np.abs(rng.standard_normal((128, width))) if values is None else values
        tensor.storage.state = 2
        return tensor

    a, b, d = tile(), tile(), tile()
    ha, hd, f8 = tile("bfloat16"), tile("bfloat16"), tile("float8_e4m3")
    col, res, mask = tile(width=1), tile(width=1), tile("uint8", values=rng.integers(0, 2, (128, columns)))
    words = tile("int32", values=rng.integers(0, 100, (128, columns)))
    index = tile("uint32", values=rng.integers(0, columns, (128, columns)))
    top, places = tile(width=8), tile("uint32", 8, np.zeros((128, 8)))
    wide = tile(width=max(columns, 8))
    x, y, z = a.array(), b.array(), np.empty((128, columns), np.float32)
    half, c = ha.array(), col.array()
    halves = np.empty((128, columns), ml_dtypes.bfloat16)
    lanes, steps = np.arange(128)[:, None], np.arange(columns)[None]
    stats = tile(width=6)
    small = [[-1, columns]]
    both = dict(reduce_res=res, reduce_cmd=reduce_cmd.reset_reduce)
    return {
        "tensor_copy": (lambda: isa.tensor_copy(d, a), lambda: np.copyto(z, x)),
        "tensor_copy to bf16": (lambda: isa.tensor_copy(hd, a), lambda: x.astype(ml_dtypes.bfloat16)),
        "tensor_copy to fp8": (lambda: isa.tensor_copy(f8, a), None),
        "tensor_copy from fp8": (lambda: isa.tensor_copy(d, f8), None),
        "tensor_copy to int32": (lambda: isa.tensor_copy(words, a), lambda: np.rint(x).astype(np.int32)),
        "memset": (lambda: isa.memset(d, 0.0), lambda: z.fill(0)),
        "tensor_tensor": (lambda: isa.tensor_tensor(d, a, b, np.add), lambda: np.add(x, y, out=z)),
        "tensor_tensor bf16": (
            lambda: isa.tensor_tensor(hd, ha, ha, np.add),
            lambda: np.copyto(halves, np.add(half.astype(np.float32), half.astype(np.float32)), casting="unsafe"),
        ),
        "tensor_scalar, 1 op": (lambda: isa.tensor_scalar(d, a, np.multiply, 2.0), lambda: np.multiply(x, 2.0, out=z)),
        "tensor_scalar, 2 ops": (
            lambda: isa.tensor_scalar(d, a, np.multiply, col, False, np.add, 1.0),
            lambda: np.add(np.multiply(x, c), 1.0, out=z),
        ),
        "scalar_tensor_tensor": (
            lambda: isa.scalar_tensor_tensor(d, a, np.multiply, 2.0, np.add, b),
            lambda: np.add(np.multiply(x, 2.0), y, out=z),
        ),
        "activation copy": (lambda: isa.activation(d, "copy", a), lambda: np.copyto(z, x)),
        "activation exp": (lambda: isa.activation(d, "exp", a), lambda: np.exp(x, out=z)),
        "activation exp, fused": (
            lambda: isa.activation(d, "exp", a, bias=col, scale=0.5, **both),
            lambda: np.exp(np.add(np.multiply(x, 0.5), c), out=z).sum(axis=1),
        ),
        "activation gelu": (lambda: isa.activation(d, "gelu", a), None),
        "activation_reduce": (
            lambda: isa.activation_reduce(d, "square", a, np.add, res),
            lambda: np.multiply(x, x, out=z).sum(axis=1),
        ),
        "tensor_reduce max": (lambda: isa.tensor_reduce(res, np.maximum, a, 1), lambda: x.max(axis=1)),
        "tensor_reduce add": (lambda: isa.tensor_reduce(res, np.add, a, 1), lambda: x.sum(axis=1)),
        "tensor_partition_reduce": (lambda: isa.tensor_partition_reduce(d[0:1], np.add, a), lambda: x.sum(axis=0)),
        "tensor_scalar_reduce": (
            lambda: isa.tensor_scalar_reduce(d, a, np.multiply, 2.0, np.maximum, res),
            lambda: np.multiply(x, 2.0, out=z).max(axis=1),
        ),
        "exponential": (
            lambda: isa.exponential(d, a, col, res, reduce_cmd.reset_reduce),
            lambda: np.exp(np.subtract(x, c), out=z).sum(axis=1),
        ),
        "range_select": (
            lambda: isa.range_select(d, a, np.greater_equal, np.less, col, col, **both),
            lambda: np.where((steps >= c) & (steps < c), x, np.float32(-1)).max(axis=1),
        ),
        "select_reduce": (
            lambda: isa.select_reduce(d, mask, a, 0.0),
            lambda: np.where(mask.array() != 0, x, np.float32(0)),
        ),
        "tensor_copy_predicated": (
            lambda: isa.tensor_copy_predicated(d, a, mask),
            lambda: np.copyto(z, x, where=mask.array() != 0),
        ),
        "affine_select": (
            lambda: isa.affine_select(d, small, 1, a, -1.0, np.greater_equal),
            lambda: np.copyto(z, np.where(lanes - steps >= 0, x, np.float32(-1))),
        ),
        "iota": (lambda: isa.iota(d, small), lambda: np.copyto(z, lanes - steps)),
        "tensor_tensor_scan": (lambda: isa.tensor_tensor_scan(d, a, b, 0.0, np.multiply, np.add), None),
        "tensor_scalar_cumulative": (
            lambda: isa.tensor_scalar_cumulative(d, a, np.add, np.add, 0.0),
            lambda: np.add.accumulate(x, axis=1),
        ),
        "bn_stats": (lambda: isa.bn_stats(stats, a), lambda: (x.mean(axis=1), x.var(axis=1))),
        "nc_stream_shuffle": (lambda: isa.nc_stream_shuffle(d, a, [0] * 32), None),
        "nc_n_gather": (
            lambda: isa.nc_n_gather(d, a, index),
            lambda: np.take_along_axis(x, index.array().astype(np.int64), 1),
        ),
        "max8": (lambda: isa.max8(top, wide), None),
        "nc_find_index8": (lambda: isa.nc_find_index8(places, wide, top), None),
        "rng": (lambda: isa.rng(index, engine.vector), None),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Host time of each compute instruction.")
    parser.add_argument("--record", action="store_true", help="record a Program as a profiled launch does")
    arguments = parser.parse_args()
    np.seterr(all="ignore")
    recorder = Recorder() if arguments.record else None
    machine.state.core = machine.Core(hardware.chip("trn3").core, recorder=recorder)
    small, large = cases(4), cases(512)
    print(f"{'instruction':<26}{'128x4 us':>10}{'128x512 us':>12}{'NumPy us':>10}{'ratio':>7}")
    for name, (call, bare) in large.items():
        tiny, full = per_call_us(small[name][0]), per_call_us(call)
        floor = per_call_us(bare) if bare is not None else None
        reference = f"{floor:10.1f}{full / floor:7.2f}" if floor else ""
        print(f"{name:<26}{tiny:10.1f}{full:12.1f}{reference}")


if __name__ == "__main__":
    main()
