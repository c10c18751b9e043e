"""Search, gather, scan, statistics, patterns and shuffles against slow but plain references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentrn import hardware
from opentrn.errors import ValidationError
from opentrn.neuroncore import isa, machine


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def test_max8_sorts_the_largest_values(chip, rng):
    x = rng.standard_normal((128, 3, 40)).astype(np.float32)
    dst = chip.tile(shape=(128, 8))
    isa.max8(dst, chip.tile(x))
    np.testing.assert_array_equal(dst.array(), -np.sort(-x.reshape(128, -1), axis=1)[:, :8])
    eight = chip.tile(x[:, 0, :8])
    isa.max8(dst, eight)
    np.testing.assert_array_equal(dst.array(), -np.sort(-x[:, 0, :8], axis=1))


def test_find_index8_gives_first_occurrences_and_all_ones_for_absent_values(chip):
    data = np.array([[5, 1, 5, 2, 5, 3, 9, 9, 0]], np.float32)
    vals = np.array([[9, 5, 5, 3, 7, 5, 5, 0]], np.float32)
    dst = chip.tile(shape=(1, 8), dtype="uint32")
    isa.nc_find_index8(dst, chip.tile(data), chip.tile(vals))
    assert dst.array().tolist() == [[6, 0, 2, 5, 0xFFFFFFFF, 4, 0xFFFFFFFF, 8]]
    short = chip.tile(shape=(1, 8), dtype="uint16")
    isa.nc_find_index8(short, chip.tile(data), chip.tile(vals))
    assert short.array()[0, 4] == 0xFFFF


def test_match_replace8_pairs_equal_values_in_descending_order(chip):
    data = np.array([[1, 2, 3, 4, 8, 8, 8, 8, 8, 8, 8]], np.float32)
    vals = np.array([[3, 8, 8, 8, 8, 8, 8, 8]], np.float32)
    dst, index = chip.tile(shape=data.shape), chip.tile(shape=(1, 8), dtype="uint32")
    isa.nc_match_replace8(dst, chip.tile(data), chip.tile(vals), -1.0, index)
    assert index.array().tolist() == [[2, 10, 9, 8, 7, 6, 5, 4]]
    assert dst.array().tolist() == [[1, 2, -1, 4, -1, -1, -1, -1, -1, -1, -1]]


@given(st.integers(0, 2**32 - 1), st.integers(8, 40))
def test_repeated_max_and_replace_sorts_a_row(seed, size):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    x = np.random.default_rng(seed).integers(-6, 6, (4, size)).astype(np.float32)
    core = machine.current()
    data, top = core.allocate(x.shape, "float32"), core.allocate((4, 8), "float32")
    index = core.allocate((4, 8), "uint32")
    data.array()[...] = x
    data.storage.state = 2
    found, places = [], []
    for _ in range(size // 8):
        isa.max8(top, data)
        isa.nc_match_replace8(data, data, top, float("-inf"), index)
        found.append(top.array().copy())
        places.append(index.array().copy())
    count = size // 8 * 8
    np.testing.assert_array_equal(np.concatenate(found, 1), -np.sort(-x, axis=1)[:, :count])
    places = np.concatenate(places, 1).astype(np.int64)
    np.testing.assert_array_equal(np.take_along_axis(x, places, 1), np.concatenate(found, 1))
    assert all(len(set(row)) == count for row in places.tolist())


def test_nonzero_with_count_works_on_the_first_partition_of_each_processor(chip):
    x = np.zeros((32, 8), np.float32)
    x[0], x[16] = [0, 1, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, np.nan]
    x[1] = 1
    dst = chip.tile(np.full((32, 9), 77), "int32")
    isa.nonzero_with_count(dst, chip.tile(x), index_offset=16)
    assert dst.array()[0].tolist() == [17, 18, 21, -1, -1, -1, -1, -1, 3]
    assert dst.array()[16].tolist() == [23, -1, -1, -1, -1, -1, -1, -1, 1]
    assert (dst.array()[np.arange(32) % 16 != 0] == 77).all()


def test_topk_reads_the_snake_and_sorts_ascending(chip, rng):
    n, k = 42, 8
    x = rng.permutation(128 * 3).reshape(128, 3).astype(np.float32)
    vals, index = chip.tile(shape=(128, k), dtype="bfloat16"), chip.tile(shape=(128, k), dtype="uint32")
    src = chip.tile(x, "bfloat16")
    isa.topk(vals, index, src, n)
    held = src.array().astype(np.float32)
    for group in range(8):
        rows = held[16 * group : 16 * group + 16]
        elements = np.array([rows[e % 16, e // 16] for e in range(n)])
        for p in range(16 * group, 16 * group + 16):
            np.testing.assert_array_equal(vals.array()[p].astype(np.float32), np.sort(elements)[-k:])
            np.testing.assert_array_equal(elements[index.array()[p]], np.sort(elements)[-k:])


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_sequence_bounds(chip, dtype):
    dst = chip.tile(shape=(1, 2, 9), dtype=dtype)
    isa.sequence_bounds(dst, chip.tile([[0, 1, 1, 2, 2, 2, 0, 3, 3]], dtype))
    assert dst.array()[0].tolist() == [[9, 1, 1, 3, 3, 3, 9, 7, 7], [-1, 3, 3, 6, 6, 6, -1, 9, 9]]


def test_local_gather_shares_indices_among_sixteen_partitions(chip, rng):
    src = rng.standard_normal((128, 64)).astype(np.float32)
    index = rng.integers(0, 60, (128, 2)).astype(np.uint16)
    count, width = 29, 4
    dst = chip.tile(shape=(128, count * width))
    isa.local_gather(dst, chip.tile(src), chip.tile(index, "uint16"), width, count)
    for p in range(128):
        group = index[p // 16 * 16 : p // 16 * 16 + 16]
        flat = [int(group[r, c]) for c in range(2) for r in range(16)][:count]
        np.testing.assert_array_equal(dst.array()[p], np.concatenate([src[p, i : i + width] for i in flat]))


def test_nc_n_gather_is_a_gather_within_each_partition(chip, rng):
    data, index = rng.standard_normal((128, 5, 20)), rng.integers(0, 100, (128, 3, 4))
    dst = chip.tile(shape=(128, 12), dtype="bfloat16")
    src = chip.tile(data, "bfloat16")
    isa.nc_n_gather(dst, src, chip.tile(index, "uint32"))
    np.testing.assert_array_equal(
        dst.array(), np.take_along_axis(src.array().reshape(128, 100), index.reshape(128, 12), 1)
    )
    with pytest.raises(ValidationError, match=r"index 100 .* 100 elements"):
        isa.nc_n_gather(dst, src, chip.tile(np.full((128, 12), 100), "uint32"))


@pytest.mark.parametrize("op0", [np.multiply, np.add, np.subtract])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_follows_the_recurrence(chip, rng, op0, reverse):
    a, b = rng.standard_normal((128, 17)).astype(np.float32), rng.standard_normal((128, 17)).astype(np.float32)
    start = rng.standard_normal((128, 1)).astype(np.float32)
    dst = chip.tile(shape=(128, 17))
    isa.tensor_tensor_scan(dst, chip.tile(a), chip.tile(b), chip.tile(start), op0, np.add, reverse0=reverse)
    state = start[:, 0]
    for k in range(17):
        state = (op0(state, a[:, k]) if reverse else op0(a[:, k], state)) + b[:, k]
        np.testing.assert_array_equal(dst.array()[:, k], state)
    isa.tensor_tensor_scan(dst, chip.tile(a), chip.tile(b), 0.5, op0, np.maximum)
    assert (dst.array()[:, 0] == np.maximum(op0(a[:, 0], np.float32(0.5)), b[:, 0])).all()


@pytest.mark.parametrize("size", [1, 7, 512])
def test_statistics_of_halves_aggregate_to_mean_and_variance(chip, rng, size):
    x = (rng.standard_normal((128, 2, size)) * 3 + 5).astype(np.float32)
    stats, result = chip.tile(shape=(128, 12)), chip.tile(shape=(128, 2))
    for half in range(2):
        isa.bn_stats(stats[:, 6 * half : 6 * half + 6], chip.tile(x[:, half]))
    isa.bn_aggr(result, stats)
    even = x[:, 0, 0::2]
    np.testing.assert_allclose(stats.array()[:, 0], even.shape[1])
    np.testing.assert_allclose(stats.array()[:, 1], even.astype(np.float64).mean(1), rtol=1e-5)
    np.testing.assert_allclose(
        stats.array()[:, 2], even.astype(np.float64).var(1) * even.shape[1], rtol=1e-3, atol=1e-5
    )
    exact = x.reshape(128, -1).astype(np.float64)
    np.testing.assert_allclose(result.array()[:, 0], exact.mean(1), rtol=1e-5)
    np.testing.assert_allclose(result.array()[:, 1], exact.var(1), rtol=1e-4)


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(-100, 100),
    st.integers(-50, 50),
)
def test_iota_counts_along_nested_loops(pattern, offset, multiplier):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    sizes = [n for _, n in pattern]
    dst = machine.current().allocate((6, int(np.prod(sizes))), "int32")
    isa.iota(dst, [list(p) for p in pattern], offset, multiplier)
    for p in range(6):
        expected = [
            offset + p * multiplier + sum(i * s for i, (s, _) in zip(index, pattern, strict=True))
            for index in np.ndindex(*sizes)
        ]
        assert dst.array()[p].tolist() == expected


def test_iota_wraps_in_32_bits_and_converts(chip):
    dst, half = chip.tile(shape=(1, 2), dtype="int32"), chip.tile(shape=(1, 3), dtype="bfloat16")
    isa.iota(dst, [[1, 2]], 2**31 - 1)
    assert dst.array().tolist() == [[2**31 - 1, -(2**31)]]
    isa.iota(half, [[-3, 3]], 1)
    assert half.array().astype(float).tolist() == [[1, -2, -5]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_affine_select_draws_a_causal_mask(chip, dtype):
    x = np.arange(1, 17, dtype=np.float32).reshape(4, 4)
    masked = np.where(np.tri(4, dtype=bool), x, -5)
    converted, in_place = chip.tile(shape=(4, 4), dtype=dtype), chip.tile(x, dtype)
    isa.affine_select(converted, [[-1, 4]], 1, chip.tile(x), -5.0, np.greater_equal)
    isa.affine_select(in_place, [[-1, 4]], 1, in_place, -5.0, np.greater_equal)
    np.testing.assert_array_equal(converted.array().astype(np.float32), masked)
    np.testing.assert_array_equal(in_place.array().astype(np.float32), masked)


def test_predicated_copy_leaves_the_rest_alone(chip, rng):
    old, new, mask = rng.standard_normal((128, 6)), rng.standard_normal((128, 6)), rng.integers(0, 3, (128, 6))
    dst = chip.tile(old)
    isa.tensor_copy_predicated(dst, chip.tile(new), chip.tile(mask, "uint8"))
    np.testing.assert_array_equal(dst.array(), np.where(mask, new, old).astype(np.float32))
    isa.tensor_copy_predicated(dst, 7.0, chip.tile(mask, "uint32"), reverse_pred=True)
    np.testing.assert_array_equal(dst.array(), np.where(mask, new, 7).astype(np.float32))


def test_shuffle_moves_partitions_within_quadrants(chip, rng):
    x = rng.standard_normal((128, 6)).astype(np.float32)
    mask = [31 - k for k in range(32)]
    mask[3] = 255
    tile = chip.tile(x)
    isa.nc_stream_shuffle(tile, tile, mask)
    expected = x.reshape(4, 32, 6)[:, ::-1].copy()
    expected[:, 3] = x.reshape(4, 32, 6)[:, 3]
    np.testing.assert_array_equal(tile.array(), expected.reshape(128, 6))
    spread = chip.tile(shape=(32, 6))
    isa.nc_stream_shuffle(spread, chip.tile(x[5:6]), [0] * 32)
    np.testing.assert_array_equal(spread.array(), np.repeat(x[5:6], 32, 0))
    with pytest.raises(ValidationError, match="reads partition 1 of src, which has 1"):
        isa.nc_stream_shuffle(spread, chip.tile(x[5:6]), list(range(32)))
