"""Random instructions: the generator against Marsaglia's recurrence, repeatability, distribution."""

import numpy as np
import pytest

from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.settings import engine


def xorwow(state):
    """The published recurrence on Python integers."""
    x, y, z, w, v, d = (int(s) for s in state)
    while True:
        t = x ^ (x >> 2)
        x, y, z, w = y, z, w, v
        v = (v ^ (v << 4) ^ t ^ (t << 1)) & 0xFFFFFFFF
        d = (d + 362437) & 0xFFFFFFFF
        yield (d + v) & 0xFFFFFFFF


def test_gpsimd_words_follow_xorwow_from_the_state_given(chip):
    state = np.random.default_rng(0).integers(0, 2**32, (128, 6), dtype=np.uint32)
    isa.rand_set_state(chip.tile(state, "uint32"))
    dst, narrow = chip.tile(shape=(128, 5), dtype="uint32"), chip.tile(shape=(128, 2), dtype="int8")
    isa.rng(dst, engine.gpsimd)
    isa.rng(narrow, engine.gpsimd)
    for lane in (0, 77, 127):
        generator = xorwow(state[lane])
        assert dst.array()[lane].tolist() == [next(generator) for _ in range(5)]
        assert narrow.array()[lane].view(np.uint8).tolist() == [next(generator) & 0xFF for _ in range(2)]


def test_vector_lanes_take_turns_among_four_states(chip):
    state = np.random.default_rng(1).integers(0, 2**32, (128, 24), dtype=np.uint32)
    isa.rand_set_state(chip.tile(state, "uint32"), engine.vector)
    dst = chip.tile(shape=(128, 8), dtype="uint32")
    isa.rng(dst)
    streams = [xorwow(state[9, 6 * k : 6 * k + 6]) for k in range(4)]
    assert dst.array()[9].tolist() == [next(streams[k % 4]) for k in range(8)]


def test_a_saved_state_repeats_the_sequence(chip):
    saved, first, again = (chip.tile(shape=s, dtype="uint32") for s in ((128, 24), (128, 16), (128, 16)))
    isa.rand_get_state(saved, engine.vector)
    isa.rng(first)
    isa.rand_set_state(saved, engine.vector)
    isa.rng(again)
    np.testing.assert_array_equal(first.array(), again.array())


@pytest.mark.parametrize("generation", [2, 3, 4])
def test_a_seed_decides_the_sequence(on_generation, generation):
    def numbers(seed):
        chip = on_generation(generation)
        isa.set_rng_seed(chip.tile([[seed]], "uint32"))
        dst = chip.tile(shape=(128, 64), dtype="int32")
        isa.rng(dst)
        return dst.array().copy()

    np.testing.assert_array_equal(numbers(42), numbers(42))
    assert (numbers(42) != numbers(43)).mean() > 0.99
    assert len(np.unique(numbers(42))) > 128 * 64 - 5  # no two lanes run alike


def test_a_lane_is_a_partition(chip):
    whole, part = chip.tile(shape=(128, 8), dtype="uint32"), chip.tile(shape=(128, 8), dtype="uint32")
    isa.set_rng_seed(chip.tile([[1]], "uint32"))
    isa.rng(whole)
    isa.set_rng_seed(chip.tile([[1]], "uint32"))
    isa.rng(part[64:128])
    np.testing.assert_array_equal(part.array()[64:], whole.array()[64:])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int16"])
def test_rand2_is_uniform_between_its_bounds(chip, dtype):
    dst = chip.tile(shape=(128, 512), dtype=dtype)
    isa.rand2(dst, -8.0, chip.tile(np.full((128, 1), 24.0)))
    values = dst.array().astype(np.float64)
    assert values.min() >= -8
    assert values.max() <= 24
    assert abs(values.mean() - 8) < 0.2
    assert abs(values.std() - 32 / np.sqrt(12)) < 0.2


def test_dropout_drops_with_the_probability_of_each_partition(chip):
    x = np.random.default_rng(0).standard_normal((128, 1024))
    prob = np.linspace(0, 1, 128)[:, None]
    dst, data = chip.tile(shape=x.shape, dtype="bfloat16"), chip.tile(x, "bfloat16")
    isa.dropout(dst, data, chip.tile(prob))
    kept = dst.array() != 0
    np.testing.assert_array_equal(dst.array()[kept], data.array()[kept])
    assert kept[0].sum() == (data.array()[0] != 0).sum()
    assert not kept[-1].any()
    assert np.abs((~kept).mean(1) - prob[:, 0]).max() < 0.07
