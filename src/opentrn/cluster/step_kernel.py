"""The compiled part of a training step: chunks of layers, the pipeline, gradient exchange and the optimizer.

One call simulates many layouts. Columns are laid out by the constants below, one row a layout; per-stack values stand
in arrays [layout, stack]. Times are in microseconds.
"""

import numpy as np
from numba import njit

from opentrn.cluster.pipeline import pipeline_ends

# Integer columns.
SCHEDULE, PP, CHUNKS, MICRO, ZERO, OVERLAP = range(6)
NUM_INT = 6
# Per-stack times of one layer.
FORWARD, BACKWARD, INPUT, WEIGHT, GATHER, REDUCE, UPDATE, REFRESH = range(8)
NUM_LAYER = 8
# Times outside the layers: embedding and head passes, their gradient exchange, update and refresh, the neighbour send,
# the least time of a micro-batch that the host allows, and the launch of a graph.
(
    FIRST_FORWARD,
    FIRST_BACKWARD,
    LAST_FORWARD,
    LAST_BACKWARD,
    LAST_WEIGHT,
    EDGE_REDUCE,
    EDGE_UPDATE,
    EDGE_REFRESH,
    SEND,
    HOST,
    DISPATCH,
) = range(11)
NUM_EDGE = 11
# Results: the step, and what it is made of on the slowest rank.
STEP, PASSES, EXCHANGE, UPDATE_TIME, BUSY = range(5)
NUM_RESULT = 5


@njit(cache=True)
def sharded_pass(num_layers, compute, gather, reduce):
    """Time of a run of layers whose weights are gathered before use and whose gradients are scattered after it.

    Two streams: gathers run ahead of compute by at most one layer (two buffers), scatters follow it; both share the
    communication stream, where the next gather goes before the last scatter.
    """
    if num_layers == 0:
        return 0.0
    comm = gather
    compute_end, previous_end = 0.0, 0.0
    arrived = gather
    for layer in range(num_layers):
        begin = max(compute_end, arrived)
        previous_end, compute_end = compute_end, begin + compute
        if layer + 1 < num_layers:
            comm = max(comm, previous_end) + gather
            arrived = comm
        if reduce > 0.0:
            comm = max(comm, compute_end) + reduce
    return max(compute_end, comm)


@njit(cache=True)
def layers_between(first, last, offsets, stack):
    """How many layers of a stack fall into the half-open range [first, last) of the whole model."""
    return max(0, min(last, offsets[stack + 1]) - max(first, offsets[stack]))


@njit(cache=True)
def chunk_times(ints, layer, edge, offsets, forward, backward, inputs, weights):
    """Fill [rank, chunk] pass times of one layout from its layer times."""
    pp, chunks, zero = ints[PP], ints[CHUNKS], ints[ZERO]
    total, pieces = offsets[-1], ints[PP] * ints[CHUNKS]
    for rank in range(pp):
        for chunk in range(chunks):
            piece = chunk * pp + rank
            first, last = piece * total // pieces, (piece + 1) * total // pieces
            f, b, i, w = 0.0, 0.0, 0.0, 0.0
            for stack in range(len(offsets) - 1):
                n = layers_between(first, last, offsets, stack)
                gather = layer[stack, GATHER] if zero == 3 else 0.0
                reduce = layer[stack, REDUCE] if zero >= 2 else 0.0
                f += sharded_pass(n, layer[stack, FORWARD], gather, 0.0)
                b += sharded_pass(n, layer[stack, BACKWARD], gather, reduce)
                i += sharded_pass(n, layer[stack, INPUT], gather, 0.0)
                w += sharded_pass(n, layer[stack, WEIGHT], 0.0, reduce)
            if piece == 0:
                f += edge[FIRST_FORWARD]
                b += edge[FIRST_BACKWARD]
                w += edge[FIRST_BACKWARD]
            if piece == pieces - 1:
                f += edge[LAST_FORWARD]
                b += edge[LAST_BACKWARD]
                i += edge[LAST_BACKWARD] - edge[LAST_WEIGHT]
                w += edge[LAST_WEIGHT]
            # Launching the graph of a pass leaves the device idle; forward and backward of a micro-batch are one graph.
            f += edge[DISPATCH]
            # A host that traces each micro-batch paces the device: passes cannot be shorter than its share.
            host = edge[HOST] / pieces
            if f + b < host:
                scale = host / (f + b)
                f, b, i, w = f * scale, b * scale, i * scale, w * scale
            forward[rank, chunk], backward[rank, chunk], inputs[rank, chunk], weights[rank, chunk] = f, b, i, w


