"""Memory never written: what is reported, where, and what is not because nobody looks at it."""

import warnings

import numpy as np
import pytest

import opentrn.nki as nki
import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.errors import UninitializedError
from opentrn.nki import launch


def run(kernel, *args, **settings):
    with launch.session(chip=settings.pop("chip", "trn3"), **settings):
        return nki.jit(kernel)(*args)


def line_of(error, text):
    """Whether the error names the line of this file that holds ``text``."""
    file, number = error.value.source
    with open(file) as lines:
        return text in lines.readlines()[number - 1]


def store(tile):
    out = nl.ndarray(tile.shape, tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)
    return out


X = np.arange(32, dtype=np.float32).reshape(4, 8)


def test_a_result_computed_from_memory_never_written_names_the_line_that_read_it():
    def kernel(x):
        a, b = nl.ndarray((4, 8), nl.float32), nl.ndarray((4, 8), nl.float32)
        nisa.tensor_scalar(b, a, nl.add, 1.0)  # reads a
        nisa.tensor_scalar(b, b, nl.multiply, 2.0)
        return store(b)

    with pytest.raises(UninitializedError, match="32 of 32 elements of the result.*memset") as error:
        run(kernel, X)
    assert line_of(error, "# reads a")


def test_lanes_that_nobody_reads_may_be_undefined():
    def kernel(x):
        a, b = nl.ndarray((8, 8), nl.float32), nl.ndarray((8, 8), nl.float32)
        nisa.dma_copy(a[0:4], x)
        nisa.activation(b, nl.copy, a, scale=3.0)  # all 8 partitions, of which 4 hold something
        return store(b[0:4])

    assert (run(kernel, X) == 3 * X).all()


def test_undefined_columns_of_a_matmul_spoil_their_own_outputs_only():
    def kernel(x, columns):
        a, b = nl.ndarray((4, 8), nl.float32), nl.ndarray((4, 16), nl.float32)
        nisa.dma_copy(a, x)
        nisa.dma_copy(b[:, 0:8], x)
        acc = nl.ndarray((8, 16), nl.float32, buffer=nl.psum)
        nisa.nc_matmul(acc, a, b)
        nisa.nc_matmul(acc, a, b)  # accumulates, also where nothing is known
        out = nl.ndarray((8, 16), nl.float32)
        nisa.tensor_copy(out, acc)
        return store(out[:, 0:columns])

    np.testing.assert_allclose(run(kernel, X, 8), 2 * X.T @ X)
    with pytest.raises(UninitializedError, match="8 of 72 elements"):
        run(kernel, X, 9)


def test_an_undefined_row_of_the_contraction_spoils_everything():
    def kernel(x):
        a = nl.ndarray((8, 8), nl.float32)
        nisa.dma_copy(a[0:4], x)
        acc = nl.ndarray((8, 8), nl.float32, buffer=nl.psum)
        nisa.nc_matmul(acc, a, a)
        out = nl.ndarray((8, 8), nl.float32)
        nisa.tensor_copy(out, acc)
        return store(out)

    with pytest.raises(UninitializedError, match="64 of 64"):
        run(kernel, X)


def test_psum_read_before_any_matmul_is_reported():
    def kernel(x):
        acc, out = nl.ndarray((4, 8), nl.float32, buffer=nl.psum), nl.ndarray((4, 8), nl.float32)
        nisa.tensor_copy(out, acc)  # nothing there
        return store(out)

    with pytest.raises(UninitializedError) as error:
        run(kernel, X)
    assert line_of(error, "# nothing there")


