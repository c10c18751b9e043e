"""The schedule on small kernels whose times can be worked out by hand."""

import numpy as np
import pytest

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn import hardware, nki
from opentrn.errors import ValidationError
from opentrn.nki.arrays import Spec
from opentrn.nki.launch import session
from opentrn.timing import ENGINES, Cause, schedule

CORE = hardware.core("v3")


def record(kernel, *arguments, chip="trn2", grid=None, **options):
    with session(chip=chip, execute=False, record=True) as opened:
        launched = nki.jit(kernel, **options)
        (launched[grid] if grid else launched)(*arguments)
    return opened.launches[0].programs


def rows(timeline, name):
    program = timeline.programs[0]
    return [k for k in range(len(program)) if program.plans[program.plan[k]].instruction.name == name]


def test_a_copy_takes_one_cycle_an_element_and_its_fixed_latency():
    def kernel():
        source = nl.ndarray((128, 512), "float32", buffer=nl.psum)
        nisa.tensor_copy(nl.ndarray((128, 512), "float32"), source, engine=nisa.vector_engine)

    timeline = schedule(record(kernel))
    by_hand = (512 + CORE.vector_latency_cycles) / CORE.vector_clock_ghz
    assert timeline.end_ns[0] == pytest.approx(by_hand)
    assert timeline.end_ns[0] == pytest.approx(690, rel=0.01)  # measured on a trn2.3xlarge


def test_back_to_back_instructions_pipeline_and_dependent_ones_wait():
    def independent():
        for _ in range(2):
            nisa.tensor_scalar(nl.ndarray((128, 64), "float32"), nl.ndarray((128, 64), "float32"), nl.add, 1.0)

    def dependent():
        tile = nl.ndarray((128, 64), "float32")
        for _ in range(2):
            nisa.tensor_scalar(tile, tile, nl.add, 1.0)

    free, chained = schedule(record(independent)), schedule(record(dependent))
    assert free.start_ns[1] == free.free_ns[0] < free.end_ns[0]
    assert chained.start_ns[1] > chained.end_ns[0]
    assert Cause(int(chained.cause[1])) is Cause.DATA and chained.blocked_by[1] == 0


def test_tiles_of_different_columns_of_a_matrix_in_hbm_do_not_wait_for_each_other():
    def kernel(x):
        y = nl.ndarray((256, 1024), "float32", buffer=nl.shared_hbm)
        left, right = nl.ndarray((128, 512), "float32"), nl.ndarray((128, 512), "float32")
        nisa.dma_copy(y[0:128, 0:512], left)
        nisa.dma_copy(right, y[0:128, 512:1024])  # shares the byte range, not a byte
        nisa.dma_copy(right, y[0:128, 256:768])  # shares bytes
        return y

    timeline = schedule(record(kernel, Spec((1, 1), "float32")))
    assert timeline.start_ns[1] < timeline.end_ns[0]
    assert timeline.start_ns[2] >= timeline.end_ns[0]


def buffered(tiles):
    """A loop of loads and long computations on ``tiles`` tiles that take turns at fixed addresses."""

    def kernel(x):
        for k in range(12):
            tile = nl.ndarray((128, 4096), "float32", address=(0, k % tiles * 16384))
            done = nl.ndarray((128, 4096), "float32", address=(0, 65536))
            nisa.dma_copy(tile, x[k])
            nisa.activation(done, nl.exp, tile)

    return schedule(record(kernel, Spec((12, 128, 4096), "float32")))


def test_double_buffering_helps_and_a_third_buffer_helps_little():
    one, two, three = (buffered(n).span_us for n in (1, 2, 3))
    assert two < 0.75 * one
    assert three > 0.9 * two


def test_a_small_memory_makes_new_tiles_wait_for_old_ones():
    def kernel(x):
        for k in range(6):
            tile = nl.ndarray((128, 40960), "float32")  # one of these fits
            nisa.dma_copy(tile, x[k])
            nisa.tensor_scalar(tile, tile, nl.add, 1.0)

    programs = record(kernel, Spec((6, 128, 40960), "float32"))
    timeline = schedule(programs)
    assert Cause.BUFFER_REUSE in {Cause(int(c)) for c in timeline.cause}
    assert schedule(programs, what_if="infinite_sbuf").span_us < timeline.span_us


def test_the_tensor_engine_starts_at_half_rate_and_warms_up_after_a_busy_window():
    def kernel():
        stationary, moving = nl.ndarray((128, 128), "bfloat16"), nl.ndarray((128, 512), "bfloat16")
        for _ in range(64):
            nisa.nc_matmul(nl.ndarray((128, 512), "float32", buffer=nl.psum), stationary, moving)

    programs = record(kernel)
    timeline = schedule(programs)
    interval = np.diff(timeline.start_ns)
    assert interval[2] == pytest.approx(427, rel=0.02)  # measured cold
    assert interval[-2] == pytest.approx(215, rel=0.02)  # measured warm
    assert timeline.tensor_clock[0, 0] == pytest.approx(CORE.pe_didt_window_exact_ns)
    assert schedule(programs, what_if="warm_clock").clock_loss_ns.sum() == 0


