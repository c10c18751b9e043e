"""What vendors and the press claim for this family, derived again from the model on stated workloads.

Each claim is a ratio. `derive` gives the ratio that published figures and the simulator arrive at, with the range that
unpublished inputs (watts, prices) leave open, and a verdict:

- reproduced: the derived ratio reaches at least 90 % of the claimed one;
- not reproduced: it does not, whatever the open inputs are;
- not decidable: the open inputs decide, or the workload behind the claim was never disclosed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from opentrn.cluster.planning import Candidate, plan
from opentrn.energy.rack import chip_tdp
from opentrn.errors import OpenTrnError
from opentrn.hardware import Chip, Gpu, chip, gpu, instance, rack

__all__ = ["CLAIMS", "Claim", "Verdict", "check_claim", "check_claims"]

REPRODUCED, NOT_REPRODUCED, NOT_DECIDABLE = "reproduced", "not reproduced", "not decidable"
_TOLERANCE = 0.9


@dataclass(frozen=True)
class Derived:
    """A derived ratio with its ends over inputs that nobody published; `steps` says how it came about."""

    ratio: float | None
    low: float | None
    high: float | None
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """A headline as it is stated, and how it is derived."""

    id: str
    statement: str
    source: str
    ratio: float
    workload: str
    derive: Callable[[], Derived]


@dataclass(frozen=True)
class Verdict:
    """The outcome for one claim."""

    claim: Claim
    derived: Derived
    verdict: str

    def as_json(self) -> dict:
        c, d = self.claim, self.derived
        return {
            "id": c.id,
            "statement": c.statement,
            "source": c.source,
            "claimed_ratio": c.ratio,
            "workload": c.workload,
            "derived_ratio": d.ratio,
            "derived_low": d.low,
            "derived_high": d.high,
            "verdict": self.verdict,
            "steps": list(d.steps),
        }


def check_claim(claim: Claim) -> Verdict:
    """Derive one claim and judge it."""
    derived = claim.derive()
    if derived.ratio is None:
        return Verdict(claim, derived, NOT_DECIDABLE)
    low, high = derived.low or derived.ratio, derived.high or derived.ratio
    wanted = _TOLERANCE * claim.ratio
    if low >= wanted:
        verdict = REPRODUCED
    elif high < wanted:
        verdict = NOT_REPRODUCED
    else:
        verdict = NOT_DECIDABLE
    return Verdict(claim, derived, verdict)


def check_claims(ids: list[str] | None = None) -> list[Verdict]:
    """Every claim, or those named; raises OpenTrnError for an unknown one."""
    known = {claim.id: claim for claim in CLAIMS}
    for wanted in ids or []:
        if wanted not in known:
            raise OpenTrnError(f"unknown claim {wanted!r}, known: {', '.join(known)}")
    return [check_claim(claim) for claim in CLAIMS if not ids or claim.id in ids]


def _best(model: str, hardware: str, chips: int, **options) -> Candidate:
    return plan(model, 1e9, [hardware], chips=chips, keep=1, **options).candidates[0]


def _said(c: Candidate) -> str:
    layout = c.found.layout if c.found else "measured efficiency"
    speed = f"{c.tokens_per_s:,.0f} tokens/s, {c.mfu:.0%} MFU"
    return f"{c.num_chips} x {c.hardware}: {speed}, {c.cost_usd:.2f} USD for 1e9 tokens ({layout})"


def _price_performance(ours: Candidate, theirs: Candidate) -> Derived:
    """How much cheaper a token is: cost there over cost here, over the published range of the GPU's efficiency."""
    low = theirs.cost_range_usd[0] / ours.cost_range_usd[1]
    high = theirs.cost_range_usd[1] / ours.cost_range_usd[0]
    prices = tuple(a for c in (ours, theirs) for a in c.assumptions if a.startswith("price"))
    return Derived(theirs.cost_usd / ours.cost_usd, low, high, (_said(ours), _said(theirs), *prices))


