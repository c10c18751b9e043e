"""DMA: copies, conversion, gathers and scatters with both treatments of indices out of bounds, transposes, sums."""

import ml_dtypes
import numpy as np
import pytest

from opentrn.errors import UninitializedError, ValidationError
from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.settings import dge_mode, engine, oob_mode
from opentrn.neuroncore.registers import VirtualRegister

BF16 = ml_dtypes.bfloat16
random = np.random.default_rng(3)


def add(x, y): ...


def table(nc, rows=20, columns=6, dtype="float32"):
    return nc.tile(random.standard_normal((rows, columns)).astype(np.float32), dtype, "shared_hbm")


def index(nc, *values, dtype="int32"):
    return nc.tile(np.array(values).reshape(-1, 1), dtype)


def test_copy_converts_through_float32(on_generation):
    nc = on_generation(4)
    source = nc.tile(np.array([[2**24 + 1, 7]]), "int32", "shared_hbm")
    wide, exact = nc.tile(shape=(1, 2), dtype="float32"), nc.tile(shape=(1, 2), dtype="int32")
    isa.dma_copy(wide, source)
    isa.dma_copy(exact, source)
    assert wide.array().tolist() == [[2.0**24, 7.0]]  # 2**24 + 1 is no float32
    assert exact.array().tolist() == [[2**24 + 1, 7]]


def test_copy_to_integers_rounds_to_nearest_even_and_saturates(on_generation):
    nc = on_generation(4)
    out = nc.tile(shape=(1, 6), dtype="int8")
    isa.dma_copy(out, nc.tile(np.array([[0.5, 1.5, -2.5, 300.0, -300.0, np.nan]])))
    assert out.array().tolist() == [[0, 2, -2, 127, -128, 0]]


def test_packed_words_move_only_unchanged(on_generation):
    nc = on_generation(4)
    words = nc.tile(np.arange(8).reshape(2, 4), "float8_e4m3fn_x4", "shared_hbm")
    out = nc.tile(shape=(2, 4), dtype="float8_e4m3fn_x4")
    isa.dma_copy(out, words)
    assert (out.array() == words.array()).all()
    with pytest.raises(ValidationError, match="packed types move unchanged"):
        isa.dma_copy(nc.tile(shape=(2, 4), dtype="uint32"), words)
    isa.dma_copy(nc.tile(shape=(2, 4), dtype="uint32"), words.view("uint32"))


def test_copy_moves_elements_in_order_between_shapes(on_generation):
    nc = on_generation(3)
    source = table(nc, 4, 6)
    out = nc.tile(shape=(2, 3, 4))
    isa.dma_copy(out, source)
    assert (out.array().reshape(4, 6) == source.array()).all()


@pytest.mark.parametrize(
    ("generation", "settings", "message"),
    [
        (3, {"priority": 1}, "priority=1 needs NeuronCore-v4"),
        (4, {"priority": 4}, r"classes are 0 \(first\) to 3"),
        (2, {"dge_mode": dge_mode.hwdge}, "needs NeuronCore-v3"),
        (3, {"engine": engine.scalar}, "selects the trigger of dge_mode.hwdge"),
        (3, {"engine": engine.vector, "dge_mode": dge_mode.hwdge}, "engine.sync or scalar"),
    ],
)
def test_settings_of_another_generation_or_mode_are_refused(on_generation, generation, settings, message):
    nc = on_generation(generation)
    with pytest.raises(ValidationError, match=message):
        isa.dma_copy(nc.tile(shape=(4, 6)), table(nc, 4, 6), **settings)


def test_settings_that_exist_are_taken(on_generation):
    nc = on_generation(4)
    source, out = table(nc, 4, 6), nc.tile(shape=(4, 6))
    isa.dma_copy(out, source, priority=0, dge_mode=dge_mode.hwdge, engine=engine.sync)
    assert (out.array() == source.array()).all()


def test_copy_of_another_number_of_elements_and_into_psum_is_refused(on_generation):
    nc = on_generation(4)
    with pytest.raises(ValidationError, match="dst has 12 elements .* and src 24"):
        isa.dma_copy(nc.tile(shape=(2, 6)), table(nc, 4, 6))
    with pytest.raises(ValidationError, match="dst is in psum, but the instruction reaches only"):
        isa.dma_copy(nc.tile(shape=(4, 6), buffer="psum"), table(nc, 4, 6))


