"""What a kernel can get wrong: each mistake is one sentence with the line, the limit and the way out."""

import numpy as np
import pytest

import opentrn.nki as nki
import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.errors import CapacityError, OpenTrnError, ValidationError
from opentrn.nki import launch
from opentrn.nki.arrays import Spec

X = np.ones((8, 8), np.float32)


def error_of(body, chip="trn3", x=X, **settings):
    """The error of a kernel, which must name a line of this file."""
    with launch.session(chip=chip, **settings), pytest.raises(OpenTrnError) as caught:
        nki.jit(body)(x)
    file, line = caught.value.source
    assert file == __file__ and line > 0
    assert "\n" not in str(caught.value)
    return caught.value


def tile(*shape, dtype=nl.float32, buffer=nl.sbuf, fill=0.0):
    made = nl.ndarray(shape, dtype, buffer=buffer)
    nisa.memset(made, fill)
    return made


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (lambda x: nl.ndarray((129, 4), nl.float32), ValidationError, "129 partitions and the memory has 128; split"),
        (lambda x: nl.ndarray((0, 4), nl.float32), ValidationError, "without elements"),
        (lambda x: nl.ndarray((4, -1), nl.float32), ValidationError, "without elements"),
        (lambda x: nl.ndarray((), nl.float32), ValidationError, "without elements"),
        (
            lambda x: nl.ndarray((128, 1 << 20), nl.float32),
            CapacityError,
            "4194304 bytes a partition and sbuf has 262144",
        ),
        (lambda x: nl.ndarray((128, 4097), nl.float32, buffer=nl.psum), CapacityError, "psum has 16384"),
        (lambda x: nl.ndarray((4, 4), "float33"), ValidationError, "'float33' is not a NeuronCore data type"),
        (lambda x: nl.ndarray((4, 4), nl.float32, buffer="dram"), ValidationError, "'dram' is not a memory"),
        (lambda x: nl.ndarray("44", nl.float32), (ValidationError, CapacityError), ""),
        (
            lambda x: nisa.tensor_copy(tile(8, 8), x),
            ValidationError,
            "src is in private_hbm, .* reaches only sbuf or psum",
        ),
        (lambda x: nisa.tensor_copy(tile(8, 8), 3.0), ValidationError, "src must be a tensor, not float"),
        (lambda x: nisa.nc_matmul(tile(8, 8), tile(8, 8), tile(8, 8)), ValidationError, "dst is in sbuf.*only psum"),
        (
            lambda x: nisa.tensor_copy(tile(8, 8, buffer=nl.psum), tile(8, 8), engine=nisa.engine.gpsimd),
            ValidationError,
            "GpSimd engine cannot reach PSUM",
        ),
        (
            lambda x: nisa.tensor_copy(tile(8, 8), tile(8, 8), engine=nisa.engine.tensor),
            ValidationError,
            "tensor engine",
        ),
        (lambda x: nisa.tensor_copy(tile(8, 8), tile(8, 9)), ValidationError, "8 elements a partition and src 9"),
        (
            lambda x: nisa.tensor_copy(tile(8, 8), x[0:8, 4:12]),
            ValidationError,
            "4:12 reaches outside dimension 1.*0:8",
        ),
        (lambda x: nisa.tensor_copy(tile(8, 8)[8:9], tile(1, 8)), ValidationError, "8:9 reaches outside dimension 0"),
        (
            lambda x: nisa.tensor_copy(tile(64, 8)[16:32], tile(16, 8)),
            ValidationError,
            "dst starts at a partition.*0, 32",
        ),
        (
            lambda x: nisa.tensor_copy(tile(64, 8), tile(128, 8)[32:96]),
            ValidationError,
            "src starts at partition 32.*0 or 64",
        ),
    ],
)
def test_mistakes_are_refused_with_the_limit(body, kind, message):
    error = error_of(body)
    assert isinstance(error, kind)
    import re

    assert re.search(message, str(error)), str(error)


def test_wrong_argument_names_are_pythons_own_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'source'"):
        nki.jit(lambda x: nisa.tensor_copy(dst=x, source=x))(X)


