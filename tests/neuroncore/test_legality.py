"""What the chip would refuse is refused, with one sentence that names the operand and the limit."""

import numpy as np
import pytest

from opentrn.errors import ValidationError
from opentrn.neuroncore import isa
from opentrn.neuroncore.isa.settings import engine, reduce_cmd

ADD, MUL, MAX = np.add, np.multiply, np.maximum


class Tiles:
    """Tiles of the shapes and types that the cases below need, by name."""

    def __init__(self, chip):
        self.tile = chip.tile

    def __getattr__(self, name):
        shape, dtype, buffer = {
            "a": ((128, 16), "float32", "sbuf"),
            "b": ((128, 16), "float32", "sbuf"),
            "a64": ((64, 16), "float32", "sbuf"),
            "wide": ((128, 600), "float32", "sbuf"),
            "huge": ((128, 20000), "float32", "sbuf"),
            "deep": ((128, 2, 2, 2, 2), "float32", "sbuf"),
            "p": ((128, 16), "float32", "psum"),
            "q": ((128, 16), "float32", "psum"),
            "h": ((128, 16), "bfloat16", "sbuf"),
            "i": ((128, 16), "int32", "sbuf"),
            "u": ((128, 16), "uint32", "sbuf"),
            "u8": ((128, 16), "uint8", "sbuf"),
            "u16": ((128, 16), "uint16", "sbuf"),
            "c": ((128, 1), "float32", "sbuf"),
            "hc": ((128, 1), "bfloat16", "sbuf"),
            "ic": ((128, 1), "int32", "sbuf"),
            "c2": ((128, 2), "float32", "sbuf"),
            "c64": ((64, 1), "float32", "sbuf"),
            "row": ((1, 16), "float32", "sbuf"),
            "eight": ((128, 8), "float32", "sbuf"),
            "places": ((128, 8), "uint32", "sbuf"),
            "seven": ((128, 7), "float32", "sbuf"),
            "six": ((128, 6), "float32", "sbuf"),
            "seeds": ((128, 6), "uint32", "sbuf"),
            "seeds24": ((128, 24), "uint32", "sbuf"),
            "mx": ((128, 16), "float8_e4m3fn_x4", "sbuf"),
            "hbm": ((128, 16), "float32", "private_hbm"),
            "p_words": ((128, 16), "uint32", "psum"),
            "i17": ((128, 17), "int32", "sbuf"),
            "short": ((20, 16), "float32", "sbuf"),
        }[name]
        tensor = self.tile(shape=shape, dtype=dtype, buffer=buffer)
        tensor.storage.state = 2
        tensor.array()[...] = np.zeros(shape).astype(tensor.array().dtype)
        return tensor


