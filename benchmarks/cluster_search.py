"""How fast the layout search is, on one core.

    python benchmarks/cluster_search.py

prints, in processor seconds, the layouts simulated a second, the full search of Llama-3 70B over 144 chips, and one
layout on 100,000 chips. The first call compiles the kernels and is not counted.
"""

import time

import numpy as np

from opentrn.cluster import Job, Layout, StepModel, load_model, machine, software
from opentrn.cluster.candidates import LayoutTable, enumerate_layouts
from opentrn.cluster.search import search


def job(name: str, batch: int, seq_len: int = 8192) -> Job:
    return Job(load_model(name), seq_len, batch, software("neuronx-distributed"))


def main() -> None:
    search(job("tinyllama-1.1b", 16), machine("trn2.48xlarge", 1))  # compiles

    task, on = job("llama3-70b", 576), machine("trn3-ultraserver", 144)
    table = enumerate_layouts(task, on.num_ranks)
    table = table.take(np.random.default_rng(0).permutation(len(table))[:20000])
    start = time.process_time()
    StepModel(task, on).evaluate(table)
    seconds = time.process_time() - start
    print(f"simulated without pruning: {len(table):,} layouts in {seconds:.2f} s, {len(table) / seconds:,.0f} a second")

    for name in ("trn3-ultraserver", "trn2.48xlarge"):
        start = time.process_time()
        result = search(task, machine(name, 144))
        seconds = time.process_time() - start
        print(
            f"full search, llama3-70b, 144 chips of {name}: {result.num_layouts:,} layouts, {result.num_fitting:,} "
            f"fit, {result.num_simulated:,} simulated, {seconds:.2f} s, {result.num_layouts / seconds:,.0f} a second"
        )

    start = time.process_time()
    task = job("llama3-405b", 100_000)
    layout = Layout(dp=1250, tp=16, pp=20, zero=1, recompute="full")
    step = StepModel(task, machine("trn2.48xlarge", 100_000)).evaluate(LayoutTable.of([layout])).step_time_s[0]
    print(f"one layout, llama3-405b, 100,000 chips: {time.process_time() - start:.2f} s (a step takes {step:.1f} s)")


if __name__ == "__main__":
    main()
