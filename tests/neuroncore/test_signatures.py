"""Every instruction takes the parameters of the published API, by name, position and default."""

import inspect

import numpy as np
import pytest

from opentrn.neuroncore import isa

LOWEST = float(np.finfo(np.float32).min)
R = inspect.Parameter.empty

# Parameters in order; a bare name is required, a pair has a default. Enumeration members and operators by their names.
PUBLISHED = {
    "tensor_copy": ["dst", "src", ("engine", "unknown")],
    "memset": ["dst", "value", ("engine", "unknown")],
    "tensor_copy_predicated": ["dst", "src", "predicate", ("reverse_pred", False)],
    "tensor_tensor": ["dst", "data1", "data2", "op", ("engine", "unknown")],
    "tensor_scalar": [
        "dst", "data", "op0", "operand0", ("reverse0", False), ("op1", None), ("operand1", None), ("reverse1", False),
        ("engine", "unknown"),
    ],
    "tensor_reduce": ["dst", "op", "data", "axis", ("negate", False), ("keepdims", False)],
    "tensor_partition_reduce": ["dst", "op", "data"],
    "tensor_scalar_cumulative": [
        "dst", "src", "op0", "op1", "imm0", ("imm1", None), ("reduce_cmd", "reset_reduce"),
    ],
    "activation": [
        "dst", "op", "data", ("bias", None), ("scale", 1.0), ("reduce_op", None), ("reduce_res", None),
        ("reduce_cmd", "idle"),
    ],
    "activation_reduce": ["dst", "op", "data", "reduce_op", "reduce_res", ("bias", None), ("scale", 1.0)],
    "activate2": [
        "dst", "op", "data", "imm0", "imm1", "op0", "op1", ("relu_param", 0.0), ("reverse0", False),
        ("reverse1", False),
        ("reduce_op", None), ("reduce_res", None), ("reduce_cmd", "idle"),
    ],
    "iota": ["dst", "pattern", ("offset", 0), ("channel_multiplier", 0)],
    "affine_select": [
        "dst", "pattern", "channel_multiplier", "on_true_tile", "on_false_value", ("cmp_op", "equal"), ("offset", 0),
    ],
    "local_gather": ["dst", "src_buffer", "index", ("num_elem_per_idx", 1), ("num_valid_indices", None)],
    "nc_n_gather": ["dst", "data", "indices"],
    "bn_stats": ["dst", "data"],
    "bn_aggr": ["dst", "data"],
    "tensor_tensor_scan": [
        "dst", "data0", "data1", "initial", "op0", "op1", ("reverse0", False), ("reverse1", False),
    ],
    "nc_stream_shuffle": ["dst", "src", "shuffle_mask"],
    "rng": ["dst", ("engine", "vector")],
    "dropout": ["dst", "data", "prob"],
    "set_rng_seed": ["src_seeds"],
    "rand_set_state": ["src_seeds", ("engine", "gpsimd")],
    "rand_get_state": ["dst", ("engine", "gpsimd")],
    "rand2": ["dst", "min", "max"],
    "exponential": [
        "dst", "src", ("max_value", 0.0), ("reduce_res", None), ("reduce_cmd", "idle"), ("reduce_init", 0.0),
    ],
    "reciprocal": ["dst", "data"],
    "max8": ["dst", "src"],
    "sequence_bounds": ["dst", "segment_ids"],
    "scalar_tensor_tensor": [
        "dst", "data", "op0", "operand0", "op1", "operand1", ("reverse0", False), ("reverse1", False),
    ],
    "tensor_scalar_reduce": [
        "dst", "data", "op0", "operand0", "reduce_op", ("reduce_res", None), ("reverse0", False),
        ("reduce_cmd", "reset_reduce"), ("reduce_init", None), ("reduce_res_negate", False),
    ],
    "range_select": [
        "dst", "on_true_tile", "comp_op0", "comp_op1", "bound0", "bound1", ("reduce_cmd", "reset_reduce"),
        ("reduce_res", None), ("reduce_op", "maximum"), ("range_start", 0), ("on_false_value", LOWEST),
    ],
    "select_reduce": [
        "dst", "predicate", "on_true", "on_false", ("reduce_res", None), ("reduce_cmd", "idle"),
        ("reduce_op", "maximum"),
        ("reverse_pred", False),
    ],
    "nc_find_index8": ["dst", "data", "vals"],
    "nc_match_replace8": ["dst", "data", "vals", "imm", ("dst_idx", None)],
    "nonzero_with_count": ["dst", "src", ("index_offset", 0), ("padding_val", -1)],
    "topk": ["val_dst", "idx_dst", "src", "n"],
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_signature_is_the_published_one(name):
    expected = [(p, R) if isinstance(p, str) else p for p in (*PUBLISHED[name], ("name", None))]
    parameters = list(inspect.signature(getattr(isa, name)).parameters.values())
    positional = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [(p.name, getattr(p.default, "name", p.default)) for p in positional] == expected
    # Nothing else, but the keyword of earlier releases that says again what dst says.
    assert {p.name for p in parameters if p not in positional} <= {"dtype"}


def test_instructions_describe_themselves():
    assert all(inspect.getdoc(getattr(isa, name)) for name in PUBLISHED)
