"""Loops with register bounds, registers themselves, dependencies, and runs without values that meet them."""

import numpy as np
import pytest

import opentrn.nki as nki
import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.errors import UninitializedError, ValidationError
from opentrn.nki import launch
from opentrn.nki.language import loops

X = np.arange(40, dtype=np.float32).reshape(10, 4)


def register_from(count):
    """A register loaded from an HBM tensor of one integer."""
    tile, register = nl.ndarray((1, 1), nl.int32), nisa.register_alloc()
    nisa.dma_copy(tile, count)
    nisa.register_load(register, tile)
    return register


def copy_rows(x, rows):
    """Rows of ``x`` that ``rows`` yields, into zeros."""
    out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
    nisa.memset(zeros := nl.ndarray(x.shape, x.dtype), 0.0)
    nisa.dma_copy(out, zeros)
    for i in rows:
        nisa.dma_copy(out.select(0, i), x.select(0, i))
    return out


@pytest.mark.parametrize("bounds", [(6,), (2, 6), (1, 9, 3), (5, 5)])
def test_dynamic_range_counts_like_range(bounds):
    @nki.jit
    def kernel(x):
        registers = [nisa.register_alloc(b) for b in bounds[:2]]
        return copy_rows(x, loops.dynamic_range(*registers, *bounds[2:]))

    expected = np.zeros_like(X)
    expected[list(range(*bounds))] = X[list(range(*bounds))]
    assert (kernel(X) == expected).all()


def test_the_trip_count_may_come_from_memory():
    @nki.jit
    def kernel(x, count):
        return copy_rows(x, loops.dynamic_range(register_from(count)))

    for n in (0, 3, 10):
        result = kernel(X, np.array([[n]], np.int32))
        assert (result[:n] == X[:n]).all() and (result[n:] == 0).all()


def test_fori_loop_passes_its_induction_register_by_value():
    @nki.jit
    def kernel(x, seen):
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)

        def body(i):
            nisa.dma_copy(out.select(0, i), x.select(0, i))
            seen.append(int(i))
            nisa.register_move(i, 99)

        loops.fori_loop(0, nisa.register_alloc(10), body, step=1)
        return out

    seen = []
    with launch.session():
        function = kernel.function
        result = nki.jit(lambda x: function(x, seen))(X)
    assert (result == X).all() and seen == list(range(10))


def test_while_loop_goes_on_with_the_register_that_the_body_returns():
    @nki.jit
    def kernel(x, count):
        total = nl.ndarray((1, 4), x.dtype)
        nisa.memset(total, 0.0)
        left, one = nl.ndarray((1, 1), nl.int32), nl.ndarray((1, 1), nl.int32)
        nisa.dma_copy(left, count)
        nisa.memset(one, 1)
        row = nl.ndarray((1, 4), x.dtype)
        nisa.dma_copy(row, x[0:1])
        start = nisa.register_alloc()
        nisa.register_load(start, left)

        def body(r):
            nisa.tensor_tensor(total, total, row, nl.add)
            nisa.tensor_tensor(left, left, one, nl.subtract)
            nisa.register_load(r, left)
            return r

        loops.while_loop(start, body)
        out = nl.ndarray((1, 4), x.dtype, buffer=nl.shared_hbm)
        nisa.dma_copy(out, total)
        return out

    ones = np.ones((1, 4), np.float32)
    for n in (0, 1, 5):
        assert (kernel(ones, np.array([[n]], np.int32)) == n).all()


def test_a_register_is_a_while_condition():
    @nki.jit
    def kernel(x):
        left, rounds = nisa.register_alloc(3), 0
        while left:
            rounds += 1
            nisa.register_move(left, int(left) - 1)
        out = nl.ndarray((1, 1), nl.int32, buffer=nl.shared_hbm)
        nisa.register_store(out, rounds)
        return out

    assert kernel(X)[0, 0] == 3


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (lambda r: loops.dynamic_range(0, 4, r), "step is a register"),
        (lambda r: loops.dynamic_range(0, 4, 0), "positive integer"),
        (lambda r: loops.dynamic_range(0, 4, -1), "positive integer"),
        (lambda r: loops.dynamic_range(0, 4.5), "4.5; a loop bound is an integer"),
        (lambda r: loops.affine_range(r), "use nl.dynamic_range"),
        (lambda r: loops.sequential_range(0, "4"), "a loop bound is an integer"),
        (lambda r: loops.static_range(0, 4, 0), "step is 0"),
        (lambda r: loops.while_loop(1, lambda c: c), "condition is a register"),
        (lambda r: loops.while_loop(r, lambda c: None), "returned None"),
    ],
)
def test_malformed_loops_are_refused(loop, message):
    @nki.jit
    def kernel(x):
        loop(nisa.register_alloc(2))
        return x

    with pytest.raises(ValidationError, match=message):
        kernel(X)


def test_unrolled_ranges_are_ranges():
    for kind in (loops.affine_range, loops.sequential_range, loops.static_range):
        assert list(kind(3)) == [0, 1, 2] and list(kind(1, 9, 4)) == [1, 5] and len(kind(7)) == 7