@pytest.mark.parametrize("dtype, passes", [("bfloat16", 1), ("float32", 4)])
def test_matmul_passes_follow_the_type(dtype, passes):
    def kernel():
        for _ in range(200):
            nisa.nc_matmul(nl.ndarray((128, 512), "float32", buffer=nl.psum), nl.ndarray((128, 128), dtype),
                           nl.ndarray((128, 512), dtype))  # fmt: skip

    timeline = schedule(record(kernel))
    interval = np.median(np.diff(timeline.start_ns)[-20:])
    assert interval == pytest.approx(passes * 512 / CORE.tensor_clock_ghz, rel=0.02)


def test_dma_bandwidth_rises_with_the_bytes_of_a_descriptor_to_the_published_rate():
    from opentrn.validation.report import curves

    sizes, rates, _ = curves()["DMA bandwidth against bytes a partition"]
    assert rates == sorted(rates)
    peak = CORE.num_dma_engines * CORE.dma_engine_peak_gb_per_s
    assert 0.9 * peak < rates[-1] <= peak
    assert rates[sizes.index(512)] < 0.75 * rates[-1]


def test_counterfactuals_only_shorten():
    from opentrn.timing import WHAT_IFS
    from opentrn.validation.programs import build

    kernel, arguments = build("attention_fused", {"seqlen": 512, "dtype": "float32"})
    programs = record(kernel, *arguments)
    base = schedule(programs).span_us
    for name in WHAT_IFS:
        assert schedule(programs, what_if=name).span_us <= base * 1.001, name


def test_reordering_never_breaks_a_dependency():
    from opentrn.validation.programs import build

    kernel, arguments = build("attention_fused", {"seqlen": 1024, "dtype": "bfloat16"})
    programs = record(kernel, *arguments)
    timeline = schedule(programs, reorder=True)
    waits = timeline.blocked_by >= 0
    data = waits & np.isin(timeline.cause, (Cause.DATA, Cause.DMA))
    assert (timeline.start_ns[data] >= timeline.end_ns[timeline.blocked_by[data]]).all()
    assert timeline.span_us < schedule(programs).span_us


def test_the_same_program_gives_the_same_timeline_bit_for_bit():
    from opentrn.validation.programs import build

    kernel, arguments = build("mlp_fused", {"m": 256, "k": 256, "n": 1024, "dtype": "float32"})
    first, second = (schedule(record(kernel, *arguments, api="earlier")) for _ in range(2))
    assert first.start_ns.tobytes() == second.start_ns.tobytes()
    assert first.end_ns.tobytes() == second.end_ns.tobytes()


def test_cores_leave_a_barrier_together_and_see_what_was_written_before():
    def kernel(x):
        me = nl.program_id(0)
        y = nl.ndarray((2, 128, 512), "float32", buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 512), "float32")
        nisa.dma_copy(tile, x[me])
        for _ in range(1 + 9 * me):
            nisa.tensor_scalar(tile, tile, nl.add, 1.0)
        nisa.dma_copy(y[me], tile)
        nisa.core_barrier(y, (0, 1))
        nisa.dma_copy(tile, y[1 - me])
        return y

    timeline = schedule(record(kernel, Spec((2, 128, 512), "float32"), grid=2))
    names = [p.plans[p.plan[k]].instruction.name for p in timeline.programs for k in range(len(p))]
    barriers = [k for k, name in enumerate(names) if name == "core_barrier"]
    slow_store = max(k for k, name in enumerate(names) if name == "dma_copy" and k < barriers[1])
    assert timeline.start_ns[barriers[0]] >= timeline.end_ns[slow_store]
    assert timeline.start_ns[barriers[0]] == timeline.start_ns[barriers[1]]
    assert timeline.cause[barriers[0]] == Cause.BARRIER


def test_two_cores_of_a_stack_share_its_bandwidth():
    def kernel(x):
        for k in range(16):
            nisa.dma_copy(nl.ndarray((128, 4096), "float32"), x[k], dge_mode=nisa.dge_mode.swdge)

    shapes = Spec((16, 128, 4096), "float32")
    alone, both = schedule(record(kernel, shapes)), schedule(record(kernel, shapes, grid=2))
    together = both.hbm_bytes / (both.dma_end_ns.max() - both.dma_start_ns.min())
    single = alone.hbm_bytes / (alone.dma_end_ns.max() - alone.dma_start_ns.min())
    assert single < together <= CORE.hbm_stack_bandwidth_gb_per_s * 1.01
    assert both.span_us > alone.span_us


def test_busy_times_of_an_engine_do_not_exceed_the_span():
    from opentrn.validation.programs import build

    kernel, arguments = build("attention_three_phases", {"seqlen": 512, "dtype": "float32"})
    timeline = schedule(record(kernel, *arguments))
    assert set(timeline.engine_busy_us) == set(ENGINES) - {"dma"}
    assert all(0 <= busy <= timeline.span_us for busy in timeline.engine_busy_us.values())
    assert timeline.dma_busy_us <= timeline.span_us
    wide = [k for k in rows(timeline, "nc_matmul") if timeline.flops[k] > 2 * 128**3]
    assert timeline.total_flops == 2 * 128**3 * (len(rows(timeline, "nc_matmul")) + 3 * len(wide))


def test_an_unknown_assumption_is_refused():
    def kernel():
        nisa.memset(nl.ndarray((128, 1), "float32"), 0.0)

    with pytest.raises(ValidationError, match="free_lunch"):
        schedule(record(kernel), what_if="free_lunch")


def test_a_launch_without_instructions_is_refused():
    with pytest.raises(ValidationError, match="no program"):
        schedule([])
