"""The Tensor engine's matmul and transposes: values against NumPy, and what each generation refuses."""

import ml_dtypes
import numpy as np
import pytest

from opentrn.errors import UninitializedError, ValidationError
from opentrn.neuroncore import isa
from opentrn.neuroncore.dtypes import as_dtype
from opentrn.neuroncore.isa.settings import matmul_perf_mode

BF16 = ml_dtypes.bfloat16
random = np.random.default_rng(7)


def values(*shape, dtype=np.float32):
    return random.standard_normal(shape).astype(dtype)


def matmul(nc, stationary, moving, dtype="bfloat16", dst="float32", shape=None, **settings):
    """Result of one nc_matmul of two arrays held as ``dtype``."""
    first, second = nc.tile(stationary, dtype), nc.tile(moving, dtype)
    shape = shape or (np.prod(stationary.shape[1:]), np.prod(moving.shape[1:]))
    out = nc.tile(shape=tuple(int(n) for n in shape), dtype=dst, buffer="psum")
    isa.nc_matmul(out, first, second, **settings)
    return out


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3", "float8_e5m2", "float8_e4m3fn", "float32"])
def test_products_of_every_type_are_exact_and_summed_in_float32(on_generation, dtype):
    nc = on_generation(4)
    host = as_dtype(dtype).numpy
    a, b = values(96, 32).astype(host), values(96, 40).astype(host)
    expected = a.astype(np.float64).T @ b.astype(np.float64)
    np.testing.assert_allclose(matmul(nc, a, b, dtype).array(), expected, rtol=1e-5, atol=1e-4)


def test_tfloat32_rounds_its_operands_to_ten_bits_of_mantissa(on_generation):
    nc = on_generation(3)
    a = np.array([[1 + 2.0**-10, 1 + 2.0**-12]], np.float32)
    out = matmul(nc, a, np.ones((1, 1), np.float32), "tfloat32")
    assert out.array().tolist() == [[1 + 2.0**-10], [1.0]]