ANY_GENERATION = [
    ("partitions differ", lambda t: isa.tensor_tensor(t.a, t.a, t.a64, ADD), "128 partitions and data2 64"),
    ("sizes differ", lambda t: isa.tensor_tensor(t.a, t.a, t.c, ADD), "16 elements a partition and data2 1"),
    ("both in PSUM", lambda t: isa.tensor_tensor(t.a, t.p, t.q, ADD), "cannot both be in PSUM"),
    ("in HBM", lambda t: isa.tensor_tensor(t.a, t.hbm, t.b, ADD), "is in private_hbm"),
    ("no operator", lambda t: isa.tensor_tensor(t.a, t.a, t.b, np.sin), "op=sin is not an ALU operator"),
    ("unary", lambda t: isa.tensor_tensor(t.a, t.a, t.b, np.abs), "takes one operand"),
    ("bits of floats", lambda t: isa.tensor_tensor(t.a, t.a, t.b, np.bitwise_and), "needs integer tensors"),
    ("power in PSUM", lambda t: isa.tensor_tensor(t.p, t.a, t.b, np.power), "cannot reach PSUM"),
    ("scalar engine", lambda t: isa.tensor_tensor(t.a, t.a, t.b, ADD, engine.scalar), "use vector, gpsimd"),
    ("gpsimd in PSUM", lambda t: isa.tensor_tensor(t.p, t.a, t.b, ADD, engine.gpsimd), "cannot reach PSUM"),
    ("packed", lambda t: isa.tensor_tensor(t.mx, t.mx, t.mx, ADD), "packed MX words"),
    ("mixed kinds", lambda t: isa.tensor_scalar(t.i, t.i, np.bitwise_and, 1, False, ADD, 1), "mix bit-vector"),
    ("column shape", lambda t: isa.tensor_scalar(t.a, t.a, ADD, t.c2), r"shape \(128, 1\)"),
    ("column type", lambda t: isa.tensor_scalar(t.a, t.a, ADD, t.hc), "operand0 is bfloat16, but must be float32"),
    ("integer column", lambda t: isa.tensor_scalar(t.a, t.a, ADD, t.ic), "operand0 is int32, but must be float32"),
    ("no operand", lambda t: isa.tensor_scalar(t.a, t.a, ADD, None), "give operand0"),
    ("operand without op", lambda t: isa.tensor_scalar(t.a, t.a, ADD, 1.0, operand1=2.0), "without op1"),
    ("bits on scalar", lambda t: isa.tensor_scalar(t.i, t.i, np.bitwise_or, 1, engine=engine.scalar), "Vector engine"),
    ("gpsimd tensor_scalar", lambda t: isa.tensor_scalar(t.a, t.a, ADD, 1.0, engine=engine.gpsimd), "only for rsqrt"),
    ("reduce partitions", lambda t: isa.tensor_reduce(t.c, ADD, t.a, 0), "never 0"),
    ("reduce the middle", lambda t: isa.tensor_reduce(t.c, ADD, t.deep, (2,)), "last free dimensions"),
    ("result size", lambda t: isa.tensor_reduce(t.c2, ADD, t.a, 1), "dst must have 1 elements"),
    ("reduce with equal", lambda t: isa.tensor_reduce(t.c, np.equal, t.a, 1), "equal cannot reduce"),
    ("negated bits", lambda t: isa.tensor_reduce(t.ic, np.bitwise_or, t.i, 1, True), "negate applies to arithmetic"),
    ("partition result", lambda t: isa.tensor_partition_reduce(t.a, ADD, t.a), "dst must have 1 partition"),
    ("partition operator", lambda t: isa.tensor_partition_reduce(t.row, MUL, t.a), "partitions reduce with add"),
    ("partition PSUM", lambda t: isa.tensor_partition_reduce(t.row, ADD, t.p), "reaches only sbuf"),
    ("gpsimd copy", lambda t: isa.tensor_copy(t.a, t.p, engine.gpsimd), "cannot reach PSUM"),
    ("converted MX", lambda t: isa.tensor_copy(t.a, t.mx), "packed MX words"),
    ("set MX", lambda t: isa.memset(t.mx, 1), "only be set to 0"),
    ("set too large", lambda t: isa.memset(t.u8, 256), "does not fit into uint8"),
    ("set fraction", lambda t: isa.memset(t.i, float("nan")), "no int32 representation"),
    ("predicate type", lambda t: isa.tensor_copy_predicated(t.a, t.b, t.i), "uint8, uint16, uint32"),
    ("predicated types", lambda t: isa.tensor_copy_predicated(t.a, t.h, t.u8), "they must agree"),
    ("shuffle length", lambda t: isa.nc_stream_shuffle(t.a, t.b, [0] * 31), "list of 32"),
    ("shuffle entry", lambda t: isa.nc_stream_shuffle(t.a, t.b, [32] + [0] * 31), "entries are 0 to 31"),
    ("shuffle type", lambda t: isa.nc_stream_shuffle(t.a, t.h, [0] * 32), "does not convert"),
    ("no function", lambda t: isa.activation(t.a, np.cos, t.a), "not an activation function"),
    ("activation product", lambda t: isa.activation(t.a, np.exp, t.a, reduce_op=MUL), "reduces with nl.add"),
    ("scale type", lambda t: isa.activation(t.a, np.exp, t.a, scale=t.hc), "scale is bfloat16"),
    ("load_reduce", lambda t: isa.activation(t.a, np.exp, t.a, reduce_cmd=reduce_cmd.load_reduce), "no load_reduce"),
    ("result column", lambda t: isa.activation_reduce(t.a, np.exp, t.a, ADD, t.c2), "reduce_res must be"),
    ("pattern size", lambda t: isa.iota(t.a, [[1, 8]]), "makes 8 values a partition and dst has 16"),
    ("pattern dims", lambda t: isa.iota(t.a, [[1, 2]] * 5), "must have 1 to 4"),
    ("pattern form", lambda t: isa.iota(t.a, [1, 16]), "list of"),
    ("iota in PSUM", lambda t: isa.iota(t.p, [[1, 16]]), "reaches only sbuf"),
    ("no comparison", lambda t: isa.affine_select(t.a, [[1, 16]], 0, t.b, 0.0, ADD), "does not compare"),
    ("index type", lambda t: isa.local_gather(t.a, t.a, t.i), "uint16"),
    ("gather groups", lambda t: isa.local_gather(t.short, t.short, t.u16[:20]), "multiple of 16"),
    ("gather width", lambda t: isa.local_gather(t.a, t.a, t.u16, 3), "1, 2, 4, 8, 16 or 32"),
    ("n_gather index", lambda t: isa.nc_n_gather(t.a, t.a, t.i), "must be uint32"),
    ("n_gather type", lambda t: isa.nc_n_gather(t.h, t.a, t.u), "does not convert"),
    ("stats size", lambda t: isa.bn_stats(t.six, t.wide), "at most 512"),
    ("stats result", lambda t: isa.bn_stats(t.eight, t.a), "6 elements"),
    ("triples", lambda t: isa.bn_aggr(t.c2, t.a), "multiple of 3"),
    ("scan in PSUM", lambda t: isa.tensor_tensor_scan(t.a, t.p, t.q, 0.0, MUL, ADD), "cannot both be in PSUM"),
    ("scan of bits", lambda t: isa.tensor_tensor_scan(t.i, t.i, t.i, 0, np.bitwise_or, ADD), "bit-vector operator"),
    ("stt of bits", lambda t: isa.scalar_tensor_tensor(t.i, t.i, np.bitwise_or, 1, ADD, t.i), "bit-vector operator"),
    ("max8 of few", lambda t: isa.max8(t.eight, t.seven), "takes 8 to 16384"),
    ("max8 of many", lambda t: isa.max8(t.eight, t.huge), "takes 8 to 16384"),
    ("max8 of 4-D", lambda t: isa.max8(t.eight, t.deep), "takes up to 3"),
    ("max8 result", lambda t: isa.max8(t.seven, t.a), "must have 8"),
    ("find result", lambda t: isa.nc_find_index8(t.eight, t.a, t.eight), "uint16 or uint32"),
    ("replace values", lambda t: isa.nc_match_replace8(t.a, t.a, t.seven, 0.0), "vals must have 8"),
    ("topk type", lambda t: isa.topk(t.h, t.u, t.a, 64), "src is float32"),
    ("topk n", lambda t: isa.topk(t.h, t.u, t.h, 4), "from 8 to 65535"),
    ("topk too long", lambda t: isa.topk(t.h, t.u, t.h, 300), "needs 19"),
    ("bounds partitions", lambda t: isa.sequence_bounds(t.a, t.a), "one partition"),
    ("rng type", lambda t: isa.rng(t.a), "dst is float32"),
    ("rng engine", lambda t: isa.rng(t.i, engine.scalar), "Vector or GpSimd"),
    ("seed shape", lambda t: isa.set_rng_seed(t.seeds), "one 32-bit value"),
    ("dropout type", lambda t: isa.dropout(t.a, t.h, 0.5), "they must agree"),
    ("dropout probability", lambda t: isa.dropout(t.i, t.i, t.hc), "must be float32"),
    ("reverse0", lambda t: isa.tensor_scalar_reduce(t.a, t.a, ADD, 1.0, MAX, reverse0=True), "not supported"),
    ("reduce_init", lambda t: isa.tensor_scalar_reduce(t.a, t.a, ADD, 1.0, MAX, reduce_init=1.0), "go together"),
    ("reduction", lambda t: isa.tensor_scalar_reduce(t.a, t.a, ADD, 1.0, np.subtract), "reduces with add, multiply"),
    ("cumulative words", lambda t: isa.tensor_scalar_cumulative(t.i, t.a, ADD, ADD, 1.0), "dst is int32"),
    ("cumulative divide", lambda t: isa.tensor_scalar_cumulative(t.a, t.a, ADD, np.divide, 1.0), "reduction takes"),
    ("select of words", lambda t: isa.select_reduce(t.a, t.u8, t.i, 0.0), "on_true is int32"),
    ("select predicate", lambda t: isa.select_reduce(t.a, t.a, t.a, 0.0), "predicate is float32"),
    ("select sum", lambda t: isa.select_reduce(t.a, t.u8, t.a, 0.0, reduce_op=ADD), "only nl.maximum"),
    ("not a tensor", lambda t: isa.tensor_copy(t.a, 1.0), "src must be a tensor"),
    ("not a number", lambda t: isa.tensor_scalar(t.a, t.a, ADD, "x"), "operand0 is 'x'"),
]  # fmt: skip

