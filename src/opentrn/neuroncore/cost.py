"""What an instruction costs: the cycles its engine is taken, when its result is there, and what a transfer moves.

Declarations of instructions return a :class:`Cost` from their ``cost`` function; the timing model schedules it. A
cost holds
what is true of the instruction alone; waiting, sharing and clock states are the scheduler's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from opentrn.neuroncore.layout import Layout
from opentrn.neuroncore.memory import MemoryRegion

if TYPE_CHECKING:
    from opentrn.neuroncore.instruction import Engine, Issue

__all__ = [
    "Cost",
    "Transfer",
    "activation_cost",
    "array_cost",
    "descriptor_mode",
    "elements",
    "fast_mode",
    "fixed",
    "several",
    "stream",
    "streamed",
    "transfer",
    "transposing_transfer",
    "two_streams",
]


@dataclass(frozen=True)
class Transfer:
    """The descriptors of one DMA.

    Attributes:
        num_descriptors: contiguous runs moved, each at most the engine's largest payload.
        descriptor_bytes: bytes of each (the mean, where they differ).
        read_bytes, written_bytes: bytes of HBM read and written.
        mode: who makes the descriptors: ``"static"``, ``"hwdge"``, ``"swdge"``, or ``"default"`` where the kernel
        does not say.
        issuer: name of the engine whose queue triggers it, or ``""`` for whichever the compiler finds idle.
        partitions: (first, number) of the SBUF partitions it touches; (0, 0) when none.
        rate_ratio: rate against a plain copy, for transposes and accumulation.
        direction: ``"load"``, ``"store"`` or ``"move"``.
    """

    num_descriptors: int
    descriptor_bytes: float
    read_bytes: int
    written_bytes: int
    mode: str = "static"
    issuer: str = ""
    partitions: tuple[int, int] = (0, 0)
    rate_ratio: float = 1.0
    direction: str = "load"

    @property
    def total_bytes(self) -> float:
        """Payload moved, in bytes."""
        return self.num_descriptors * self.descriptor_bytes


@dataclass(frozen=True)
class Cost:
    """Cycles of the engine's own clock, and the work done.

    Attributes:
        busy_cycles: from the start until the engine can start the next instruction.
        tail_cycles: from then until the result is in memory.
        load_cycles: Tensor engine: loading the stationary matrix, hidden behind the matmul before.
        flops: multiplications and additions of a matmul, counted as two a multiply-accumulate.
        table: Scalar engine: set of activation functions that must be loaded; "" for any.
        tile: Tensor engine: (first row, rows, first column, columns) of the array in use; () for all of it.
        transfer: what a DMA moves.
    """

    busy_cycles: float = 0.0
    tail_cycles: float = 0.0
    load_cycles: float = 0.0
    flops: int = 0
    table: str = ""
    tile: tuple[int, ...] = ()
    transfer: Transfer | None = None


def elements(i: Issue) -> int:
    """Elements a partition that an instruction streams: the largest of its on-chip operands."""
    sizes = [f.free_size for f in i.fields.values() if isinstance(f, Layout) and f.on_chip]
    for field in i.fields.values():
        if isinstance(field, tuple) and field and isinstance(field[0], Layout):
            sizes += [f.free_size for f in field]
    return max(sizes, default=1)


def columns_read(i: Issue) -> int:
    """Operands that are one value a partition beside a longer stream; each is fetched on its own before the stream."""
    longest = elements(i)
    layouts = [f for name, f in i.fields.items() if isinstance(f, Layout) and f.on_chip and f.free_size == 1]
    written = {i.fields[n] for n in ("dst", "reduce_res") if isinstance(i.fields.get(n), Layout)}
    return sum(1 for layout in layouts if layout not in written) if longest > 1 else 0


def stream(
    i: Issue,
    engine: Engine,
    cycles_per_element: float = 1.0,
    *,
    extra_cycles: float = 0.0,
    num_elements: int | None = None,
) -> Cost:
    """The cost of an instruction that streams its elements through ``engine``.

    ``cycles_per_element`` is the rule of the instruction (0.25 in a fast mode, 2 where two streams share a port).
    """
    core = i.core
    n = elements(i) if num_elements is None else num_elements
    name = engine.name
    columns = columns_read(i) * core.get(f"{name}_operand_cycles", 0)
    data = max(n * cycles_per_element * strided(i), 1.0) + columns + extra_cycles
    least = core.get("engine_min_interval_cycles", 64)
    busy = max(data + core.get(f"{name}_issue_cycles", least), least)
    latency = data + core.get(f"{name}_latency_cycles", 2 * least)
    return Cost(busy_cycles=busy, tail_cycles=max(latency - busy, 0.0))


def streamed(i: Issue, engine: Engine, cycles_per_element: float = 1.0) -> Cost:
    """The cost of an instruction whose declaration says nothing about it: a plain stream."""
    return stream(i, engine, cycles_per_element)


def fast_mode(i: Issue, engine: Engine, src: Layout, dst: Layout) -> float:
    """Cycles an element of a copy or tensor_scalar in the performance modes that the engines choose by themselves."""
    generation = i.core.generation
    if engine.name == "scalar":
        narrow = src.dtype.itemsize <= 2 and dst.dtype.itemsize <= 2
        return 0.5 if generation >= 4 and narrow else 1.0
    if engine.name != "vector" or generation < 3:
        return 1.0
    sbuf = src.region is MemoryRegion.sbuf and dst.region is MemoryRegion.sbuf
    narrow = src.dtype.itemsize == 2 and dst.dtype.itemsize == 2
    dense = all(_runs(x)[1] >= 2 * x.dtype.itemsize for x in (src, dst))
    if narrow:
        return 0.25 if sbuf and dense else 0.5
    wide = src.dtype.itemsize == 4 and dst.dtype.itemsize == 4
    return 0.5 if sbuf and wide and dense else 1.0


def two_streams(dst: Layout, first: Layout, second: Any) -> float:
    """Cycles an element of an instruction that reads two tiles: from SBUF they share a port unless all are 16-bit
    floats.
    """
    sources = [x for x in (first, second) if isinstance(x, Layout)]
    if len(sources) < 2 or any(x.region is not MemoryRegion.sbuf for x in sources):
        return 1.0
    return 1.0 if all(x.dtype.itemsize == 2 and x.dtype.kind == "float" for x in (dst, *sources)) else 2.0


def fixed(i: Issue, engine: Engine, time_ns: float) -> Cost:
    """The cost of an instruction that takes the same time whatever it works on."""
    clock = i.core.get(f"{engine.name}_clock_ghz", i.core.scalar_clock_ghz)
    return Cost(busy_cycles=time_ns * clock)


def activation_cost(i: Issue, engine: Engine, *, extra_cycles: float = 0.0) -> Cost:
    """The cost of a pass through the Scalar engine, with the table that its function needs."""
    source = i.core.scalar_sbuf_source_cycles if i.data.region is MemoryRegion.sbuf else 0
    cost = stream(i, engine, extra_cycles=source + extra_cycles)
    return replace(cost, table=activation_table(getattr(i.op, "__name__", str(i.op))))


# Functions that every table holds, and groups that share one; any other function has a table of its own.
_EVERYWHERE = {"copy", "identity", "square", "relu", "abs", "sign"}
_TABLES = {
    "exp": "exp",
    "softplus": "exp",
    "log": "log",
    "sigmoid": "exp",
    "tanh": "exp",
    "silu": "silu",
    "gelu": "gelu",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
}


def activation_table(function: str) -> str:
    """The set of functions that is loaded together with ``function``; "" where any set will do."""
    return "" if function in _EVERYWHERE else _TABLES.get(function, function)


def array_cost(i: Issue, columns: int, passes: int, flops: int, tile: tuple[int, ...] = ()) -> Cost:
    """The cost of streaming ``columns`` through the systolic array ``passes`` times."""
    core = i.core
    busy = max(columns, core.pe_matmul_min_interval_cycles) * passes + core.pe_matmul_gap_cycles
    clock = core.tensor_clock_ghz
    return Cost(
        busy_cycles=busy,
        tail_cycles=core.pe_matmul_latency_ns * clock,
        load_cycles=core.pe_load_stationary_latency_ns * clock,
        flops=flops,
        tile=tile,
    )


def descriptor_mode(i: Issue, *moved: Layout) -> str:
    """Who makes the descriptors of a DMA: what the kernel asked for, or ``"default"``, which is up to the compiler."""
    asked = i.fields.get("dge_mode")
    name = getattr(asked, "name", "unknown")
    if any(layout.indirect == "vector" for layout in moved):
        return "swdge"
    return {"hwdge": "hwdge", "swdge": "swdge", "none": "static"}.get(name, "default")


def transposing_transfer(i: Issue, dst: Layout, src: Layout, *, rate_ratio: float) -> Cost:
    """The cost of a transposing DMA: it reads rows as they lie and turns them in blocks on the way."""
    rows, size = _runs(src)
    one = transfer(
        i,
        dst,
        src,
        engine=i.instruction.engines[0],
        mode=descriptor_mode(i, src),
        num_descriptors=max(rows, 1),
        rate_ratio=rate_ratio,
    )
    assert one.transfer is not None
    piece = min(size, i.core.get("dma_descriptor_max_payload_bytes", 65536))
    count = max(round(src.size * src.dtype.itemsize / piece), 1)
    return replace(one, transfer=replace(one.transfer, num_descriptors=count, descriptor_bytes=piece))


def several(one: Cost, sources: tuple[Layout, ...], counted: Layout) -> Cost:
    """``one`` transfer extended to all ``sources`` of a DMA that adds on the way; ``counted`` is the source it has."""
    t = one.transfer
    assert t is not None
    size = counted.size * counted.dtype.itemsize
    more = sum(s.size * s.dtype.itemsize for s in sources) / size
    read = sum(s.size * s.dtype.itemsize for s in sources if not s.on_chip)
    return replace(one, transfer=replace(t, num_descriptors=round(t.num_descriptors * more), read_bytes=read))


def strided(i: Issue) -> float:
    """Slow-down of a wide innermost stride, where the generation has one: the port then delivers half its elements."""
    ratio = i.core.get("sram_strided_bandwidth_ratio")
    if not ratio:
        return 1.0
    limit = i.core.sram_stride_limit_bytes
    for f in i.fields.values():
        if isinstance(f, Layout) and f.on_chip and f.ndim > 1 and f.free_size > 1:
            inner = next((s for n, s in zip(reversed(f.shape), reversed(f.strides), strict=True) if n > 1), 1)
            if inner * f.dtype.itemsize >= limit:
                return 1 / ratio
    return 1.0


def _runs(layout: Layout) -> tuple[int, int]:
    """(number, bytes) of the contiguous runs of a view; on chip a run ends with its partition."""
    run = 1
    step = 1
    first = 1 if layout.on_chip else 0
    d = layout.ndim - 1
    while d >= first and (layout.shape[d] == 1 or layout.strides[d] == step):
        run *= layout.shape[d]
        step = run
        d -= 1
    return layout.size // max(run, 1), run * layout.dtype.itemsize


def transfer(
    i: Issue,
    dst: Layout,
    src: Layout,
    *,
    engine: Engine,
    mode: str,
    num_descriptors: int | None = None,
    rate_ratio: float = 1.0,
) -> Cost:
    """The cost of a DMA from ``src`` to ``dst``: one descriptor a run that is contiguous on both sides."""
    runs_s, bytes_s = _runs(src)
    runs_d, bytes_d = _runs(dst)
    # A run is counted in the source's elements; a conversion changes its size on the other side only.
    ratio = dst.dtype.itemsize / src.dtype.itemsize
    piece = max(min(bytes_s, bytes_d / ratio), 1.0)
    total = src.size * src.dtype.itemsize
    piece = min(piece, i.core.get("dma_descriptor_max_payload_bytes", 65536))
    count = num_descriptors or max(int(round(total / piece)), 1)
    if 0 in src.strides and total:  # a broadcast is read once for each destination run
        count = max(count, runs_d)
        piece = total / count
    wide = max(1.0, ratio)
    chip = dst if dst.on_chip else src
    partitions = (0, chip.num_partitions) if chip.on_chip else (0, 0)
    hbm = (MemoryRegion.private_hbm, MemoryRegion.shared_hbm)
    read = total if src.region in hbm else 0
    written = dst.size * dst.dtype.itemsize if dst.region in hbm else 0
    direction = "load" if dst.on_chip and not src.on_chip else "store" if src.on_chip and not dst.on_chip else "move"
    name: Any = engine.name
    issuer = name if name not in ("dma", "unknown") else ""
    return Cost(transfer=Transfer(count, piece * wide, read, written, mode, issuer, partitions, rate_ratio, direction))
