"""The typed records that the hardware files become.

A record's figures are attributes that give plain numbers; the names declared here are the ones that code relies on,
with their types. A file may hold more figures than are declared: they are attributes as well, and nothing needs to be
added here for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

from opentrn.errors import HardwareError, MissingFigureError
from opentrn.hardware.figure import Figure


class Record:
    """A named set of figures, read from `path`.

    A loaded record is shared and cannot be changed; equality is identity. `parts` are attributes that are records
    themselves, such as a chip's core.
    """

    kind: ClassVar[str] = "record"
    required: ClassVar[tuple[str, ...]] = ()  # figures without which the record is of no use

    name: str
    title: str
    path: Path
    aliases: tuple[str, ...]
    figures: Mapping[str, Figure]

    def __init__(
        self,
        name: str,
        title: str,
        path: Path,
        aliases: tuple[str, ...],
        figures: Mapping[str, Figure],
        parts: Mapping[str, "Record"],
    ) -> None:
        # Plain instance attributes: reading a figure costs what reading any attribute costs.
        self.__dict__.update({name: figure.value for name, figure in figures.items()} | dict(parts))
        self.__dict__.update(name=name, title=title, path=path, aliases=aliases, figures=figures)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} cannot be changed; write a file that extends it instead")

    def __getattr__(self, name: str) -> Any:
        """Only reached for a figure that the record does not have."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise _missing(self, name)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def figure(self, name: str) -> Figure:
        """The figure behind an attribute, with status, source and note.

        Raises:
            MissingFigureError: the record has no figure of that name.
        """
        try:
            return self.figures[name]
        except KeyError:
            raise _missing(self, name) from None

    def get(self, name: str, default: Any = None) -> Any:
        """A figure's value, or `default` where nobody has published it."""
        figure = self.figures.get(name)
        return default if figure is None else figure.value


class Core(Record):
    """One NeuronCore. `generation` is 1 to 4 as in NeuronCore-v1 to v4, 5 for the projected core of Trainium4."""

    kind = "core"
    required = ("generation", "num_dma_engines", "tensor_peak_bf16_tflops")

    generation: int

    tensor_clock_ghz: float
    vector_clock_ghz: float
    scalar_clock_ghz: float
    gpsimd_clock_ghz: float

    pe_num_rows: int
    pe_num_columns: int
    tensor_peak_bf16_tflops: float
    vector_base_elements_per_cycle: int

    num_partitions: int
    sbuf_bytes_per_partition: int
    sbuf_reserved_bytes_per_partition: int  # taken from a kernel by the compiler and the runtime
    sbuf_min_align_bytes: int
    psum_bytes_per_partition: int
    psum_num_banks: int
    psum_bank_bytes: int  # of one partition
    psum_min_align_bytes: int

    gemm_stationary_fmax: int
    gemm_moving_fmax: int
    bn_stats_fmax: int
    num_registers: int
    num_semaphores: int
    num_gpsimd_cores: int

    num_dma_engines: int
    num_dma_queues_per_engine: int
    dma_engine_peak_gb_per_s: float
    dma_engine_sustained_gb_per_s: float

    @property
    def sbuf_bytes(self) -> int:
        """The whole SBUF, in bytes."""
        return self.num_partitions * self.sbuf_bytes_per_partition

    @property
    def sbuf_usable_bytes_per_partition(self) -> int:
        """What a kernel may allocate of one SBUF partition, in bytes."""
        return self.sbuf_bytes_per_partition - self.sbuf_reserved_bytes_per_partition

    @property
    def psum_bytes(self) -> int:
        """The whole PSUM, in bytes."""
        return self.num_partitions * self.psum_bytes_per_partition

    def peak_tflops(self, dtype: str) -> float:
        """Peak of the Tensor engine for a dtype ("bf16", "bfloat16", "fp8", "mxfp4", ...), in TFLOPS."""
        return _peak(self, "tensor_peak", dtype)


