"""The catalogue's shapes give the parameters and FLOPs that the publishers state."""

import pytest

from opentrn.cluster.models import load_model, model_names
from opentrn.errors import OpenTrnError

# Papers and scripts state sizes in round numbers; checkpoints state them exactly.
ROUND = [name for name in model_names() if name.startswith("gpt3-") or name == "mpt-1b"]


@pytest.mark.parametrize("name", [name for name in model_names() if name not in ROUND])
def test_parameters_from_the_shape_are_those_of_the_checkpoint(name):
    model = load_model(name)
    assert model.num_parameters == pytest.approx(model.published_parameters, rel=3e-4)


@pytest.mark.parametrize("name", ROUND)
def test_parameters_from_the_shape_agree_with_rounded_sizes(name):
    model = load_model(name)
    assert model.num_parameters == pytest.approx(model.published_parameters, rel=0.025)


@pytest.mark.parametrize(
    ("name", "active_b"), [("mixtral-8x7b", 12.9), ("deepseek-v3", 37.0), ("qwen3-235b-a22b", 22.0)]
)
def test_active_parameters_are_those_the_publisher_names(name, active_b):
    assert load_model(name).num_active_parameters / 1e9 == pytest.approx(active_b, rel=0.03)


def test_flops_of_a_sequence_match_a_published_cost():
    # AWS's benchmark table lists 289 TFLOP for a GPT-3 23B sequence of 2,048 tokens.
    assert load_model("gpt3-23b").flops_per_sample(2048) / 1e12 == pytest.approx(289, rel=0.01)


def test_a_causal_model_counts_half_the_score_matrix():
    model = load_model("llama2-7b")
    short, long = model.flops_per_sample(1024), model.flops_per_sample(2048)
    # 6 P S is linear in S; what remains of f(2S) - 2 f(S) is the attention term 6 L H S^2 x (4 - 2).
    assert long - 2 * short == pytest.approx(2 * 6 * 32 * 4096 * 1024**2, rel=1e-9)


def test_an_unknown_model_names_what_is_near():
    with pytest.raises(OpenTrnError, match="did you mean llama3-70b"):
        load_model("lama3-70b")


def test_a_users_model_is_a_toml_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[models.mine]\nvocab_size = 100\ntied_embeddings = false\ndefault_seq_len = 64\n"
        'stacks = [{ family = "llama", num_layers = 2, hidden = 8, num_heads = 2, ffn_hidden = 16 }]\n'
    )
    # Two layers of 4 x 8 x 8 attention, 3 x 8 x 16 feed-forward and two norms; two embeddings and a final norm.
    assert load_model(str(path)).num_parameters == 2 * (4 * 64 + 3 * 128 + 16) + 2 * 800 + 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.a]\nvocab_size = 1\n", "no stacks"),
        ("vocab_size = 1\n", "exactly one"),
        ("[models.a\n", "not valid TOML"),
        ('[models.a]\nstacks = [{ family = "llama", num_layers = 1, hidden = 8, num_heads = 2, ffn = 3 }]\n', "'ffn'"),
        ('[models.a]\nstacks = [{ family = "lama", num_layers = 1 }]\n', "unknown family 'lama'"),
    ],
)
def test_a_broken_model_file_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(OpenTrnError, match=message):
        load_model(str(path))