@njit(cache=True)
def lower_bounds(ints, layer, edge, offsets):
    """A time that no schedule of a layout can beat: every pass of every micro-batch on the busiest rank, back to back.
    The pipeline only adds waiting; exchange and update only add to the end."""
    bounds = np.empty(len(ints))
    for row in range(len(ints)):
        pp, chunks = ints[row, PP], ints[row, CHUNKS]
        f, b, i, w = np.empty((pp, chunks)), np.empty((pp, chunks)), np.empty((pp, chunks)), np.empty((pp, chunks))
        chunk_times(ints[row], layer[row], edge[row], offsets, f, b, i, w)
        worst = 0.0
        for rank in range(pp):
            busy = i[rank].sum() + w[rank].sum() if ints[row, SCHEDULE] == 2 else b[rank].sum()
            worst = max(worst, f[rank].sum() + busy)
        bounds[row] = ints[row, MICRO] * worst
    return bounds


@njit(cache=True)
def simulate_steps(ints, layer, edge, offsets):
    """Simulate one step of each layout: results [layout, NUM_RESULT] (see the constants above)."""
    results = np.empty((len(ints), NUM_RESULT))
    total = offsets[-1]
    for row in range(len(ints)):
        pp, chunks, micro, zero = ints[row, PP], ints[row, CHUNKS], ints[row, MICRO], ints[row, ZERO]
        f, b, i, w = np.empty((pp, chunks)), np.empty((pp, chunks)), np.empty((pp, chunks)), np.empty((pp, chunks))
        chunk_times(ints[row], layer[row], edge[row], offsets, f, b, i, w)
        ends = pipeline_ends(ints[row, SCHEDULE], pp, chunks, micro, f, b, i, w, edge[row, SEND])
        pieces = pp * chunks
        step, slowest = 0.0, 0
        for rank in range(pp):
            end = ends[rank]
            ready = end
            update, refresh = 0.0, 0.0
            if zero < 2:
                # Gradients of the last micro-batch appear layer by layer, from the last layer of the rank's last chunk
                # in backward order; one communication stream reduces them in that order.
                comm = 0.0
                remaining = 0.0
                for chunk in range(chunks):
                    piece = chunk * pp + rank
                    for stack in range(len(offsets) - 1):
                        n = layers_between(piece * total // pieces, (piece + 1) * total // pieces, offsets, stack)
                        remaining += n * layer[row, stack, BACKWARD]
                for reverse in range(chunks):
                    chunk = chunks - 1 - reverse
                    piece = chunk * pp + rank
                    first, last = piece * total // pieces, (piece + 1) * total // pieces
                    for reverse_stack in range(len(offsets) - 1):
                        stack = len(offsets) - 2 - reverse_stack
                        for _ in range(layers_between(first, last, offsets, stack)):
                            remaining -= layer[row, stack, BACKWARD]
                            available = end - remaining if ints[row, OVERLAP] else end
                            comm = max(comm, available) + layer[row, stack, REDUCE]
                if rank == 0 or rank == pp - 1:
                    comm = max(comm, end) + edge[row, EDGE_REDUCE]
                ready = max(end, comm)
            for chunk in range(chunks):
                piece = chunk * pp + rank
                first, last = piece * total // pieces, (piece + 1) * total // pieces
                for stack in range(len(offsets) - 1):
                    n = layers_between(first, last, offsets, stack)
                    update += n * layer[row, stack, UPDATE]
                    if zero == 1 or zero == 2:
                        refresh += n * layer[row, stack, REFRESH]
            if rank == 0 or rank == pp - 1:
                update += edge[row, EDGE_UPDATE]
                if zero == 1 or zero == 2:
                    refresh += edge[row, EDGE_REFRESH]
            update += edge[row, DISPATCH]
            finish = ready + update + refresh
            if finish > step:
                step, slowest = finish, rank
                results[row, PASSES] = end
                results[row, EXCHANGE] = ready - end + refresh
                results[row, UPDATE_TIME] = update
        busy = f[slowest].sum() + (
            i[slowest].sum() + w[slowest].sum() if ints[row, SCHEDULE] == 2 else b[slowest].sum()
        )
        results[row, STEP] = step
        results[row, BUSY] = micro * busy
    return results