def test_double_row_contracts_over_partitions_and_the_first_free_dimension(on_generation):
    nc = on_generation(3)
    a, b = values(64, 2, 16, dtype=ml_dtypes.float8_e4m3), values(64, 2, 24, dtype=ml_dtypes.float8_e4m3)
    out = matmul(nc, a, b, "float8_e4m3", shape=(16, 24), perf_mode=matmul_perf_mode.double_row)
    expected = np.einsum("krm,krn->mn", a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(out.array(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("generation", "settings", "shapes", "message"),
    [
        (2, {"perf_mode": matmul_perf_mode.double_row}, ((64, 2, 16), (64, 2, 24)), "NeuronCore-v3"),
        (3, {"perf_mode": matmul_perf_mode.double_row}, ((64, 32), (64, 48)), "first free dimension of 2"),
        (
            3, {"perf_mode": matmul_perf_mode.double_row, "tile_size": (64, 64), "tile_position": (0, 0)},
            ((64, 2, 16), (64, 2, 24)), "column tiling",
        ),
    ],
)  # fmt: skip
def test_double_row_is_refused_where_it_does_not_exist(on_generation, generation, settings, shapes, message):
    nc = on_generation(generation)
    with pytest.raises(ValidationError, match=message):
        matmul(nc, values(*shapes[0]), values(*shapes[1]), "float8_e4m3", shape=(16, 24), **settings)


def test_double_row_multiplies_only_fp8(on_generation):
    nc = on_generation(3)
    with pytest.raises(ValidationError, match="bfloat16; double_row multiplies float8"):
        matmul(nc, values(64, 2, 16), values(64, 2, 24), shape=(16, 24), perf_mode=matmul_perf_mode.double_row)


def test_first_write_overwrites_and_later_writes_accumulate(on_generation):
    nc = on_generation(4)
    a, b = nc.tile(values(32, 16, dtype=BF16), "bfloat16"), nc.tile(values(32, 24, dtype=BF16), "bfloat16")
    product = a.array().astype(np.float32).T @ b.array().astype(np.float32)
    out = nc.tile(shape=(16, 24), buffer="psum")
    for n in (1, 2, 3):
        isa.nc_matmul(out, a, b)
        np.testing.assert_allclose(out.array(), n * product, rtol=1e-5, atol=1e-5)
    isa.nc_matmul(out, a, b, accumulate=False)
    np.testing.assert_allclose(out.array(), product, rtol=1e-6, atol=1e-6)
    isa.nc_matmul(out, a, b, accumulate=True)
    np.testing.assert_allclose(out.array(), 2 * product, rtol=1e-6, atol=1e-6)


def test_each_part_of_a_psum_tile_starts_its_own_accumulation(on_generation):
    nc = on_generation(3)
    a, b = nc.tile(values(32, 16, dtype=BF16), "bfloat16"), nc.tile(values(32, 48, dtype=BF16), "bfloat16")
    product = a.array().astype(np.float32).T @ b.array().astype(np.float32)
    out = nc.tile(shape=(16, 48), buffer="psum")
    for _ in range(2):
        isa.nc_matmul(out[:, 0:24], a, b[:, 0:24])
        isa.nc_matmul(out[:, 24:48], a, b[:, 24:48])
    np.testing.assert_allclose(out.array(), 2 * product, rtol=1e-5, atol=1e-5)
    isa.nc_matmul(out, a, b)  # overlaps both parts, which were written before
    np.testing.assert_allclose(out.array(), 3 * product, rtol=1e-5, atol=1e-5)


def test_accumulating_onto_psum_that_nothing_wrote_is_reported(on_generation):
    nc = on_generation(4)
    a, b = nc.tile(values(32, 16), "bfloat16"), nc.tile(values(32, 24), "bfloat16")
    out = nc.tile(shape=(16, 24), buffer="psum")
    with pytest.raises(UninitializedError, match="PSUM that was never written.*accumulate=False"):
        isa.nc_matmul(out, a, b, accumulate=True)


def test_neuroncore_v4_accumulates_onto_a_value_that_memset_wrote(on_generation):
    nc = on_generation(4)
    a, b = nc.tile(np.ones((32, 16)), "bfloat16"), nc.tile(np.ones((32, 24)), "bfloat16")
    out = nc.tile(shape=(16, 24), buffer="psum")
    isa.memset(out, 5.0)
    isa.nc_matmul(out, a, b, accumulate=True)
    assert (out.array() == 37).all()


def test_bfloat16_psum_rounds_after_every_addition(on_generation):
    nc = on_generation(4)
    ones = np.ones((1, 1))
    out = nc.tile(shape=(1, 1), dtype="bfloat16", buffer="psum")
    isa.nc_matmul(out, nc.tile(ones, "bfloat16"), nc.tile(256 * ones, "bfloat16"))
    for _ in range(3):  # 256 + 1 lies between two bfloat16 and rounds back to 256 each time
        isa.nc_matmul(out, nc.tile(ones, "bfloat16"), nc.tile(ones, "bfloat16"))
    assert float(out.array()[0, 0]) == 256.0


@pytest.mark.parametrize(("generation", "dst"), [(2, "bfloat16"), (3, "bfloat16"), (4, "float16")])
def test_psum_accumulates_only_in_the_types_of_its_generation(on_generation, generation, dst):
    nc = on_generation(generation)
    with pytest.raises(ValidationError, match=f"dst is {dst}; PSUM accumulates float32"):
        matmul(nc, values(32, 16), values(32, 24), dst=dst)


@pytest.mark.parametrize(
    ("generation", "first", "second", "message"),
    [
        (4, "float32", "bfloat16", "float32 only multiplies float32"),
        (4, "float8_e4m3", "float8_e4m3fn", "cannot meet"),
        (3, "float8_e4m3fn", "float8_e4m3fn", "NeuronCore-v3 does not multiply"),
        (4, "int8", "int8", "int8, which the Tensor engine"),
    ],
)
def test_types_that_cannot_be_multiplied_are_refused(on_generation, generation, first, second, message):
    nc = on_generation(generation)
    out = nc.tile(shape=(16, 24), buffer="psum")
    with pytest.raises(ValidationError, match=message):
        isa.nc_matmul(out, nc.tile(np.ones((32, 16)), first), nc.tile(np.ones((32, 24)), second))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((64, 16), (32, 24), (16, 24)), "64 partitions and moving 32"),
        (((64, 160), (64, 24), (128, 24)), "160 columns; it must not exceed 128"),
        (((64, 16), (64, 520), (16, 520)), "at most 512"),
        (((64, 16), (64, 24), (24, 16)), r"dst must be \[16, 24\]"),
    ],
)
def test_shapes_beyond_the_array_are_refused(on_generation, shapes, message):
    nc = on_generation(3)
    stationary, moving, dst = (
        nc.tile(shape=s, dtype="bfloat16" if n < 2 else "float32", buffer="sbuf" if n < 2 else "psum")
        for n, s in enumerate(shapes)
    )
    with pytest.raises(ValidationError, match=message):
        isa.nc_matmul(dst, stationary, moving)