FROM = {
    "v2: scalar bias": (2, lambda t: isa.activation(t.a, np.exp, t.a, bias=1.0), "NeuronCore-v3 or newer"),
    "v2: reciprocal bias": (2, lambda t: isa.activation(t.a, np.reciprocal, t.a, bias=t.c), "takes no bias"),
    "v2: scalar copy": (2, lambda t: isa.tensor_copy(t.a, t.b, engine.scalar), "nisa.activation with op=nl.copy"),
    "v2: reduce by maximum": (2, lambda t: isa.activation_reduce(t.a, np.exp, t.a, MAX, t.c), "reduces with nl.add"),
    "v2: range_select": (2, lambda t: isa.range_select(t.a, t.a, np.less, np.less, t.c, t.c), "needs NeuronCore-v3"),
    "v2: nonzero": (2, lambda t: isa.nonzero_with_count(t.i17, t.a), "needs NeuronCore-v3"),
    "v2: gpsimd rng": (2, lambda t: isa.rng(t.i, engine.gpsimd), "NeuronCore-v3 or newer"),
    "v2: set state": (2, lambda t: isa.rand_set_state(t.seeds), "needs NeuronCore-v3"),
    "v3: scalar tensor_scalar": (
        3, lambda t: isa.tensor_scalar(t.a, t.a, np.subtract, 1.0, engine=engine.scalar), "or multiply then add"
    ),
    "v3: abs_max": (3, lambda t: isa.tensor_tensor(t.a, t.a, t.b, "abs_max"), "needs NeuronCore-v4"),
    "v3: exponential": (3, lambda t: isa.exponential(t.a, t.b), "needs NeuronCore-v4"),
    "v3: activate2": (3, lambda t: isa.activate2(t.a, np.exp, t.a, 1, 1, MUL, ADD), "needs NeuronCore-v4"),
    "v3: rand2": (3, lambda t: isa.rand2(t.a, 0.0, 1.0), "needs NeuronCore-v4"),
    "v3: vector state": (3, lambda t: isa.rand_set_state(t.seeds24, engine.vector), "NeuronCore-v4 or newer"),
    "v3: state to PSUM": (3, lambda t: isa.rand_get_state(t.p_words[:, :6]), "must be in SBUF"),
    "v3: indirect": (3, lambda t: isa.tensor_copy(t.a, t.wide.indirect(t.u16[:, :1], 16)), "needs NeuronCore-v4"),
    "v4: state words": (4, lambda t: isa.rand_set_state(t.seeds, engine.vector), r"must be \(P, 24\)"),
    "v4: pair": (4, lambda t: isa.activate2(t.a, np.exp, t.a, 1, 1, ADD, MUL), "add then multiply is not a pair"),
    "v4: select fill": (
        4, lambda t: isa.range_select(t.a, t.a, np.less, np.less, t.c, t.c, on_false_value=0.0), "lowest float32"
    ),
    "v4: bound type": (4, lambda t: isa.range_select(t.a, t.a, np.less, np.less, t.ic, t.c), "bound0 is int32"),
    "v4: not-equal bound": (4, lambda t: isa.range_select(t.a, t.a, np.not_equal, np.less, t.c, t.c), "op0=not_equal"),
    "v4: exponent dims": (4, lambda t: isa.exponential(t.deep, t.deep), "at most 4 dimensions"),
    "v4: exponent init": (4, lambda t: isa.exponential(t.a, t.a, reduce_init=2.0), "only read with"),
    "v4: range": (4, lambda t: isa.rand2(t.a, 1.0, 1.0), "min must be below max"),
    "v4: nonzero size": (4, lambda t: isa.nonzero_with_count(t.i, t.a), "one more than src"),
    "v4: indirect operand": (
        4, lambda t: isa.tensor_tensor(t.a, t.a, t.wide.indirect(t.u16[:, :1], 16), ADD), "only dst, data1"
    ),
    "v4: indirect shuffle": (
        4, lambda t: isa.nc_stream_shuffle(t.a, t.wide.indirect(t.u16[:, :1], 16), [0] * 32), "does not take"
    ),
    "v4: indirect on gpsimd": (
        4, lambda t: isa.tensor_copy(t.a, t.wide.indirect(t.u16[:, :1], 16), engine.gpsimd), "Vector or Scalar"
    ),
    "v4: scalar scatter": (
        4, lambda t: isa.activation(t.p.indirect(t.u16[:, :1], 16), "copy", t.a), "cannot scatter into PSUM"
    ),
}  # fmt: skip


