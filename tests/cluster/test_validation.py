"""The model against published training speeds, and how rows of a table are read."""

import csv

import pytest

from opentrn.cluster.planning import LARGE_ERROR, TYPICAL_ERROR
from opentrn.cluster.reading import UnusableRow, read_measurement
from opentrn.cluster.validation import ROWS, Validation, compare, validate
from opentrn.errors import OpenTrnError


@pytest.fixture(scope="module")
def result() -> Validation:
    return validate()


def test_median_and_tail_of_the_errors_are_within_the_targets(result):
    assert result.quantile(0.5) <= 0.20
    assert result.quantile(0.9) <= 0.40


def test_the_errors_that_a_plan_quotes_are_those_of_the_comparison(result):
    assert result.median == pytest.approx(TYPICAL_ERROR, abs=0.015)
    assert result.p90 == pytest.approx(LARGE_ERROR, abs=0.015)


def test_rows_that_no_constant_was_fitted_to_are_within_the_targets_too(result):
    unseen = Validation(tuple(c for c in result.comparisons if not c.fitted), ())
    assert len(unseen.comparisons) > 100
    assert unseen.quantile(0.5) <= 0.20
    assert unseen.quantile(0.9) <= 0.40


def test_the_order_of_configurations_is_kept(result):
    assert result.order_preserved >= 0.9


def test_rows_come_worst_first(result):
    errors = [abs(c.error) for c in result.comparisons]
    assert errors == sorted(errors, reverse=True)


def test_every_row_has_a_source(result):
    with ROWS.open(newline="") as file:
        assert all(row["source"] and row["id"] for row in csv.DictReader(file))


ROW = {
    "id": "X1",
    "model": "Llama2-13B pre-training",
    "seq_len": "4096",
    "global_batch": "1024",
    "micro_batch": "1",
    "parallelism": "TP=8 DP=32 PP=4",
    "dtype": "Autocast:BF16+FP32Optimizer",
    "hardware": "trn1.32xlarge/trn1n.32xlarge",
    "nodes": "32",
    "chips": "512",
    "metric": "throughput",
    "value": "85",
    "unit": "seq/s",
    "software": "Neuron SDK 2.16.0",
    "notes": "",
}


def test_a_row_becomes_its_run():
    m = read_measurement(ROW)
    assert (m.job.model.name, m.job.seq_len, m.job.global_batch) == ("llama2-13b", 4096, 1024)
    assert (m.layout.dp, m.layout.tp, m.layout.pp, m.layout.micro_batch) == (32, 8, 4, 1)
    assert m.machine.num_ranks == 1024
    assert m.samples_per_s == 85


def test_the_data_parallel_degree_follows_from_the_ranks_where_a_table_states_that_of_a_node():
    assert read_measurement({**ROW, "parallelism": "TP=8 DP=4 PP=4"}).layout.dp == 32


@pytest.mark.parametrize(
    ("change", "samples_per_s"),
    [
        ({"value": "40960", "unit": "tokens/s"}, 10.0),
        ({"metric": "step time median", "value": "10.24", "unit": "s"}, 100.0),
        ({"metric": "step time", "value": "512", "unit": "ms"}, 2000.0),
    ],
)
def test_speeds_are_read_in_any_unit(change, samples_per_s):
    assert read_measurement({**ROW, **change}).samples_per_s == pytest.approx(samples_per_s)


def test_a_batch_in_tokens_and_ranks_in_prose_are_read():
    m = read_measurement(
        {
            **ROW,
            "model": "toy (3 layers, width 64, 4 heads x 16, 1 KV head, MLP 4x, vocab 100)",
            "seq_len": "1024",
            "global_batch": "131,072 tokens (k=2)",
            "micro_batch": "65,536 tokens (all 8 ranks)",
            "parallelism": "DP8 on one chip",
            "hardware": "trn2.3xlarge (1 Trainium2 chip, 8 ranks)",
            "chips": "1",
            "dtype": "bf16",
        }
    )
    assert (m.job.global_batch, m.layout.micro_batch, m.layout.dp, m.machine.cores_per_rank) == (128, 8, 8, 1)
    assert (m.job.model.num_layers, m.job.model.hidden, m.job.model.stacks[0].num_kv_heads) == (3, 64, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metric": "MFU (as published)", "unit": "%"}, "not a training speed"),
        ({"model": "a model of ours"}, "not in the catalogue"),
        ({"hardware": "Trainium"}, "names no instance type"),
        ({"global_batch": ""}, "global batch is not stated"),
        ({"parallelism": "TP=3"}, "does not fit"),
        ({"model": "Llama2-9B"}, "unknown model"),
        ({"chips": "many"}, "invalid literal"),
        ({"chips": "24"}, "no multiple"),
    ],
)
def test_a_row_that_says_too_little_says_why(change, reason):
    with pytest.raises(UnusableRow, match=reason):
        read_measurement({**ROW, **change})


def test_a_table_without_a_column_says_which():
    with pytest.raises(UnusableRow, match="no column 'value'"):
        read_measurement({key: text for key, text in ROW.items() if key != "value"})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("HuggingFace BERT-Large Ph2 pre-training", "bert-large"),
        ("Llama31-8B", "llama3-8b"),
        ("Llama-3.2-1B SFT", "llama3.2-1b"),
        ("Megatron-LM GPT3-6.7B pre-training", "gpt3-6.7b"),
        ("Mixtral 8x7B pre-training", "mixtral-8x7b"),
        ("Qwen3-30B-A3B full FT", "qwen3-30b-a3b"),
        ("Mistral-7B LoRA", "mistral-7b"),
        ("GPT-NeoX-20B", "gpt-neox-20b"),
    ],
)
def test_models_are_known_by_the_names_that_tables_use(text, name):
    assert read_measurement({**ROW, "model": text}).job.model.name == name


def test_unusable_rows_are_listed_and_not_hidden():
    found = compare([ROW, {**ROW, "id": "X2", "metric": "MFU", "unit": "%"}])
    assert [c.measurement.id for c in found.comparisons] == ["X1"]
    assert found.unusable[0][0] == "X2"


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(OpenTrnError, match="cannot read measurements from .*nowhere.csv"):
        validate(tmp_path / "nowhere.csv")
