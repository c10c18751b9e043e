"""Instructions in which the cores of a logical NeuronCore meet: the barrier and the exchange of tiles."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore import indirection, machine, undefined
from opentrn.neuroncore.cost import Cost, fixed, transfer
from opentrn.neuroncore.instruction import ANY, SBUF, Engine, In, Issue, Out, Plan, Value, instruction, static
from opentrn.neuroncore.isa.settings import dma_engine as transfers

__all__ = ["core_barrier", "sendrecv"]

# Elements a partition that the GpSimd's own DMA moves: 1024 bytes of 32-bit types, half for 16 bits, a quarter for 8.
_GPSIMD_DMA_ELEMENTS = 256
_PAIR = (0, 1)


@instruction
class core_barrier:
    """Wait until every core in ``cores`` has come to the barrier; what they wrote to ``data`` (shared HBM) is then
    visible.

    One core alone does not wait. The barrier holds ``engine``; the other engines run on.
    """

    operands = dict(data=In(ANY), cores=static(_PAIR), engine=static(Engine.gpsimd))
    engines = (Engine.gpsimd, Engine.tensor, Engine.vector, Engine.scalar, Engine.sync)
    generations = (3, 4, 5)
    on_tensors = True
    follows_undefined = True

    def check(i: Issue) -> None:
        if _cores(i.cores) not in ((0,), (1,), _PAIR):
            raise i.fail(f"cores={i.cores}; the cores of a logical NeuronCore are (0, 1)")

    def place(plan: Plan, args: tuple) -> tuple:
        core = machine.current()
        cores = _cores(args[1])
        if len(cores) > 1:
            _require_pair(core, plan)
            meeting = core.group.barrier(core, cores)
            if core.recorder is not None:
                core.recorder.mark(core.count - 1, "barrier", meeting)
        return args

    def cost(i: Issue, engine: Engine) -> Cost:
        return fixed(i, engine, i.core.semaphore_to_gpsimd_ns)

    def compute(i: Issue):
        return lambda core, *args: None


def _cores(cores: Any) -> tuple[int, ...]:
    return tuple(sorted(int(c) for c in cores)) if isinstance(cores, (tuple, list)) else (int(cores),)


def _require_pair(core: Any, plan: Plan) -> None:
    if core.group is None or core.group.size < len(_PAIR):
        raise plan.issue.fail("this kernel runs on one core and the instruction needs two; launch it as kernel[2](...)")


@instruction
class sendrecv:
    """Send tile ``src`` to core ``send_to_rank`` and receive core ``recv_from_rank``'s into ``dst``; both in SBUF,
    alike in type and shape.

    The sends and receives of one ``pipe_id`` go together and in order; those of different ones do not wait for each
    other.
    """

    operands = dict(
        src=In(SBUF), dst=Out(SBUF), send_to_rank=Value(), recv_from_rank=Value(), pipe_id=Value(),
        dma_engine=static(transfers.dma),
    )  # fmt: skip
    engines = (Engine.dma, Engine.gpsimd)
    generations = (3, 4, 5)
    on_tensors = True
    follows_undefined = True

    def check(i: Issue) -> None:
        src, dst = i.src, i.dst
        if src.dtype is not dst.dtype:
            raise i.fail(f"src is {src.dtype} and dst {dst.dtype}; they must agree")
        if src.num_partitions != dst.num_partitions or src.free_size != dst.free_size:
            raise i.fail(f"src is {list(src.shape)} and dst {list(dst.shape)}; they must agree")
        if i.dma_engine is transfers.gpsimd_dma and src.free_size > _GPSIMD_DMA_ELEMENTS:
            raise i.fail(
                f"{src.free_size} elements of {src.dtype} a partition; dma_engine.gpsimd_dma moves at most "
                f"{_GPSIMD_DMA_ELEMENTS} ({_GPSIMD_DMA_ELEMENTS * src.dtype.itemsize} bytes), use dma_engine.dma"
            )

    def select_engine(i: Issue) -> Engine:
        return Engine.gpsimd if i.dma_engine is transfers.gpsimd_dma else Engine.dma

    def place(plan: Plan, args: tuple) -> tuple:
        core = machine.current()
        src, _, send_to, receive_from, pipe = args[:5]
        send_to, receive_from, pipe = int(send_to), int(receive_from), int(pipe)
        if send_to not in _PAIR or receive_from not in _PAIR:
            raise plan.issue.fail(f"send_to_rank={send_to}, recv_from_rank={receive_from}; ranks are 0 and 1")
        _require_pair(core, plan)
        message = None
        if core.execute:
            mask = undefined.defined(src)
            message = (src.array().copy(), None if mask is None else mask.copy(), src.storage.undefined_by)
        received, meeting = core.group.exchange(
            core, (src.layout.shape, src.dtype, message), send_to, receive_from, pipe
        )
        shape, dtype, message = received
        if dtype is not args[1].dtype or shape[0] != args[1].shape[0] or src.layout.size != _size(shape):
            raise plan.issue.fail(
                f"core {receive_from} sends {dtype}{list(shape)} and dst is {args[1].dtype}"
                f"{list(args[1].shape)}; both cores must exchange alike tiles"
            )
        if core.recorder is not None:
            core.recorder.mark(core.count - 1, "sendrecv", meeting)
        return (*args, message)

    def cost(i: Issue, engine: Engine) -> Cost:
        return transfer(i, i.dst, i.src, engine=engine, mode="default")

    def compute(i: Issue):
        shape = i.dst.shape

        def run(core, src, dst, send_to_rank, recv_from_rank, pipe_id, dma_engine, message):
            values, mask, origin = message
            indirection.write(
                core, dst, values.reshape(shape), mask=None if mask is None else mask.reshape(shape), origin=origin
            )

        return run


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
