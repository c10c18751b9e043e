"""The event loop of the message-level simulation, compiled by numba.

Time is in microseconds. A message waits for its sender's round to open, takes the software's time, then crosses its
route link by link: each link serves one message at a time in order of arrival, the head moves on after the link's
delay while the tail follows (cut-through), so a message on a free route takes the sum of delays plus its bytes over
the slowest link. Events are served in order of time, those of one time in the order they were made, which makes every
run the same.

Collectives make events in bursts of rising time, so the queue is a few sorted lanes, each a ring buffer to which a
later event is appended in constant time, in front of a heap that takes what fits in no lane.
"""

import numpy as np
from numba import njit

_NUM_LANES = 4
_LANE_SIZE = 1 << 16
_LANE_MASK = _LANE_SIZE - 1


@njit(cache=True)
def _heap_push(times, orders, items, count, time, order, item):
    """Add an event to a 4-ary heap of `count` events, sorted by (time, order)."""
    index = count
    while index > 0:
        parent = (index - 1) >> 2
        if times[parent] < time or (times[parent] == time and orders[parent] < order):
            break
        times[index], orders[index], items[index] = times[parent], orders[parent], items[parent]
        index = parent
    times[index], orders[index], items[index] = time, order, item


@njit(cache=True)
def _heap_pop(times, orders, items, count):
    """Remove the first event of a 4-ary heap of `count` events; the caller reads it at index 0 before."""
    last = count - 1
    time, order, item = times[last], orders[last], items[last]
    index = 0
    while True:
        child = (index << 2) + 1
        if child >= last:
            break
        best = child
        for other in range(child + 1, min(child + 4, last)):
            if times[other] < times[best] or (times[other] == times[best] and orders[other] < orders[best]):
                best = other
        if time < times[best] or (time == times[best] and order < orders[best]):
            break
        times[index], orders[index], items[index] = times[best], orders[best], items[best]
        index = best
    times[index], orders[index], items[index] = time, order, item


@njit(cache=True)
def _grown(array):
    larger = np.empty(2 * len(array), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True)
