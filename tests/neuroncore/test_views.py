"""NkiTensor's views: the documented examples and constraints, and chains of views against NumPy's strided arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opentrn import hardware
from opentrn.errors import ValidationError
from opentrn.neuroncore import machine
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.tensor import ds


@pytest.fixture(scope="module")
def core():
    return machine.Core(hardware.chip("trn3").core)


@pytest.fixture(scope="module")
def tensor(core):
    def make(*shape, dtype="float32", buffer="sbuf"):
        made = core.allocate(shape, dtype, buffer)
        size = made.storage.data.size
        made.storage.data[...] = np.arange(size, dtype=np.uint64).view(np.uint8)[:size]
        made.storage.state = 2
        view = made.array()
        view[...] = np.arange(view.size).reshape(view.shape).astype(view.dtype)
        return made

    return make


def same(view, array):
    assert view.shape == array.shape
    assert (view.array() == array).all()


def test_documented_indexing(tensor):
    sb = tensor(128, 64)
    a = sb.array()
    same(sb[:, 0:32], a[:, 0:32])
    same(sb[:, 0:32:2], a[:, 0:32:2])
    same(sb[..., 0], a[:, 0:1])  # on chip a view stays 2-D
    same(sb[ds(16, 8), :], a[16:24])
    same(sb[3], a[3:4])  # the partition dimension is kept
    same(sb[-1, -2], a[127:128, 62:63])
    same(sb[5:, :-4], a[5:, :-4])
    same(sb[4:5, ...], a[4:5])
    hbm = tensor(4, 6, 8, buffer="shared_hbm")
    h = hbm.array()
    same(hbm[2], h[2])
    same(hbm[2, 3], h[2, 3])
    same(hbm[2, 3, 4], h[2, 3, 4:5])  # and in HBM 1-D
    same(hbm[..., 1:8:3], h[..., 1:8:3])
    same(hbm[ds(VirtualRegister(1), 2)], h[1:3])


def test_documented_methods(tensor):
    t = tensor(128, 4, 8)
    a = t.array()
    same(t.permute((0, 2, 1)), a.transpose(0, 2, 1))
    same(tensor(128, 1, 64).broadcast(1, 8), np.broadcast_to(tensor(128, 1, 64).array(), (128, 8, 64)))
    same(tensor(128, 64).expand_dim(1), tensor(128, 64).array()[:, None])
    same(tensor(128, 1, 64).squeeze_dim(1), tensor(128, 1, 64).array()[:, 0])
    u = tensor(128, 24)
    same(u.reshape_dim(1, (4, 6)), u.array().reshape(128, 4, 6))
    same(u.reshape_dim(1, (4, -1)), u.array().reshape(128, 4, 6))
    v = tensor(128, 2, 3, 4)
    same(v.flatten_dims(1, 2), v.array().reshape(128, 6, 4))
    w = tensor(128, 4, 6)
    same(w.reshape((128, 24)), w.array().reshape(128, 24))
    same(w.reshape((128, 2, 12)), w.array().reshape(128, 2, 12))
    same(u.rearrange(("b", ("h", "w")), ("b", "w", "h"), {"h": 4}), u.array().reshape(128, 4, 6).transpose(0, 2, 1))
    s = tensor(128, 64)
    same(s.slice(1, 8, 24, 1), s.array()[:, 8:24])
    same(s.slice(1, 0, 64, 2), s.array()[:, ::2])
    same(tensor(128, 8, 64).select(1, 3), tensor(128, 8, 64).array()[:, 3])


def test_documented_patterns(tensor):
    t = tensor(128, 64)
    u = t.slice(dim=1, start=8, end=24)
    assert u.get_pattern() == [[64, 128], [1, 16]] and u.offset == 8
    v = t.ap(pattern=[[64, 128], [1, 16]], offset=8)
    assert v.get_pattern() == u.get_pattern() and v.offset == u.offset
    same(v, u.array())
    w = tensor(128, 256)
    inner = w.ap(pattern=[[256, 128], [2, 128]])
    same(inner.ap(pattern=[[256, 128], [1, 64]]), w.array()[:, :64])
    cast = tensor(128, 256, dtype="int32").ap(pattern=[[512, 128], [1, 512]], offset=0, dtype="bfloat16")
    assert cast.shape == (128, 512) and cast.dtype == "bfloat16"
    same(tensor(16, 16).ap([[16, 16], [1, 8]], 8), tensor(16, 16).array()[:, 8:16])


def test_documented_reinterpretations(tensor):
    t = tensor(128, 64)
    same(t.view("uint8"), t.array().view(np.uint8))
    assert t.view("int32").shape == (128, 64)
    u = tensor(128, 256, dtype="uint8")
    same(u.view("float32").view("uint8"), u.array())
    assert u.view("float32").shape == (128, 64)
    same(t[:, 8:16].reinterpret_cast("uint16"), t.array()[:, 8:16].copy().view(np.uint16))


def test_dynamic_views_know_that_they_are_indirect(tensor):
    hbm, index = tensor(64, 128, 8, buffer="shared_hbm"), tensor(128, 1, dtype="int32")
    assert not hbm.is_indirect()
    assert hbm.select(0, index[0:1]).shape == (128, 8) and hbm.select(0, index[0:1]).is_indirect()
    assert hbm.vector_select(0, index).shape == (128, 128, 8) and hbm.vector_select(0, index).is_indirect()
    assert tensor(16, 64).indirect(tensor(16, 2, dtype="uint16")).shape == (16, 32)


@pytest.mark.parametrize(
    ("shape", "strides", "contiguous"),
    [
        ((128, 4, 8), None, True),
        ((128, 4, 8), "permuted", False),
        ((128, 64), "half", True),
        ((128, 64), "every other", False),
    ],
)
def test_contiguity_on_chip_is_about_the_free_dimensions(tensor, shape, strides, contiguous):
    t = tensor(*shape)
    view = {None: lambda: t, "permuted": lambda: t.permute((0, 2, 1)), "half": lambda: t[:, 0:32],
            "every other": lambda: t[:, 0:64:2]}[strides]()  # fmt: skip
    assert view.is_contiguous() == contiguous


ON_CHIP, IN_HBM = ("sbuf", (128, 4, 8)), ("shared_hbm", (128, 4, 8))


@pytest.mark.parametrize(
    ("where", "view", "message"),
    [
        (ON_CHIP, lambda t: t.permute((1, 0, 2)), "moves the partition dimension"),
        (ON_CHIP, lambda t: t.permute((0, 1, 1)), "not a permutation"),
        (ON_CHIP, lambda t: t.broadcast(1, 3), "size 4, only size 1"),
        (ON_CHIP, lambda t: t[0:1].broadcast(0, 4), "partition dimension"),
        (ON_CHIP, lambda t: t.expand_dim(0), "before the partition dimension"),
        (ON_CHIP, lambda t: t[0:1].squeeze_dim(0), "partition dimension"),
        (ON_CHIP, lambda t: t.squeeze_dim(1), "size 4, not 1"),
        (ON_CHIP, lambda t: t.reshape_dim(0, (2, 64)), "partition dimension"),
        (ON_CHIP, lambda t: t.reshape_dim(2, (3, -1)), "do not fit"),
        (ON_CHIP, lambda t: t.flatten_dims(0, 1), "partition dimension"),
        (ON_CHIP, lambda t: t.permute((0, 2, 1)).flatten_dims(1, 2), "not contiguous"),
        (ON_CHIP, lambda t: t.reshape((64, 64)), "changes the partition dimension"),
        (ON_CHIP, lambda t: t.permute((0, 2, 1)).reshape((128, 32)), "would need a copy"),
        (ON_CHIP, lambda t: t.reshape((128, 31)), "do not fit"),
        (ON_CHIP, lambda t: t.slice(1, 2, 2), "empty slice"),
        (ON_CHIP, lambda t: t.slice(1, 2, 5), "reaches outside dimension 1"),
        (ON_CHIP, lambda t: t.slice(1, 0, 4, 0), "step 0"),
        (ON_CHIP, lambda t: t.select(1, 4), "4:5 reaches outside"),
        (ON_CHIP, lambda t: t.select(0, VirtualRegister(1)), "partition dimension"),
        (ON_CHIP, lambda t: t.vector_select(0, t), "needs an HBM tensor"),
        (ON_CHIP, lambda t: t.ap([[64, 8], [1, 32]]), "partition stride"),
        (ON_CHIP, lambda t: t.ap([[32, 128], [1, 33]]), "reaches element"),
        (ON_CHIP, lambda t: t.permute((0, 2, 1)).view("uint8"), "must be contiguous"),
        (ON_CHIP, lambda t: t[:, :, 0:5].view("int64"), "does not divide"),
        (ON_CHIP, lambda t: t[0:128:2], "partition"),
        (ON_CHIP, lambda t: t[:, ::-1], "only step forwards"),
        (ON_CHIP, lambda t: t[0, 0, 0, 0], "4 indices on a tensor of 3"),
        (ON_CHIP, lambda t: t[:, None], "expand_dim"),
        (ON_CHIP, lambda t: t[:, 1.5], "not an integer"),
        (ON_CHIP, lambda t: t["a"], "not an integer"),
        (ON_CHIP, lambda t: t[128], "128:129 reaches outside dimension 0"),
        (ON_CHIP, lambda t: t[:, ds(2, 3)], "2:5 reaches outside"),
        (IN_HBM, lambda t: t.vector_select(1, t), "only dimension 0"),
        (IN_HBM, lambda t: t.select(0, VirtualRegister(1)).select(0, VirtualRegister(1)), "only one dynamic index"),
        (IN_HBM, lambda t: t.select(0, VirtualRegister(1)).view("uint8"), "addressed at run time"),
        (IN_HBM, lambda t: t.ap([[1, 1]] * 6), "1 to 5 dimensions"),
        (IN_HBM, lambda t: t.select(0, t), "float32 in shared_hbm; it must be integers in sbuf"),
        (IN_HBM, lambda t: t.vector_select(0, 3), "the index is 3; it must be a tensor"),
        (IN_HBM, lambda t: t.ap([[1, 4]], scalar_offset=1.5), "a register or a tensor of one element"),
        (ON_CHIP, lambda t: t.ap([[32, 4], [1, 4]], vector_offset=t), "indexes HBM tensors|integers in sbuf"),
    ],
)
def test_constraints_of_views(tensor, where, view, message):
    buffer, shape = where
    with pytest.raises(ValidationError, match=message):
        view(tensor(*shape, buffer=buffer))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (lambda v: v.permute((1, 0, 2)), "partition dimension"),
        (lambda v: v.expand_dim(0), "partition dimension"),
        (lambda v: v.reshape((2, 16, 24)), "partition dimension"),
        (lambda v: v[0:4], "addressed at run time"),
        (lambda v: v.flatten_dims(0, 1), "partition dimension|addressed at run time"),
        (lambda v: v.vector_select(0, v), "only one dynamic index"),
    ],
)
def test_the_row_dimension_of_a_vector_select_stays_where_it_is(tensor, view, message):
    v = tensor(10, 4, 6, buffer="shared_hbm").vector_select(0, tensor(32, 1, dtype="int32"))
    assert v.reshape((32, 24)).shape == (32, 24) and v[:, 1:3].shape == (32, 2, 6)
    with pytest.raises(ValidationError, match=message):
        view(v)


@st.composite
def steps(draw, on_chip):
    """A chain of view operations, as functions that apply to a tensor and to the NumPy array of the same elements."""
    first = 1 if on_chip else 0
    chain = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(
            st.sampled_from(
                ["slice", "permute", "select", "expand", "squeeze", "split", "flatten", "reshape", "broadcast"]
            )
        )
        chain.append((kind, draw(st.lists(st.integers(0, 1 << 20), min_size=8, max_size=8))))
    return first, chain


def apply(view, array, first, kind, r):
    """One operation on both sides, with its numbers taken from ``r``; unchanged where it does not apply."""
    ndim = array.ndim
    dims = list(range(first, ndim))
    if kind == "slice":
        d = r[0] % ndim
        size = array.shape[d]
        start, step = r[1] % size, 1 + r[3] % 3 if d >= first else 1
        stop = start + 1 + r[2] % (size - start)
        index = (slice(None),) * d + (slice(start, stop, step),)
        return view.slice(d, start, stop, step), array[index]
    if not dims:
        return view, array
    d = dims[r[0] % len(dims)]
    if kind == "permute":
        order = list(range(first)) + [dims[i] for i in np.argsort(r[: len(dims)], kind="stable")]
        return view.permute(tuple(order)), array.transpose(order)
    if kind == "select" and ndim > 2:
        i = r[1] % array.shape[d]
        return view.select(d, i), array[(slice(None),) * d + (i,)]
    if kind == "expand" and ndim < 5:
        return view.expand_dim(d), np.expand_dims(array, d)
    if kind == "squeeze" and ndim > 2 and array.shape[d] == 1:
        return view.squeeze_dim(d), array.squeeze(d)
    if kind == "broadcast" and array.shape[d] == 1:
        shape = (*array.shape[:d], 1 + r[1] % 4, *array.shape[d + 1 :])
        return view.broadcast(d, shape[d]), np.broadcast_to(array, shape)
    if kind == "split" and ndim < 5:
        divisors = [n for n in range(1, array.shape[d] + 1) if array.shape[d] % n == 0]
        n = divisors[r[1] % len(divisors)]
        return view.reshape_dim(d, (n, -1)), array.reshape(
            *array.shape[:d], n, array.shape[d] // n, *array.shape[d + 1 :]
        )
    if kind in ("flatten", "reshape") and len(dims) > 1:
        rest = int(np.prod(array.shape[first:]))
        shape = (*array.shape[:first], rest)
        try:
            flat = view.flatten_dims(first, ndim - 1) if kind == "flatten" else view.reshape(shape)
        except ValidationError:  # NumPy would copy
            copied = np.lib.stride_tricks.as_strided(array, array.shape, array.strides)
            with pytest.raises(AttributeError):
                copied.shape = shape  # NumPy refuses it in place too
            return view, array
        return flat, array.reshape(shape)
    return view, array


@settings(max_examples=150, deadline=None)
@given(chain=st.booleans().flatmap(steps), data=st.data())
def test_chains_of_views_show_the_elements_that_numpy_shows(core, tensor, chain, data):
    first, operations = chain
    shape = data.draw(st.sampled_from([(8, 6), (4, 12), (16, 2, 6), (5, 4, 3, 2)]))
    view = tensor(*shape, buffer="sbuf" if first else "shared_hbm")
    array = view.array().copy()
    for kind, numbers in operations:
        view, array = apply(view, array, first, kind, numbers)
    same(view, array)
    strided = np.lib.stride_tricks.as_strided(  # what the documented pattern of the view says
        view.storage.data.view(np.float32)[view.offset :], view.shape, tuple(4 * s for s, _ in view.get_pattern())
    )
    assert (strided == array).all()
    assert view.size == array.size and view.ndim == array.ndim
