"""Which results of an instruction are undefined when some of its input was never written: no more and no fewer."""

import numpy as np
import pytest

from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.settings import reduce_cmd
from opentrn.neuroncore.undefined import defined


@pytest.fixture
def partly(chip):
    """A function that makes a (32, 8) tile of which only the elements where ``mask`` holds were written."""

    def make(mask, dtype="float32", value=1):
        tensor = chip.tile(shape=(32, 8), dtype=dtype)
        tensor.storage.begin_partial()
        tensor.mask_array()[...] = np.asarray(mask)[..., None]
        tensor.storage.unwritten = int((~np.asarray(mask)).sum()) * tensor.layout.itemsize
        tensor.array()[np.asarray(mask)] = value
        return tensor

    return make


def written(tensor):
    """Boolean array of the defined elements."""
    mask = defined(tensor)
    return np.ones(tensor.shape, bool) if mask is None else mask


HOLE = np.ones((32, 8), bool)
HOLE[3, 2] = HOLE[9, 5] = False
ROWS = HOLE.all(axis=1, keepdims=True)
PREFIX = np.logical_and.accumulate(HOLE, axis=1)


def test_elementwise_results_have_the_same_holes(chip, partly):
    full, dst = chip.tile(np.ones((32, 8))), chip.tile(shape=(32, 8), dtype="bfloat16")
    isa.tensor_tensor(dst, full, partly(HOLE), np.add)
    np.testing.assert_array_equal(written(dst), HOLE)
    isa.activation(dst, np.exp, partly(HOLE))
    np.testing.assert_array_equal(written(dst), HOLE)
    column = partly(HOLE)[:, 2:3]
    isa.tensor_scalar(dst, full, np.multiply, column)
    np.testing.assert_array_equal(written(dst), np.broadcast_to(HOLE[:, 2:3], (32, 8)))


def test_reductions_lose_the_rows_with_holes_only(chip, partly):
    dst, out = chip.tile(shape=(32, 8)), chip.tile(shape=(32, 1))
    isa.tensor_reduce(out, np.add, partly(HOLE), 1)
    np.testing.assert_array_equal(written(out), ROWS)
    isa.activation(dst, np.exp, partly(HOLE), reduce_res=out, reduce_cmd=reduce_cmd.reset_reduce)
    np.testing.assert_array_equal(written(dst), HOLE)
    np.testing.assert_array_equal(written(out), ROWS)
    halves = chip.tile(shape=(32, 2))
    isa.tensor_reduce(halves, np.add, partly(HOLE).reshape((32, 2, 4)), 2)
    np.testing.assert_array_equal(written(halves), HOLE.reshape(32, 2, 4).all(axis=2))
    row = chip.tile(shape=(1, 8))
    isa.tensor_partition_reduce(row, np.add, partly(HOLE))
    np.testing.assert_array_equal(written(row), HOLE.all(axis=0, keepdims=True))


def test_scans_lose_what_follows_a_hole(chip, partly):
    full, dst = chip.tile(np.ones((32, 8))), chip.tile(shape=(32, 8))
    isa.tensor_tensor_scan(dst, full, partly(HOLE), 0.0, np.multiply, np.add)
    np.testing.assert_array_equal(written(dst), PREFIX)
    isa.tensor_scalar_cumulative(dst, partly(HOLE), np.add, np.add, 0.0)
    np.testing.assert_array_equal(written(dst), PREFIX)


