"""Rounding into and out of the types of memory: ml_dtypes decides for floats, hand-computed values for integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentrn.neuroncore import convert, isa
from opentrn.neuroncore.dtypes import as_dtype, numpy_dtype
from opentrn.neuroncore.layout import intern_layout
from opentrn.neuroncore.memory import MemoryRegion

BYTE_FLOATS = ["float8_e3m4", "float8_e4m3", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"]
NARROW = [*BYTE_FLOATS[:4], "bfloat16", "float16"]


def stored(values, dtype):
    """``values`` after a store into memory of ``dtype``."""
    values = np.atleast_2d(np.asarray(values, np.float32))
    kind = as_dtype(dtype)
    layout = intern_layout(
        values.shape, (values.shape[1], 1), kind, numpy_dtype(kind), MemoryRegion.sbuf, values.shape[1]
    )
    target = np.empty(values.shape, layout.host)
    with np.errstate(all="ignore"):
        convert.storer(layout)(target, values)
    return target


def bits(array):
    return array.view(f"u{array.dtype.itemsize}")


@pytest.mark.parametrize("name", BYTE_FLOATS)
def test_table_narrows_as_ml_dtypes_does_on_every_exponent_and_rounding_case(name):
    # Every sign, exponent and upper mantissa pattern, with the discarded bits just below, at and above the ties.
    upper = np.arange(1 << 16, dtype=np.uint32)[:, None] << np.uint32(16)
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper | lower).view(np.float32)
    with np.errstate(all="ignore"):
        expected = values.astype(numpy_dtype(as_dtype(name)))
    found = stored(values, name)
    both_nan = np.isnan(found.astype(np.float32)) & np.isnan(expected.astype(np.float32))
    assert ((bits(found) == bits(expected)) | both_nan).all()


@pytest.mark.parametrize("name", BYTE_FLOATS)
def test_table_widens_every_pattern_exactly(name):
    patterns = np.arange(256, dtype=np.uint8).view(numpy_dtype(as_dtype(name)))
    expected = np.array([float(v) for v in patterns], np.float32)
    np.testing.assert_array_equal(convert.widen(patterns), expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        # Ties go to the even mantissa.
        ("bfloat16", 1 + 2**-8, 1.0), ("bfloat16", 1 + 3 * 2**-8, 1 + 2**-6), ("float16", 1 + 2**-11, 1.0),
        ("float8_e4m3", 1.0625, 1.0), ("float8_e4m3", 1.1875, 1.25), ("float8_e5m2", 1.125, 1.0),
        ("float8_e5m2", 1.375, 1.5),
        # Overflow: infinity where the type has one, else NaN.
        ("bfloat16", 3.39e38, 255 * 2.0**120), ("bfloat16", np.finfo(np.float32).min, -np.inf),
        ("float16", 65520, np.inf),
        ("float16", 65519, 65504), ("float8_e4m3", 240, 240), ("float8_e4m3", 247, 240), ("float8_e4m3", 248, np.inf),
        ("float8_e5m2", 57344, 57344), ("float8_e5m2", 61440, np.inf), ("float8_e4m3fn", 448, 448),
        ("float8_e4m3fn", 465, np.nan), ("float8_e4m3fn", np.inf, np.nan), ("float8_e3m4", 15.5, 15.5),
        # Subnormals are kept.
        ("float16", 2**-24, 2**-24), ("float8_e4m3", 2**-9, 2**-9), ("float8_e4m3", 2**-10, 0.0),
        ("bfloat16", 2**-133, 2**-133),
        # tfloat32 keeps ten bits.
        ("tfloat32", 1 + 2**-11, 1.0), ("tfloat32", 1 + 3 * 2**-11, 1 + 2**-9), ("tfloat32", np.inf, np.inf),
    ],
)  # fmt: skip
def test_floats_round_to_nearest_even(name, value, expected):
    found = np.float32(stored([value], name)[0, 0])
    np.testing.assert_equal(found, np.float32(expected))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("int32", 0.5, 0), ("int32", 1.5, 2), ("int32", 2.5, 2), ("int32", -0.5, 0), ("int32", -1.5, -2),
        ("int32", 2.7, 3),
        ("int32", -2.7, -3), ("int32", 3e9, 2**31 - 1), ("int32", -3e9, -(2**31)), ("int32", np.inf, 2**31 - 1),
        ("int32", -np.inf, -(2**31)), ("int32", np.nan, 0), ("int8", 127.4, 127), ("int8", 127.5, 127),
        ("int8", 300, 127),
        ("int8", -128.5, -128), ("int8", -1000, -128), ("uint8", -1, 0), ("uint8", 254.5, 254), ("uint8", 255.5, 255),
        ("uint16", 65535.4, 65535), ("int16", -40000, -32768), ("uint32", 5e9, 2**32 - 1), ("uint32", -7, 0),
        ("uint32", 2147483648.0, 2147483648), ("int32", 16777217.0, 16777216),
    ],
)  # fmt: skip
def test_integers_round_to_nearest_even_and_saturate(name, value, expected):
    assert int(stored([value], name)[0, 0]) == expected


def test_the_published_modulo_by_rounding_works():
    # A public RoPE kernel builds x mod y from q = round(x / y - 0.5): a cast that truncated would leave [0, y].
    x = np.linspace(0.01, 40, 1000).astype(np.float32)
    q = stored(x / np.float32(2 * np.pi) - np.float32(0.5), "int32")[0]
    remainder = x - q * np.float32(2 * np.pi)
    assert remainder.min() > -1e-4
    assert remainder.max() < 2 * np.pi + 1e-4


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50), st.sampled_from(NARROW))
def test_storing_what_was_read_changes_nothing(values, name):
    once = stored(values, name)
    again = stored(convert.widen(once), name)
    np.testing.assert_array_equal(bits(once), bits(again))


@pytest.mark.parametrize("name", NARROW)
def test_tensor_copy_between_types_passes_through_float32(chip, name):
    rng = np.random.default_rng(3)
    values = (rng.standard_normal((128, 40)) * 20).astype(np.float32)
    narrow, wide = chip.tile(shape=(128, 40), dtype=name), chip.tile(shape=(128, 40))
    isa.tensor_copy(narrow, chip.tile(values))
    isa.tensor_copy(wide, narrow)
    np.testing.assert_array_equal(wide.array(), values.astype(numpy_dtype(as_dtype(name))).astype(np.float32))


def test_copy_of_one_type_is_bit_exact(chip):
    patterns = np.random.default_rng(0).integers(0, 2**32, (128, 64), dtype=np.uint32)
    src, dst = chip.tile(patterns.view(np.float32)), chip.tile(shape=(128, 64))
    isa.tensor_copy(dst, src)
    np.testing.assert_array_equal(dst.array().view(np.uint32), patterns)
    big = chip.tile(np.full((4, 4), 2**31 - 1), "int32")
    out = chip.tile(shape=(4, 4), dtype="int32")
    isa.tensor_copy(out, big)
    assert (out.array() == 2**31 - 1).all()


def test_narrow_types_are_stored_wide_without_precise_fp(monkeypatch, on_generation):
    monkeypatch.setenv("NKI_PRECISE_FP", "0")
    chip = on_generation(4)
    dst = chip.tile(shape=(4, 4), dtype="bfloat16")
    isa.tensor_scalar(dst, chip.tile(np.full((4, 4), 1.0)), np.add, 2.0**-12)
    assert dst.array()[0, 0] == np.float32(1 + 2**-12)
