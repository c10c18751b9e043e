"""What is trained and with what software: the job that a layout arranges."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from opentrn.cluster.models import Model
from opentrn.errors import OpenTrnError

__all__ = ["Constants", "Job", "Software", "constants", "host_speed", "software", "software_names"]


@dataclass(frozen=True)
class Constants:
    """Fitted and published constants of compiled programs; sources stand in `software.toml`."""

    tensor_instruction_cycles: float
    hbm_efficiency: float
    engine_overlap: float
    elementwise_scale: float
    launch_us: float
    chip_speed_sigma: float


@dataclass(frozen=True)
class Software:
    """Traits of a training stack; see `software.toml` for what each means."""

    name: str
    title: str
    attention: str
    zero: int
    grad_bytes: int
    master_weights: bool
    overlap_gradients: bool
    recompute: str
    runtime_reserve_gib: float
    tracing_us_per_operation: float = 0.0
    dispatch_us_per_graph: float = 0.0
    engine_overlap: float | None = None
    elementwise_scale: float | None = None


@dataclass(frozen=True)
class Job:
    """One training job. `global_batch` is in samples of `seq_len` tokens; `tuning` is "full" or "lora".

    Raises OpenTrnError on values that mean nothing.
    """

    model: Model
    seq_len: int
    global_batch: int
    software: Software
    dtype: str = "bf16"
    optimizer: str = "adamw"
    tuning: str = "full"
    lora_rank: int = 16
    constants: Constants = field(default_factory=lambda: constants())

    def __post_init__(self) -> None:
        if self.seq_len < 1 or self.global_batch < 1:
            raise OpenTrnError(
                f"sequence length and global batch must be at least 1, got {self.seq_len} and {self.global_batch}"
            )
        if self.tuning not in ("full", "lora"):
            raise OpenTrnError(f"tuning must be 'full' or 'lora', got {self.tuning!r}")
        if self.optimizer not in ("adamw", "lamb", "muon", "sgd"):
            raise OpenTrnError(f"unknown optimizer {self.optimizer!r}, known: adamw, lamb, muon, sgd")

    @property
    def tokens_per_step(self) -> float:
        return self.global_batch * self.model.tokens_per_sample(self.seq_len)

    @property
    def flops_per_step(self) -> float:
        """Model FLOPs of a step; with frozen weights their gradients are not computed (a third of the products)."""
        total = self.global_batch * self.model.flops_per_sample(self.seq_len)
        return total * (2.0 / 3.0 if self.tuning == "lora" else 1.0)

    @property
    def optimizer_bytes_per_parameter(self) -> float:
        """Optimizer state beside weight and gradient: two fp32 moments (one for Muon and SGD), and master weights."""
        moments = 8.0 if self.optimizer in ("adamw", "lamb") else 4.0
        return moments + (4.0 if self.software.master_weights else 0.0)


@cache
def _tables() -> dict:
    with Path(__file__).with_name("software.toml").open("rb") as file:
        return tomllib.load(file)


@cache
def constants() -> Constants:
    """The shipped constants."""
    return Constants(**{name: entry["value"] for name, entry in _tables()["constants"].items()})


def host_speed(hardware: str) -> float:
    """Speed of a host at tracing against that of trn1.2xlarge; that of Trainium2's hosts where nobody measured."""
    hosts = _tables()["hosts"]
    return hosts.get(hardware, hosts["trn2.48xlarge"])["value"]


def software_names() -> list[str]:
    return list(_tables()["stacks"])


def software(name: str) -> Software:
    """A training stack by name; raises OpenTrnError for an unknown one."""
    stacks = _tables()["stacks"]
    if name not in stacks:
        raise OpenTrnError(f"unknown training software {name!r}, known: {', '.join(stacks)}")
    return Software(name=name, **stacks[name])
