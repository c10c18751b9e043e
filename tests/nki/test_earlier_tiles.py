"""Tiles of the earlier API: results land where they are assigned, keep their values, and accumulate in PSUM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from opentrn.errors import CapacityError, UninitializedError, ValidationError
from opentrn.nki import launch
from opentrn.nki.earlier import compiler as ncc
from opentrn.nki.earlier import isa as nisa
from opentrn.nki.earlier import language as nl
from opentrn.nki.earlier.decorators import jit

RNG = np.random.default_rng(2)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def line_ending(comment):
    """Number of the line of this file that ends with a comment."""
    lines = Path(__file__).read_text().splitlines()
    return next(n for n, text in enumerate(lines, 1) if text.endswith(comment))


def instructions(kernel, *arrays):
    """Names of the instructions that a launch issues, with their source lines."""
    with launch.session(record=True) as session:
        kernel(*arrays)
    program = session.launches[0].programs[0]
    return [
        (program.plans[p].instruction.name, program.line(s)) for p, s in zip(program.plan, program.site, strict=True)
    ]


def test_an_assigned_result_is_computed_in_place_of_its_destination():
    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(a.shape, dtype=a.dtype)
        tile[...] = nl.load(a)
        tile[...] = nisa.activation(nl.exp, tile)
        nl.store(out, tile)
        return out

    names = [name for name, _ in instructions(kernel, floats(8, 8))]
    assert names == ["dma_copy", "activation", "dma_copy"]


def test_a_named_result_survives_a_later_write_to_where_it_was_assigned():
    x = floats(8, 8)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        box = nl.ndarray(a.shape, dtype=a.dtype)
        before = nl.load(a)
        box[...] = before
        box[...] = nl.multiply(box, 3.0)
        nl.store(out, before + box)
        return out

    assert np.allclose(kernel(x), 4 * x)


def test_a_result_kept_in_a_dictionary_survives_too():
    x = floats(8, 8)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        box, kept = nl.ndarray(a.shape, dtype=a.dtype), {}
        kept["x"] = nl.load(a)
        box[...] = kept["x"]
        box[...] = 0
        nl.store(out, kept["x"])
        return out

    assert np.array_equal(kernel(x), x)


def test_an_instruction_belongs_to_the_line_that_called_it_not_to_the_line_that_needed_it():
    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        tile = nl.load(a)
        twice = nl.multiply(tile, 2.0)  # here
        unused = 1
        nl.store(out, twice)
        return out if unused else None

    here = line_ending("# here")
    lines = {name: line for name, (_, line) in instructions(kernel, floats(8, 8))}
    assert lines["tensor_scalar"] == here


def test_an_error_names_the_line_of_the_call_that_was_deferred():
    @jit
    def kernel(a):
        tile = nl.load(a)
        wrong = nisa.nc_matmul(tile, tile)  # refused
        return nl.copy(wrong)

    refused = line_ending("# refused")
    with pytest.raises(ValidationError) as info:
        kernel(floats(128, 600))
    assert info.value.source == (__file__, refused)


def test_matmuls_into_zeros_accumulate_as_one_group_without_a_fill():
    a, b = floats(256, 64), floats(256, 96)

    @jit
    def kernel(x, y):
        out = nl.ndarray((64, 96), dtype=x.dtype, buffer=nl.shared_hbm)
        total = nl.zeros((nl.par_dim(64), 96), dtype=nl.float32, buffer=nl.psum)
        for k in nl.affine_range(2):
            total += nl.matmul(nl.load(x[nl.ds(k * 128, 128)]), nl.load(y[nl.ds(k * 128, 128)]), transpose_x=True)
        nl.store(out, total)
        return out

    assert np.allclose(kernel(a, b), a.T @ b, atol=1e-4)
    names = [name for name, _ in instructions(kernel, a, b)]
    assert names.count("nc_matmul") == 2
    assert "memset" not in names and "tensor_tensor" not in names


def test_zeros_in_psum_are_zero_where_no_matmul_wrote():
    a, b = floats(128, 32), floats(128, 64)

    @jit
    def kernel(x, y):
        out = nl.ndarray((32, 128), dtype=x.dtype, buffer=nl.shared_hbm)
        total = nl.zeros((32, 128), dtype=nl.float32, buffer=nl.psum)
        total[:, 0:64] += nl.matmul(nl.load(x), nl.load(y), transpose_x=True)
        nl.store(out, total)
        return out

    assert np.allclose(kernel(a, b), np.pad(a.T @ b, ((0, 0), (0, 64))), atol=1e-4)


def test_a_matmul_assigned_overwrites_and_one_added_afterwards_adds():
    a = floats(128, 64)

    @jit
    def kernel(x):
        out = nl.ndarray((64, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum)
        total[...] = nisa.nc_matmul(tile, tile)
        total[...] = nisa.nc_matmul(tile, tile)
        total[...] += nisa.nc_matmul(tile, tile)
        nl.store(out, total)
        return out

    assert np.allclose(kernel(a), 2 * (a.T @ a), atol=1e-4)


def test_block_dimensions_hold_tiles_in_front_of_the_partition_dimension():
    x = floats(4, 128, 20)

    @jit
    def kernel(a):
        out = nl.ndarray((4, nl.par_dim(128), 20), dtype=a.dtype, buffer=nl.shared_hbm)
        tiles = nl.ndarray((2, 2, nl.par_dim(128), 20), dtype=a.dtype)
        for b in nl.affine_range(4):
            tiles[b // 2, b % 2] = nl.load(a[b])
        for b in nl.affine_range(4):
            tiles[b // 2, b % 2, :, 5:10] = nl.square(tiles[b // 2, b % 2, :, 5:10])
            nl.store(out[b], tiles[b // 2, b % 2])
        return out

    expected = x.copy()
    expected[:, :, 5:10] **= 2
    assert np.allclose(kernel(x), expected)


def test_psum_blocks_each_start_in_a_bank():
    a, b = floats(128, 64), floats(128, 300)

    @jit
    def kernel(x, y):
        out = nl.ndarray((3, 64, 300), dtype=x.dtype, buffer=nl.shared_hbm)
        left, right = nl.load(x), nl.load(y)
        products = nl.zeros((3, nl.par_dim(64), 300), dtype=nl.float32, buffer=nl.psum)
        for i in nl.affine_range(3):
            products[i] += nisa.nc_matmul(left, right)
            nl.store(out[i], products[i])
        return out

    assert np.allclose(kernel(a, b), np.stack([a.T @ b] * 3), atol=1e-4)


def test_operators_broadcast_columns_rows_and_numbers():
    x, column, row = floats(128, 40), floats(128, 1), floats(1, 40)

    @jit
    def kernel(a, c, r):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        tile, col, line = nl.load(a), nl.load(c), nl.load(r)
        nl.store(out, (1.0 - tile) * col + line / 2 - (col - tile) * 3 + col * line)
        return out

    expected = (1 - x) * column + row / 2 - (column - x) * 3 + column * row
    assert np.allclose(kernel(x, column, row), expected, atol=1e-5)


def test_numpy_functions_and_numbers_work_on_tiles():
    x = floats(8, 8)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        nl.store(out, np.float32(2) * np.exp(nl.load(a)) + np.int64(1))
        return out

    assert np.allclose(kernel(x), 2 * np.exp(x) + 1, rtol=1e-5)


def test_allocators_place_blocks_in_turn_and_share_bytes():
    x = floats(6, 128, 16)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        tiles = nl.ndarray(
            (6, nl.par_dim(128), 16), dtype=a.dtype, buffer=ncc.sbuf.mod_alloc(base_addr=512, num_free_tiles=(2,))
        )
        for i in nl.affine_range(6):
            tiles[i] = nl.load(a[i])
            if i >= 1:
                nl.store(out[i], tiles[i - 1])
        return out

    result = kernel(x)
    assert np.array_equal(result[1:], x[:-1])

    @jit
    def clash(a):
        out = nl.ndarray((128, 16), dtype=a.dtype, buffer=nl.shared_hbm)
        tiles = nl.ndarray(
            (6, nl.par_dim(128), 16), dtype=a.dtype, buffer=ncc.sbuf.mod_alloc(base_addr=0, num_free_tiles=(2,))
        )
        for i in nl.affine_range(6):
            tiles[i] = nl.load(a[i])
        nl.store(out, tiles[0])  # tile 4 took its place
        return out

    assert np.array_equal(clash(x), x[4])


def test_addresses_that_a_loop_adds_up_are_those_of_its_first_iteration():
    x = floats(40, 128, 1024)

    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        address = 0
        for i in nl.affine_range(40):  # 40 x 8 KiB would not fit
            tile = nl.ndarray((nl.par_dim(128), 1024), dtype=a.dtype, buffer=ncc.sbuf.mod_alloc(base_addr=address))
            address += 4096
            twice = nl.ndarray((nl.par_dim(128), 1024), dtype=a.dtype, buffer=ncc.sbuf.mod_alloc(base_addr=address))
            address += 4096
            tile[...] = nl.load(a[i])
            twice[...] = nl.add(tile, tile)
            nl.store(out[i], twice)
        return out

    assert np.array_equal(kernel(x), 2 * x)


def test_a_psum_allocation_function_chooses_banks():
    a = floats(128, 128)

    @jit
    def kernel(x):
        out = nl.ndarray((2, 128, 128), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        place = ncc.psum.alloc(lambda idx, pdim_size, fdim_size: ({0: 3, 1: 6}[idx[0]], 0, 0))
        products = nl.ndarray((2, nl.par_dim(128), 128), dtype=nl.float32, buffer=place)
        for i in nl.affine_range(2):
            products[i] = nisa.nc_matmul(tile, tile)
        for i in nl.affine_range(2):
            nl.store(out[i], products[i])
        return out

    assert np.allclose(kernel(a), np.stack([a.T @ a] * 2), atol=1e-4)
    with launch.session(record=True) as session:
        kernel(a)
    placed = {alloc.address for alloc in session.launches[0].programs[0].allocations if alloc.address is not None}
    assert placed == {(0, 3 * 2048), (0, 6 * 2048)}


def test_too_large_a_placement_names_the_tile():
    @jit
    def kernel(a):
        tile = nl.ndarray((nl.par_dim(128), 8), dtype=a.dtype, buffer=ncc.sbuf.mod_alloc(base_addr=10**6))
        tile[...] = nl.load(a)
        return a

    with pytest.raises(CapacityError, match="1000000"):
        kernel(floats(128, 8))


def test_what_was_never_written_is_found_when_it_reaches_a_result():
    @jit
    def kernel(a):
        out = nl.ndarray(a.shape, dtype=a.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(a.shape, dtype=a.dtype)
        tile[0:4] = nl.load(a[0:4])
        nl.store(out, nl.add(tile, 1.0))
        return out

    with launch.session(uninitialized="error"), pytest.raises(UninitializedError, match="never written"):
        kernel(floats(8, 8))


def test_a_shape_that_does_not_broadcast_is_refused():
    @jit
    def kernel(a, b):
        return nl.add(nl.load(a), nl.load(b))

    with pytest.raises(ValidationError, match="do not broadcast"):
        kernel(floats(8, 8), floats(8, 9))


def test_129_partitions_are_refused():
    @jit
    def kernel(a):
        return nl.load(a)

    with pytest.raises(ValidationError, match="129 partitions"):
        kernel(floats(129, 8))


def test_reading_a_finished_part_leaves_the_other_parts_to_their_matmuls():
    a, b = floats(128, 32), floats(128, 256)

    @jit
    def kernel(x, y):
        out = nl.ndarray((32, 256), dtype=x.dtype, buffer=nl.shared_hbm)
        left, right = nl.load(x), nl.load(y)
        total = nl.zeros((32, 256), dtype=nl.float32, buffer=nl.psum)
        for j in nl.affine_range(4):
            part = nl.ds(64 * j, 64)
            total[:, part] += nl.matmul(left, right[:, part], transpose_x=True)
            nl.store(out[:, part], total[:, part])
        return out

    assert np.allclose(kernel(a, b), a.T @ b, atol=1e-4)
    assert "memset" not in [name for name, _ in instructions(kernel, a, b)]
