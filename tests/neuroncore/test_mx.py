"""Microscaling: quantisation against its formula, the matmul against dequantised values, and the layout of scales."""

import ml_dtypes
import numpy as np
import pytest

from opentrn.errors import ValidationError
from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.mx import unpack

BF16 = ml_dtypes.bfloat16
E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
random = np.random.default_rng(11)


def dequantise(words, scales, dtype):
    """Values of a packed tile (P, F, 4), one Python step a group: 8 partitions, 4 elements, one scale."""
    p, f = words.shape
    elements = words.view(np.uint8).view(dtype).reshape(p, f, 4).astype(np.float64)
    for row in range(p):
        quadrant, within = divmod(row, 32)
        scale = scales[32 * quadrant + within // 8].astype(np.float64)
        elements[row] *= 2.0 ** (scale[:, None] - 127)
    return elements


def quantised(nc, source, dtype="float8_e4m3fn_x4"):
    src = nc.tile(source, "bfloat16")
    dst = nc.tile(shape=(source.shape[0], source.shape[1] // 4), dtype=dtype)
    scale = nc.tile(shape=dst.shape, dtype="uint8")
    isa.quantize_mx(dst, src, scale)
    return dst, scale


@pytest.mark.parametrize(("dtype", "element", "emax"), [("float8_e4m3fn_x4", E4M3, 8), ("float8_e5m2_x4", E5M2, 15)])
def test_scale_is_a_power_of_two_one_step_above_the_largest_exponent(on_generation, dtype, element, emax):
    nc = on_generation(4)
    source = (random.standard_normal((64, 32)) * 10.0 ** random.integers(-6, 6, (64, 32))).astype(BF16)
    source[0:8, 0:4] = 0
    dst, scale = quantised(nc, source, dtype)
    codes = scale.array()
    for p in range(0, 64, 8):
        for f in range(8):
            group = np.abs(source[p : p + 8, 4 * f : 4 * f + 4].astype(np.float64)).max()
            expected = 0 if group == 0 else int(np.floor(np.log2(group))) - (emax - 1) + 127
            assert codes[p // 32 * 32 + p % 32 // 8, f] == expected
    error = np.abs(dequantise(dst.array(), codes, element).reshape(64, 32) - source.astype(np.float64))
    largest = np.abs(source.astype(np.float64)).reshape(8, 8, 8, 4).max(axis=(1, 3))
    bound = np.repeat(np.repeat(largest, 8, 0), 4, 1) * 2.0 ** -(3 if element is E4M3 else 2)
    assert (error <= bound).all()


def test_the_largest_value_of_a_group_does_not_saturate(on_generation):
    nc = on_generation(4)
    source = np.full((32, 4), 1.9921875, BF16)  # the largest mantissa: with the OCP scale it would round beyond 448
    dst, scale = quantised(nc, source)
    assert (dequantise(dst.array(), scale.array(), E4M3) == 2.0).all()


def test_matmul_multiplies_dequantised_values(on_generation):
    nc = on_generation(4)
    stationary, s_scale = quantised(nc, random.standard_normal((96, 32)).astype(BF16))
    moving, m_scale = quantised(nc, random.standard_normal((96, 40)).astype(BF16), "float8_e5m2_x4")
    out = nc.tile(shape=(8, 10), buffer="psum")
    isa.nc_matmul_mx(out, stationary, moving, s_scale, m_scale)
    expected = np.einsum(
        "pmj,pnj->mn", dequantise(stationary.array(), s_scale.array(), E4M3),
        dequantise(moving.array(), m_scale.array(), E5M2),
    )  # fmt: skip
    np.testing.assert_allclose(out.array(), expected, rtol=1e-5, atol=1e-5)
    isa.nc_matmul_mx(out, stationary, moving, s_scale, m_scale)
    np.testing.assert_allclose(out.array(), 2 * expected, rtol=1e-5, atol=1e-5)


def test_four_bit_elements_pack_the_first_into_the_lowest_bits():
    word = np.array([[0x7_2_9_F]], np.uint16)  # nibbles from low to high: F, 9, 2, 7
    assert unpack(word, "float4_e2m1fn_x4").tolist() == [[[-6.0], [-0.5], [1.0], [6.0]]]


def test_scales_of_two_tensors_share_a_tile_at_offsets_of_four_partitions(on_generation):
    nc = on_generation(4)
    packed = nc.tile(np.zeros((128, 16)), "uint8")
    source = [random.standard_normal((128, 64)).astype(BF16) for _ in range(2)]
    tiles = []
    for n, values in enumerate(source):
        dst = nc.tile(shape=(128, 16), dtype="float8_e4m3fn_x4")
        isa.quantize_mx(dst, nc.tile(values, "bfloat16"), packed[4 * n :, :])
        tiles.append(dst)
    alone = [quantised(nc, values) for values in source]
    out, reference = (nc.tile(shape=(16, 16), buffer="psum") for _ in range(2))
    isa.nc_matmul_mx(out, tiles[0], tiles[1], packed[0:, :], packed[4:, :])
    isa.nc_matmul_mx(reference, alone[0][0], alone[1][0], alone[0][1], alone[1][1])
    assert (out.array() == reference.array()).all()


def test_scales_elsewhere_in_a_quadrant_are_refused(on_generation):
    nc = on_generation(4)
    packed = nc.tile(np.zeros((128, 16)), "uint8")
    dst = nc.tile(shape=(32, 16), dtype="float8_e4m3fn_x4")
    with pytest.raises(ValidationError, match="starts at partition 16.*0, 4, 8 or 12"):
        isa.quantize_mx(dst, nc.tile(np.ones((32, 64)), "bfloat16"), packed[16:48, :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generation": 3}, "nc_matmul_mx needs NeuronCore-v4"),
        ({"rows": 48}, "multiple of 32"),
        ({"columns": 7}, "must be even"),
        ({"dtype": "uint32"}, "must be float8_e5m2_x4"),
        ({"scale": "bfloat16"}, "scales are float8_e8m0fnu"),
        ({"scale_rows": 8}, "first 4 of each 32"),
    ],
)
def test_operands_that_are_no_mx_tiles_are_refused(on_generation, change, message):
    options = {
        "generation": 4,
        "rows": 64,
        "columns": 8,
        "dtype": "float8_e4m3fn_x4",
        "scale": "uint8",
        "scale_rows": 64,
    }
    options.update(change)
    nc = on_generation(options["generation"])
    data = nc.tile(shape=(options["rows"], options["columns"]), dtype=options["dtype"])
    scale = nc.tile(shape=(options["scale_rows"], options["columns"]), dtype=options["scale"])
    out = nc.tile(shape=(options["columns"], options["columns"]), buffer="psum")
    with pytest.raises(ValidationError, match=message):
        isa.nc_matmul_mx(out, data, data, scale, scale)


def test_only_half_precision_is_quantised(on_generation):
    nc = on_generation(4)
    dst = nc.tile(shape=(32, 4), dtype="float8_e4m3fn_x4")
    with pytest.raises(ValidationError, match="src is float32; it must be float16 or bfloat16"):
        isa.quantize_mx(dst, nc.tile(np.ones((32, 16))), nc.tile(shape=(32, 4), dtype="uint8"))