@pytest.mark.parametrize("index", ["register", "vector"])
def test_undefined_values_are_followed_through_dynamic_addresses(index):
    def kernel(x, rows):
        hbm = nl.ndarray((8, 8), nl.float32, buffer=nl.private_hbm)
        nisa.dma_copy(hbm[0:4], x)
        at, out = nl.ndarray((2, 1), nl.int32), nl.ndarray((2, 8), nl.float32)
        nisa.dma_copy(at, rows)
        if index == "vector":
            nisa.dma_copy(out, hbm.vector_select(0, at))
        else:
            first = nisa.register_alloc()
            nisa.register_load(first, at[0:1, 0:1])
            nisa.dma_copy(out, hbm.ap([[8, 2], [1, 8]], scalar_offset=first))
        return store(out)

    assert (run(kernel, X, np.array([[1], [2]], np.int32)) == X[1:3]).all()
    with pytest.raises(UninitializedError, match="8 of 16|16 of 16"):
        run(kernel, X, np.array([[3 if index == "register" else 1], [6]], np.int32))


def test_scattered_rows_are_defined_and_the_others_are_not():
    def kernel(x, rows, start):
        hbm = nl.ndarray((8, 8), nl.float32, buffer=nl.private_hbm)
        at, data = nl.ndarray((4, 1), nl.int32), nl.ndarray((4, 8), nl.float32)
        nisa.dma_copy(at, rows)
        nisa.dma_copy(data, x)
        nisa.dma_copy(hbm.vector_select(0, at), data)
        tile = nl.ndarray((2, 8), nl.float32)
        nisa.dma_copy(tile, hbm[start : start + 2])
        return store(tile)

    rows = np.array([[5], [4], [1], [0]], np.int32)
    assert (run(kernel, X, rows, 4) == X[[1, 0]]).all()
    with pytest.raises(UninitializedError, match="8 of 16"):
        run(kernel, X, rows, 1)


def test_placed_tensors_read_what_others_left_at_their_address_and_nothing_else():
    def kernel(x, columns):
        a = nl.ndarray((4, 8), nl.float32, address=(0, 64))
        nisa.dma_copy(a, x)
        same = nl.ndarray((4, columns), nl.float32, address=(0, 64))
        out = nl.ndarray((4, columns), nl.float32)
        nisa.tensor_copy(out, same)
        return store(out)

    assert (run(kernel, X, 8) == X).all()
    assert (run(kernel, X, 4) == X[:, :4]).all()
    with pytest.raises(UninitializedError, match="8 of 40"):
        run(kernel, X, 10)


@pytest.mark.parametrize("policy", ["warn", "ignore"])
def test_the_launch_chooses_whether_a_use_is_an_error(policy):
    def kernel(x):
        a, b = nl.ndarray((4, 8), nl.float32), nl.ndarray((4, 8), nl.float32)
        nisa.tensor_copy(b, a)
        return store(b)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = run(kernel, X, uninitialized=policy)
    assert np.isnan(result).all()
    assert any("never written" in str(w.message) for w in seen) == (policy == "warn")


def test_unwritten_integers_hold_four():
    def kernel(x):
        a, b = nl.ndarray((4, 8), nl.int32), nl.ndarray((4, 8), nl.int32)
        nisa.tensor_copy(b, a)
        return store(b)

    assert (run(kernel, X, uninitialized="ignore") == 4).all()


def test_a_register_loaded_from_memory_never_written_is_reported_at_once():
    def kernel(x):
        at = nl.ndarray((1, 1), nl.int32)
        nisa.register_load(nisa.register_alloc(), at)
        return store(at)

    with pytest.raises(UninitializedError, match="used as a register"):
        run(kernel, X)


def test_matmul_onto_psum_that_memset_wrote_is_undefined_before_v4():
    def kernel(x):
        a, acc = nl.ndarray((4, 8), nl.float32), nl.ndarray((8, 8), nl.float32, buffer=nl.psum)
        nisa.dma_copy(a, x)
        nisa.memset(acc, 0.0)
        nisa.nc_matmul(acc, a, a, accumulate=True)
        out = nl.ndarray((8, 8), nl.float32)
        nisa.tensor_copy(out, acc)
        return store(out)

    np.testing.assert_allclose(run(kernel, X, chip="trn3"), X.T @ X)
    with pytest.raises(UninitializedError, match="NeuronCore-v3.*accumulate=False"):
        run(kernel, X, chip="trn2")
