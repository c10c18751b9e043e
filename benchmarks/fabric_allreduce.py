"""How fast the fabric model is, beside a floor that any program doing this work must pay.

    python benchmarks/fabric_allreduce.py

Message level: the floor serves every message at its link once (a comparison and two additions, compiled) in an order
that is known beforehand, so it has no queue, no dependencies and no routes. Closed form: the floor is a dictionary
lookup and a straight line in plain Python. Times are CPU times of one thread, which other programs on the machine
disturb less than the clock on the wall.
"""

import time
from collections.abc import Callable

import numpy as np
from numba import njit

from opentrn.fabric import RankGroup, collective_time_us, simulate, topology


@njit
def _serve(link, size, rate, ready):
    free = np.zeros(rate.size)
    latest = 0.0
    for message in range(link.size):
        at = max(ready[message], free[link[message]])
        done = at + size[message] / rate[link[message]]
        free[link[message]] = done
        latest = max(latest, done)
    return latest


def best_s(work: Callable[[], object], repeats: int = 5) -> float:
    """Shortest CPU time of several runs in seconds, after one that compiles and is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def message_level(name: str, size_bytes: float) -> None:
    on = topology(name)
    result = simulate("all_reduce", size_bytes, on.num_ranks, on, algorithm="torus")
    seconds = best_s(lambda: simulate("all_reduce", size_bytes, on.num_ranks, on, algorithm="torus"))
    rng = np.random.default_rng(0)
    num_links = 6 * on.num_chips
    link = rng.integers(0, num_links, result.num_messages).astype(np.int32)
    size, ready = np.full(result.num_messages, 1e3), np.arange(result.num_messages) * 1e-3
    floor = best_s(lambda: _serve(link, size, np.full(num_links, 1e5), ready))
    print(
        f"{name}: {size_bytes / 1e6:g} MB all-reduce of {result.time_us:.1f} us, {result.num_messages:,} messages "
        f"in {seconds:.3f} s ({result.num_messages / seconds / 1e6:.1f} million messages a second); "
        f"floor {floor:.3f} s, ratio {seconds / floor:.1f}"
    )


def closed_form() -> None:
    on, group = topology("trn2-ultraserver"), RankGroup(64, stride=4)
    calls = 50_000
    seconds = best_s(lambda: [collective_time_us("all_reduce", size, group, on) for size in range(calls)]) / calls
    known = {("all_reduce", group.size, group.stride): (5.0, 1e-5)}

    def line(size: int) -> float:
        latency, slope = known["all_reduce", 64, 4]
        return latency + size * slope

    floor = best_s(lambda: [line(size) for size in range(calls)]) / calls
    print(f"closed form: {seconds * 1e6:.2f} us a call; floor {floor * 1e6:.2f} us, ratio {seconds / floor:.1f}")
    sizes = np.geomspace(1e3, 1e10, 1_000_000)
    seconds = best_s(lambda: collective_time_us("all_reduce", sizes, group, on))
    floor = best_s(lambda: 5.0 + sizes * 1e-5)
    print(f"a million sizes at once: {seconds * 1e3:.1f} ms; floor {floor * 1e3:.1f} ms, ratio {seconds / floor:.1f}")
    rainier = topology("rainier")
    start = time.process_time()
    collective_time_us("all_reduce", 1e9, RankGroup(rainier.num_chips // 64, stride=256), rainier)
    print(f"first call on {rainier.num_chips:,} chips: {(time.process_time() - start) * 1e3:.1f} ms")


if __name__ == "__main__":
    message_level("torus-12x12", 64e6)
    message_level("torus-16x16x16", 64e6)
    closed_form()
