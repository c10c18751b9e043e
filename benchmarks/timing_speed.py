"""How many instructions a second are traced and scheduled, and in how much memory.

    python benchmarks/timing_speed.py [--rows 4096]

The program is a tiled float32 matmul of `rows` x 8192 x 8192: about 24 instructions a row.
"""

from __future__ import annotations

import argparse
import resource
import time


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=4096)
    rows = parser.parse_args().rows

    from opentrn import nki
    from opentrn.nki.launch import session
    from opentrn.timing import schedule
    from opentrn.validation.programs import build

    def trace(m: int) -> list:
        kernel, arguments = build("matmul_tiled", {"m": m, "k": 8192, "n": 8192, "dtype": "float32"})
        with session(chip="trn2", execute=False, record=True) as opened:
            nki.jit(kernel)(*arguments)
        return opened.launches[0].programs

    schedule(trace(128))  # load what is compiled
    begin = time.perf_counter()
    programs = trace(rows)
    traced = time.perf_counter() - begin
    count = len(programs[0])
    begin = time.perf_counter()
    schedule(programs)
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    timeline = schedule(programs)
    again = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{count} instructions, {timeline.latency_us / 1e3:.1f} ms simulated")
    print(
        f"trace {count / traced:,.0f}/s, schedule {count / first:,.0f}/s first, "
        f"{count / again:,.0f}/s again, peak {peak:.2f} GB"
    )


if __name__ == "__main__":
    main()