def test_vector_offsets_gather_and_scatter_rows(on_generation):
    nc = on_generation(3)
    source, rows = table(nc), index(nc, 7, 0, 19, 7)
    gathered = nc.tile(shape=(4, 6))
    isa.dma_copy(gathered, source.ap([[6, 4], [1, 6]], vector_offset=rows))
    assert (gathered.array() == source.array()[[7, 0, 19, 7]]).all()
    again = nc.tile(shape=(4, 6))
    isa.dma_copy(again, source.vector_select(0, rows))
    assert (again.array() == gathered.array()).all()
    target = nc.tile(np.zeros((20, 6)), "float32", "shared_hbm")
    isa.dma_copy(target.ap([[6, 3], [1, 6]], vector_offset=index(nc, 5, 1, 9)), gathered[0:3])
    expected = np.zeros((20, 6), np.float32)
    expected[[5, 1, 9]] = gathered.array()[:3]
    assert (target.array() == expected).all()


def test_the_step_of_an_index_is_a_stride_of_the_tensor_not_of_the_pattern(on_generation):
    nc = on_generation(3)
    source = table(nc)
    part = nc.tile(shape=(2, 2))
    isa.dma_copy(part, source.ap([[999, 2], [1, 2]], 1, vector_offset=index(nc, 3, 8)))
    assert (part.array() == source.array()[[3, 8], 1:3]).all()


@pytest.mark.parametrize("where", ["register", "tensor"])
def test_scalar_offsets_move_a_view(on_generation, where):
    nc = on_generation(3)
    source, out = table(nc), nc.tile(shape=(3, 6))
    at = VirtualRegister(11) if where == "register" else index(nc, 11)
    isa.dma_copy(out, source.ap([[6, 3], [1, 6]], scalar_offset=at, indirect_dim=0))
    assert (out.array() == source.array()[11:14]).all()
    row = nc.tile(shape=(1, 6))
    isa.dma_copy(row, source.select(0, at))
    assert (row.array() == source.array()[11]).all()


def test_a_dynamic_view_is_an_operand_of_compute_instructions_too(on_generation):
    nc = on_generation(4)
    source, out = nc.tile(random.standard_normal((4, 5, 3))), nc.tile(shape=(4, 3))
    isa.tensor_copy(out, source.select(1, VirtualRegister(2)))
    assert (out.array() == source.array()[:, 2]).all()
    isa.tensor_copy(source.select(1, VirtualRegister(4)), out)
    assert (source.array()[:, 4] == out.array()).all()


@pytest.mark.parametrize("bad", [20, -1, 1 << 20])
def test_index_out_of_bounds_is_an_error_that_names_index_tensor_and_limit(on_generation, bad):
    nc = on_generation(3)
    source = table(nc)
    source.storage.allocation.name = "weights"
    with pytest.raises(ValidationError, match=f"index {bad} at position 1.*'weights'.*0:20.*oob_mode.skip"):
        isa.dma_copy(nc.tile(shape=(3, 6)), source.ap([[6, 3], [1, 6]], vector_offset=index(nc, 0, bad, 2)))
    with pytest.raises(ValidationError, match=f"index {bad} .*reaches outside"):
        isa.dma_copy(nc.tile(shape=(1, 6)), source.select(0, VirtualRegister(bad)))


def test_a_selected_dimension_ends_where_the_view_does(on_generation):
    nc = on_generation(3)
    part = table(nc)[0:10]
    with pytest.raises(ValidationError, match="index 12 .*0:10"):
        isa.dma_copy(nc.tile(shape=(1, 6)), part.select(0, VirtualRegister(12)))
    with pytest.raises(ValidationError, match="index 10 at position 1 .*0:10"):
        isa.dma_copy(nc.tile(shape=(2, 6)), part.vector_select(0, index(nc, 9, 10)))


def test_skipped_indices_leave_their_rows_alone(on_generation):
    nc = on_generation(3)
    source, out = table(nc), nc.tile(np.full((4, 6), -5.0))
    bad = index(nc, 3, 99, -1, 4)
    isa.dma_copy(out, source.ap([[6, 4], [1, 6]], vector_offset=bad), oob_mode=oob_mode.skip)
    expected = np.full((4, 6), -5.0, np.float32)
    expected[[0, 3]] = source.array()[[3, 4]]
    assert (out.array() == expected).all()
    before = source.array().copy()
    isa.dma_copy(source.ap([[6, 4], [1, 6]], vector_offset=bad), nc.tile(np.ones((4, 6))), oob_mode=oob_mode.skip)
    before[[3, 4]] = 1
    assert (source.array() == before).all()
    isa.dma_copy(out[0:1], source.select(0, VirtualRegister(99)), oob_mode=oob_mode.skip)
    assert (out.array()[0] == expected[0]).all()