def _half_the_cost() -> Derived:
    ours = _best("llama2-7b", "trn1.32xlarge", 64, purchase="on_demand", batch_tokens=4 * 2**20)
    theirs = _best("llama2-7b", "p4d.24xlarge", 64, purchase="on_demand", batch_tokens=4 * 2**20)
    return _price_performance(ours, theirs)


def _bert_cost() -> Derived:
    ours = _best(
        "bert-large",
        "trn1.32xlarge",
        16,
        purchase="on_demand",
        seq_len=128,
        batch_tokens=65536 * 128,
        training_software="torch-neuronx",
        optimizer="lamb",
    )
    theirs = _best("bert-large", "p4d.24xlarge", 8, purchase="on_demand", seq_len=128, batch_tokens=65536 * 128)
    return _price_performance(ours, theirs)


def _trn2_price_performance() -> Derived:
    ours = _best("llama3-70b", "trn2.48xlarge", 512)
    theirs = _best("llama3-70b", "p5en.48xlarge", 512)
    return _price_performance(ours, theirs)


def _per_chip(model: str, newer: tuple[str, int], older: tuple[str, int], **options) -> Derived:
    new, old = _best(model, *newer, **options), _best(model, *older, **options)
    ratio = (new.tokens_per_s / new.num_chips) / (old.tokens_per_s / old.num_chips)
    return Derived(ratio, None, None, (_said(new), _said(old)))


def _trn2_over_trn1() -> Derived:
    trained = _per_chip("llama2-7b", ("trn2.48xlarge", 64), ("trn1.32xlarge", 64))
    return Derived(trained.ratio, None, None, (*trained.steps, _peaks(chip("trn2"), chip("trn1"))))


def _peaks(new: Chip, old: Chip) -> str:
    return (
        f"published peaks of a chip: bf16 {new.peak_bf16_tflops / old.peak_bf16_tflops:.2f}x, HBM bandwidth "
        f"{new.hbm_bandwidth_gb_per_s / old.hbm_bandwidth_gb_per_s:.2f}x, memory {new.hbm_gib / old.hbm_gib:.2f}x"
    )


def _rack_compute() -> Derived:
    new, old = rack("trn3-ultraserver"), rack("trn2-ultraserver")
    ratio = new.peak_mxfp8_tflops / old.peak_fp8_tflops
    per_chip = ratio * old.num_chips / new.num_chips
    return Derived(
        ratio,
        None,
        None,
        (
            f"dense FP8: {new.peak_mxfp8_tflops / 1e3:.0f} PF (MXFP8) over {old.peak_fp8_tflops / 1e3:.1f} PF",
            f"{new.num_chips / old.num_chips:.2f}x of it are the chips ({new.num_chips} for {old.num_chips}), "
            f"{per_chip:.2f}x a chip",
        ),
    )


def _rack_bandwidth() -> Derived:
    new, old = rack("trn3-ultraserver"), rack("trn2-ultraserver")
    ratio = new.device_bandwidth_gb_per_s / old.device_bandwidth_gb_per_s
    return Derived(
        ratio,
        None,
        None,
        (f"{new.device_bandwidth_gb_per_s / 1e3:.0f} TB/s over {old.device_bandwidth_gb_per_s / 1e3:.0f} TB/s",),
    )


def _rack_training() -> Derived:
    new = _best("llama3-70b", "trn3-ultraserver", 144, dtype="fp8")
    old = _best("llama3-70b", "trn2-ultraserver", 64, dtype="fp8")
    bf16_new, bf16_old = _best("llama3-70b", "trn3-ultraserver", 144), _best("llama3-70b", "trn2-ultraserver", 64)
    return Derived(
        new.tokens_per_s / old.tokens_per_s,
        None,
        None,
        (
            f"FP8 {_said(new)}",
            f"FP8 {_said(old)}",
            f"in bf16 the racks are {bf16_new.tokens_per_s / bf16_old.tokens_per_s:.2f}x apart, "
            f"{bf16_new.tokens_per_s / 144 / (bf16_old.tokens_per_s / 64):.2f}x a chip",
        ),
    )


