"""The compiled loop: which instruction starts next, and when.

Every queue issues in order. The loop takes, again and again, the head of the queue that can start first, so that
what is
shared (DMA engines, HBM, memory ports, the Tensor engine's clock) is given out in order of time.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["run"]

# Causes, as in opentrn.timing.timeline.Cause (a compiled loop sees plain numbers).
LAUNCH, ENGINE, DATA, DMA, OVERWRITE, BUFFER_REUSE, PORT, BARRIER, EXPLICIT = range(9)
_TENSOR, _VECTOR, _SCALAR, _GPSIMD, _SYNC = range(5)
_EDGE_READ, _EDGE_OVERWRITE, _EDGE_EXPLICIT = 0, 1, 2


@numba.njit(cache=True)
def run(
    plan,
    core_of,
    stream_of,
    queue_start,
    queue_order,
    edge_begin,
    edge_producer,
    edge_kind,
    edge_reuse,
    engine,
    busy,
    tail,
    load,
    table,
    ports,
    tile,
    num_descriptors,
    descriptor_ns,
    first_ns,
    done_ns,
    moved,
    hbm_moved,
    latency,
    num_cores,
    num_streams,
    num_dma_engines,
    hbm_ns_per_byte,
    clock_window,
    clock_threshold,
    clock_factor,
    clock_pipeline,
    table_load,
    load_latency,
    load_interval,
    window,
    dma_free_of_charge,
):
    """Times of every instruction.

    ``latency[a, b]`` is the semaphore latency from queue ``a`` to queue ``b``. ``window`` is how many instructions
    ahead of
    its first unstarted one a queue may pick from (1: strictly in order).
    """
    n = len(plan)
    total_streams = num_cores * num_streams
    start = np.zeros(n)
    ready = np.zeros(n)
    free = np.zeros(n)
    end = np.full(n, -1.0)
    busy_out = np.zeros(n)
    cause = np.zeros(n, np.int8)
    blocked = np.full(n, -1, np.int64)
    wait_latency = np.zeros(n)
    clock_loss = np.zeros(n)
    table_ns = np.zeros(n)
    dma_start = np.zeros(n)
    dma_end = np.zeros(n)
    dma_busy = np.zeros((num_cores, num_dma_engines))

    head = queue_start[:-1].copy()
    stream_free = np.zeros(total_streams)
    stream_last = np.full(total_streams, -1, np.int64)
    candidate = np.full(total_streams, -1, np.int64)
    candidate_time = np.full(total_streams, np.inf)
    watch = np.full(total_streams, -1, np.int64)
    dirty = np.ones(total_streams, np.bool_)
    started = np.zeros(n, np.bool_)

    dma_free = np.zeros((num_cores, num_dma_engines))
    dma_turn = np.zeros(num_cores, np.int64)
    hbm_free = 0.0
    port_free = np.zeros((num_cores, 3))
    port_last = np.full((num_cores, 3), -1, np.int64)
    loaded_table = np.full(num_cores, -1, np.int64)
    # Tensor engine
    last_move_start = np.full(num_cores, -1e9)
    window_index = np.zeros(num_cores, np.int64)
    window_busy = np.zeros(num_cores)
    full_clock = np.zeros(num_cores, np.bool_)
    clock_log = np.zeros((1024, 2))
    clock_rows = 0

    done = 0
    while done < n:
        best = -1
        best_time = np.inf
        for s in range(total_streams):
            if dirty[s]:
                # Find the earliest start among the instructions this queue may issue next.
                dirty[s] = False
                candidate[s] = -1
                candidate_time[s] = np.inf
                watch[s] = -1
                seen = 0
                position = head[s]
                limit = queue_start[s + 1]
                while position < limit and seen < window:
                    i = queue_order[position]
                    position += 1
                    if started[i]:
                        continue
                    seen += 1
                    t = stream_free[s]
                    known = True
                    for e in range(edge_begin[i], edge_begin[i + 1]):
                        p = edge_producer[e]
                        if end[p] < 0:
                            known = False
                            if window == 1:
                                watch[s] = p
                            break
                        q = stream_of[p]
                        if q == s:
                            if edge_kind[e] != _EDGE_READ:
                                continue
                            te = end[p] + latency[q % num_streams, s % num_streams]
                        elif num_descriptors[plan[p]] > 0:
                            te = end[p]
                        else:
                            te = end[p] + latency[q % num_streams, s % num_streams]
                        if te > t:
                            t = te
                    if known:
                        k = plan[i]
                        c = core_of[i]
                        for b in range(3):
                            if ports[k] & (1 << b) and port_free[c, b] > t:
                                t = port_free[c, b]
                        if t < candidate_time[s]:
                            candidate_time[s] = t
                            candidate[s] = i
                            if t <= stream_free[s]:
                                break
            if candidate_time[s] < best_time:
                best_time = candidate_time[s]
                best = s
        if best < 0:
            break  # a cycle among cores; the caller reports it
        s = best
        i = candidate[s]
        k = plan[i]
        c = core_of[i]
        local = s % num_streams
        # Why it starts when it starts.
        t = stream_free[s]
        why = ENGINE if stream_last[s] >= 0 else LAUNCH
        who = stream_last[s]
        lat = 0.0
        r = 0.0
        for e in range(edge_begin[i], edge_begin[i + 1]):
            p = edge_producer[e]
            q = stream_of[p]
            extra = 0.0
            if q == s:
                if edge_kind[e] != _EDGE_READ:
                    continue
                extra = latency[q % num_streams, local]
            elif num_descriptors[plan[p]] == 0:
                extra = latency[q % num_streams, local]
            te = end[p] + extra
            if te > r:
                r = te
            if te > t:
                t = te
                who = p
                lat = extra
                if core_of[p] != c:
                    why = BARRIER
                elif edge_kind[e] == _EDGE_EXPLICIT:
                    why = EXPLICIT
                elif edge_kind[e] == _EDGE_OVERWRITE:
                    why = BUFFER_REUSE if edge_reuse[e] else OVERWRITE
                else:
                    why = DMA if num_descriptors[plan[p]] > 0 else DATA
        for b in range(3):
            if ports[k] & (1 << b) and port_free[c, b] > t:
                t = port_free[c, b]
                who = port_last[c, b]
                why = PORT
                lat = 0.0
        ready[i] = r
        if num_descriptors[k] > 0:
            start[i] = t
            free[i] = t + busy[k]
            first = t + first_ns[k]
            count = num_descriptors[k]
            if dma_free_of_charge:
                end[i] = t
                dma_start[i] = t
                dma_end[i] = t
                free[i] = t
            else:
                used = min(count, num_dma_engines)
                each = count // used
                more = count - each * used
                last = first
                begin = np.inf
                turn = dma_turn[c]
                for m in range(used):
                    d = (turn + m) % num_dma_engines
                    work = (each + (1 if m < more else 0)) * descriptor_ns[k]
                    at = max(first, dma_free[c, d])
                    if at < begin:
                        begin = at
                    dma_free[c, d] = at + work
                    dma_busy[c, d] += work
                    if at + work > last:
                        last = at + work
                dma_turn[c] = (turn + used) % num_dma_engines
                if hbm_moved[k] > 0:
                    hbm_free = max(hbm_free, begin) + hbm_moved[k] * hbm_ns_per_byte
                    if hbm_free > last:
                        # The stack is the bottleneck: the engines stall with it.
                        stall = hbm_free - last
                        for m in range(used):
                            dma_free[c, (turn + m) % num_dma_engines] += stall
                        last = hbm_free
                dma_start[i] = begin
                dma_end[i] = last
                end[i] = last + done_ns[k]
                busy_out[i] = count * descriptor_ns[k] / num_dma_engines
        elif local == _TENSOR:
            # The stationary matrix loads behind the matmul before; exposed, it costs its latency.
            at = max(t, last_move_start[c] + load_interval)
            if r + load[k] > at:
                at = max(at, min(r + load[k], t + load[k]))
            last_move_start[c] = at
            work = busy[k]
            stop = at + work
            lost = 0.0
            if clock_window > 0:
                # Advance the clock's windows to `at`, then stream through them.
                index = np.int64(at / clock_window)
                if index > window_index[c]:
                    was = full_clock[c]
                    full_clock[c] = (
                        window_busy[c] >= clock_threshold * clock_window if index == window_index[c] + 1 else False
                    )
                    if full_clock[c] != was and c == 0:
                        if clock_rows == len(clock_log):
                            bigger = np.zeros((2 * clock_rows, 2))
                            bigger[:clock_rows] = clock_log
                            clock_log = bigger
                        clock_log[clock_rows, 0] = (window_index[c] + 1) * clock_window
                        clock_log[clock_rows, 1] = 1.0 if full_clock[c] else 0.0
                        clock_rows += 1
                    window_index[c] = index
                    window_busy[c] = 0.0
                left = work
                now = at
                while left > 0:
                    rate = 1.0 if full_clock[c] else clock_factor
                    edge = (window_index[c] + 1) * clock_window
                    can = (edge - now) * rate
                    if can >= left:
                        window_busy[c] += left
                        now += left / rate
                        left = 0.0
                    else:
                        window_busy[c] += can
                        left -= can
                        now = edge
                        was = full_clock[c]
                        full_clock[c] = window_busy[c] >= clock_threshold * clock_window
                        if full_clock[c] != was and c == 0:
                            if clock_rows == len(clock_log):
                                bigger = np.zeros((2 * clock_rows, 2))
                                bigger[:clock_rows] = clock_log
                                clock_log = bigger
                            clock_log[clock_rows, 0] = now
                            clock_log[clock_rows, 1] = 1.0 if full_clock[c] else 0.0
                            clock_rows += 1
                        window_index[c] += 1
                        window_busy[c] = 0.0
                stop = now
                lost = stop - at - work
            clock_loss[i] = lost
            start[i] = t
            free[i] = stop
            finish = stop + tail[k]
            if clock_window > 0 and not full_clock[c]:
                finish += clock_pipeline
            end[i] = finish
            busy_out[i] = stop - at
        else:
            extra = 0.0
            if local == _SCALAR and table[k] != 0 and table[k] != loaded_table[c]:
                if loaded_table[c] >= 0 or table_load > 0:
                    extra = table_load
                loaded_table[c] = table[k]
                # The table is loaded while the engine waits for its data, if it does.
                slack = t - stream_free[s]
                extra = max(extra - slack, 0.0)
            table_ns[i] = extra
            start[i] = t
            free[i] = t + extra + busy[k]
            end[i] = free[i] + tail[k]
            busy_out[i] = extra + busy[k]
        for b in range(3):
            if ports[k] & (1 << b):
                port_free[c, b] = free[i]
                port_last[c, b] = i
                for other in range(c * num_streams, (c + 1) * num_streams):
                    if candidate[other] >= 0 and ports[plan[candidate[other]]] & (1 << b):
                        dirty[other] = True
        cause[i] = why
        blocked[i] = who
        wait_latency[i] = lat
        started[i] = True
        stream_free[s] = free[i]
        stream_last[s] = i
        done += 1
        while head[s] < queue_start[s + 1] and started[queue_order[head[s]]]:
            head[s] += 1
        dirty[s] = True
        for other in range(total_streams):
            if window > 1 or watch[other] == i:
                dirty[other] = True
    return (
        done,
        start,
        ready,
        free,
        end,
        busy_out,
        cause,
        blocked,
        wait_latency,
        clock_loss,
        table_ns,
        dma_start,
        dma_end,
        dma_busy,
        clock_log[:clock_rows],
    )