def refused(chip, call, words):
    with pytest.raises(ValidationError, match=words) as caught:
        call(Tiles(chip))
    assert "\n" not in str(caught.value)
    assert caught.value.source is not None
    assert caught.value.source[0] == __file__


@pytest.mark.parametrize(("call", "words"), [c[1:] for c in ANY_GENERATION], ids=[c[0] for c in ANY_GENERATION])
def test_refused(chip, call, words):
    refused(chip, call, words)


@pytest.mark.parametrize(("generation", "call", "words"), FROM.values(), ids=FROM)
def test_refused_on_a_generation(on_generation, generation, call, words):
    refused(on_generation(generation), call, words)


def test_gather_outside_its_buffer_names_the_index(chip):
    t = Tiles(chip)
    index = chip.tile(np.full((128, 1), 16), "uint16")
    with pytest.raises(ValidationError, match="index 16 .* 16 elements a partition"):
        isa.local_gather(t.a, t.a, index)


def test_legal_variants_are_accepted(on_generation):
    chip = on_generation(3)
    t = Tiles(chip)
    isa.tensor_scalar(t.a, t.a, MUL, 2.0, op1=ADD, operand1=1.0, engine=engine.scalar)
    isa.tensor_scalar(t.a, t.a, np.abs, 0)
    isa.tensor_scalar(t.a, t.a, "rsqrt", 0.0, engine=engine.gpsimd)
    isa.tensor_tensor(t.a, t.p, t.b, ADD)
    isa.activation(t.a, np.exp, t.p, bias=1.0, scale=t.c)
    isa.tensor_scalar(t.i, t.i, ADD, t.ic)
    chip = on_generation(2)
    isa.activation(Tiles(chip).a, np.exp, Tiles(chip).a, bias=Tiles(chip).c)
