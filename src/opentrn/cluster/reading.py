"""Published training measurements as jobs: how a row of a benchmark table becomes a job, a machine and a layout.

Tables describe a run in prose ("TP=8 DP=32 PP=4", "[32xNC(DP)] x 16Nodes(DP)", "65,536 tokens (k=1)"). The rules are
general and read only the row; where a row leaves something open, the reading is recorded in `Measurement.readings`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from opentrn.cluster.job import Job, software
from opentrn.cluster.layout import Layout
from opentrn.cluster.machines import Machine, machine
from opentrn.cluster.models import Model, Stack, load_model, model_names
from opentrn.errors import OpenTrnError

__all__ = ["Measurement", "UnusableRow", "read_measurement"]


class UnusableRow(OpenTrnError):
    """A row that does not say enough to be predicted."""


@dataclass(frozen=True)
class Measurement:
    """One measured training speed with the run that produced it. `samples_per_s` is of the whole job."""

    id: str
    job: Job
    machine: Machine
    layout: Layout
    samples_per_s: float
    label: str
    readings: tuple[str, ...]


_MODELS = (
    (r"bert[- ]?large", "bert-large"),
    (r"bert[- ]?base", "bert-base"),
    (r"roberta[- ]?large", "roberta-large"),
    (r"vit[- ]?base", "vit-base"),
    (r"clip[- ]?base", "clip-base"),
    (r"tinyllama", "tinyllama-1.1b"),
    (r"gpt-?neox[- ]?20b", "gpt-neox-20b"),
    (r"(gpt-?neox|pythia)[- ]?6\.9b", "pythia-6.9b"),
    (r"t5[- ]?3b", "t5-3b"),
    (r"t5[- ]?11b", "t5-11b"),
    (r"t5[- ]?large", "t5-large"),
    (r"t5[- ]?base", "t5-base"),
)


def _model(text: str) -> Model:
    lower = text.lower()
    for pattern, name in _MODELS:
        if re.search(pattern, lower):
            return load_model(name)
    if match := re.search(r"gpt-?3[- ]?([\d.]+b)", lower):
        return load_model(f"gpt3-{match[1]}")
    if match := re.search(r"llama[- ]?(\d)(?:\.?(\d))?[- ]?(\d+(?:\.\d+)?b)", lower):
        family = f"llama{match[1]}.{match[2]}" if match[2] == "2" and match[1] == "3" else f"llama{match[1]}"
        return load_model(f"{family}-{match[3]}")
    if match := re.search(r"qwen3[- ]?([\d.]+b(?:-a\d+b)?)", lower):
        return load_model(f"qwen3-{match[1]}")
    if match := re.search(r"gpt2(-\w+)?", lower):
        return load_model(match[0])
    if described := _described(text):
        return described
    compact = lower.replace(" ", "-").replace("_", "-")
    if named := [name for name in model_names() if name in compact]:
        return load_model(max(named, key=len))
    raise UnusableRow(f"model {text!r} is not in the catalogue")


def _described(text: str) -> Model | None:
    """A decoder spelled out: "(9 layers, width 1024, 4 heads x 256, 1 KV head, MLP 4x, vocab 8192)"."""
    patterns = (r"(\d+) layers", r"width (\d+)", r"(\d+) heads x (\d+)", r"MLP (\d+)x", r"vocab (\d+)")
    found = [match for p in patterns if (match := re.search(p, text))]
    if len(found) < len(patterns):
        return None
    layers, width, heads, mlp, vocab = found
    kv = re.search(r"(\d+) KV head", text)
    hidden, num_heads, head_dim = int(width[1]), int(heads[1]), int(heads[2])
    stack = Stack(
        num_layers=int(layers[1]),
        hidden=hidden,
        num_heads=num_heads,
        ffn_hidden=hidden * int(mlp[1]),
        num_kv_heads=int(kv[1]) if kv else num_heads,
        head_dim=head_dim,
        v_head_dim=head_dim,
        gated=False,
        activation="relu",
    )
    return Model(text.split("(")[0].strip(), (stack,), int(vocab[1]), False, 1024)


def _number(text: str) -> float | None:
    match = re.search(r"\d[\d,]*(?:\.\d+)?", text)
    return float(match[0].replace(",", "")) if match else None


def _in_samples(text: str, seq_len: int) -> float | None:
    value = _number(text)
    if value is None:
        return None
    return value / seq_len if "token" in text else value


def _axes(text: str) -> tuple[int, int]:
    """(tp, pp) of a parallelism cell."""

    def degree(axis: str) -> int:
        for pattern in (rf"\b{axis}\s*=?\s*(\d+)", rf"(\d+)\s*x?\s*(?:NC)?\({axis}\)"):
            if match := re.search(pattern, text):
                return int(match[1])
        return 1

    return degree("TP"), degree("PP")


def _software_name(row: Mapping[str, str], tp: int) -> str:
    text = row["software"].lower()
    if "optimum" in text:
        return "optimum-neuron"
    if "torch.compile" in text:
        return "torch-compile"
    if tp == 1:
        return "torch-neuronx"
    # The tables name the optimizer's precision only for runs of NeuronX Distributed; runs with stochastic rounding and
    # model parallelism are NeMo Megatron's.
    return (
        "neuronx-distributed"
        if "fp32optimizer" in row["dtype"].lower() or "+SR" not in row["dtype"]
        else "neuronx-nemo-megatron"
    )


def _speed(row: Mapping[str, str], seq_len: int, global_batch: int, tokens: int) -> float:
    value, unit, metric = float(row["value"].replace(",", "")), row["unit"], row["metric"].lower()
    if metric.startswith("throughput"):
        if unit in ("seq/s", "samples/s", "sequences/s", "images/s"):
            return value
        if unit in ("tokens/s", "tok/s"):
            return value / tokens
    if metric.startswith("step time") and "change" not in metric:
        seconds = {"s": 1.0, "ms": 1e-3, "us": 1e-6}.get(unit)
        if seconds:
            return global_batch / (value * seconds)
    raise UnusableRow(f"metric {row['metric']!r} in {unit!r} is not a training speed")


def read_measurement(row: Mapping[str, str]) -> Measurement:
    """The run behind one row with the columns of `validation/training.csv`.

    Raises UnusableRow when the row does not name a model of the catalogue, a batch or a speed, or describes a run that
    the hardware it names cannot hold.
    """
    try:
        return _read(row)
    except UnusableRow:
        raise
    except KeyError as missing:
        raise UnusableRow(f"the table has no column {missing}") from None
    except (OpenTrnError, ValueError) as reason:
        raise UnusableRow(str(reason)) from None


def _read(row: Mapping[str, str]) -> Measurement:
    readings: list[str] = []
    model = _model(row["model"])
    if row["seq_len"]:
        seq_len = int(float(row["seq_len"]))
    else:
        seq_len = model.default_seq_len
        if any(not stack.fixed_tokens for stack in model.stacks):
            readings.append(f"sequence length not stated, {seq_len} taken")
    hardware = re.search(r"(trn\d\w*|inf\d)\.\w+", row["hardware"])
    if not hardware:
        raise UnusableRow(f"hardware {row['hardware']!r} names no instance type")
    if "/" in row["hardware"]:
        readings.append(f"{row['hardware']} not told apart, {hardware[0]} taken")
    chips = int(row["chips"])
    ranks = re.search(r"(\d+) ranks", row["hardware"])
    lnc = re.search(r"LNC\s*=?\s*(\d)", row["parallelism"])
    unit = machine(hardware[0], chips)
    logical = int(lnc[1]) if lnc else None
    if ranks:
        logical = unit.chip.num_cores * chips // int(ranks[1])
    tp, pp = _axes(row["parallelism"])
    unit = machine(hardware[0], chips, logical)
    if tp * pp > unit.num_ranks or unit.num_ranks % (tp * pp):
        raise UnusableRow(f"tp{tp} x pp{pp} does not fit {unit.num_ranks} ranks")
    dp = unit.num_ranks // (tp * pp)

    micro = _in_samples(row["micro_batch"], seq_len)
    if micro is None:
        if row["parallelism"].startswith("one core") or not row["global_batch"]:
            raise UnusableRow("neither micro-batch nor global batch is stated")
        micro = 1.0
        readings.append("micro-batch not stated, 1 taken")
    elif "all" in row["micro_batch"]:
        micro = micro / dp
    micro_batch = max(1, round(micro))
    total = _in_samples(row["global_batch"], seq_len)
    if total is None:
        raise UnusableRow("the global batch is not stated")
    global_batch = max(1, round(total / (dp * micro_batch))) * dp * micro_batch
    if global_batch != total:
        readings.append(f"global batch {total:g} rounded to {global_batch}")

    program = software(_software_name(row, tp))
    notes = row["notes"].lower()
    optimizer = "lamb" if "lamb" in notes else "muon" if "muon" in row["software"].lower() else "adamw"
    low_precision = any(word in row["dtype"].lower() for word in ("bf16", "amp", "fp8", "fp16"))
    dtype = "bf16" if low_precision or not row["dtype"] else "fp32"
    job = Job(
        model, seq_len, global_batch, program, dtype, optimizer, "lora" if "lora" in row["model"].lower() else "full"
    )
    layout = Layout(
        dp=dp, tp=tp, pp=pp, sp=tp > 1, zero=program.zero, micro_batch=micro_batch, recompute=program.recompute
    )
    speed = _speed(row, seq_len, global_batch, model.tokens_per_sample(seq_len))
    label = f"{row['model']}, {hardware[0]} x {unit.num_nodes}, {layout}, {row['software']}"
    return Measurement(row["id"], job, unit, layout, speed, label, tuple(readings))