def test_rows_that_a_skipping_gather_never_filled_count_as_unwritten(on_generation):
    nc = on_generation(3)
    source, out = table(nc), nc.tile(shape=(2, 6))
    isa.dma_copy(out, source.ap([[6, 2], [1, 6]], vector_offset=index(nc, 3, 99)), oob_mode=oob_mode.skip)
    with pytest.raises(UninitializedError, match="1 of 1 elements"):
        isa.register_load(VirtualRegister(), nc.core.allocate((1, 1), "int32"))
    mask = out.mask_array().all(axis=-1)
    assert mask[0].all() and not mask[1].any()


@pytest.mark.parametrize("mode", [dge_mode.hwdge, dge_mode.none])
def test_gather_needs_descriptors_made_by_software(on_generation, mode):
    nc = on_generation(3)
    with pytest.raises(ValidationError, match=f"dge_mode.{mode.name} cannot gather"):
        isa.dma_copy(nc.tile(shape=(2, 6)), table(nc).vector_select(0, index(nc, 1, 2)), dge_mode=mode)


def test_an_index_that_was_never_written_is_reported(on_generation):
    nc = on_generation(3)
    with pytest.raises(UninitializedError, match="used as an index"):
        isa.dma_copy(nc.tile(shape=(2, 6)), table(nc).vector_select(0, nc.tile(shape=(2, 1), dtype="int32")))


@pytest.mark.parametrize(
    ("shape", "axes"), [((32, 48), (1, 0)), ((8, 3, 16), (2, 1, 0)), ((8, 3, 2, 16), (3, 1, 2, 0))]
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "uint8"])
def test_dma_transpose_swaps_first_and_last_dimension(on_generation, shape, axes, dtype):
    nc = on_generation(3)
    source = nc.tile(random.integers(0, 100, shape), dtype, "shared_hbm")
    out = nc.tile(shape=tuple(shape[a] for a in axes), dtype=dtype)
    isa.dma_transpose(out, source, axes=axes)
    assert (out.array() == source.array().transpose(axes)).all()


def test_transpose_of_gathered_rows_reads_the_index_down_its_columns(on_generation):
    nc = on_generation(3)
    source = nc.tile(random.standard_normal((300, 32)), "bfloat16", "shared_hbm")
    rows = random.integers(0, 300, (128, 2))
    out = nc.tile(shape=(32, 256), dtype="bfloat16")
    view = source.ap([[32, 256], [1, 32]], vector_offset=nc.tile(rows, "uint32"))
    isa.dma_transpose(out, view, axes=(1, 0))
    assert (out.array() == source.array()[rows.T.reshape(-1)].T).all()


def test_skipped_rows_of_a_transposing_gather_leave_their_columns_alone(on_generation):
    nc = on_generation(3)
    source = nc.tile(random.standard_normal((40, 8)), "bfloat16", "shared_hbm")
    rows = np.arange(16).reshape(16, 1)
    rows[5] = 77
    out = nc.tile(np.zeros((8, 16)), "bfloat16")
    isa.dma_transpose(out, source.ap([[8, 16], [1, 8]], vector_offset=nc.tile(rows, "uint32")), oob_mode=oob_mode.skip)
    expected = source.array()[:16].T.copy()
    expected[:, 5] = 0
    assert (out.array() == expected).all()


@pytest.mark.parametrize(
    ("generation", "rows", "indices", "settings", "message"),
    [
        (2, 16, ("uint32", 16, 1), {}, "needs NeuronCore-v3"),
        (3, 24, ("uint32", 32, 1), {}, "multiple of 16"),
        (3, 16, ("int32", 16, 1), {}, "must be uint32"),
        (3, 32, ("uint32", 16, 1), {}, "32 rows are gathered by an index of 16"),
        (3, 32, ("uint32", 16, 2), {}, "needs 128 partitions"),
        (3, 16, ("uint32", 16, 1), {"dge_mode": dge_mode.hwdge}, "dge_mode.swdge or unknown"),
    ],
)
def test_rules_of_a_transposing_gather(on_generation, generation, rows, indices, settings, message):
    nc = on_generation(generation)
    dtype, partitions, columns = indices
    source = nc.tile(np.ones((40, 8)), "bfloat16", "shared_hbm")
    out = nc.tile(shape=(8, rows), dtype="bfloat16")
    at = nc.tile(np.zeros((partitions, columns)), dtype)
    with pytest.raises(ValidationError, match=message):
        isa.dma_transpose(out, source.ap([[8, rows], [1, 8]], vector_offset=at), **settings)