def run(
    num_ranks,
    num_colours,
    num_rounds,
    bucket_start,
    num_expected,
    target_bucket,
    kind,
    route,
    kind_bytes,
    kind_start_us,
    kind_engine_us,
    route_engine,
    route_start,
    route_link,
    route_delay_us,
    link_rate,
    chip_delay_us,
):
    """Run a schedule; returns (finish time of every rank, bytes carried by every link, number of events).

    A bucket is (round * num_colours + colour) * num_ranks + rank; `bucket_start` gives its messages, `num_expected` how
    many arrive there; `target_bucket` is where a message arrives. Messages share a `kind` (bytes, software time before
    the start, time on the sender's engine, negative where that never delays it) and a `route`: the engine's link, then
    a range of `route_link` and `route_delay_us`. A route without links stays on its chip and takes `chip_delay_us`.
    """
    num_buckets = num_rounds * num_colours * num_ranks
    stride = num_colours * num_ranks
    free = np.zeros(len(link_rate))
    carried = np.zeros(len(link_rate))
    waiting = num_expected.copy()
    arrived = np.zeros(num_buckets)
    opened = np.full(num_buckets, -1.0)
    finish = np.zeros(num_ranks)
    position = np.zeros(len(target_bucket), dtype=np.int16)
    tail = np.zeros(len(target_bucket))

    lane_times = np.empty((_NUM_LANES, _LANE_SIZE))
    lane_orders = np.empty((_NUM_LANES, _LANE_SIZE), dtype=np.int64)
    lane_items = np.empty((_NUM_LANES, _LANE_SIZE), dtype=np.int32)
    lane_head = np.zeros(_NUM_LANES, dtype=np.int64)
    lane_tail = np.zeros(_NUM_LANES, dtype=np.int64)
    heap_times = np.empty(1024)
    heap_orders = np.empty(1024, dtype=np.int64)
    heap_items = np.empty(1024, dtype=np.int32)
    num_lanes = 0  # lanes that were ever used
    num_heaped = 0
    num_made = 0
    num_events = 0

    next_start = 0
    bucket = -1  # the bucket about to open
    # A message's next event, made at the end of a turn: at `push_time`, when `pushed` is not negative.
    while True:
        if bucket < 0 and next_start < stride:
            bucket = next_start
            opened[bucket] = 0.0
            next_start += 1
        first, last, push_time, opening = 0, 0, 0.0, False
        if bucket >= 0:
            # Open a bucket: its messages start, and the one behind it opens too if nothing is awaited.
            now = opened[bucket]
            opening = True
            first, last = bucket_start[bucket], bucket_start[bucket + 1]
            push_time = now
            following = -1
            if waiting[bucket] == 0:
                done = max(now, arrived[bucket])
                rank = bucket % num_ranks
                finish[rank] = max(finish[rank], done)
                if bucket + stride < num_buckets:
                    following = bucket + stride
                    opened[following] = done
            bucket = following
        else:
            # Take the earliest event of the lanes' heads and the heap.
            best = -1
            now = np.inf
            order = np.int64(0)
            for lane in range(num_lanes):
                if lane_head[lane] < lane_tail[lane]:
                    slot = lane_head[lane] & _LANE_MASK
                    time = lane_times[lane, slot]
                    if time < now or (time == now and lane_orders[lane, slot] < order):
                        best, now, order = lane, time, lane_orders[lane, slot]
            if num_heaped > 0 and (heap_times[0] < now or (heap_times[0] == now and heap_orders[0] < order)):
                now = heap_times[0]
                message = heap_items[0]
                _heap_pop(heap_times, heap_orders, heap_items, num_heaped)
                num_heaped -= 1
            elif best >= 0:
                message = lane_items[best, lane_head[best] & _LANE_MASK]
                lane_head[best] += 1
            else:
                break
            num_events += 1
            size = kind_bytes[kind[message]]
            way = route[message]
            begin, end = route_start[way], route_start[way + 1]
            hop = position[message]
            arrives = True
            if hop == 0:
                # The sender's DMA engines work on all of its messages at once, so they hold up the tail, not the head.
                tail[message] = now
                busy_us = kind_engine_us[kind[message]]
                if busy_us >= 0.0:
                    engine = route_engine[way]
                    free[engine] = max(now, free[engine]) + busy_us
                    carried[engine] += size
                    tail[message] = free[engine]
                hop = 1
                if begin == end:
                    tail[message] += chip_delay_us
            if begin < end:
                index = begin + hop - 1
                link = route_link[index]
                at = max(now, free[link])
                service = size / link_rate[link]
                free[link] = at + service
                carried[link] += size
                tail[message] = max(tail[message], at + service) + route_delay_us[index]
                if index + 1 < end:
                    position[message] = hop + 1
                    arrives = False
                    first, last, push_time = message, message + 1, at + route_delay_us[index]
            if arrives:
                # On its last link a message's arrival is known.
                reached = target_bucket[message]
                arrived[reached] = max(arrived[reached], tail[message])
                waiting[reached] -= 1
                if waiting[reached] == 0 and opened[reached] >= 0.0:
                    done = max(opened[reached], arrived[reached])
                    rank = reached % num_ranks
                    finish[rank] = max(finish[rank], done)
                    if reached + stride < num_buckets:
                        bucket = reached + stride
                        opened[bucket] = done
        for item in range(first, last):
            if opening:
                push_time = now + kind_start_us[kind[item]]
            placed = False
            for lane in range(_NUM_LANES):
                length = lane_tail[lane] - lane_head[lane]
                if length < _LANE_SIZE and (
                    length == 0 or lane_times[lane, (lane_tail[lane] - 1) & _LANE_MASK] <= push_time
                ):
                    slot = lane_tail[lane] & _LANE_MASK
                    lane_times[lane, slot] = push_time
                    lane_orders[lane, slot] = num_made
                    lane_items[lane, slot] = item
                    lane_tail[lane] += 1
                    num_lanes = max(num_lanes, lane + 1)
                    placed = True
                    break
            if not placed:
                if num_heaped == len(heap_times):
                    heap_times, heap_orders, heap_items = _grown(heap_times), _grown(heap_orders), _grown(heap_items)
                _heap_push(heap_times, heap_orders, heap_items, num_heaped, push_time, num_made, item)
                num_heaped += 1
            num_made += 1
    return finish, carried, num_events
