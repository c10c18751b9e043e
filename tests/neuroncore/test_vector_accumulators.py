"""Vector instructions that keep a running reduction in the engine's registers, against NumPy."""

import numpy as np
import pytest

from opentrn.errors import UninitializedError
from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.settings import reduce_cmd

LOWEST = np.finfo(np.float32).min


@pytest.fixture
def x():
    return np.random.default_rng(5).standard_normal((128, 24)).astype(np.float32)


def test_tensor_scalar_reduce_folds_tiles_into_one_result(chip, x):
    dst, out = chip.tile(shape=x.shape, dtype="bfloat16"), chip.tile(shape=(128, 1))
    isa.tensor_scalar_reduce(dst, chip.tile(x), np.multiply, 2.0, np.maximum)
    isa.tensor_scalar_reduce(dst, chip.tile(x), np.multiply, -3.0, np.maximum, out, reduce_cmd=reduce_cmd.reduce)
    np.testing.assert_array_equal(out.array()[:, 0], np.maximum((x * 2).max(1), (x * np.float32(-3)).max(1)))
    isa.tensor_scalar_reduce(
        dst, chip.tile(x), np.abs, 0.0, np.maximum, out, reduce_cmd=reduce_cmd.load_reduce, reduce_init=2.5,
        reduce_res_negate=True,
    )  # fmt: skip
    np.testing.assert_array_equal(out.array()[:, 0], -np.maximum(np.abs(x).max(1), np.float32(2.5)))
    np.testing.assert_array_equal(dst.array(), np.abs(x).astype(dst.array().dtype))


def test_registers_are_shared_by_the_vector_instructions(chip, x):
    dst, out = chip.tile(shape=x.shape), chip.tile(shape=(128, 1))
    isa.exponential(dst, chip.tile(x), 1.5, reduce_cmd=reduce_cmd.reset_reduce)
    total = np.exp(x - np.float32(1.5)).sum(1)
    isa.tensor_scalar_reduce(dst, chip.tile(x), np.add, 0.0, np.add, out, reduce_cmd=reduce_cmd.reduce)
    np.testing.assert_allclose(out.array()[:, 0], total + x.sum(1), rtol=1e-5)
    initial = chip.tile(np.arange(128)[:, None])
    isa.exponential(dst, chip.tile(x), chip.tile(x[:, :1]), out, reduce_cmd.load_reduce, initial)
    np.testing.assert_allclose(out.array()[:, 0], np.exp(x - x[:, :1]).sum(1) + np.arange(128), rtol=1e-6)


@pytest.mark.parametrize("spoiler", ["exponential", "select_reduce"])
def test_idle_leaves_the_registers_unknown(chip, x, spoiler):
    dst, tile = chip.tile(shape=x.shape), chip.tile(x)
    isa.tensor_scalar_reduce(dst, tile, np.add, 0.0, np.add)
    if spoiler == "exponential":
        isa.exponential(dst, tile)
    else:
        isa.select_reduce(dst, chip.tile(x > 0, "uint8"), tile, 0.0)
    with pytest.raises(UninitializedError, match="reset_reduce"):
        isa.tensor_scalar_reduce(dst, tile, np.add, 0.0, np.add, reduce_cmd=reduce_cmd.reduce)


@pytest.mark.parametrize("op1", [np.add, np.multiply, np.maximum, np.minimum])
def test_running_reductions(chip, x, op1):
    accumulate = op1.accumulate
    dst = chip.tile(shape=x.shape)
    isa.tensor_scalar_cumulative(dst, chip.tile(x), np.add, op1, 0.5)
    first = accumulate(x + np.float32(0.5), axis=1)
    np.testing.assert_array_equal(dst.array(), first)
    isa.tensor_scalar_cumulative(dst, chip.tile(x), np.add, op1, 0.5, reduce_cmd=reduce_cmd.reduce)
    both = accumulate(np.concatenate((x, x), axis=1) + np.float32(0.5), axis=1)[:, x.shape[1] :]
    np.testing.assert_array_equal(dst.array(), both)


def test_running_subtraction_alternates(chip):
    # reg = x - reg from 0: 1, 2 - 1, 4 - 1, 8 - 3.
    dst = chip.tile(shape=(1, 4))
    isa.tensor_scalar_cumulative(dst, chip.tile([[1, 2, 4, 8]]), np.multiply, np.subtract, 1.0)
    assert dst.array().tolist() == [[1, 1, 3, 5]]
    isa.tensor_scalar_cumulative(
        dst, chip.tile([[1, 2, 4, 8]]), np.multiply, np.subtract, 1.0, 10.0, reduce_cmd.load_reduce
    )
    assert dst.array().tolist() == [[-9, 11, -7, 15]]


@pytest.mark.parametrize("out_type", ["float32", "bfloat16"])
def test_range_select_masks_and_finds_the_maximum(chip, x, out_type):
    dst, out = chip.tile(shape=x.shape, dtype=out_type), chip.tile(shape=(128, 1))
    low, high = np.arange(128)[:, None] % 7 + 100.0, np.arange(128)[:, None] % 11 + 103.0
    isa.range_select(
        dst, chip.tile(x), np.greater_equal, np.less, chip.tile(low), chip.tile(high), reduce_res=out, range_start=100
    )
    index = 100 + np.arange(24)
    mask = (index >= low) & (index < high)
    selected = np.where(mask, x, LOWEST).astype(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(dst.array(), selected.astype(dst.array().dtype))
    np.testing.assert_array_equal(out.array()[:, 0], selected.max(1))
    if out_type == "bfloat16":
        assert np.isneginf(dst.array().astype(np.float32)[~mask]).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_select_reduce(chip, x, reverse):
    dst, out, mask = chip.tile(shape=x.shape), chip.tile(shape=(128, 1)), np.random.default_rng(1).random(x.shape) < 0.5
    fallback = np.linspace(-3, 3, 128, dtype=np.float32)[:, None]
    isa.select_reduce(
        dst,
        chip.tile(mask, "uint8"),
        chip.tile(x),
        chip.tile(fallback),
        out,
        reduce_cmd.reset_reduce,
        reverse_pred=reverse,
    )
    expected = np.where(mask != reverse, x, fallback)
    np.testing.assert_array_equal(dst.array(), expected)
    np.testing.assert_array_equal(out.array()[:, 0], expected.max(1))
    isa.select_reduce(dst, chip.tile(mask, "uint8"), chip.tile(x), 9.0, out, reduce_cmd.reduce)
    assert (out.array() == 9).all()
