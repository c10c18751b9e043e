"""Masks of the earlier API: boxes become smaller views, ragged ones select, and nothing outside is touched."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentrn.errors import ValidationError
from opentrn.nki.earlier import isa as nisa
from opentrn.nki.earlier import language as nl
from opentrn.nki.earlier.decorators import jit
from opentrn.nki.earlier.masks import resolve

RNG = np.random.default_rng(1)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def test_a_mask_cuts_the_last_tile():
    x = floats(300, 70)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        p, f = nl.mgrid[0:128, 0:70]
        for i in nl.affine_range(3):
            inside = i * 128 + p < 300
            tile = nl.load(a[i * 128 + p, f], mask=inside)
            nl.store(out[i * 128 + p, f], nl.exp(tile, mask=inside), mask=inside)
        return out

    assert np.allclose(kernel(x), np.exp(x))


def test_masked_assignment_leaves_the_rest_alone():
    x = floats(64, 64)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        p, f = nl.mgrid[0:64, 0:64]
        tile = nl.full((64, 64), 7.0, dtype=a.dtype)
        tile[p, f] = nl.load(a[p, f], mask=(p < 10) & (f >= 20))
        nl.store(out, tile)
        return out

    expected = np.full_like(x, 7)
    expected[:10, 20:] = x[:10, 20:]
    assert np.array_equal(kernel(x), expected)


def test_a_ragged_mask_selects_element_by_element():
    x = floats(32, 48)

    @jit
    def kernel(a):
        out = nl.zeros(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        p, f = nl.mgrid[0:32, 0:48]
        tile = nl.zeros(a.shape, dtype=a.dtype)
        tile[p, f] = nl.multiply(nl.load(a), 2.0, mask=p >= f)
        nl.store(out[p, f], tile, mask=f - p < 3)
        return out

    p, f = np.mgrid[0:32, 0:48]
    assert np.array_equal(kernel(x), np.where(p >= f, 2 * x, 0))


def test_and_between_comparisons_is_a_conjunction():
    x = floats(16, 16)

    @jit
    def kernel(a):
        out = nl.zeros(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        p, f = nl.mgrid[0:16, 0:16]
        nl.store(out[p, f], nl.load(a), mask=(p < 5 and f < 7))
        return out

    expected = np.zeros_like(x)
    expected[:5, :7] = x[:5, :7]
    assert np.array_equal(kernel(x), expected)


def test_chained_or_and_negated_masks():
    x = floats(16, 16)

    @jit
    def kernel(a):
        out = nl.zeros(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        p, f = nl.mgrid[0:16, 0:16]
        tile = nl.load(a)
        nl.store(out[p, f], tile, mask=(2 <= p < 6) & ((f < 3) | ~(f < 12)))
        return out

    p, f = np.mgrid[0:16, 0:16]
    assert np.array_equal(kernel(x), np.where((p >= 2) & (p < 6) & ((f < 3) | (f >= 12)), x, 0))


def test_a_false_mask_skips_the_instruction():
    x = floats(8, 8)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        tile = nl.load(a)
        for i in nl.affine_range(3):
            tile[:, :] = nl.add(tile, 1.0, mask=(i == 1))
        nl.store(out, tile)
        return out

    assert np.allclose(kernel(x), x + 1)


def test_a_mask_bounds_a_reduction():
    x = floats(8, 40)

    @jit
    def kernel(a):
        out = nl.ndarray((8, 1), dtype=a.dtype, buffer=nl.shared_hbm)
        f = nl.arange(40)[None, :]
        nl.store(out, nl.sum(nl.load(a), axis=1, mask=f < 25))
        return out

    assert np.allclose(kernel(x), x[:, :25].sum(axis=1, keepdims=True), atol=1e-5)


def test_matmul_masks_find_their_axis_by_the_index_they_share():
    a, b = floats(100, 60), floats(100, 90)

    @jit
    def kernel(x, y):
        out = nl.zeros((60, 90), dtype=x.dtype, buffer=nl.shared_hbm)
        k, m, n = nl.arange(128)[:, None], nl.arange(60)[None, :], nl.arange(90)[None, :]
        left, right = nl.load(x[k, m], mask=k < 100), nl.load(y[k, n], mask=k < 100)
        product = nl.zeros((60, 90), nl.float32, buffer=nl.psum)
        product[...] += nisa.nc_matmul(left[k, m], right[k, n], mask=k < 100)
        nl.store(out, product)
        return out

    assert np.allclose(kernel(a, b), a.T @ b, atol=1e-4)


def test_affine_select_applies_a_causal_mask():
    x = floats(32, 64)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        p, f = nl.mgrid[0:32, 0:64]
        nl.store(out, nisa.affine_select(pred=(16 + p >= f), on_true_tile=nl.load(a), on_false_value=-9984.0))
        return out

    p, f = np.mgrid[0:32, 0:64]
    assert np.array_equal(kernel(x), np.where(16 + p >= f, x, np.float32(-9984)))


def test_branching_on_a_mask_is_refused():
    @jit
    def kernel(a):
        p = nl.arange(8)[:, None]
        if p < 4:
            return a
        return a

    with pytest.raises(ValidationError, match="no single truth value"):
        kernel(floats(8, 8))


@given(
    coefficient=st.integers(-4, 4).filter(bool),
    const=st.integers(-40, 40),
    size=st.integers(1, 20),
    other=st.integers(-3, 3),
    op=st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]),
)
def test_every_comparison_leaves_what_numpy_says(coefficient, const, size, other, op):
    p, f = nl.mgrid[0:size, 0:5]
    compare = getattr(operator, op)
    region = resolve(compare(coefficient * p + const, other * f), (size, 5), [])
    i, j = np.mgrid[0:size, 0:5]
    expected = compare(coefficient * i + const, other * j)
    left = np.zeros((size, 5), bool)
    if region is True:
        left[...] = True
    elif region is not False:
        box = tuple(slice(*r) for r in region.ranges)
        left[box] = True if region.ragged is None else region.ragged
    assert np.array_equal(left, expected)