@pytest.mark.parametrize(
    ("chip", "body", "message"),
    [
        ("trn1", lambda x: nisa.nc_matmul_mx(x, x, x, x, x), "needs NeuronCore-v4"),
        ("trn2", lambda x: nisa.quantize_mx(x, x, x), "needs NeuronCore-v4.*another chip"),
        (
            "trn2", lambda x: nisa.nc_matmul(
                tile(8, 8, buffer=nl.psum), tile(8, 8, dtype=nl.float8_e4m3fn), tile(8, 8, dtype=nl.float8_e4m3fn)
            ), "float8_e4m3fn, which the Tensor engine of NeuronCore-v3",
        ),
    ],
)  # fmt: skip
def test_what_a_generation_lacks_is_refused(chip, body, message):
    import re

    assert re.search(message, str(error_of(body, chip)))


def test_overflow_shows_the_live_tensors_largest_first():
    def kernel(x):
        small = tile(128, 1024)  # 4 KiB
        big = nl.ndarray((128, 40000), nl.float32, name="big")  # 160 KB
        medium = nl.ndarray((128, 30000), nl.float32, name="medium")  # 120 KB: too much
        nisa.memset(big, 0.0)
        nisa.memset(medium, 0.0)
        nisa.tensor_copy(big[:, 0:1024], small)
        nisa.tensor_copy(medium[:, 0:1024], big[:, 0:1024])

    error = error_of(kernel)
    text = str(error)
    assert isinstance(error, CapacityError) and "need 284096 bytes a partition and there are 262144" in text
    assert text.index("'big'") < text.index("'medium'") < text.index("[128, 1024]")
    with open(__file__) as lines:
        assert "# 120 KB" in lines.readlines()[error.source[1] - 1]  # the one that did not fit any more


def test_tensors_that_are_never_live_together_share_memory():
    def kernel(x):
        for _ in range(4):
            nisa.memset(nl.ndarray((128, 40000), nl.float32), 0.0)
        return x

    assert (nki.jit(kernel)(X) == X).all()


def test_psum_overflows_too_and_partitions_of_a_quadrant_count_as_such():
    def kernel(x, rows):
        banks = [nl.ndarray((rows, 512), nl.float32, buffer=nl.psum) for _ in range(9)]
        for bank in banks:
            nisa.memset(bank, 0.0)
        for bank in banks:
            nisa.tensor_copy(tile(rows, 512), bank)
        return x

    assert "psum overflows" in str(error_of(lambda x: kernel(x, 128)))
    assert (nki.jit(lambda x: kernel(x, 32))(X) == X).all()


@pytest.mark.parametrize("address", [(120, 0), (0, 262144 - 64), (-1, 0), (0, -4)])
def test_a_tensor_placed_outside_its_memory_is_refused(address):
    error = error_of(lambda x: nl.ndarray((16, 32), nl.float32, address=address))
    assert "leaves sbuf, which has 128 partitions x 262144 bytes" in str(error)


def test_nan_and_infinity_are_values_like_others():
    def kernel(x):
        t = nl.ndarray((8, 8), nl.float32)
        nisa.dma_copy(t, x)
        nisa.tensor_scalar(t, t, nl.multiply, 2.0)
        nisa.dma_copy(x, t)
        return x

    x = np.array([[np.nan, np.inf, -np.inf, 1e38, 3e38, 0, -0.0, 1]] * 8, np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(nki.jit(kernel)(x.copy()), x * np.float32(2))


def test_an_argument_without_elements_is_refused():
    with pytest.raises(ValidationError, match="argument x has shape .*without elements"):
        nki.jit(lambda x: x)(np.zeros((0, 4), np.float32))


def test_huge_shapes_cost_nothing_without_values():
    def kernel(x):
        t = nl.ndarray((128, 512), x.dtype)
        nisa.dma_copy(t, x[0:128, 0:512])
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out[0:128, 0:512], t)
        return out

    with launch.session(execute=False, record=True) as opened:
        result = nki.jit(kernel)(Spec((1 << 20, 1 << 22), nl.bfloat16))
    assert result.shape == (1 << 20, 1 << 22) and len(opened.launches[0].programs[0]) == 2
    operands = opened.launches[0].programs[0].operands
    assert operands.byte_end.max() == 2 * (127 * (1 << 22) + 512)


def test_an_error_of_the_kernels_own_passes_unchanged():
    def kernel(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        nki.jit(kernel)(X)
