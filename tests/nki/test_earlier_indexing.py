"""Index expressions of the earlier API are access patterns: views of the right elements, nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from opentrn.errors import ValidationError
from opentrn.nki.earlier import isa as nisa
from opentrn.nki.earlier import language as nl
from opentrn.nki.earlier.decorators import jit

RNG = np.random.default_rng(0)


def run(function, *arrays):
    return jit(function)(*arrays)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def line_ending(comment):
    """Number of the line of this file that ends with a comment."""
    lines = Path(__file__).read_text().splitlines()
    return next(n for n, text in enumerate(lines, 1) if text.endswith(comment))


def store(tile):
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nl.store(out, tile)
    return out


def test_arange_with_new_axes_indexes_as_numpy_does():
    x = floats(256, 300)

    def kernel(a):
        i, j = nl.arange(100)[:, None], nl.arange(50)[None, :]
        return store(nl.load(a[20 + i, 3 * j + 7]))

    assert np.array_equal(run(kernel, x), x[20 + np.arange(100)[:, None], 3 * np.arange(50)[None, :] + 7])


def test_mgrid_axes_are_named_and_unpack():
    x = floats(64, 8, 16)

    def kernel(a):
        grid = nl.mgrid[0:64, 0:4, 0:16]
        p, y, z = grid
        first = nl.load(a[grid.p, 2 * grid.x, grid.y])
        second = nl.load(a[p, 2 * y + 1, z])
        return store(nl.subtract(first, second))

    assert np.allclose(run(kernel, x), x[:, 0::2] - x[:, 1::2])


def test_a_window_view_overlaps_itself():
    x = floats(8, 20)

    def kernel(a):
        p, i, k = nl.mgrid[0:8, 0:18, 0:3]
        tile = nl.load(a)
        return store(nl.max(tile[p, i + k], axis=2))

    windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=1)
    assert np.array_equal(run(kernel, x), windows.max(axis=2))


def test_a_permuted_store_transposes_blocks():
    x = floats(16, 12)

    def kernel(a):
        i, j, k = nl.arange(16)[:, None, None], nl.arange(3)[None, :, None], nl.arange(4)[None, None, :]
        out = nl.ndarray((16, 12), dtype=a.dtype)
        tile = nl.load(a)
        out[i, k * 3 + j] = nl.copy(tile[i, j * 4 + k])
        return store(out)

    assert np.array_equal(run(kernel, x), x.reshape(16, 3, 4).transpose(0, 2, 1).reshape(16, 12))


def test_hbm_views_swap_axes_by_index():
    x = floats(40, 24)

    def kernel(a):
        out = nl.ndarray((24, 40), dtype=a.dtype, buffer=nl.shared_hbm)
        i, j = nl.mgrid[0:40, 0:24]
        nl.store(out[j, i], nl.load(a[i, j]))
        return out

    assert np.array_equal(run(kernel, x), x.T)


def test_rows_named_by_a_tile_are_gathered_and_scattered():
    x = floats(100, 32)
    rows = RNG.permutation(100)[:64].astype(np.int32)

    def kernel(a, index):
        j = nl.arange(32)[None, :]
        p = nl.arange(64)[:, None]
        chosen = nl.load(index[p])
        gathered = nl.load(a[chosen[p, 0], j])
        out = nl.zeros((100, 32), dtype=a.dtype, buffer=nl.shared_hbm)
        nl.store(out[chosen, j], gathered * 2)
        return out

    expected = np.zeros_like(x)
    expected[rows] = 2 * x[rows]
    assert np.allclose(run(kernel, x, rows), expected)


def test_rows_named_twice_add_up_in_an_atomic_update():
    x = floats(6, 8)
    rows = np.array([1, 3, 1, 1, 0, 3], dtype=np.int32)

    def kernel(a, index):
        out = nl.zeros((4, 8), dtype=a.dtype, buffer=nl.shared_hbm)
        chosen = nl.load(index)
        nl.atomic_rmw(out[chosen, nl.arange(8)[None, :]], nl.load(a), op=np.add)
        return out

    expected = np.zeros((4, 8), np.float32)
    np.add.at(expected, rows, x)
    assert np.allclose(run(kernel, x, rows), expected)


def test_iota_writes_an_index_expression():
    def kernel():
        i, j = nl.mgrid[0:5, 0:7]
        return store(nisa.iota(10 * i - 2 * j + 3, dtype=nl.int32))

    i, j = np.mgrid[0:5, 0:7]
    assert np.array_equal(run(kernel), 10 * i - 2 * j + 3)


def test_an_index_outside_names_line_and_limit():
    def kernel(a):
        i, j = nl.mgrid[0:64, 0:64]
        return store(nl.load(a[i + 40, j]))  # outside

    with pytest.raises(ValidationError, match=r"40:104 .* holds 0:100") as info:
        run(kernel, floats(100, 64))
    line = line_ending("# outside")
    assert info.value.source == (__file__, line)


@pytest.mark.parametrize("expression", [lambda i: i // 3, lambda i: i % 3, lambda i: i * i])
def test_an_index_that_is_not_affine_is_refused(expression):
    def kernel(a):
        return store(nl.load(a[nl.arange(4)[:, None], expression(nl.arange(10)[None, :])]))

    with pytest.raises(ValidationError, match="not an affine index"):
        run(kernel, floats(4, 100))


def test_exact_division_of_an_index_stays_affine():
    x = floats(4, 40)

    def kernel(a):
        j = 4 * nl.arange(10)[None, :] + 8
        return store(nl.load(a[nl.arange(4)[:, None], j // 4 + j % 4]))

    assert np.array_equal(run(kernel, x), x[:, 2:12])


def test_dynamic_slices_and_integers_mix():
    x = floats(3, 64, 40)

    def kernel(a):
        out = nl.ndarray((64, 30), dtype=a.dtype, buffer=nl.shared_hbm)
        for b in nl.affine_range(3):
            nl.store(out[:, nl.ds(10 * b, 10)], nl.load(a[b, 0:64, nl.ds(5 + b, 10)]))
        return out

    expected = np.concatenate([x[b, :, 5 + b : 15 + b] for b in range(3)], axis=1)
    assert np.array_equal(run(kernel, x), expected)


def test_scalar_dynamic_source_picks_a_slab():
    x, which = floats(16, 5, 8), np.array([[3]], dtype=np.int32)

    def kernel(a, index):
        i, j = nl.mgrid[0:16, 0:8]
        tile, offset = nl.load(a), nl.load(index)
        return store(nisa.tensor_copy_dynamic_src(tile[i, offset, j]))

    assert np.array_equal(run(kernel, x, which), x[:, 3])
