"""Layouts that do not divide are refused with the axis, the limit and a way out."""

import pytest

from opentrn.cluster import Layout, machine
from opentrn.cluster.layout import check_layout
from opentrn.errors import OpenTrnError

JOB = {"num_layers": 32, "num_heads": 32, "num_experts": 8, "seq_len": 4096, "global_batch": 64, "num_ranks": 64}


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (Layout(dp=64), None),
        (Layout(dp=63), "is 63 ranks, but the hardware gives 64; change dp to 64"),
        (Layout(dp=4, tp=3, pp=1), "is 12 ranks"),
        (Layout(tp=64), "tp=64 does not divide the 32 attention heads; try 32"),
        (Layout(pp=64), "64 pieces of a model of 32 layers"),
        (Layout(dp=64, ep=3), "ep=3 does not divide the 8 experts"),
        (Layout(dp=64, micro_batch=2), "64 samples is not a multiple of dp x micro_batch = 128"),
        (Layout(dp=64, zero=4), "zero stage must be 0, 1, 2 or 3"),
        (Layout(dp=64, schedule="gpipe"), "unknown pipeline schedule 'gpipe'"),
        (Layout(dp=64, recompute="some"), "unknown recompute policy 'some'"),
        (Layout(dp=0), "dp must be at least 1"),
    ],
)
def test_a_layout_that_does_not_divide_says_what_would(layout, message):
    if message is None:
        check_layout(layout, **JOB)
        return
    with pytest.raises(OpenTrnError, match=message):
        check_layout(layout, **JOB)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trn2.48xlarg",), "did you mean trn2.48xlarge"),
        (("trn2.48xlarge", 24), "units of 16 chips and 24 is no multiple, try 32"),
        (("trn2.48xlarge", 0), "at least 1"),
        (("trn2.48xlarge", 16, 4), "groups its cores by 1 or 2, not 4"),
        (("p5.48xlarge",), "carries NVIDIA H100"),
    ],
)
def test_hardware_that_cannot_be_had_is_refused(arguments, message):
    with pytest.raises(OpenTrnError, match=message):
        machine(*arguments)


def test_ranks_are_logical_cores():
    assert machine("trn2.48xlarge").num_ranks == 64
    assert machine("trn2.48xlarge", 16, 1).num_ranks == 128
    assert machine("trn1.32xlarge").num_ranks == 32
    assert machine("trn4-ultraserver").num_chips == 144