class Chip(Record):
    """One Neuron device. `core` is the `Core` it is made of."""

    kind = "chip"
    required = ("num_cores", "hbm_gib", "hbm_bandwidth_gb_per_s", "peak_bf16_tflops")

    core: Core
    num_cores: int
    logical_cores: int  # as software sees the chip, with `lnc_default` physical cores to a logical one
    lnc_default: int
    lnc_sizes: tuple[int, ...]
    peak_bf16_tflops: float
    hbm_gib: float
    hbm_stacks: int
    hbm_bandwidth_gb_per_s: float
    neuronlink_gb_per_s: float  # of the whole chip

    @property
    def generation(self) -> int:
        """The generation of its core, 1 to 5."""
        return self.core.generation

    @property
    def hbm_bytes(self) -> int:
        """Device memory, in bytes."""
        return int(self.hbm_gib * 2**30)

    def peak_tflops(self, dtype: str) -> float:
        """Peak of the chip for a dtype ("bf16", "bfloat16", "fp8", "mxfp4", ...), dense, in TFLOPS."""
        return _peak(self, "peak", dtype)


class Gpu(Record):
    """One peer GPU; throughput is dense."""

    kind = "gpu"
    required = ("peak_bf16_tflops", "hbm_gb", "hbm_bandwidth_gb_per_s")

    peak_bf16_tflops: float
    hbm_gb: float
    hbm_bandwidth_gb_per_s: float
    nvlink_gb_per_s: float
    tdp_w: float

    @property
    def hbm_bytes(self) -> int:
        """Device memory, in bytes."""
        return int(self.hbm_gb * 10**9)

    def peak_tflops(self, dtype: str) -> float:
        """Peak of the GPU for a dtype ("bf16", "fp8", "fp4", ...), dense, in TFLOPS."""
        return _peak(self, "peak", dtype)


class Instance(Record):
    """One EC2 instance size. `accelerator` is the `Chip` or `Gpu` it carries."""

    kind = "instance"
    required = ("num_accelerators",)

    accelerator: Chip | Gpu
    num_accelerators: int
    num_vcpus: int
    host_memory_gib: float
    device_memory_gib: float
    efa_gbps: float
    topology: str
    topology_shape: tuple[int, ...]


class Rack(Record):
    """A scale-up domain (UltraServer) or a cluster of instances. `chip` is the `Chip` it is made of."""

    kind = "rack"
    required = ("num_chips",)

    chip: Chip
    num_chips: int
    num_instances: int
    topology: str
    topology_shape: tuple[int, ...]
    efa_gbps: float


class Region(Record):
    """An AWS region: grid carbon (location based) and the fleet's figures for power overhead."""

    kind = "region"
    required = ("grid_carbon_kg_co2e_per_kwh",)

    grid_carbon_kg_co2e_per_kwh: float
    pue_ratio: float


@dataclass(frozen=True, slots=True)
class Price:
    """A list price of an instance, in USD an hour for the whole instance, as of `date`.

    `kind` is "on_demand", "capacity_block" or "reserved"; `term` is the commitment of a reserved price ("1yr").
    """

    instance: str
    kind: str
    usd_per_hour: float
    region: str
    date: date
    status: str
    source: str
    term: str = ""
    note: str = ""


# Names of one arithmetic format, as torch, NKI and data sheets spell them.
_DTYPE_NAMES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "tfloat32": "tf32",
    "float8_e4m3": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "float8_e3m4": "fp8",
    "float8_e4m3fn_x4": "mxfp8",
    "float8_e5m2_x4": "mxfp8",
    "float4_e2m1fn_x4": "mxfp4",
}


def _peak(record: Record, prefix: str, dtype: str) -> float:
    """The figure `<prefix>_<dtype>_tflops` (or `_tops` for integers)."""
    short = _DTYPE_NAMES.get(dtype, dtype)
    for unit in ("tflops", "tops"):
        figure = record.figures.get(f"{prefix}_{short}_{unit}")
        if figure is not None:
            return figure.value
    known = sorted(
        name.removeprefix(prefix + "_").rpartition("_")[0]
        for name in record.figures
        if name.startswith(prefix + "_") and name.endswith(("_tflops", "_tops"))
    )
    raise HardwareError(f"{record.kind} {record.name} has no peak for {dtype!r}; it has {', '.join(known)}.")


def _missing(record: Record, name: str) -> MissingFigureError:
    from difflib import get_close_matches

    close = get_close_matches(name, record.figures, n=3)
    hint = f"did you mean {' or '.join(close)}" if close else "nothing published, or not entered"
    return MissingFigureError(f"{record.kind} {record.name} has no figure {name!r} in {record.path.name} ({hint}).")
