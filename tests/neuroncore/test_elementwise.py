"""Element-wise and reducing instructions against NumPy in float32, over shapes, types and operators."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentrn import hardware
from opentrn.neuroncore import isa, machine
from opentrn.neuroncore.dtypes import as_dtype, numpy_dtype

FLOATS = ["float32", "bfloat16", "float16", "float8_e4m3", "float8_e5m2"]
INTEGERS = ["int32", "uint32", "int16", "uint16", "int8", "uint8"]
ARITHMETIC = [np.add, np.subtract, np.multiply, np.maximum, np.minimum]
COMPARISONS = [np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal]
BITS = [np.bitwise_and, np.bitwise_or, np.bitwise_xor]


def narrowed(values, dtype):
    """float32 ``values`` rounded into ``dtype``: the reference for a store."""
    host = numpy_dtype(as_dtype(dtype))
    values = np.asarray(values, np.float32)
    if host.kind in "iu":
        info = np.iinfo(host)
        return np.clip(np.rint(values.astype(np.float64)), info.min, info.max).astype(host)
    return values.astype(host)


def random_values(rng, shape, dtype):
    host = numpy_dtype(as_dtype(dtype))
    if host.kind in "iu":
        return rng.integers(0 if host.kind == "u" else -90, 90, shape).astype(host)
    return (rng.standard_normal(shape) * 4).astype(np.float32).astype(host)


def same(found, expected):
    np.testing.assert_array_equal(found.astype(np.float64), expected.astype(np.float64))


@pytest.fixture(autouse=True)
def _v4(chip):
    return chip


def tile(values, dtype=None):
    core = machine.current()
    values = np.asarray(values)
    name = dtype or next(n for n in FLOATS + INTEGERS if numpy_dtype(as_dtype(n)) == values.dtype)
    tensor = core.allocate(values.shape, name, "sbuf")
    tensor.array()[...] = values
    tensor.storage.state = 2
    return tensor


def empty(shape, dtype="float32"):
    return machine.current().allocate(tuple(shape), dtype, "sbuf")


shapes = st.tuples(st.integers(1, 128), st.integers(1, 9), st.integers(1, 9))


@given(shapes, st.sampled_from(FLOATS), st.sampled_from(FLOATS + INTEGERS[2:]), st.sampled_from(FLOATS + INTEGERS),
       st.sampled_from(ARITHMETIC + COMPARISONS), st.integers(0, 2**32 - 1))  # fmt: skip
def test_tensor_tensor_computes_in_float32_and_rounds_once(shape, type1, type2, out_type, op, seed):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    rng = np.random.default_rng(seed)
    a, b = random_values(rng, shape, type1), random_values(rng, shape, type2)
    dst = empty(shape, out_type)
    with np.errstate(all="ignore"):
        isa.tensor_tensor(dst, tile(a), tile(b), op)
        same(dst.array(), narrowed(op(a.astype(np.float32), b.astype(np.float32)), out_type))


@given(shapes, st.sampled_from(FLOATS), st.sampled_from(FLOATS + INTEGERS[2:]),
       st.sampled_from(ARITHMETIC + COMPARISONS), st.sampled_from(ARITHMETIC),
       st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))  # fmt: skip
def test_tensor_scalar_applies_two_operators_to_numbers_or_columns(
    shape, in_type, out_type, op0, op1, reverse0, reverse1, columns, seed
):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    rng = np.random.default_rng(seed)
    data = random_values(rng, shape, in_type)
    a, b = (random_values(rng, (shape[0], 1), "float32") for _ in range(2))
    dst = empty(shape, out_type)
    x, a3, b3 = data.astype(np.float32), a[:, :, None], b[:, :, None]
    if columns:
        operand0, operand1 = tile(a), tile(b)
    else:
        operand0, operand1 = float(a[0, 0]), float(b[0, 0])
        a3, b3 = np.float32(operand0), np.float32(operand1)
    with np.errstate(all="ignore"):
        isa.tensor_scalar(dst, tile(data), op0, operand0, reverse0, op1, operand1, reverse1)
        t = (op0(a3, x) if reverse0 else op0(x, a3)).astype(np.float32)
        same(dst.array(), narrowed(op1(b3, t) if reverse1 else op1(t, b3), out_type))


@given(shapes, st.sampled_from(FLOATS), st.sampled_from([np.maximum, np.minimum]), st.sampled_from([(2,), (1, 2)]),
       st.booleans(), st.integers(0, 2**32 - 1))  # fmt: skip
def test_tensor_reduce_finds_extremes_along_the_last_axes(shape, in_type, op, axes, negate, seed):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    data = random_values(np.random.default_rng(seed), shape, in_type)
    dst = empty((shape[0], 1) if axes == (1, 2) else shape[:2])
    isa.tensor_reduce(dst, op, tile(data), axes, negate)
    expected = op.reduce(data.astype(np.float32), axis=axes)
    same(dst.array().reshape(expected.shape), -expected if negate else expected)


@given(shapes, st.sampled_from(FLOATS), st.integers(0, 2**32 - 1))
def test_sums_are_float32_accurate(shape, in_type, seed):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    data = random_values(np.random.default_rng(seed), shape, in_type)
    dst = empty((shape[0], 1))
    isa.tensor_reduce(dst, np.add, tile(data), [1, 2])
    exact = data.astype(np.float64)
    bound = np.abs(exact).sum(axis=(1, 2)) * np.finfo(np.float32).eps * 4 + 1e-30
    assert (np.abs(dst.array()[:, 0] - exact.sum(axis=(1, 2))) <= bound).all()


@given(st.sampled_from(INTEGERS), st.sampled_from(BITS), st.integers(0, 2**32 - 1))
def test_bit_operators_work_on_patterns(dtype, op, seed):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    host = numpy_dtype(as_dtype(dtype))
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(np.iinfo(host).min, np.iinfo(host).max, (5, 7), dtype=host, endpoint=True) for _ in range(2))
    dst, reduced, masked = empty((5, 7), dtype), empty((5, 1), dtype), empty((5, 7), dtype)
    isa.tensor_tensor(dst, tile(a), tile(b), op)
    isa.tensor_reduce(reduced, op, tile(a), 1)
    isa.tensor_scalar(masked, tile(a), op, 0x5A)
    same(dst.array(), op(a, b))
    same(reduced.array()[:, 0], op.reduce(a, axis=1))
    same(masked.array(), op(a, host.type(0x5A)))


def test_shifts_are_logical_and_invert_flips_every_bit():
    a = np.array([[-1, -8, 5]], np.int32)
    dst = empty((1, 3), "int32")
    isa.tensor_scalar(dst, tile(a), np.right_shift, 1)
    assert dst.array().tolist() == [[2**31 - 1, 2**31 - 4, 2]]
    isa.tensor_scalar(dst, tile(a), np.left_shift, 31)
    assert dst.array().tolist() == [[-(2**31), 0, -(2**31)]]
    isa.tensor_scalar(dst, tile(a), np.invert, None)
    assert dst.array().tolist() == [[0, 7, -6]]


def test_words_are_added_exactly_on_gpsimd_and_in_float32_on_vector():
    a, b = np.full((2, 2), 2**24 + 1, np.int32), np.full((2, 2), 2, np.int32)
    exact, rounded = empty((2, 2), "int32"), empty((2, 2), "int32")
    isa.tensor_tensor(exact, tile(a), tile(b), np.add)
    isa.tensor_tensor(rounded, tile(a), tile(b), np.add, engine=isa.settings.engine.vector)
    assert (exact.array() == 2**24 + 3).all()
    assert (rounded.array() == 2**24 + 2).all()
    isa.tensor_tensor(exact, tile(np.full((2, 2), 2**31 - 1, np.int32)), tile(b), np.add)
    assert (exact.array() == -(2**31) + 1).all()


def test_address_arithmetic_on_words_is_exact():
    dst = empty((2, 1), "uint32")
    isa.tensor_scalar(dst, tile(np.array([[70001], [3]], np.uint32)), np.multiply, 4097, op1=np.add, operand1=5)
    assert dst.array().tolist() == [[70001 * 4097 + 5], [3 * 4097 + 5]]
    isa.tensor_scalar(dst, tile(np.array([[7], [4]], np.uint32)), np.multiply, 0.5)
    assert dst.array().tolist() == [[4], [2]]  # a fraction: float32, 3.5 to even


def test_nan_and_infinity_propagate():
    a = np.array([[np.nan, 1.0, np.inf, -np.inf]], np.float32)
    b = np.array([[1.0, np.nan, -np.inf, 2.0]], np.float32)
    dst, out = empty((1, 4)), empty((1, 1))
    with np.errstate(all="ignore"):
        isa.tensor_tensor(dst, tile(a), tile(b), np.add)
        np.testing.assert_array_equal(dst.array(), [[np.nan, np.nan, np.nan, -np.inf]])
        isa.tensor_tensor(dst, tile(a), tile(b), np.maximum)
        np.testing.assert_array_equal(dst.array(), [[np.nan, np.nan, np.inf, 2.0]])
        isa.tensor_reduce(out, np.minimum, tile(a), 1)
        assert np.isnan(out.array()).all()
        isa.reciprocal(dst, tile(np.array([[0.0, -0.0, np.inf, 2.0]], np.float32)))
    np.testing.assert_array_equal(dst.array(), [[np.inf, -np.inf, 0.0, 0.5]])


def test_abs_max_keeps_the_sign_of_the_larger_magnitude():
    dst = empty((1, 3))
    isa.tensor_tensor(dst, tile(np.float32([[-5, 1, 2]])), tile(np.float32([[3, -1, -7]])), "abs_max")
    assert dst.array().tolist() == [[-5, -1, -7]]
    isa.tensor_tensor(dst, tile(np.float32([[-5, 1, 2]])), tile(np.float32([[3, -1, -7]])), "abs_min")
    assert dst.array().tolist() == [[3, -1, 2]]


def test_scalar_tensor_tensor_rounds_only_at_the_end():
    x = np.random.default_rng(1).standard_normal((128, 3, 5)).astype(np.float32)
    y = np.random.default_rng(2).standard_normal((128, 15)).astype(ml_dtypes.bfloat16)
    dst = empty((128, 15), "bfloat16")
    isa.scalar_tensor_tensor(dst, tile(x), np.multiply, 3.0, np.subtract, tile(y), reverse1=True)
    same(dst.array(), narrowed(y.astype(np.float32) - x.reshape(128, 15) * np.float32(3), "bfloat16"))


def test_operands_may_overlap_the_destination():
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    t = tile(x.copy())
    # The columns are read before the tile that holds them is overwritten.
    isa.tensor_scalar(t, t, np.multiply, t[:, 0:1], False, np.add, t[:, 1:2])
    same(t.array(), x * x[:, 0:1] + x[:, 1:2])


def test_free_dimensions_are_streamed_in_order():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    dst = empty((2, 12))
    isa.tensor_tensor(dst, tile(x), tile(x.reshape(2, 2, 6)), np.add)
    same(dst.array(), 2 * x.reshape(2, 12))


def test_partitions_are_reduced_on_gpsimd():
    x = np.random.default_rng(0).integers(0, 50, (128, 6)).astype(np.float32)
    dst = empty((1, 6))
    isa.tensor_partition_reduce(dst, np.add, tile(x))
    same(dst.array(), x.sum(axis=0, keepdims=True))
    isa.tensor_partition_reduce(dst, "average", tile(x))
    np.testing.assert_allclose(dst.array(), x.mean(axis=0, keepdims=True), rtol=1e-6)
    bits = tile(np.arange(12, dtype=np.int32).reshape(2, 6))
    out = empty((1, 6), "int32")
    isa.tensor_partition_reduce(out, np.bitwise_or, bits)
    assert out.array().tolist() == [[k | (k + 6) for k in range(6)]]


@settings(max_examples=20)
@given(st.sampled_from(INTEGERS), st.integers(-128, 255))
def test_memset_takes_values_and_bit_patterns(dtype, value):
    machine.state.core = machine.Core(hardware.chip("trn3").core)
    host = numpy_dtype(as_dtype(dtype))
    dst = empty((2, 2), dtype)
    isa.memset(dst, value)
    bits = 8 * host.itemsize
    assert int(dst.array()[0, 0]) & ((1 << bits) - 1) == value & ((1 << bits) - 1)