def test_output_over_a_psum_bank_is_refused_before_v4_and_taken_by_it(on_generation):
    def one(generation):
        nc = on_generation(generation)
        out = nc.tile(shape=(16, 1024), buffer="psum")
        isa.nc_matmul(out[:, 256:768], nc.tile(np.ones((8, 16)), "bfloat16"), nc.tile(np.ones((8, 512)), "bfloat16"))
        return out

    with pytest.raises(ValidationError, match="crosses a bank of 2048 bytes"):
        one(3)
    assert (one(4)[:, 256:768].array() == 8).all()


def test_moving_tile_of_v4_may_fill_the_whole_psum(on_generation):
    nc = on_generation(4)
    assert (matmul(nc, np.ones((4, 2)), np.ones((4, 4096))).array() == 4).all()
    assert (matmul(nc, np.ones((4, 2)), np.ones((4, 8192)), dst="bfloat16").array() == 4).all()
    with pytest.raises(ValidationError, match="at most 4096"):
        matmul(nc, np.ones((4, 2)), np.ones((4, 4104)), shape=(2, 4096))


@pytest.mark.parametrize(
    ("generation", "settings", "message"),
    [
        (3, {"tile_size": (32, 128)}, "go together"),
        (2, {"tile_size": (32, 128), "tile_position": (0, 0)}, "tiles of 64, 128"),
        (3, {"tile_size": (48, 128), "tile_position": (0, 0)}, "tiles of 32, 64, 128"),
        (3, {"tile_size": (64, 128), "tile_position": (32, 0)}, "multiple of the tile's 64"),
        (3, {"tile_size": (32, 128), "tile_position": (128, 0)}, "within 128"),
        (3, {"tile_size": (32, 128), "tile_position": (0, 0)}, "must not exceed 32"),
    ],
)
def test_tiles_of_the_array_follow_its_quadrants(on_generation, generation, settings, message):
    nc = on_generation(generation)
    with pytest.raises(ValidationError, match=message):
        matmul(nc, values(64, 16), values(64, 24), **settings)


def test_a_row_tile_computes_the_same_product(on_generation):
    nc = on_generation(3)
    a, b = values(32, 16, dtype=BF16), values(32, 24, dtype=BF16)
    out = matmul(nc, a, b, tile_size=(32, 128), tile_position=(64, 0))
    np.testing.assert_allclose(out.array(), a.astype(np.float32).T @ b.astype(np.float32), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("generation", [3, 4])
def test_transposes_pass_nan_and_infinity_untouched_from_v3_on(on_generation, generation):
    nc = on_generation(generation)
    bits = random.integers(0, 1 << 16, (64, 32)).astype(np.uint16)  # every pattern, NaN payloads too
    data = nc.tile(bits.view(BF16), "bfloat16")
    out = nc.tile(shape=(32, 64), dtype="bfloat16", buffer="psum")
    isa.nc_transpose(out, data)
    assert (out.array().view(np.uint16) == bits.T).all()
    again = nc.tile(shape=(32, 64), dtype="bfloat16", buffer="psum")
    isa.nc_matmul(again, data, nc.tile(np.eye(64), "bfloat16"), is_transpose=True)
    assert (again.array().view(np.uint16) == bits.T).all()


def test_transpose_on_the_tensor_engine_of_v2_spreads_nan(on_generation):
    nc = on_generation(2)
    x = np.ones((4, 3), np.float32)
    x[1, 2] = np.nan
    out = nc.tile(shape=(3, 4), buffer="psum")
    isa.nc_transpose(out, nc.tile(x))
    assert np.isnan(out.array()[2]).all() and (out.array()[:2] == 1).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "buffer", "engine", "message"),
    [
        ((64, 32), "bfloat16", "psum", "unknown", "does not convert"),
        ((64, 33), "float32", "psum", "vector", "Vector engine transposes at most 32 x 32"),
        ((64, 32), "float32", "sbuf", "tensor", "from sbuf to psum"),
    ],
)
def test_transposes_that_no_engine_can_do_are_refused(on_generation, shape, dtype, buffer, engine, message):
    nc = on_generation(3)
    from opentrn.neuroncore.isa.settings import engine as engines

    out = nc.tile(shape=shape[::-1], dtype=dtype, buffer=buffer)
    with pytest.raises(ValidationError, match=message):
        isa.nc_transpose(out, nc.tile(np.ones(shape)), engine=engines[engine])


def test_nan_and_infinity_propagate_through_sums(on_generation):
    nc = on_generation(4)
    a = np.ones((2, 2), np.float32)
    a[0] = np.inf, np.nan
    out = matmul(nc, a, np.array([[1.0], [-1.0]]))
    assert np.isposinf(out.array()[0, 0]) and np.isnan(out.array()[1, 0])
