"""Arrays of the caller go in and come out as the same kind; writes to inputs reach the caller."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import opentrn.nki as nki
import opentrn.nki.language as nl
from opentrn.errors import ValidationError


@nki.jit
def increment(x):
    """Adds one in place and returns the input."""
    nl.store(x, nl.add(nl.load(x), 1.0))
    return x


@nki.jit
def doubled(x):
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.multiply(nl.load(x), 2.0))
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3, np.int32])
def test_numpy(dtype):
    x = np.arange(12).reshape(3, 4).astype(dtype)
    result = doubled(x)
    assert result.dtype == x.dtype
    np.testing.assert_array_equal(result.astype(np.float32), 2 * x.astype(np.float32))
    assert increment(x) is x
    np.testing.assert_array_equal(x.astype(np.float32), np.arange(12).reshape(3, 4) + 1)


def test_a_strided_numpy_input_is_updated():
    whole = np.zeros((4, 8), np.float32)
    increment(whole[:, ::2])
    np.testing.assert_array_equal(whole, np.tile([1, 0], (4, 4)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "float8_e5m2"])
def test_torch(dtype):
    torch = pytest.importorskip("torch")
    x = torch.arange(12).reshape(3, 4).to(getattr(torch, dtype))
    result = doubled(x)
    assert isinstance(result, torch.Tensor) and result.dtype == x.dtype
    assert torch.equal(result.float(), (2 * x.float()).to(x.dtype).float())
    before = x.float().clone()
    assert increment(x) is x
    assert torch.equal(x.float(), (before + 1).to(x.dtype).float())


def test_a_transposed_torch_input_is_updated():
    torch = pytest.importorskip("torch")
    whole = torch.zeros(4, 8)
    increment(whole.T)
    assert torch.equal(whole, torch.ones(4, 8))


def test_jax_arrays_stay_as_they_are():
    jnp = pytest.importorskip("jax.numpy")
    x = jnp.zeros((3, 4), jnp.bfloat16)
    result = increment(x)
    assert type(result) is type(x) and result.dtype == x.dtype
    assert float(x.sum()) == 0 and float(result.sum()) == 12


def test_arrays_inside_lists_and_dictionaries():
    @nki.jit
    def total(parts, options):
        tile = nl.add(nl.load(parts[0]), nl.load(parts[1]))
        out = nl.ndarray(tile.shape, tile.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.add(tile, nl.load(options["bias"])))
        return {"total": out, "count": 2}

    ones = np.ones((2, 2), np.float32)
    result = total([ones, ones], {"bias": ones})
    assert (result["total"] == 3).all() and result["count"] == 2


@pytest.mark.parametrize("lnc", [1, 2])
def test_a_grid_of_programs_shares_its_output(lnc):
    @nki.jit
    def halves(x):
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        rows = x.shape[0] // nl.num_programs(0)
        part = nl.ds(nl.program_id(0) * rows, rows)
        nl.store(out[part, :], nl.add(nl.load(x[part, :]), float(nl.program_id(0))))
        return out

    result = halves[lnc](np.zeros((4, 2), np.float32))
    np.testing.assert_array_equal(result[:, 0], [0, 0, 0, 0] if lnc == 1 else [0, 0, 1, 1])


def test_cores_that_clear_a_shared_output_do_so_before_either_writes():
    @nki.jit
    def clears(x):
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        nl.store(out, nl.zeros(x.shape, x.dtype))
        row = nl.program_id(0)
        nl.store(out[nl.ds(row, 1), :], nl.load(x[nl.ds(row, 1), :]))
        return out

    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(clears[2](x), x)


def test_precise_fp_off_keeps_narrow_floats_wide(monkeypatch):
    @nki.jit
    def narrow(x):
        out = nl.ndarray(x.shape, nl.float32, buffer=nl.shared_hbm)
        nl.store(out, nl.copy(nl.load(x), nl.bfloat16))
        return out

    x = np.full((1, 1), 1 + 2**-12, np.float32)
    assert narrow(x) == 1
    monkeypatch.setenv("NKI_PRECISE_FP", "0")
    assert narrow(x) == x


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: doubled(np.zeros((0, 4), np.float32)), "without elements"),
        (lambda: doubled(np.zeros((2, 2), np.complex64)), "complex64"),
        (lambda: doubled(y=np.zeros((2, 2))), "argument"),
        (lambda: doubled["two"](np.zeros((2, 2))), "not a grid size"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValidationError, match=message):
        call()