def _per_watt(new: Chip | Gpu, old: Chip | Gpu, speed: float) -> Derived:
    """Speed ratio of a chip over the ratio of estimated power."""
    (new_w, _), (old_w, _) = chip_tdp(new), chip_tdp(old)
    return Derived(
        speed * old_w.value / new_w.value,
        speed * old_w.low / new_w.high,
        speed * old_w.high / new_w.low,
        (
            f"speed of a chip {speed:.2f}x",
            f"power estimated, none published: {new.title} {new_w.low:.0f} to {new_w.high:.0f} W, "
            f"{old.title} {old_w.low:.0f} to "
            f"{old_w.high:.0f} W",
        ),
    )


def _trn2_per_watt() -> Derived:
    trained = _per_chip("llama2-7b", ("trn2.48xlarge", 64), ("trn1.32xlarge", 64))
    derived = _per_watt(chip("trn2"), chip("trn1"), trained.ratio or 0.0)
    return Derived(derived.ratio, derived.low, derived.high, (*trained.steps, *derived.steps))


def _trn3_per_watt() -> Derived:
    trained = _per_chip("llama3-70b", ("trn3-ultraserver", 144), ("trn2-ultraserver", 64), dtype="fp8")
    derived = _per_watt(chip("trn3"), chip("trn2"), trained.ratio or 0.0)
    return Derived(derived.ratio, derived.low, derived.high, (*trained.steps, *derived.steps))


def _undisclosed(*steps: str) -> Callable[[], Derived]:
    return lambda: Derived(None, None, None, steps)


def _trn1_peak() -> Derived:
    ours, theirs = instance("trn1.32xlarge"), instance("p4d.24xlarge")
    mine, peer = 16 * chip("trn1").peak_bf16_tflops, 8 * gpu("a100-40gb").peak_bf16_tflops
    return Derived(mine / peer, None, None, (f"{ours.name} {mine:,.0f} over {theirs.name} {peer:,.0f} TFLOP/s bf16",))


def _trn4(figure: str) -> Callable[[], Derived]:
    def derive() -> Derived:
        new, old = chip("trn4"), chip("trn3")
        return Derived(
            new.get(figure) / old.get(figure),
            None,
            None,
            (
                f"{figure}: {new.get(figure):,.0f} over {old.get(figure):,.0f}; the Trainium4 file is projected from "
                "the "
                "announcement, so this only shows that it says what was announced",
            ),
        )

    return derive


def _trn4_training() -> Derived:
    new, old = (_best("llama3-70b", name, 144, dtype="fp8") for name in ("trn4-ultraserver", "trn3-ultraserver"))
    return Derived(
        new.tokens_per_s / old.tokens_per_s,
        None,
        None,
        (_said(new), _said(old), "engines other than the Tensor engine are projected unchanged: they hold back the 3x"),
    )


