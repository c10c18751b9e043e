"""OpenTrn's timing model beside SCALE-Sim v3 on the same GEMM and convolution shapes, in one run.

SCALE-Sim (`pip install scalesim`) simulates a 128 x 128 systolic array cycle by cycle from a topology file; OpenTrn
traces a kernel
for the shape without values and schedules every instruction of it, DMA and copies included. Both are timed from the
shape to
the result, after one warm-up of OpenTrn, whose compiled loops are cached on disk.

    python benchmarks/timing_vs_scalesim.py
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time

import numpy as np

GEMMS = ((512, 512, 512), (1024, 1024, 1024))
CONVOLUTIONS = ((34, 34, 256, 256),)  # height, width, channels, filters; 3 x 3, stride 1, no padding

_CONFIG = """[general]
run_name = beside_opentrn
[architecture_presets]
ArrayHeight: 128
ArrayWidth: 128
IfmapSramSzkB: 8192
FilterSramSzkB: 8192
OfmapSramSzkB: 8192
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 128
Dataflow: ws
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def scalesim_seconds(row: str, header: str, gemm: bool) -> float:
    """Seconds that SCALE-Sim takes for one layer."""
    from scalesim.memory import double_buffered_scratchpad_mem
    from scalesim.scale_sim import scalesim

    # It turns one-element arrays into integers, which NumPy 2 refuses; nothing that takes time changes.
    double_buffered_scratchpad_mem.max = lambda *values: np.max(np.hstack(values))  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        config, topology, layout = (os.path.join(folder, n) for n in ("array.cfg", "layer.csv", "layout.csv"))
        for path, text in ((config, _CONFIG), (topology, f"{header}\n{row}\n"), (layout, "\n")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        begin = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            simulator = scalesim(
                save_disk_space=True,
                verbose=False,
                config=config,
                topology=topology,
                layout=layout,
                input_type_gemm=gemm,
            )
            simulator.run_scale(top_path=folder)
        return time.perf_counter() - begin


def opentrn_seconds(program: str, parameters: dict) -> tuple[float, float, int]:
    """(seconds from the shape to the Timeline, latency in us, instructions)."""
    from opentrn.validation.running import timeline_of

    begin = time.perf_counter()
    timeline = timeline_of(program, parameters, "trn2")
    return time.perf_counter() - begin, timeline.latency_us, len(timeline)


def main() -> None:
    """Print one line a shape."""
    opentrn_seconds("matmul_tiled", {"m": 128, "k": 128, "n": 512, "dtype": "bfloat16"})
    opentrn_seconds("conv2d", {"height": 6, "width": 6, "channels": 128, "filters": 128, "dtype": "bfloat16"})
    cases = [
        (
            f"GEMM {m} x {k} x {n}",
            "matmul_tiled",
            {"m": m, "k": k, "n": n, "dtype": "bfloat16"},
            f"gemm,{m},{n},{k},",
            "Layer,M,N,K,",
            True,
        )
        for m, k, n in GEMMS
    ]
    cases += [
        (
            f"conv {h} x {w}, {c} to {f}",
            "conv2d",
            {"height": h, "width": w, "channels": c, "filters": f, "dtype": "bfloat16"},
            f"conv,{h},{w},3,3,{c},{f},1,",
            "Layer name,IFMAP Height,IFMAP Width,Filter Height,Filter Width,Channels,Num Filter,Strides,",
            False,
        )
        for h, w, c, f in CONVOLUTIONS
    ]
    print(
        f"{'shape':26s} {'OpenTrn s':>10s} {'SCALE-Sim s':>12s} {'faster by':>10s} "
        f"{'instructions':>13s} {'simulated us':>13s}"
    )
    for name, program, parameters, row, header, gemm in cases:
        ours, latency, count = min((opentrn_seconds(program, parameters) for _ in range(3)), key=lambda r: r[0])
        theirs = scalesim_seconds(row, header, gemm)
        print(f"{name:26s} {ours:10.4f} {theirs:12.2f} {theirs / ours:9.0f}x {count:13d} {latency:13.1f}", flush=True)


if __name__ == "__main__":
    main()
