"""Models by name: public transformer configurations, their parameters and their arithmetic.

A model is a list of stacks; a stack is a run of identical layers. The catalogue is `models.toml`; a user's own model is
a TOML file of the same shape, given by its path where a name is expected.
"""

import difflib
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from opentrn.errors import OpenTrnError

__all__ = ["Model", "Stack", "load_model", "model_names"]

_CATALOGUE = Path(__file__).with_name("models.toml")


@dataclass(frozen=True)
class Stack:
    """A run of identical transformer layers. Sizes are whole-model sizes, before any sharding.

    `fixed_tokens` is the number of tokens a sample brings to this stack whatever the job's sequence length is (image
    patches, audio frames); `tokens_fraction` scales the sequence length instead. `head_dim` is the width of query and
    key, `v_head_dim` that of value. With `num_experts`, `ffn_hidden` is the width of one expert.
    """

    num_layers: int
    hidden: int
    num_heads: int
    ffn_hidden: int
    num_kv_heads: int
    head_dim: int
    v_head_dim: int
    gated: bool = True
    norm: str = "rms"
    positions: str = "rope"
    causal: bool = True
    bias: bool = False
    activation: str = "silu"
    dropout: bool = False
    qk_norm: bool = False
    cross_attention: bool = False
    fixed_tokens: int = 0
    tokens_fraction: float = 1.0
    num_experts: int = 0
    experts_per_token: int = 0
    num_shared_experts: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    rope_head_dim: int = 0

    def seq_len(self, job_seq_len: int) -> int:
        """Tokens of one sample in this stack when the job's sequence length is `job_seq_len`."""
        return self.fixed_tokens or max(1, round(job_seq_len * self.tokens_fraction))

    @property
    def attention_parameters(self) -> int:
        """Weights of one attention block, without norms."""
        if self.kv_lora_rank:  # latent attention: low-rank query, compressed key/value plus one shared rotary key
            query = (
                self.hidden * self.q_lora_rank + self.q_lora_rank * self.num_heads * self.head_dim + self.q_lora_rank
            )
            latent = self.hidden * (self.kv_lora_rank + self.rope_head_dim) + self.kv_lora_rank
            expand = self.kv_lora_rank * self.num_heads * (self.head_dim - self.rope_head_dim + self.v_head_dim)
            return query + latent + expand + self.num_heads * self.v_head_dim * self.hidden
        q_width, kv_width = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        weights = 2 * self.hidden * q_width + 2 * self.hidden * kv_width
        biases = (q_width + 2 * kv_width + self.hidden) if self.bias else 0
        return weights + biases + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def expert_parameters(self) -> int:
        """Weights of one feed-forward block (one expert when there are several)."""
        matrices = 3 if self.gated else 2
        return matrices * self.hidden * self.ffn_hidden + ((self.ffn_hidden + self.hidden) if self.bias else 0)

    @property
    def final_norm_parameters(self) -> int:
        """Weights of the norm that closes a stack; a layer norm has a bias where the layer has biases."""
        return self.hidden * (2 if self.norm == "layer" and self.bias else 1)

    @property
    def norm_parameters(self) -> int:
        """Weights of the norms of one layer."""
        return self.final_norm_parameters * (3 if self.cross_attention else 2)

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer, all experts counted."""
        attention = self.attention_parameters * (2 if self.cross_attention else 1)
        if not self.num_experts:
            return attention + self.expert_parameters + self.norm_parameters
        router = self.hidden * self.num_experts
        experts = (self.num_experts + self.num_shared_experts) * self.expert_parameters
        return attention + experts + router + self.norm_parameters

    @property
    def active_layer_parameters(self) -> int:
        """Weights of one layer that one token passes through."""
        if not self.num_experts:
            return self.layer_parameters
        idle = self.num_experts - self.experts_per_token
        return self.layer_parameters - idle * self.expert_parameters


@dataclass(frozen=True)
class Model:
    """A named model: stacks in the order in which a sample passes them, token embeddings, and what lies outside."""

    name: str
    stacks: tuple[Stack, ...]
    vocab_size: int
    tied_embeddings: bool
    default_seq_len: int
    learned_positions: int = 0
    stem_parameters: int = 0
    published_parameters: float = 0.0
    source: str = ""

    @property
    def num_layers(self) -> int:
        return sum(stack.num_layers for stack in self.stacks)

    @property
    def hidden(self) -> int:
        """Width of the residual stream at the output."""
        return self.stacks[-1].hidden

    @property
    def embedding_parameters(self) -> int:
        """Token and learned position embeddings at the input."""
        return (self.vocab_size + self.learned_positions) * self.hidden

    @property
    def head_parameters(self) -> int:
        """Weights of the output projection that are not shared with the input embedding."""
        return 0 if self.tied_embeddings else self.vocab_size * self.hidden

    @property
    def num_parameters(self) -> int:
        """All weights, from the shapes."""
        layers = sum(stack.num_layers * stack.layer_parameters for stack in self.stacks)
        closing = [a for a, b in zip(self.stacks, self.stacks[1:], strict=False) if b.cross_attention or a.fixed_tokens]
        final_norms = sum(stack.final_norm_parameters for stack in (*closing, self.stacks[-1]))
        return layers + self.embedding_parameters + self.head_parameters + self.stem_parameters + final_norms

    @property
    def num_active_parameters(self) -> int:
        """Weights that one token passes through (equal to `num_parameters` without experts)."""
        idle = sum(s.num_layers * (s.layer_parameters - s.active_layer_parameters) for s in self.stacks)
        return self.num_parameters - idle

    def tokens_per_sample(self, seq_len: int) -> int:
        """Tokens counted for one sample: those of the last stack that follows the job's sequence length."""
        for stack in reversed(self.stacks):
            if not stack.fixed_tokens:
                return seq_len
        return self.stacks[-1].seq_len(seq_len)

    def flops_per_sample(self, seq_len: int) -> float:
        """Floating-point operations to train on one sample, forward and backward, recomputation not counted.

        6 x weights x tokens for the matrix products of each stack and the output projection, plus the attention
        products; a causal stack computes half the score matrix. This is the convention of model FLOPs (PaLM,
        arXiv:2204.02311 appendix B, with the causal half taken).
        """
        total, previous = 0.0, 0
        for stack in self.stacks:
            tokens = stack.seq_len(seq_len)
            matrices = stack.active_layer_parameters - stack.norm_parameters
            widths = stack.num_heads * (stack.head_dim + stack.v_head_dim)
            scores = 6.0 * widths * tokens * tokens * (0.5 if stack.causal else 1.0)
            if stack.cross_attention:
                scores += 6.0 * widths * tokens * previous
            total += stack.num_layers * (6.0 * matrices * tokens + scores)
            previous = tokens
        return total + 6.0 * self.vocab_size * self.hidden * self.stacks[-1].seq_len(seq_len)


