"""Memory of a rank against hand counts and a published activation formula."""

from dataclasses import replace

import numpy as np
import pytest

from opentrn.cluster import Job, Layout, load_model, software
from opentrn.cluster.candidates import LayoutTable
from opentrn.cluster.memory import memory_table

GIB = 2**30


def memory(layout, name="llama2-7b", batch=64, **job):
    given = {"software": software("neuronx-distributed"), **job}
    job = Job(load_model(name), given.pop("seq_len", 2048), batch, **given)
    return memory_table(job, LayoutTable.of([layout]))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_shards_optimizer_then_gradients_then_weights(stage):
    parameters = load_model("llama2-7b").num_parameters
    found = memory(Layout(dp=16, zero=stage, recompute="full"))
    # bf16 weights, fp32 gradients, fp32 master weights and two moments.
    for name, each, sharded_from in (("weights", 2, 3), ("gradients", 4, 2), ("optimizer", 12, 1)):
        share = 16 if stage >= sharded_from else 1
        assert getattr(found, name)[0] == pytest.approx(each * parameters / share, rel=1e-3), name


def test_tensor_and_pipeline_parallelism_divide_the_weights():
    one = memory(Layout(dp=1, zero=0)).weights[0]
    assert memory(Layout(tp=4, zero=0)).weights[0] == pytest.approx(one / 4, rel=0.01)
    layers = 2 * load_model("llama2-7b").stacks[0].layer_parameters
    assert memory(Layout(pp=4, zero=0)).weights[0] == pytest.approx(8 * layers + 2 * 32000 * 4096, rel=0.01)


def test_key_value_heads_fewer_than_ranks_are_replicated():
    stack = load_model("llama3-70b").stacks[0]
    sixteen, eight = (memory(Layout(tp=tp, zero=0), "llama3-70b").weights[0] for tp in (16, 8))
    kv_of_a_head = 2 * 2 * 80 * 2 * stack.hidden * stack.head_dim / 2
    assert sixteen > eight / 2 + 0.4 * kv_of_a_head


def test_experts_are_divided_by_expert_parallelism():
    model = load_model("mixtral-8x7b")
    experts = 32 * 8 * model.stacks[0].expert_parameters
    whole, split = (memory(Layout(dp=8, ep=ep, zero=0), "mixtral-8x7b").weights[0] for ep in (1, 8))
    assert whole - split == pytest.approx(2 * experts * 7 / 8, rel=1e-6)


def test_activations_of_gpt3_follow_the_published_formula():
    # Korthikanti et al. (arXiv:2205.05198), equation 1: s b h (34 + 5 a s / h) bytes a layer without recomputation.
    s, b, h, a, layers = 2048, 1, 4096, 32, 32
    job = {"software": replace(software("torch-neuronx"), attention="materialised")}
    found = memory(Layout(dp=1, zero=0, recompute="none"), "gpt3-6.7b", **job)
    assert found.activations[0] == pytest.approx(layers * s * b * h * (34 + 5 * a * s / h), rel=0.08)


def test_full_recompute_keeps_one_tensor_a_layer():
    found = memory(Layout(dp=1, zero=0, recompute="full"))
    kept = 32 * 2048 * 4096 * 2
    whole_layer = memory(Layout(dp=1, zero=0, recompute="none")).activations[0] / 32
    assert found.activations[0] == pytest.approx(kept + whole_layer, rel=1e-6)


def test_a_pipeline_holds_as_many_micro_batches_as_it_has_ranks():
    none = {"recompute": "none", "zero": 0}
    one = memory(Layout(pp=1, **none)).activations[0]
    assert memory(Layout(pp=4, **none)).activations[0] == pytest.approx(one)  # a quarter of the layers, four in flight
    wide = memory(Layout(pp=4, schedule="interleaved", chunks=2, **none)).activations[0]
    assert wide == pytest.approx(one * (1 + 3 / 8))  # Narayanan et al.: 1 + (p - 1) / (p m)


def test_adapters_need_almost_no_optimizer_memory():
    full, lora = memory(Layout(dp=1, zero=0)), memory(Layout(dp=1, zero=0), tuning="lora")
    assert lora.optimizer[0] < 0.02 * full.optimizer[0]
    assert lora.weights[0] == full.weights[0]


def test_columns_give_what_single_layouts_give():
    layouts = [
        Layout(dp=2, tp=4, zero=z, micro_batch=m, recompute=r) for z in (0, 3) for m in (1, 2) for r in ("none", "full")
    ]
    job = Job(load_model("llama2-7b"), 2048, 64, software("neuronx-distributed"))
    together = memory_table(job, LayoutTable.of(layouts)).total
    alone = [memory_table(job, LayoutTable.of([layout])).total[0] for layout in layouts]
    np.testing.assert_allclose(together, alone)
