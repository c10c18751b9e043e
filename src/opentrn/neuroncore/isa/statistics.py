"""Mean and variance along the free axis, on the Vector engine, in parts that can be aggregated."""

from __future__ import annotations

import numpy as np

from opentrn.neuroncore.convert import storer, widen
from opentrn.neuroncore.cost import Cost, stream
from opentrn.neuroncore.instruction import ON_CHIP, Engine, In, Issue, Out, instruction
from opentrn.neuroncore.isa.shapes import flat, same_partitions, unpacked

__all__ = ["bn_aggr", "bn_stats"]


@instruction
class bn_stats:
    """Six statistics a partition: count, mean and variance * count of the elements at even positions, then at odd
    ones."""

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP))
    engines = (Engine.vector,)
    flow = "rows"

    def check(i: Issue) -> None:
        same_partitions(i, "dst", "data")
        unpacked(i, "dst", "data")
        limit = i.core.bn_stats_fmax
        if i.data.free_size > limit:
            raise i.fail(f"data has {i.data.free_size} elements a partition; bn_stats takes at most {limit}, split "
                         "the tile and "
                         "aggregate with bn_aggr")  # fmt: skip
        if i.dst.free_size != 6:
            raise i.fail(f"dst must have 6 elements a partition, not {i.dst.free_size}")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        shape, store = i.dst.shape, storer(i.dst)

        def run(core, dst, data):
            x = flat(widen(data))
            result = np.zeros((x.shape[0], 6), np.float32)
            for first in (0, 1):
                part = x[:, first::2]
                count = part.shape[1]
                if not count:
                    continue
                mean = np.add.reduce(part, axis=1, keepdims=True)
                mean /= np.float32(count)
                deviation = part - mean
                deviation *= deviation
                result[:, 3 * first] = count
                result[:, 3 * first + 1] = mean[:, 0]
                np.add.reduce(deviation, axis=1, out=result[:, 3 * first + 2])
            store(dst, result.reshape(shape))

        return run


@instruction
class bn_aggr:
    """Mean and variance a partition, of all elements behind an array of (count, mean, variance * count) triples."""

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP))
    engines = (Engine.vector,)
    flow = "rows"

    def check(i: Issue) -> None:
        same_partitions(i, "dst", "data")
        unpacked(i, "dst", "data")
        if i.data.free_size % 3:
            raise i.fail(f"data has {i.data.free_size} elements a partition; it holds triples, so a multiple of 3")
        if i.dst.free_size != 2:
            raise i.fail(f"dst must have 2 elements a partition, mean and variance, not {i.dst.free_size}")

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, 13 / 3)

    def compute(i: Issue):
        shape, store = i.dst.shape, storer(i.dst)

        def run(core, dst, data):
            x = flat(widen(data))
            count, mean, spread = x[:, 0::3], x[:, 1::3], x[:, 2::3]
            total = np.add.reduce(count, axis=1, keepdims=True)
            centre = np.add.reduce(count * mean, axis=1, keepdims=True) / total
            offset = mean - centre
            offset *= offset
            offset *= count
            offset += spread
            result = np.empty((x.shape[0], 2), np.float32)
            result[:, :1] = centre
            result[:, 1:] = np.add.reduce(offset, axis=1, keepdims=True) / total
            store(dst, result.reshape(shape))

        return run