@pytest.mark.parametrize(
    ("shape", "dtype", "settings", "message"),
    [
        ((32, 64), "bfloat16", {"dge_mode": dge_mode.hwdge}, "has 16"),
        ((16, 64), "float32", {"dge_mode": dge_mode.hwdge}, "elements of 2 bytes"),
        ((16, 64), "bfloat16", {"axes": (0, 1)}, r"transpose by \(1, 0\)"),
        ((16, 64), "bfloat16", {"oob_mode": oob_mode.skip}, "addressed at run time"),
        ((16, 64), "bfloat16", {"dge_mode": dge_mode.swdge}, "hwdge or unknown"),
    ],
)
def test_rules_of_a_direct_transpose(on_generation, shape, dtype, settings, message):
    nc = on_generation(3)
    out = nc.tile(shape=shape[::-1], dtype=dtype)
    with pytest.raises(ValidationError, match=message):
        isa.dma_transpose(out, nc.tile(np.ones(shape), dtype, "shared_hbm"), **settings)


def test_dma_compute_adds_in_float32_and_rounds_once(on_generation):
    nc = on_generation(3)
    sources = [nc.tile(np.full((2, 4), v), "bfloat16", "shared_hbm") for v in (256.0, 1.0, 1.0)]
    out = nc.tile(shape=(2, 4), dtype="bfloat16")
    isa.dma_compute(out, sources, add, scales=[1.0, 1.0, 1.0])
    assert (out.array() == 258).all()  # one at a time, 256 + 1 would round back to 256


def test_dma_compute_adds_to_scattered_rows_and_gathers_to_add(on_generation):
    nc = on_generation(3)
    hbm, data, at = table(nc), nc.tile(np.ones((3, 6))), index(nc, 4, 0, 9)
    expected = hbm.array().copy()
    expected[[4, 0, 9]] += 1
    view = hbm.ap([[6, 3], [1, 6]], vector_offset=at)
    isa.dma_compute(view, [view, data], add)
    assert (hbm.array() == expected).all()
    isa.dma_compute(data, [view, data], add)
    assert (data.array() == expected[[4, 0, 9]] + 1).all()


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (17, {}, "17 sources"),
        (2, {"scales": [1.0, 0.5]}, "all 1.0"),
        (2, {"reduce_op": max}, "only add"),
    ],
)
def test_rules_of_dma_compute(on_generation, count, settings, message):
    nc = on_generation(3)
    with pytest.raises(ValidationError, match=message):
        isa.dma_compute(nc.tile(shape=(2, 4)), [nc.tile(np.ones((2, 4)))] * count, **{"reduce_op": add, **settings})


def test_adding_twice_to_one_row_is_refused(on_generation):
    nc = on_generation(3)
    view = table(nc).ap([[6, 3], [1, 6]], vector_offset=index(nc, 4, 0, 4))
    with pytest.raises(ValidationError, match="index 4 occurs 2 times"):
        isa.dma_compute(view, [view, nc.tile(np.ones((3, 6)))], add)


def test_tensor_indirection_takes_columns_in_snake_order(on_generation):
    nc = on_generation(4)
    source = nc.tile(random.standard_normal((32, 10)))
    columns = random.integers(0, 10, (32, 2))
    out = nc.tile(shape=(32, 20))
    isa.tensor_copy(out, source.indirect(nc.tile(columns, "uint16"), 20))
    for p in range(32):
        group = p // 16 * 16  # 16 partitions share their offsets: down the partitions, then the next column
        for i in range(20):
            assert out.array()[p, i] == source.array()[p, columns[group + i % 16, i // 16]]
    target = nc.tile(np.zeros((32, 40)))
    distinct = np.stack([random.permutation(40)[:32] for _ in range(2)])  # offsets of each group of 16 partitions
    at = np.concatenate([d.reshape(2, 16).T for d in distinct])
    isa.tensor_copy(target.indirect(nc.tile(at, "uint16")[:, 0:2], 20), out)
    for p in range(32):
        assert (target.array()[p, distinct[p // 16][:20]] == out.array()[p]).all()