def test_device_loops_are_refused_inside_no_reorder_and_allowed_around_it():
    @nki.jit
    def inside(x):
        with loops.no_reorder():
            return copy_rows(x, loops.dynamic_range(3))

    with pytest.raises(ValidationError, match="into the loop body"):
        inside(X)

    @nki.jit
    def around(x):
        tile = nl.ndarray((10, 4), x.dtype)
        for _ in loops.dynamic_range(2):
            with loops.no_reorder():
                nisa.dma_copy(tile, x)
        return x

    with launch.session(record=True) as opened:
        around(X)
    marks = [(at, kind) for at, kind, _ in opened.launches[0].programs[0].markers]
    assert marks == [
        (0, "loop_begin"), (0, "no_reorder_begin"), (1, "no_reorder_end"), (1, "no_reorder_begin"),
        (2, "no_reorder_end"), (2, "loop_end"),
    ]  # fmt: skip


def test_the_induction_register_of_dynamic_range_is_read_only():
    @nki.jit
    def kernel(x):
        for i in loops.dynamic_range(3):
            nisa.register_move(i, 0)
        return x

    with pytest.raises(ValidationError, match="read-only"):
        kernel(X)


def test_registers_wrap_to_32_bits_and_keep_their_type_checks():
    @nki.jit
    def kernel(x):
        a = nisa.register_alloc((1 << 31) + 5)
        assert int(a) == -(1 << 31) + 5
        b = nisa.register_alloc()
        nisa.register_move(b, a)
        out = nl.ndarray((1, 1), nl.int32, buffer=nl.shared_hbm)
        nisa.register_store(out, b)
        return out

    assert kernel(X)[0, 0] == -(1 << 31) + 5


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x: nisa.register_move(nisa.register_alloc(), 1.5), ValidationError, "must be an integer or a register"),
        (lambda x: nisa.register_move(nisa.register_alloc(), x), ValidationError, "register_load"),
        (lambda x: nisa.register_move(3, 1), ValidationError, "must be a register"),
        (
            lambda x: nisa.register_load(nisa.register_alloc(), x[0:1, 0:1]),
            ValidationError,
            "float32; a register holds",
        ),
        (lambda x: nisa.register_load(nisa.register_alloc(), x), ValidationError, "40 elements"),
        (lambda x: int(nisa.register_alloc()), UninitializedError, "before anything was written"),
    ],
)
def test_wrong_uses_of_registers(use, error, message):
    @nki.jit
    def kernel(x):
        use(x)
        return x

    with pytest.raises(error, match=message):
        kernel(X)


@nki.jit
def counted(x, count):
    """Rows copied as often as a number in HBM says."""
    return copy_rows(x, loops.dynamic_range(register_from(count)))


def test_a_run_without_values_stops_at_a_bound_from_memory_and_says_what_to_do():
    with launch.session(execute=False), pytest.raises(ValidationError, match=r"tensor, loaded at line \d+.*assume="):
        counted(X, np.array([[3]], np.int32))


def test_a_run_without_values_takes_the_assumed_bound():
    def instructions(**settings):
        with launch.session(record=True, **settings) as opened:
            counted(X, np.array([[3]], np.int32))
        return len(opened.launches[0].programs[0])

    assert instructions(execute=False, assume=3) == instructions()
    asked = []
    assert instructions(execute=False, assume=lambda origin: asked.append(origin) or 3) == instructions()
    assert "loaded at line" in asked[0]


def test_a_dynamic_address_waits_for_the_load_of_its_register():
    @nki.jit
    def kernel(x, count):
        register = register_from(count)  # instructions 0 and 1
        row = nl.ndarray((1, 4), x.dtype)
        nisa.dma_copy(row, x.select(0, register))  # 2
        return x

    with launch.session(record=True) as opened:
        kernel(X, np.array([[3]], np.int32))
    assert (1, 2) in opened.launches[0].programs[0].dependencies


def test_an_index_tensor_is_an_operand_that_the_instruction_reads():
    @nki.jit
    def kernel(x, rows):
        at, out = nl.ndarray((4, 1), nl.int32), nl.ndarray((4, 4), x.dtype)
        nisa.dma_copy(at, rows)
        nisa.dma_copy(out, x.vector_select(0, at))
        return x

    with launch.session(record=True) as opened:
        kernel(X, np.zeros((4, 1), np.int32))
    program = opened.launches[0].programs[0]
    start = program.operands.start
    written = program.operands.allocation[start[0]]
    assert written in program.operands.allocation[start[1] + 1 : start[2]]


def test_depends_on_records_edges_and_returns_its_instruction():
    @nki.jit
    def kernel(x):
        a, b = nl.ndarray((10, 4), x.dtype), nl.ndarray((10, 4), x.dtype)
        first = nisa.dma_copy(a, x)
        second = nisa.dma_copy(b, x)
        third = nisa.memset(nl.ndarray((10, 4), x.dtype), 0.0)
        assert third.depends_on(second, first) is third
        return x

    with launch.session(record=True) as opened:
        kernel(X)
    assert set(opened.launches[0].programs[0].dependencies) == {(0, 2), (1, 2)}


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (lambda a, b, inner: a.depends_on(b), "issued after"),
        (lambda a, b, inner: b.depends_on(inner), "different device loops|issued after"),
        (lambda a, b, inner: b.depends_on(None), "what an instruction of nki.isa returned"),
    ],
)
def test_dependencies_that_could_never_hold_are_refused(wire, message):
    @nki.jit
    def kernel(x):
        tile, inner = nl.ndarray((10, 4), x.dtype), None
        a = nisa.dma_copy(tile, x)
        for _ in loops.dynamic_range(1):
            inner = nisa.dma_copy(tile, x)
            inner.depends_on(a)  # from outside in is possible
        b = nisa.dma_copy(tile, x)
        wire(a, b, inner)
        return x

    with pytest.raises(ValidationError, match=message):
        kernel(X)