def test_a_hole_that_is_masked_out_does_not_matter(chip, partly):
    full, dst, out = chip.tile(np.ones((32, 8))), chip.tile(shape=(32, 8)), chip.tile(shape=(32, 1))
    triangle = np.tri(32, 8, dtype=bool)
    isa.affine_select(dst, [[-1, 8]], 1, partly(triangle), 0.0, np.greater_equal)
    assert written(dst).all()
    np.testing.assert_array_equal(dst.array(), triangle.astype(np.float32))
    predicate = chip.tile(HOLE, "uint8")
    isa.select_reduce(dst, predicate, partly(HOLE), 5.0, out, reduce_cmd.reset_reduce)
    assert written(dst).all()
    assert written(out).all()
    isa.select_reduce(dst, predicate, partly(HOLE), 5.0, out, reduce_cmd.reset_reduce, reverse_pred=True)
    np.testing.assert_array_equal(written(dst), HOLE)
    low, high = chip.tile(np.full((32, 1), 3.0)), chip.tile(np.full((32, 1), 5.0))
    isa.range_select(dst, partly(HOLE), np.greater_equal, np.less, low, high)
    assert written(dst).all()
    isa.range_select(dst, partly(HOLE), np.greater_equal, np.less_equal, low, high, reduce_res=out)
    np.testing.assert_array_equal(np.argwhere(~written(dst)), [[9, 5]])
    np.testing.assert_array_equal(np.flatnonzero(~written(out)), [9])
    assert full.array().all()


def test_what_a_predicated_copy_leaves_stays_as_defined_as_it_was(chip, partly):
    take = np.zeros((32, 8), bool)
    take[:, :4] = True
    dst = chip.tile(shape=(32, 8))
    isa.tensor_copy_predicated(dst, chip.tile(np.ones((32, 8))), chip.tile(take, "uint8"))
    np.testing.assert_array_equal(written(dst), take)
    assert np.isnan(dst.array()[:, 4:]).all()
    isa.tensor_copy_predicated(dst, partly(HOLE), chip.tile(~take, "uint8"))
    np.testing.assert_array_equal(written(dst), HOLE | take)


def test_gathers_and_shuffles_carry_holes_along(chip, partly):
    rng = np.random.default_rng(0)
    index = rng.integers(0, 8, (32, 8))
    dst = chip.tile(shape=(32, 8))
    isa.nc_n_gather(dst, partly(HOLE), chip.tile(index, "uint32"))
    np.testing.assert_array_equal(written(dst), np.take_along_axis(HOLE, index, 1))
    isa.local_gather(chip.tile(shape=(32, 8)), partly(HOLE), chip.tile(index[:, :1], "uint16"), 1, 8)
    mask = [31 - k for k in range(32)]
    mask[0] = 255
    shuffled = chip.tile(shape=(32, 8))
    isa.nc_stream_shuffle(shuffled, partly(HOLE), mask)
    expected = HOLE[::-1].copy()
    expected[0] = False
    np.testing.assert_array_equal(written(shuffled), expected)


def test_searches_lose_their_rows(chip, partly):
    top, places = chip.tile(shape=(32, 8)), chip.tile(shape=(32, 8), dtype="uint32")
    isa.max8(top, partly(HOLE))
    np.testing.assert_array_equal(written(top), np.broadcast_to(ROWS, (32, 8)))
    isa.nc_find_index8(places, partly(HOLE), chip.tile(np.ones((32, 8))))
    np.testing.assert_array_equal(written(places), np.broadcast_to(ROWS, (32, 8)))
    out = chip.tile(shape=(32, 8))
    isa.nc_match_replace8(out, partly(HOLE), chip.tile(np.ones((32, 8))), 0.0, places)
    np.testing.assert_array_equal(written(out), HOLE)
    np.testing.assert_array_equal(written(places), np.broadcast_to(ROWS, (32, 8)))
    counts = chip.tile(shape=(32, 9), dtype="int32")
    isa.nonzero_with_count(counts, partly(HOLE))
    assert np.flatnonzero(written(counts).all(axis=1)).tolist() == [0, 16]
    values, index = chip.tile(shape=(32, 4), dtype="bfloat16"), chip.tile(shape=(32, 4), dtype="uint32")
    last = np.ones((32, 8), bool)
    last[20, 7] = False
    isa.topk(values, index, partly(last, "bfloat16"), 16 * 7)
    assert written(values).all()
    isa.topk(values, index, partly(last, "bfloat16"), 16 * 8)
    assert np.flatnonzero(~written(index).any(axis=1)).tolist() == list(range(16, 32))
