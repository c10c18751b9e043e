"""Instructions of the earlier nki.isa return tiles with the values that their definition says."""

from __future__ import annotations

import numpy as np

from opentrn.nki.earlier import isa as nisa
from opentrn.nki.earlier import language as nl
from opentrn.nki.earlier.decorators import jit

RNG = np.random.default_rng(4)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def apply(function, *arrays, **options):
    """What ``function`` of tiles returns (one tile or several), as arrays."""

    @jit(**options)
    def kernel(*inputs):
        tiles = function(*[nl.load(i) for i in inputs])
        results = []
        for tile in tiles if isinstance(tiles, tuple) else (tiles,):
            out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
            nl.store(out, tile)
            results.append(out)
        return tuple(results)

    results = kernel(*arrays)
    return results if len(results) > 1 else results[0]


def test_activation_scales_and_biases_first():
    x, b, s = floats(64, 32), floats(64, 1), floats(64, 1)
    assert np.allclose(
        apply(lambda a, c: nisa.activation(np.square, a, bias=c, scale=2.0), x, b), (2 * x + b) ** 2, atol=1e-4
    )
    assert np.allclose(apply(lambda a, c: nisa.activation(nl.exp, a, scale=c), x, s), np.exp(x * s), rtol=1e-3)


def test_activation_reduce_also_sums():
    x = floats(64, 32)

    def kernel(a):
        total = nl.ndarray((64, 1), dtype=nl.float32)
        e = nisa.activation_reduce(np.exp, a, reduce_op=np.add, reduce_res=total)
        return e, total

    e, total = apply(kernel, x)
    assert np.allclose(e, np.exp(x), rtol=1e-3)
    assert np.allclose(total, np.exp(x).sum(1, keepdims=True), rtol=1e-3)


def test_tensor_scalar_applies_two_operators_and_reverses():
    x, c = floats(32, 16), floats(32, 1)
    result = apply(
        lambda a, b: nisa.tensor_scalar(a, np.subtract, b, reverse0=True, op1=np.multiply, operand1=3.0), x, c
    )
    assert np.allclose(result, (c - x) * 3, atol=1e-5)


def test_narrow_columns_are_widened_for_the_engine():
    x, c = floats(32, 16).astype(np.float16), floats(32, 1).astype(np.float16)
    result = apply(lambda a, b: nisa.tensor_scalar(a, np.add, b), x, c)
    assert result.dtype == np.float16
    assert np.array_equal(result, (x.astype(np.float32) + c.astype(np.float32)).astype(np.float16))


def test_scalar_tensor_tensor_and_scan():
    x, y, c = floats(32, 20), floats(32, 20), floats(32, 1)
    result = apply(
        lambda a, b, d: nisa.scalar_tensor_tensor(data=a, op0=np.subtract, operand0=d, op1=np.multiply, operand1=b),
        x,
        y,
        c,
    )
    assert np.allclose(result, (x - c) * y, atol=1e-5)

    def scan(a, b):
        out = nl.ndarray((32, 20), dtype=nl.float32)
        out[:, 0:10] = nisa.tensor_tensor_scan(a[:, 0:10], b[:, 0:10], initial=0, op0=np.multiply, op1=np.add)
        out[:, 10:20] = nisa.tensor_tensor_scan(
            a[:, 10:20], b[:, 10:20], initial=out[:, 9], op0=np.multiply, op1=np.add
        )
        return out

    expected, state = np.zeros_like(x), np.zeros(32, np.float32)
    for i in range(20):
        state = x[:, i] * state + y[:, i]
        expected[:, i] = state
    assert np.allclose(apply(scan, x, y), expected, atol=1e-4)


def test_matmul_takes_products_from_psum_by_copying_them():
    a, b = floats(64, 48), floats(64, 80)

    def kernel(x, y):
        product = nisa.nc_matmul(x, y)  # (48, 80) in PSUM
        return nisa.nc_matmul(product, nisa.nc_transpose(x))  # (80, 64)

    assert np.allclose(apply(kernel, a, b), (a.T @ b).T @ a.T, atol=1e-2)


def test_a_narrow_transpose_may_land_in_a_float32_tile():
    x = floats(96, 64).astype(np.float16)

    def kernel(a):
        out = nl.ndarray((64, 96), dtype=nl.float32, buffer=nl.psum)
        out[...] = nisa.nc_transpose(a)
        return out

    assert np.array_equal(apply(kernel, x), x.T.astype(np.float32))


