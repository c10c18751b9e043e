"""How long an operator takes on one rank.

`OperatorTimes` is the only thing that the rest of the planner knows about the inside of a core: an operator in,
microseconds out. `RooflineTimes` answers by mechanism: the Tensor engine with its tile quantisation, the Vector and
Scalar engines, HBM, and how far they overlap. A model that was timed kernel by kernel can answer instead.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from opentrn.cluster.operators import Gemm, Operator
from opentrn.hardware import Chip, Gpu

__all__ = ["EngineTimes", "OperatorTimes", "RooflineTimes", "training_peak_tflops"]


class OperatorTimes(Protocol):
    """Anything that can time an operator."""

    def time_us(self, operator: Operator) -> float:
        """Microseconds that one rank needs for `operator`."""
        ...


@dataclass(frozen=True)
class EngineTimes:
    """Busy time of each resource of a rank for one operator, in microseconds."""

    tensor_us: float
    vector_us: float
    scalar_us: float
    hbm_us: float


def training_peak_tflops(chip: Chip | Gpu, dtype: str) -> float:
    """Published dense peak of a chip at a training type, in TFLOP/s.

    "fp8" is the fastest 8-bit float that the chip has (MXFP8 on Trainium3), and bf16 on chips without any.
    """
    if dtype != "fp8":
        return chip.peak_tflops(dtype)
    eight_bit = [chip.get(name) for name in ("peak_fp8_tflops", "peak_mxfp8_tflops")]
    return max((peak for peak in eight_bit if peak), default=chip.peak_tflops("bf16"))


class RooflineTimes:
    """Operator times from the figures of a chip.

    A rank is `cores_per_rank` physical cores that split each operator. `engine_overlap` is how much of the work that is
    not on the busiest engine hides behind it: 1 is a roofline, 0 one engine after another. `elementwise_scale` is how
    many passes a compiler issues for one pass of the algebra. `tensor_instruction_cycles` is what a compiled matrix
    product loses with each instruction beside streaming its rows, `hbm_efficiency` the part of the HBM rate reached.
    """

    def __init__(
        self,
        chip: Chip,
        cores_per_rank: int,
        dtype: str = "bf16",
        *,
        tensor_instruction_cycles: float,
        hbm_efficiency: float,
        engine_overlap: float,
        elementwise_scale: float,
        launch_us: float,
    ) -> None:
        core = chip.core
        self._rows, self._columns = core.pe_num_rows, core.pe_num_columns
        # Cycles of a matrix product at a dtype, against bf16, follow the published peaks.
        self._dtype_factor = chip.peak_tflops("bf16") / training_peak_tflops(chip, dtype)
        self._tensor_cycles_per_us = core.tensor_clock_ghz * 1e3 * cores_per_rank
        self._min_moving = core.get("pe_matmul_min_interval_cycles", 64)
        self._max_moving = core.gemm_moving_fmax
        self._instruction_cycles = tensor_instruction_cycles
        lanes = core.get("vector_base_elements_per_cycle", 128)
        # Passes between SBUF tensors run in the performance mode of tensor_tensor where the core has one and the type
        # is 16 bits wide; passes that read PSUM do not.
        fast = core.get("vector_other_elements_per_cycle", lanes) if dtype != "fp32" else lanes
        per_us = core.vector_clock_ghz * 1e3 * cores_per_rank / elementwise_scale
        self._psum_per_us, self._sbuf_per_us = lanes * per_us, fast * per_us
        self._scalar_per_us = core.scalar_clock_ghz * 1e3 * 128 * cores_per_rank / elementwise_scale
        share = cores_per_rank / chip.num_cores
        self._hbm_bytes_per_us = chip.hbm_bandwidth_gb_per_s * 1e3 * share * hbm_efficiency
        # Operands that are reused are held in half of SBUF, the other half streams.
        self._resident_bytes = core.sbuf_bytes * cores_per_rank / 2
        self._overlap, self._launch_us = engine_overlap, launch_us
        self._element_bytes = 4 if dtype == "fp32" else 2
        self._cache: dict[Operator, float] = {}

    def tensor_cycles(self, gemm: Gemm) -> float:
        """Tensor-engine cycles of a product: tiles along the contraction and along the stationary operand are whole
        (128 x 128), the moving operand streams one row a cycle; the cheaper operand is held stationary."""
        contraction = math.ceil(gemm.k / self._rows)
        by_rows = math.ceil(gemm.m / self._columns) * self._moving_cycles(gemm.n)
        by_columns = math.ceil(gemm.n / self._columns) * self._moving_cycles(gemm.m)
        return contraction * min(by_rows, by_columns) * gemm.count

    def _moving_cycles(self, rows: float) -> float:
        """Cycles to stream a moving operand: instructions of at most 512 rows, each with a fixed cost on top."""
        instructions = math.ceil(rows / self._max_moving)
        return max(rows, self._min_moving * instructions) * self._dtype_factor + instructions * self._instruction_cycles

    def reload_bytes(self, gemm: Gemm) -> float:
        """HBM traffic beyond reading each operand once: the smaller operand stays in SBUF by blocks, and the larger one
        is streamed again for each block."""
        held = min(gemm.m, gemm.n) * gemm.k * self._element_bytes
        streamed = max(gemm.m, gemm.n) * gemm.k * self._element_bytes
        return (max(1, math.ceil(held / self._resident_bytes)) - 1) * streamed * gemm.count

    def engine_times(self, operator: Operator) -> EngineTimes:
        """Busy time of each engine, from which `time_us` is made."""
        cycles = sum(self.tensor_cycles(gemm) for gemm in operator.gemms)
        traffic = operator.hbm_bytes + (0.0 if operator.is_attention else sum(map(self.reload_bytes, operator.gemms)))
        return EngineTimes(
            tensor_us=cycles / self._tensor_cycles_per_us,
            vector_us=operator.psum_elements / self._psum_per_us + operator.sbuf_elements / self._sbuf_per_us,
            scalar_us=operator.scalar_elements / self._scalar_per_us,
            hbm_us=traffic / self._hbm_bytes_per_us,
        )

    def time_us(self, operator: Operator) -> float:
        """The busiest engine, plus the part of the others' work that does not hide behind it."""
        known = self._cache.get(operator)
        if known is None:
            times = self.engine_times(operator)
            every = (times.tensor_us, times.vector_us, times.scalar_us, times.hbm_us)
            busiest = max(every)
            known = busiest + (1.0 - self._overlap) * (sum(every) - busiest) + self._launch_us
            self._cache[operator] = known
        return known
