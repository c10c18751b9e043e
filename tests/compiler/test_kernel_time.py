"""The time of a kernel call comes from shapes alone and obeys the chip's limits."""

from __future__ import annotations

import pytest

import opentrn.nki.language as nl
from opentrn import hardware
from opentrn.compiler.kernel_time import time_kernel
from opentrn.kernels.rows import fused_rows
from opentrn.nki.arrays import Spec


def addition(rows: int, columns: int, chip: str = "trn2"):
    array = Spec((rows, columns), "float32")
    steps = (("binary", "add", (0, 1)),)
    return time_kernel(fused_rows, (array, array), steps, (2,), rows, columns, (nl.float32,), chip=chip)


def test_traffic_is_two_arguments_and_a_result():
    assert addition(256, 512).hbm_bytes == 3 * 4 * 256 * 512


@pytest.mark.parametrize("shape", [(128, 512), (1024, 1024)])
def test_no_kernel_moves_data_faster_than_the_memory_of_the_chip(shape):
    found = addition(*shape)
    assert found.span_us >= found.hbm_bytes / hardware.chip("trn2").hbm_bandwidth_gb_per_s / 1e3


def test_more_work_takes_longer():
    assert addition(1024, 1024).span_us > addition(128, 512).span_us


def test_equal_calls_are_timed_once():
    assert addition(128, 128) is addition(128, 128)