def test_reduce_negates_and_reduces_inner_axes():
    x = floats(16, 4, 6)
    assert np.allclose(
        apply(lambda a: nisa.tensor_reduce(np.max, a, axis=(1, 2), negate=True), x), -x.max((1, 2)).reshape(16, 1)
    )
    assert np.allclose(apply(lambda a: nisa.tensor_reduce(np.add, a, axis=1), x), x.sum(1), atol=1e-5)


def test_tensor_partition_reduce_sums_partitions():
    x = floats(100, 24)
    assert np.allclose(apply(lambda a: nisa.tensor_partition_reduce(np.add, a), x), x.sum(0, keepdims=True), atol=1e-4)


def test_bn_stats_and_aggr_give_mean_and_variance():
    x = floats(128, 1024)

    def kernel(a):
        stats = nl.ndarray((128, 12), dtype=nl.float32)
        for i in nl.affine_range(2):
            stats[:, nl.ds(6 * i, 6)] = nisa.bn_stats(a[:, nl.ds(512 * i, 512)])
        return nisa.bn_aggr(stats)

    result = apply(kernel, x)
    assert np.allclose(result, np.stack([x.mean(1), x.var(1)], axis=1), atol=1e-4)


def test_search_finds_the_largest_eight():
    x = floats(16, 100)

    def kernel(a):
        best = nisa.max8(a)
        where = nisa.nc_find_index8(a, best)
        return best, where, nisa.nc_match_replace8(data=a, vals=best, imm=-9.0)

    best, where, rest = apply(kernel, x)
    order = np.argsort(-x, axis=1)[:, :8]
    assert np.array_equal(best, np.take_along_axis(x, order, axis=1))
    assert np.array_equal(where, order)
    expected = x.copy()
    np.put_along_axis(expected, order, -9.0, axis=1)
    assert np.array_equal(rest, expected)


def test_predicated_copies_and_selects():
    x, y = floats(32, 32), floats(32, 32)
    choice = (RNG.random((32, 32)) > 0.5).astype(np.uint8)

    def kernel(a, b, c):
        nisa.tensor_copy_predicated(src=a, dst=b, predicate=c)
        return b

    assert np.array_equal(apply(kernel, x, y, choice), np.where(choice, x, y))


def test_select_reduce_also_takes_the_maximum():
    x = floats(32, 32)
    choice = (RNG.random((32, 32)) > 0.5).astype(np.uint8)

    def kernel(a, c):
        out, best = nl.ndarray((32, 32), dtype=nl.float32), nl.ndarray((32, 1), dtype=nl.float32)
        nisa.select_reduce(
            dst=out,
            predicate=c,
            on_true=a,
            on_false=nl.fp32.min,
            reduce_res=best,
            reduce_cmd=nisa.reduce_cmd.reset_reduce,
        )
        return out, best

    out, best = apply(kernel, x, choice)
    expected = np.where(choice, x, np.finfo(np.float32).min)
    assert np.array_equal(out, expected)
    assert np.array_equal(best, expected.max(1, keepdims=True))


def test_gathers_within_a_partition():
    x = floats(32, 64)
    index = RNG.integers(0, 64, (32, 10)).astype(np.uint32)
    assert np.array_equal(apply(nl.gather_flattened, x, index), np.take_along_axis(x, index.astype(np.int64), axis=1))


def test_stream_shuffle_moves_partitions():
    x = floats(32, 16)

    def kernel(a):
        out = nl.ndarray((32, 16), dtype=nl.float32)
        nisa.nc_stream_shuffle(src=a, dst=out, shuffle_mask=[(i + 5) % 32 for i in range(32)])
        return out

    assert np.array_equal(apply(kernel, x), np.roll(x, -5, axis=0))


def test_dma_copies_transposes_and_skips_rows_out_of_bounds():
    x = floats(64, 16)

    @jit
    def kernel(a):
        out = nl.ndarray((30, 16), dtype=a.dtype, buffer=nl.shared_hbm)
        rows = nisa.iota(3 * nl.arange(30)[:, None], dtype=nl.int32)
        tile = nisa.memset((30, 16), -1.0, nl.float32)
        nisa.dma_copy(src=a[rows, nl.arange(16)[None, :]], dst=tile, oob_mode=nisa.oob_mode.skip)
        nisa.dma_copy(dst=out, src=tile)
        return out

    expected = np.full((30, 16), -1, np.float32)
    expected[:22] = x[::3]
    assert np.array_equal(kernel(x), expected)
    assert np.array_equal(apply(nisa.dma_transpose, x), x.T)


def test_dropout_keeps_or_zeroes():
    x = np.ones((128, 512), np.float32)
    kept = apply(lambda a: nisa.dropout(a, prob=0.25), x)
    assert set(np.unique(kept)) <= {0.0, 1.0}
    assert abs(kept.mean() - 0.75) < 0.02