def model_names() -> list[str]:
    """Names in the catalogue, without aliases."""
    return list(_tables()["models"])


def load_model(name: "str | Model") -> Model:
    """The model called `name` in the catalogue, or described by the TOML file whose path `name` is; a Model is itself.

    Raises OpenTrnError for an unknown name (with the nearest ones) and for a file that does not describe one model.
    """
    if isinstance(name, Model):
        return name
    if name.endswith(".toml"):
        return _load_file(Path(name))
    tables = _tables()
    wanted = name.strip().lower().replace("_", "-")
    for key, table in tables["models"].items():
        if wanted == key or wanted in table.get("aliases", []):
            return _build(key, table, tables["families"])
    known = list(tables["models"]) + [a for t in tables["models"].values() for a in t.get("aliases", [])]
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known models: {', '.join(tables['models'])}"
    raise OpenTrnError(f"unknown model {name!r}: {hint} A TOML file with a [models.NAME] table works too.")


def _load_file(path: Path) -> Model:
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise OpenTrnError(f"cannot read model file {path}: {error.strerror or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise OpenTrnError(f"model file {path} is not valid TOML: {error}") from None
    models = table.get("models", {})
    if len(models) != 1:
        raise OpenTrnError(f"model file {path} must hold exactly one [models.NAME] table, it holds {len(models)}")
    ((key, body),) = models.items()
    return _build(key, body, {**_tables()["families"], **table.get("families", {})})


@cache
def _tables() -> dict:
    with _CATALOGUE.open("rb") as file:
        return tomllib.load(file)


def _build(name: str, table: dict, families: dict) -> Model:
    """A Model from its table; a missing or unknown key is the user's slip and is named."""
    known = {field.name for field in fields(Stack)}
    stacks = []
    for given in table.get("stacks", []):
        family = given.get("family")
        if family is not None and family not in families:
            raise OpenTrnError(f"model {name!r}: unknown family {family!r}, known: {', '.join(families)}")
        traits = {**(families[family] if family else {}), **{k: v for k, v in given.items() if k != "family"}}
        if unknown := set(traits) - known:
            raise OpenTrnError(
                f"model {name!r}: unknown stack key {sorted(unknown)[0]!r}, known: {', '.join(sorted(known))}"
            )
        try:
            traits.setdefault("num_kv_heads", traits["num_heads"])
            traits.setdefault("head_dim", traits["hidden"] // traits["num_heads"])
            traits.setdefault("v_head_dim", traits["head_dim"])
            stacks.append(Stack(**traits))
        except (KeyError, TypeError) as error:
            raise OpenTrnError(
                f"model {name!r}: a stack needs num_layers, hidden, num_heads and ffn_hidden ({error})"
            ) from None
    if not stacks:
        raise OpenTrnError(f"model {name!r} has no stacks")
    allowed = {field.name for field in fields(Model)} - {"name", "stacks"}
    body = {key: value for key, value in table.items() if key in allowed}
    try:
        return Model(name=name, stacks=tuple(stacks), **body)
    except TypeError:
        missing = sorted({"vocab_size", "tied_embeddings", "default_seq_len"} - set(body))
        raise OpenTrnError(f"model {name!r} lacks {', '.join(missing)}") from None