_DOCS = "AWS Neuron documentation and launch material"
_KEYNOTE = "AWS re:Invent 2025 keynote and summaries"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "trn1-half-cost",
        "Trn1 trains at up to 50 % lower cost than comparable GPU instances",
        "AWS, quoted by resellers",
        2.0,
        "Llama-2 7B pre-training at 4,096 tokens, 64 chips against 64 A100, on demand",
        _half_the_cost,
    ),
    Claim(
        "trn1-half-cost-bert",
        "Trn1 trains at up to 50 % lower cost than comparable GPU instances",
        "AWS, quoted by resellers",
        2.0,
        "BERT-large phase 1 at 128 tokens, one trn1.32xlarge against one p4d.24xlarge, on demand",
        _bert_cost,
    ),
    Claim("trn1-peak", "Trn1 has a 40 % higher peak than P4d", _DOCS, 1.4, "peak bf16 of an instance", _trn1_peak),
    Claim(
        "trn2-4x-trn1",
        "Trn2 is four times as fast as Trn1",
        "TechCrunch, December 2024",
        4.0,
        "Llama-2 7B pre-training at 4,096 tokens, a chip of 64",
        _trn2_over_trn1,
    ),
    Claim(
        "trn2-per-watt",
        "Trn2 is three times as energy efficient as Trn1",
        "press, December 2024",
        3.0,
        "Llama-2 7B pre-training at 4,096 tokens, a chip of 64",
        _trn2_per_watt,
    ),
    Claim(
        "trn2-price-performance",
        "Trn2 gives 30 to 40 % better price-performance than P5e and P5en",
        "AWS launch of Trn2",
        1.3,
        "Llama-3 70B pre-training at 8,192 tokens, 512 chips against 512 H200, capacity blocks",
        _trn2_price_performance,
    ),
    Claim(
        "trn3-rack-compute",
        "144 chips in a rack: 4.4x the compute of a Trn2 UltraServer",
        _KEYNOTE,
        4.4,
        "published FP8 peaks of the UltraServers",
        _rack_compute,
    ),
    Claim(
        "trn3-rack-bandwidth",
        "3.9x the memory bandwidth of a Trn2 UltraServer",
        _KEYNOTE,
        3.9,
        "published memory bandwidth of the UltraServers",
        _rack_bandwidth,
    ),
    Claim(
        "trn3-rack-training",
        "144 chips in a rack: 4.4x a Trn2 UltraServer, on a training job",
        _KEYNOTE,
        4.4,
        "Llama-3 70B pre-training at 8,192 tokens in FP8, one UltraServer each",
        _rack_training,
    ),
    Claim(
        "trn3-per-watt",
        "Trn3 is four times as energy efficient as Trn2 UltraServers",
        _KEYNOTE,
        4.0,
        "Llama-3 70B pre-training at 8,192 tokens in FP8, a chip",
        _trn3_per_watt,
    ),
    Claim(
        "trn3-chip-per-watt",
        "A Trn3 chip is 40 % more energy efficient than a Trn2 chip",
        _KEYNOTE,
        1.4,
        "Llama-3 70B pre-training at 8,192 tokens in FP8, a chip",
        _trn3_per_watt,
    ),
    Claim(
        "trn3-tokens-per-megawatt",
        "Trn3 serves five times the tokens of Trn2 for a megawatt",
        _KEYNOTE,
        5.0,
        "gpt-oss-120b at equal interactivity; batch, precision and power were not disclosed",
        _undisclosed("neither watts nor batch sizes nor number formats of the comparison were published"),
    ),
    Claim(
        "trn3-gpt-oss",
        "Trn3 gives three times the throughput of a chip on gpt-oss",
        _KEYNOTE,
        3.0,
        "undisclosed",
        _undisclosed(
            "it exceeds the ratio of both FP8 compute (1.94x) and bandwidth (1.69x) of a chip, so it contains a change "
            "of precision, batching or kernels that was not disclosed"
        ),
    ),
    Claim(
        "trn4-fp8",
        "Trainium4 has three times the FP8 compute of Trainium3",
        _KEYNOTE,
        3.0,
        "peak",
        _trn4("peak_mxfp8_tflops"),
    ),
    Claim(
        "trn4-fp4",
        "Trainium4 has six times the FP4 compute of Trainium3",
        _KEYNOTE,
        6.0,
        "peak",
        _trn4("peak_mxfp4_tflops"),
    ),
    Claim(
        "trn4-bandwidth",
        "Trainium4 has four times the memory bandwidth of Trainium3",
        _KEYNOTE,
        4.0,
        "peak",
        _trn4("hbm_bandwidth_gb_per_s"),
    ),
    Claim("trn4-memory", "Trainium4 has twice the memory of Trainium3", _KEYNOTE, 2.0, "capacity", _trn4("hbm_gib")),
    Claim(
        "trn4-training",
        "Trainium4's 3x FP8 compute, on a training job",
        _KEYNOTE,
        3.0,
        "Llama-3 70B pre-training at 8,192 tokens in FP8, 144 chips each",
        _trn4_training,
    ),
)
