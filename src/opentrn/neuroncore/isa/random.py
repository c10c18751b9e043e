"""Random numbers on the Vector and GpSimd engines. The sequence is a function of the seed or state alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from opentrn.neuroncore.convert import number, storer
from opentrn.neuroncore.cost import Cost, stream
from opentrn.neuroncore.dtypes import is_float, is_integer
from opentrn.neuroncore.instruction import ON_CHIP, SBUF, SCALAR, Engine, In, Issue, Out, Scalar, instruction, static
from opentrn.neuroncore.isa.accumulators import first_lane
from opentrn.neuroncore.isa.shapes import column, expand, fit, flat, require_types, same_elements, unpacked
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.random_state import (
    GPSIMD_STREAMS,
    STATE_WORDS,
    VECTOR_STREAMS,
    initial_state,
    random_words,
    seeded_state,
)

__all__ = ["dropout", "rand2", "rand_get_state", "rand_set_state", "rng", "set_rng_seed"]

_STREAMS = {Engine.vector: VECTOR_STREAMS, Engine.gpsimd: GPSIMD_STREAMS}
_UNIT = np.float32(2.0**-24)


def _state(core: Any, engine: Engine) -> np.ndarray:
    """The engine's generator state, (lanes, streams, 6), made on first use."""
    state = core.random.get(engine)
    if state is None:
        state = core.random[engine] = initial_state(core.hardware.num_partitions, _STREAMS[engine])
    return state


def _words(core: Any, engine: Engine, num_lanes: int, count: int) -> np.ndarray:
    """Random words for the lanes of the running instruction."""
    lanes = _state(core, engine)[core.lane : core.lane + num_lanes]
    return random_words(lanes, count)


def _uniform(core: Any, layout: Any) -> np.ndarray:
    """float32 in [0, 1) with 24 random bits, in the shape of ``layout``."""
    words = _words(core, Engine.vector, layout.num_partitions, layout.free_size)
    return (words >> np.uint32(8)).astype(np.float32).reshape(layout.shape) * _UNIT


def _engine_of(i: Issue, newest_vector: int) -> Engine:
    """Vector or GpSimd as asked for; a state can be loaded into Vector only from some generation on."""
    if i.engine not in (Engine.vector, Engine.gpsimd):
        raise i.fail(
            f"engine={getattr(i.engine, 'name', i.engine)}; random numbers are made by the Vector or GpSimd engine"
        )
    if i.engine is Engine.vector and i.core.generation < newest_vector:
        raise i.fail(f"the Vector engine needs NeuronCore-v{newest_vector} or newer for this, use nisa.engine.gpsimd")
    return i.engine


@instruction
class rng:
    """Fill ``dst`` with random bits; narrow integer types take the low bits of each 32-bit word."""

    operands = dict(dst=Out(ON_CHIP), engine=static(Engine.vector))
    engines = (Engine.vector, Engine.gpsimd)

    def check(i: Issue) -> None:
        require_types(i, "dst", "int8", "int16", "int32", "uint8", "uint16", "uint32")
        if _engine_of(i, 2) is Engine.gpsimd:
            if i.core.generation < 3:
                raise i.fail("random numbers on the GpSimd engine need NeuronCore-v3 or newer; use nisa.engine.vector")
            if i.dst.region is MemoryRegion.psum:
                raise i.fail("the GpSimd engine cannot reach PSUM; put dst into SBUF or use the Vector engine")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        layout, engine = i.dst, i.engine
        unsigned = np.dtype(f"u{layout.host.itemsize}")

        def run(core, dst, engine_):
            words = _words(core, engine, layout.num_partitions, layout.free_size)
            dst.view(unsigned)[...] = words.astype(unsigned).reshape(layout.shape)

        return run


@instruction
class dropout:
    """``dst = data`` with each element replaced by zero with probability ``prob``, a number or a (P, 1) column."""

    operands = dict(dst=Out(ON_CHIP), data=In(ON_CHIP), prob=Scalar(ON_CHIP))
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        same_elements(i, "dst", "data")
        column(i, "data", "prob")
        unpacked(i, "dst", "data")
        if i.dst.dtype is not i.data.dtype:
            raise i.fail(f"dst is {i.dst.dtype} and data {i.data.dtype}; dropout does not convert, they must agree")
        if i.prob is not SCALAR:
            if is_integer(i.data.dtype):
                require_types(i, "prob", "float32")
            elif not is_float(i.prob.dtype):
                raise i.fail(f"prob is {i.prob.dtype}; it must be a float type")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine)

    def compute(i: Issue):
        shaped, col, layout = fit(i.data, i.dst), expand(i.prob, i.dst), i.dst

        def run(core, dst, data, prob):
            keep = _uniform(core, layout) >= number(col(prob))
            dst[...] = np.where(keep, shaped(data), np.zeros((), dst.dtype))

        return run


