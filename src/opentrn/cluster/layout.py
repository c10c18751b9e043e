"""Parallel layouts: how the ranks of a job are arranged, and which arrangements are possible.

Axes, innermost first: `tp` (tensor), `cp` (context), `dp` (data), `pp` (pipeline). `ep` (expert) reuses ranks of
`dp` x `cp`: experts are spread over them. `sp` says that token-wise work between the tensor-parallel matrices is split
over `tp` as well. `zero` is the stage of ZeRO: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too (FSDP).
"""

from dataclasses import dataclass

from opentrn.errors import OpenTrnError

__all__ = ["RECOMPUTE", "SCHEDULES", "Layout", "check_layout"]

SCHEDULES = ("1f1b", "interleaved", "zero-bubble")
RECOMPUTE = ("none", "selective", "full")


@dataclass(frozen=True)
class Layout:
    """One arrangement. `chunks` is the number of model pieces a pipeline rank holds (interleaved schedule);
    `micro_batch` is in samples."""

    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    sp: bool = True
    zero: int = 1
    micro_batch: int = 1
    schedule: str = "1f1b"
    chunks: int = 1
    recompute: str = "selective"

    @property
    def num_ranks(self) -> int:
        return self.dp * self.tp * self.pp * self.cp

    def micro_batches(self, global_batch: int) -> int:
        """Micro-batches that each data-parallel replica works through in a step."""
        return global_batch // (self.dp * self.micro_batch)

    def axes(self) -> dict[str, int | str | bool]:
        """The layout as the tables and the JSON show it: axis -> degree."""
        return {
            "dp": self.dp,
            "tp": self.tp,
            "pp": self.pp,
            "cp": self.cp,
            "ep": self.ep,
            "sp": self.tp if self.sp else 1,
            "zero": self.zero,
            "micro_batch": self.micro_batch,
            "schedule": self.schedule,
            "chunks": self.chunks,
            "recompute": self.recompute,
        }

    def __str__(self) -> str:
        parts = [f"{axis}{degree}" for axis in ("dp", "tp", "pp", "cp", "ep") if (degree := getattr(self, axis)) > 1]
        parts.append(f"zero{self.zero}")
        parts.append(f"mb{self.micro_batch}")
        if self.pp > 1:
            parts.append(self.schedule + (f"x{self.chunks}" if self.chunks > 1 else ""))
        if self.recompute != "none":
            parts.append(f"{self.recompute}-recompute")
        return " ".join(parts)


def check_layout(
    layout: Layout,
    *,
    num_layers: int,
    num_heads: int,
    num_experts: int,
    seq_len: int,
    global_batch: int,
    num_ranks: int,
) -> None:
    """Raise OpenTrnError, naming the axis and the nearest possible degree, if a layout does not divide the job."""
    for axis in ("dp", "tp", "pp", "cp", "ep", "micro_batch", "chunks"):
        if getattr(layout, axis) < 1:
            raise OpenTrnError(f"layout axis {axis} must be at least 1, got {getattr(layout, axis)}")
    if layout.schedule not in SCHEDULES:
        raise OpenTrnError(f"unknown pipeline schedule {layout.schedule!r}, known: {', '.join(SCHEDULES)}")
    if layout.recompute not in RECOMPUTE:
        raise OpenTrnError(f"unknown recompute policy {layout.recompute!r}, known: {', '.join(RECOMPUTE)}")
    if layout.zero not in (0, 1, 2, 3):
        raise OpenTrnError(f"zero stage must be 0, 1, 2 or 3, got {layout.zero}")
    if layout.num_ranks != num_ranks:
        raise OpenTrnError(
            f"layout dp{layout.dp} x tp{layout.tp} x pp{layout.pp} x cp{layout.cp} is {layout.num_ranks} "
            f"ranks, but the hardware gives {num_ranks}; change dp to {num_ranks / (layout.num_ranks / layout.dp):g}"
        )
    rules = (
        ("tp", num_heads, "attention heads"),
        ("cp", seq_len, "tokens of a sequence"),
        ("ep", num_experts or 1, "experts"),
    )
    for axis, whole, what in rules:
        degree = getattr(layout, axis)
        if whole % degree:
            raise OpenTrnError(
                f"{axis}={degree} does not divide the {whole} {what}; try {_nearest_divisor(whole, degree)}"
            )
    if layout.pp * layout.chunks > num_layers:
        raise OpenTrnError(
            f"pp={layout.pp} x chunks={layout.chunks} asks for {layout.pp * layout.chunks} pieces of a model "
            f"of {num_layers} layers"
        )
    if (layout.dp * layout.cp) % layout.ep:
        raise OpenTrnError(f"ep={layout.ep} must divide dp x cp = {layout.dp * layout.cp}")
    if global_batch % (layout.dp * layout.micro_batch):
        raise OpenTrnError(
            f"a global batch of {global_batch} samples is not a multiple of dp x micro_batch = "
            f"{layout.dp * layout.micro_batch}"
        )


def _nearest_divisor(whole: int, wanted: int) -> int:
    return min((d for d in range(1, whole + 1) if whole % d == 0), key=lambda d: abs(d - wanted))
