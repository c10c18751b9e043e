"""Gather and scatter along the free dimension by ``indirect()``, on the instructions that take it (NeuronCore-v4)."""

import numpy as np
import pytest

from opentrn.errors import ValidationError
from opentrn.neuroncore import isa

NUM = 40


@pytest.fixture
def case(chip):
    """Data, an index tile (groups of 16 partitions, snake order) and the columns that it means."""
    rng = np.random.default_rng(2)
    data = rng.standard_normal((128, 60)).astype(np.float32)
    index = np.stack([rng.permutation(60)[:48].reshape(3, 16).T for _ in range(8)]).reshape(128, 3)
    columns = np.repeat([index[16 * g : 16 * g + 16].T.reshape(-1)[:NUM] for g in range(8)], 16, axis=0)
    return data, chip.tile(index, "uint16"), columns


def test_a_gathered_operand(chip, case):
    data, index, columns = case
    gathered = np.take_along_axis(data, columns, 1)
    dst, other = chip.tile(shape=(128, NUM)), np.random.default_rng(3).standard_normal((128, NUM)).astype(np.float32)
    view = chip.tile(data).indirect(index, NUM)
    isa.tensor_copy(dst, view)
    np.testing.assert_array_equal(dst.array(), gathered)
    isa.tensor_tensor(dst, view, chip.tile(other), np.add)
    np.testing.assert_array_equal(dst.array(), gathered + other)
    isa.tensor_scalar(dst, view, np.multiply, 3.0)
    np.testing.assert_array_equal(dst.array(), gathered * 3)
    isa.activation(dst, "relu", view)
    np.testing.assert_array_equal(dst.array(), np.maximum(gathered, 0))
    isa.activate2(dst, "copy", view, 2.0, 0.0, np.multiply, "bypass")
    np.testing.assert_array_equal(dst.array(), gathered * 2)
    isa.exponential(dst, view)
    np.testing.assert_array_equal(dst.array(), np.exp(gathered))
    out = chip.tile(shape=(128, 1))
    isa.tensor_reduce(out, np.maximum, view, 1)
    np.testing.assert_array_equal(out.array()[:, 0], gathered.max(1))
    isa.tensor_scalar_reduce(dst, view, np.add, 0.0, np.maximum, out)
    np.testing.assert_array_equal(out.array()[:, 0], gathered.max(1))
    isa.tensor_scalar_cumulative(dst, view, np.add, np.maximum, 0.0)
    np.testing.assert_array_equal(dst.array(), np.maximum.accumulate(gathered, axis=1))


def test_a_scattered_result(chip, case):
    data, index, columns = case
    values = np.random.default_rng(4).standard_normal((128, NUM)).astype(np.float32)
    expected = data.copy()
    np.put_along_axis(expected, columns, values * 2, 1)
    for issue in (
        lambda dst, src: isa.tensor_scalar(dst, src, np.multiply, 2.0),
        lambda dst, src: isa.tensor_tensor(dst, src, src, np.add),
        lambda dst, src: isa.activation(dst, "copy", src, scale=2.0),
    ):
        target = chip.tile(data)
        issue(target.indirect(index, NUM), chip.tile(values))
        np.testing.assert_array_equal(target.array(), expected)


def test_a_predicated_scatter_keeps_what_is_not_chosen(chip, case):
    data, index, columns = case
    values = np.random.default_rng(5).standard_normal((128, NUM)).astype(np.float32)
    choose = np.random.default_rng(6).random((128, NUM)) < 0.5
    target = chip.tile(data)
    isa.tensor_copy_predicated(target.indirect(index, NUM), chip.tile(values), chip.tile(choose, "uint8"))
    expected = data.copy()
    np.put_along_axis(expected, columns, np.where(choose, values, np.take_along_axis(data, columns, 1)), 1)
    np.testing.assert_array_equal(target.array(), expected)


def test_placed_operands_start_where_their_indices_do(chip):
    core = chip.core

    def at(partition, byte, shape, dtype="float32", buffer="sbuf"):
        tensor = core.allocate(shape, dtype, buffer, address=(partition, byte))
        tensor.array()[...] = 0
        tensor.storage.state = 2
        return tensor

    data, dst = at(32, 0, (32, 16)), chip.tile(shape=(32, 4))
    isa.tensor_copy(dst, data.indirect(at(32, 4096, (32, 1), "uint16"), 4))
    with pytest.raises(ValidationError, match="index of src starts at partition 16; it must start at a multiple of 32"):
        isa.tensor_copy(dst, data.indirect(at(16, 4096, (32, 1), "uint16"), 4))
    with pytest.raises(ValidationError, match="index of src starts at partition 64 and src at 32"):
        isa.tensor_copy(dst, data.indirect(at(64, 4096, (32, 1), "uint16"), 4))
    narrow = at(32, 8192, (32, 4))
    with pytest.raises(ValidationError, match="index of dst starts at partition 0 and data at 32"):
        isa.tensor_scalar(
            chip.tile(np.zeros((32, 16))).indirect(at(0, 4096, (32, 1), "uint16"), 4), narrow, np.add, 1.0
        )
    isa.tensor_scalar(chip.tile(np.zeros((32, 16))).indirect(at(32, 4096, (32, 1), "uint16"), 4), narrow, np.add, 1.0)
