"""Softmax, log-softmax, their gradients and the norms agree with torch in float64."""

import pytest

from opentrn.errors import ValidationError
from opentrn.kernels import norms, softmaxes
from opentrn.nki import launch

torch = pytest.importorskip("torch")
functional = torch.nn.functional

CASES = [(chip, dtype, shape) for chip in ("trn1", "trn2", "trn3") for dtype in ("float32", "bfloat16", "float16")
         for shape in ((1, 1), (5, 17), (2, 70, 300))]  # fmt: skip
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}


def random(shape, dtype, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype))


def check(result, expected, dtype):
    assert result.dtype is getattr(torch, dtype)
    torch.testing.assert_close(result.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize(("chip", "dtype", "shape"), CASES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_and_gradient(chip, dtype, shape, name):
    x, gradient = random(shape, dtype, 0), random(shape, dtype, 1)
    wide = x.double().requires_grad_()
    expected = getattr(torch, name)(wide, -1)
    rounded = expected.detach().to(x.dtype)
    with launch.session(chip=chip):
        check(getattr(softmaxes, name)(x), expected.detach(), dtype)
        moved = getattr(softmaxes, f"{name}_backward")(gradient, rounded)
    expected.backward(gradient.double())
    scale = 1 + gradient.double().sum(-1).abs().max() if name == "log_softmax" else 1
    check((moved.double() / scale).to(x.dtype), wide.grad / scale, dtype)


@pytest.mark.parametrize(("chip", "dtype", "shape"), CASES)
def test_norms(chip, dtype, shape):
    x, weight, bias = random(shape, dtype, 0), random(shape[-1:], dtype, 1), random(shape[-1:], dtype, 2)
    wide, w, b = x.double(), weight.double(), bias.double()
    with launch.session(chip=chip):
        check(norms.rms_norm(x, weight), functional.rms_norm(wide, shape[-1:], w, 1e-6), dtype)
        check(norms.rms_norm(x), functional.rms_norm(wide, shape[-1:], None, 1e-6), dtype)
        check(norms.layer_norm(x, weight, bias), functional.layer_norm(wide, shape[-1:], w, b), dtype)
        check(norms.layer_norm(x), functional.layer_norm(wide, shape[-1:]), dtype)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValidationError, match="fit into SBUF"):
        softmaxes.softmax(torch.zeros(1, 100_000))
