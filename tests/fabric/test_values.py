"""What the collectives compute, against torch's own reductions and plain indexing."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentrn.errors import OpenTrnError
from opentrn.fabric import values

shapes = st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(1, 3))  # ranks, blocks a rank, width


def inputs_of(ranks, rows, width, dtype=np.float32, seed=0):
    return list(np.random.default_rng(seed).standard_normal((ranks, rows, width)).astype(dtype))


@given(shapes)
def test_all_reduce_adds_in_rank_order_and_leaves_inputs_alone(shape):
    inputs = inputs_of(*shape)
    before = [array.copy() for array in inputs]
    total = inputs[0].copy()
    for array in inputs[1:]:
        total += array
    outputs = values.all_reduce(inputs)
    assert all(np.array_equal(output, total) for output in outputs)
    assert all(np.array_equal(old, new) for old, new in zip(before, inputs, strict=True))


@given(shapes)
def test_all_reduce_is_a_reduce_scatter_then_an_all_gather(shape):
    ranks, blocks, width = shape
    inputs = inputs_of(ranks, ranks * blocks, width)
    scattered = values.reduce_scatter(inputs)
    assert scattered[0].shape == (blocks, width)
    for gathered, reduced in zip(values.all_gather(scattered), values.all_reduce(inputs), strict=True):
        assert np.array_equal(gathered, reduced)


@given(shapes)
def test_an_all_to_all_twice_is_the_identity_and_once_a_transpose_of_blocks(shape):
    ranks, blocks, width = shape
    inputs = inputs_of(ranks, ranks * blocks, width)
    outputs = values.all_to_all(inputs)
    grid = np.stack(inputs).reshape(ranks, ranks, blocks, width)
    assert np.array_equal(np.stack(outputs).reshape(grid.shape), grid.transpose(1, 0, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(values.all_to_all(outputs), inputs, strict=True))


def test_all_to_all_may_join_along_another_axis():
    inputs = inputs_of(2, 4, 3)
    outputs = values.all_to_all(inputs, split_axis=0, concat_axis=1)
    assert np.array_equal(outputs[1], np.hstack([inputs[0][2:], inputs[1][2:]]))


def test_all_to_all_v_moves_the_counted_rows():
    inputs = [np.arange(6), np.arange(10, 14)]
    outputs = values.all_to_all_v(inputs, [[2, 4], [3, 1]])
    assert outputs[0].tolist() == [0, 1, 10, 11, 12]
    assert outputs[1].tolist() == [2, 3, 4, 5, 13]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn])
def test_narrow_types_add_in_fp32_and_round_once(dtype):
    """1 + eight times a quarter of the last place: every single addition would round back to 1."""
    epsilon = float(ml_dtypes.finfo(dtype).eps)
    inputs = [np.array([1.0], dtype)] + [np.array([epsilon / 4], dtype)] * 8
    assert float(values.all_reduce(inputs)[0][0]) == 1 + 2 * epsilon
    assert values.all_reduce(inputs)[0].dtype == dtype


def test_bf16_sums_equal_torch_in_fp32_rounded_once():
    torch = pytest.importorskip("torch")
    inputs = inputs_of(8, 16, 16, ml_dtypes.bfloat16)
    total = torch.zeros(16, 16)
    for array in inputs:
        total += torch.from_numpy(array.astype(np.float32))
    expected = total.to(torch.bfloat16).float().numpy()
    assert np.array_equal(values.all_reduce(inputs)[3].astype(np.float32), expected)


def test_integers_wrap_and_other_reductions_are_exact():
    inputs = [np.array([250, 3], np.uint8), np.array([10, 5], np.uint8)]
    assert values.all_reduce(inputs)[0].tolist() == [4, 8]
    assert values.all_reduce(inputs, "max")[0].tolist() == [250, 5]
    assert values.all_reduce(inputs, "minimum")[1].tolist() == [10, 3]
    assert values.all_reduce([np.float32([2]), np.float32([3])], "prod")[0].tolist() == [6]
    assert values.all_reduce([np.float32([2]), np.float32([3])], "avg")[0].tolist() == [2.5]


def test_permute_broadcast_and_send():
    inputs = [np.array([rank]) for rank in range(4)]
    assert [int(x[0]) for x in values.permute(inputs)] == [3, 0, 1, 2]
    assert [int(x[0]) for x in values.permute(inputs, [(0, 1), (1, 0)])] == [1, 0, 0, 0]
    assert [int(x[0]) for x in values.broadcast(inputs, root=2)] == [2, 2, 2, 2]
    assert [int(x[0]) for x in values.send_recv(inputs, 3, 1)] == [0, 3, 2, 3]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: values.all_reduce([]), "at least one rank"),
        (lambda: values.all_reduce([np.zeros(2), np.zeros(3)]), "rank 1 brings"),
        (lambda: values.all_reduce([np.zeros(2)], "xor"), "unknown reduction"),
        (lambda: values.all_reduce([np.zeros(2, int)], "avg"), "floating-point"),
        (lambda: values.reduce_scatter([np.zeros(3)] * 2), "evenly"),
        (lambda: values.all_gather([np.zeros(3)] * 2, axis=1), "axis 1"),
        (lambda: values.all_to_all([np.zeros(3)] * 2), "evenly"),
        (lambda: values.all_to_all_v([np.zeros(3)] * 2, [[4, 0], [0, 0]]), "rank 0 sends 4"),
        (lambda: values.permute([np.zeros(1)] * 2, [(0, 1), (1, 1)]), "at most once"),
        (lambda: values.broadcast([np.zeros(1)] * 2, 2), "root"),
    ],
)
def test_bad_inputs_are_refused(call, message):
    with pytest.raises(OpenTrnError, match=message):
        call()
