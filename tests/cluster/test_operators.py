"""A layer's operators do the arithmetic that the shape demands, and take the time that a core's figures give."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentrn.cluster.job import constants
from opentrn.cluster.models import load_model
from opentrn.cluster.operator_times import RooflineTimes, training_peak_tflops
from opentrn.cluster.operators import Gemm, Operator, Sharding, backward, layer_operators, optimizer_operator
from opentrn.hardware import chip, gpu


def roofline(name="trn2", **changes):
    given = {
        "tensor_instruction_cycles": 0.0,
        "hbm_efficiency": 1.0,
        "engine_overlap": 1.0,
        "elementwise_scale": 1.0,
        "launch_us": 0.0,
        **changes,
    }
    return RooflineTimes(chip(name), 1, given.pop("dtype", "bf16"), **given)


@pytest.mark.parametrize("name", ["llama2-7b", "gpt3-23b", "qwen3-8b"])
def test_products_of_a_layer_are_two_flops_a_weight_and_token(name):
    stack = load_model(name).stacks[0]
    attention, feed_forward = layer_operators(stack, Sharding(1, 2048))
    products = sum(op.flops for op in (*attention, *feed_forward) if op.trains)
    bias_and_norms = stack.norm_parameters + (2 * stack.head_dim if stack.qk_norm else 0)
    weights = stack.layer_parameters - bias_and_norms
    assert products == pytest.approx(2 * weights * 2048, rel=1e-3)


def test_backward_of_a_product_is_twice_its_forward():
    attention, feed_forward = layer_operators(load_model("llama2-7b").stacks[0], Sharding(1, 1024))
    for operator in (op for op in (*attention, *feed_forward) if op.trains):
        data, weight = backward(operator)
        assert data.flops == operator.flops
        assert weight is not None
        assert weight.flops == operator.flops


def test_tensor_parallel_ranks_share_the_products_evenly():
    stack = load_model("llama3-70b").stacks[0]
    whole = sum(op.flops for part in layer_operators(stack, Sharding(1, 4096)) for op in part)
    split = sum(op.flops for part in layer_operators(stack, Sharding(1, 4096, tp=8)) for op in part)
    assert 8 * split == pytest.approx(whole, rel=1e-6)


def test_experts_compute_what_their_tokens_need():
    stack = load_model("mixtral-8x7b").stacks[0]
    _, feed_forward = layer_operators(stack, Sharding(1, 2048, ep=4))
    experts = sum(op.flops for op in feed_forward if op.name.startswith("experts"))
    assert experts == pytest.approx(2 * 2 * 3 * stack.hidden * stack.ffn_hidden * 2048, rel=1e-6)


def test_a_sample_that_does_not_fill_a_tile_costs_a_whole_one():
    stack = load_model("vit-base").stacks[0]
    assert Sharding(4, 197).tokens(stack) == 4 * 256


def test_a_large_product_takes_its_flops_at_the_peak_of_the_array():
    core = chip("trn2").core
    times = roofline().engine_times(Operator("mm", (Gemm(4096, 4096, 4096),)))
    peak = 2 * core.pe_num_rows * core.pe_num_columns * core.tensor_clock_ghz * 1e9
    assert times.tensor_us == pytest.approx(2 * 4096**3 / peak * 1e6, rel=1e-9)


def test_the_stock_compiler_benchmark_is_the_constant_behind_instruction_cost():
    # The public 2048^3 benchmark reports 83.8 % of the Tensor engine's peak for compiled code.
    ideal = roofline().engine_times(Operator("mm", (Gemm(2048, 2048, 2048),))).tensor_us
    compiled = roofline(tensor_instruction_cycles=constants().tensor_instruction_cycles)
    assert ideal / compiled.engine_times(Operator("mm", (Gemm(2048, 2048, 2048),))).tensor_us == pytest.approx(
        0.838, abs=0.002
    )


def test_one_row_more_than_a_tile_costs_another_tile():
    times = roofline()
    one, two = (times.tensor_cycles(Gemm(512, k, 128)) for k in (128, 129))
    assert two == 2 * one


@pytest.mark.parametrize(("dtype", "factor"), [("fp32", 667 / 181), ("fp8", 667 / 1299)])
def test_number_formats_scale_by_the_published_peaks(dtype, factor):
    gemm = Gemm(4096, 4096, 4096)
    assert roofline(dtype=dtype).tensor_cycles(gemm) == pytest.approx(factor * roofline().tensor_cycles(gemm))


def test_bytes_take_their_share_of_the_chips_bandwidth():
    times = roofline().engine_times(Operator("copy", hbm_bytes=2900e9 / 8))
    assert times.hbm_us == pytest.approx(1e6)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.floats(1e3, 1e9), st.floats(1e3, 1e9), st.floats(1e3, 1e9))
def test_overlap_lies_between_a_roofline_and_one_engine_after_another(overlap, vector, scalar, traffic):
    operator = Operator("any", (Gemm(256, 256, 256),), vector, vector, scalar, traffic)
    best = roofline(engine_overlap=1.0).time_us(operator)
    worst = roofline(engine_overlap=0.0).time_us(operator)
    assert best <= roofline(engine_overlap=overlap).time_us(operator) * (1 + 1e-9) <= worst * (1 + 1e-9)


def test_adam_moves_thirty_bytes_a_weight():
    # Read weight, gradient and two moments in fp32, write weight and moments, and the bf16 copy.
    assert optimizer_operator(1.0).hbm_bytes == 4 * 4 + 3 * 4 + 2


def test_fp8_is_the_fastest_eight_bit_format_of_a_chip():
    assert training_peak_tflops(chip("trn3"), "fp8") == 2517
    assert training_peak_tflops(chip("trn2"), "fp8") == 1299
    assert training_peak_tflops(gpu("a100"), "fp8") == 312