@instruction
class set_rng_seed:
    """Seed the Vector engine's generator with one 32-bit value."""

    operands = dict(src_seeds=In(ON_CHIP))
    engines = (Engine.vector,)

    def check(i: Issue) -> None:
        if i.src_seeds.size != 1 or i.src_seeds.dtype.itemsize != 4:
            raise i.fail(
                f"src_seeds must be one 32-bit value of shape (1, 1), not {i.src_seeds.dtype}{list(i.src_seeds.shape)}"
            )

    def compute(i: Issue):
        def run(core, src_seeds):
            seed = int(np.ascontiguousarray(src_seeds).view(np.uint32).reshape(-1)[0])
            core.random[Engine.vector] = seeded_state(seed, core.hardware.num_partitions, VECTOR_STREAMS)

        return run


@instruction
class rand_set_state:
    """Load the generator state of each lane: 6 words on GpSimd, 24 on Vector (four states)."""

    operands = dict(src_seeds=In(SBUF), engine=static(Engine.gpsimd))
    engines = (Engine.gpsimd, Engine.vector)
    generations = (3, 4, 5)

    def check(i: Issue) -> None:
        require_types(i, "src_seeds", "uint32")
        _check_words(i, "src_seeds")

    place = first_lane

    def compute(i: Issue):
        engine, shape = i.engine, (i.src_seeds.num_partitions, _STREAMS[i.engine], STATE_WORDS)

        def run(core, src_seeds, engine_):
            _state(core, engine)[core.lane : core.lane + shape[0]] = flat(src_seeds).reshape(shape)

        return run


@instruction
class rand_get_state:
    """Store the generator state of each lane: 6 words on GpSimd, 24 on Vector (four states)."""

    operands = dict(dst=Out(ON_CHIP), engine=static(Engine.gpsimd))
    engines = (Engine.gpsimd, Engine.vector)
    generations = (3, 4, 5)

    def check(i: Issue) -> None:
        require_types(i, "dst", "uint32")
        _check_words(i, "dst")
        if i.dst.region is MemoryRegion.psum:
            if i.core.generation < 4:
                raise i.fail("dst must be in SBUF on NeuronCore-v3; PSUM needs NeuronCore-v4")
            if i.engine is Engine.gpsimd:
                raise i.fail("the GpSimd engine cannot reach PSUM; put dst into SBUF")

    place = first_lane

    def compute(i: Issue):
        engine, shape = i.engine, i.dst.shape

        def run(core, dst, engine_):
            dst[...] = _state(core, engine)[core.lane : core.lane + shape[0]].reshape(shape)

        return run


def _check_words(i: Issue, name: str) -> None:
    needed = _STREAMS[_engine_of(i, 4)] * STATE_WORDS
    layout = i.fields[name]
    if layout.ndim != 2 or layout.free_size != needed:
        raise i.fail(
            f"{name} must be (P, {needed}), the state of the {i.engine.name} engine's generator, not "
            f"{list(layout.shape)}"
        )


@instruction
class rand2:
    """Uniform random numbers between ``min`` and ``max``, numbers or (P, 1) float32 columns; NeuronCore-v4."""

    operands = dict(dst=Out(ON_CHIP), min=Scalar(ON_CHIP), max=Scalar(ON_CHIP))
    engines = (Engine.vector,)
    generations = (4, 5)

    def check(i: Issue) -> None:
        require_types(
            i, "dst", "float8_e4m3", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "tfloat32",
            "int8",
            "int16", "int32", "uint8", "uint16", "uint32",
        )  # fmt: skip
        column(i, "dst", "min", "max")
        require_types(i, "min", "float32")
        require_types(i, "max", "float32")

    place = first_lane

    def cost(i: Issue, engine: Engine) -> Cost:
        return stream(i, engine, 0.25)

    def compute(i: Issue):
        layout, low_column, high_column, store, fail = (
            i.dst,
            expand(i.min, i.dst),
            expand(i.max, i.dst),
            storer(i.dst),
            i.fail,
        )

        def run(core, dst, min, max):
            low, high = number(low_column(min)), number(high_column(max))
            if not np.all(low < high):
                raise fail(f"min must be below max, not {np.ravel(low)[0]} and {np.ravel(high)[0]}")
            values = _uniform(core, layout)
            values *= np.subtract(high, low, dtype=np.float32)
            values += low
            store(dst, values)

        return run
