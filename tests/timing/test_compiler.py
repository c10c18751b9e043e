"""What the compiler of the earlier interface does to a kernel, as the timing model sees it."""

import numpy as np
import pytest

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn import nki
from opentrn.nki.arrays import Spec
from opentrn.nki.launch import session
from opentrn.timing import schedule


def record(kernel, *arguments, api="earlier"):
    with session(chip="trn2", execute=False, record=True) as opened:
        nki.jit(kernel, api=api)(*arguments)
    return opened.launches[0].programs


def reloading(columns):
    """Loads the same row of tiles in each of four iterations."""

    def kernel(x):
        y = nl.ndarray((4, 128, columns), "float32", buffer=nl.shared_hbm)
        for k in range(4):
            tile, done = nl.ndarray((128, columns), "float32"), nl.ndarray((128, columns), "float32")
            nisa.dma_copy(tile, x)
            nisa.tensor_scalar(done, tile, nl.add, float(k))
            nisa.dma_copy(y[k], done)
        return y

    return kernel, Spec((128, columns), "float32")


def test_a_tile_that_stayed_on_chip_is_not_loaded_again():
    kernel, shape = reloading(512)
    programs = record(kernel, shape)
    assert schedule(programs).read_bytes.sum() == 128 * 512 * 4
    assert schedule(record(kernel, shape, api="nki")).read_bytes.sum() == 4 * 128 * 512 * 4


def test_a_tile_that_cannot_have_stayed_is_loaded_again():
    def kernel(x):
        for _ in range(2):
            for k in range(4):  # four of these do not fit at once
                tile = nl.ndarray((128, 16384), "float32")
                nisa.dma_copy(tile, x[k])
                nisa.tensor_scalar(tile[:, 0:1], tile[:, 1:2], nl.add, 1.0)

    timeline = schedule(record(kernel, Spec((4, 128, 16384), "float32")))
    assert timeline.read_bytes.sum() == 8 * 128 * 16384 * 4


def test_memory_that_the_kernel_writes_is_always_loaded_again():
    def kernel(x):
        y = nl.ndarray((128, 512), "float32", buffer=nl.shared_hbm)
        for _ in range(3):
            tile = nl.ndarray((128, 512), "float32")
            nisa.dma_copy(tile, y)
            nisa.dma_copy(y, tile)
        return y

    assert schedule(record(kernel, Spec((1, 1), "float32"))).read_bytes.sum() == 3 * 128 * 512 * 4


def test_copies_are_shared_between_vector_and_scalar():
    def kernel():
        for _ in range(8):
            nisa.tensor_copy(nl.ndarray((128, 512), "float32"), nl.ndarray((128, 512), "float32", buffer=nl.psum))

    busy = schedule(record(kernel)).engine_busy_us
    assert busy["scalar"] > 0 and busy["vector"] > 0
    assert schedule(record(kernel, api="nki")).engine_busy_us["scalar"] == 0


@pytest.mark.parametrize("tiles", [1, 3])
def test_an_array_of_tiles_takes_the_memory_of_those_that_live(tiles):
    from opentrn.timing.blocks import split_tiles

    def kernel():
        array = nl.ndarray((128, 3, 4096), "float32")
        for k in range(tiles):
            nisa.memset(array[:, k], 0.0)

    program, origin = split_tiles(record(kernel)[0])
    used = [a for a in program.allocations if a.first_use >= 0]
    assert [a.bytes_per_partition for a in used] == [16384] * tiles
    assert np.array_equal(origin[-tiles:], np.arange(tiles) * 16384)


def test_a_loop_waits_for_the_stores_of_the_loops_before_it():
    def kernel(x):
        y = nl.ndarray((4, 128, 512), "float32", buffer=nl.shared_hbm)
        for k in range(4):
            tile = nl.ndarray((128, 512), "float32")
            nisa.dma_copy(tile, x[k])
            nisa.dma_copy(y[k], tile)
        for k in range(4):
            nisa.dma_copy(nl.ndarray((128, 512), "float32"), y[k])
        return y

    timeline = schedule(record(kernel, Spec((4, 128, 512), "float32")))
    assert timeline.start_ns[8:].min() >= timeline.end_ns[:8].max()
