"""The model and the batch of a user's training script, found by running it up to its first backward pass without data.

The script runs under PyTorch's fake tensors, so a model of any size is built in no memory; distributed wrappers do nothing,
since the plan chooses the layout itself. What its linear layers, embeddings and attention calls were given tells the shape of the
transformer. The count of parameters derived from that shape is held against the script's own: a model that this does not
describe is refused, not guessed.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from opentrn.cluster.models import Model, Stack
from opentrn.errors import OpenTrnError

__all__ = ["Captured", "capture"]

_TOLERANCE = 0.05


@dataclass(frozen=True)
class Captured:
    """What a script trains: the model, tokens of a sample, samples of the batch it was stopped in."""

    model: Model
    seq_len: int
    batch: int


class _Stop(BaseException):
    """Unwinds the script when it asks for gradients."""


@dataclass
class _Seen:
    """What the forward pass did."""

    model: Any = None
    tokens: tuple[int, ...] = ()
    linears: dict[str, tuple[int, int]] = field(default_factory=dict)
    attention: Counter = field(default_factory=Counter)


def capture(script: str, arguments: Sequence[str] = ()) -> Captured:
    """Run ``script`` to its first backward pass and describe what it trains.

    Raises:
        OpenTrnError: the script asks for no gradients, or its model is no transformer of the kinds that a plan knows.
    """
    try:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError:
        raise OpenTrnError("--script needs PyTorch; install it with pip install 'opentrn[torch]'") from None
    from opentrn import pytorch
    from opentrn.cli.run import check, prepare

    check(script)
    pytorch.enable()
    code = prepare(script, arguments, None)
    seen = _Seen()
    main = ModuleType("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__)
    before = sys.modules["__main__"]
    sys.modules["__main__"] = main
    try:
        with _watched(torch, seen), FakeTensorMode(allow_non_fake_inputs=True), _on_host(torch):
            exec(code, main.__dict__)  # noqa: S102
    except _Stop:
        pass
    except OpenTrnError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise OpenTrnError(
            f"{script} stopped before its first backward pass: {type(error).__name__}: {reason}; without data it must not look at values"
        ) from error
    finally:
        sys.modules["__main__"] = before
    if seen.model is None:
        raise OpenTrnError(f"{script} ran to its end without asking for gradients; a plan needs a training script")
    return _described(seen, Path(script).stem)


@contextlib.contextmanager
def _watched(torch: Any, seen: _Seen) -> Iterator[None]:
    """Note what the forward pass does, stop at the backward pass, and make distribution a formality."""
    from torch import distributed, nn
    from torch.nn.modules import module as modules

    names: dict[int, str] = {}
    depth = 0
    roots: list[Any] = []

    def stop() -> None:
        if roots:
            seen.model = max(roots, key=lambda m: sum(p.numel() for p in m.parameters()))
        raise _Stop

    def entering(module: Any, inputs: tuple) -> None:
        nonlocal depth
        if depth == 0 and module not in roots:
            roots.append(module)
            names.update({id(m): n for n, m in module.named_modules()})
        depth += 1
        if isinstance(module, nn.Embedding) and inputs and not seen.tokens:
            seen.tokens = tuple(inputs[0].shape)
        if isinstance(module, nn.Linear):
            seen.linears[names.get(id(module), "")] = (module.in_features, module.out_features)

    def leaving(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    plain_attention = torch.nn.functional.scaled_dot_product_attention

    def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        causal = (
            kwargs.get("is_causal") or (len(args) > 2 and args[2]) or kwargs.get("attn_mask") is not None or bool(args)
        )
        seen.attention[
            query.shape[-3], key.shape[-3], query.shape[-1], value.shape[-1], query.shape[-2], bool(causal)
        ] += 1
        return plain_attention(query, key, value, *args, **kwargs)

    replaced: list[tuple[Any, str, Any]] = [
        (torch.Tensor, "backward", lambda *a, **k: stop()), (torch.autograd, "backward", lambda *a, **k: stop()), (torch.autograd, "grad", lambda *a, **k: stop()),
        (torch.nn.functional, "scaled_dot_product_attention", attention),
        (nn.parallel, "DistributedDataParallel", lambda module, *a, **k: module),
        (nn.Module, "_apply", _replaced_parameters),
        (torch, "compile", lambda model=None, *a, **k: model if model is not None else (lambda m: m)),
    ]  # fmt: skip
    if distributed.is_available():
        replaced += [
            (distributed, "init_process_group", lambda *a, **k: None), (distributed, "get_rank", lambda *a, **k: 0),
            (distributed, "get_world_size", lambda *a, **k: 1), (distributed, "barrier", lambda *a, **k: None),
            (distributed, "is_initialized", lambda: False), (distributed, "destroy_process_group", lambda *a, **k: None),
        ]  # fmt: skip
    handles = [
        modules.register_module_forward_pre_hook(entering),
        modules.register_module_forward_hook(leaving, always_call=True),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in originals:
            setattr(owner, name, value)
        for handle in handles:
            handle.remove()


def _replaced_parameters(module: Any, fn: Any, recurse: bool = True, made: dict[int, Any] | None = None) -> Any:
    """``Module._apply`` with new parameters in place of the old, since fake ones cannot be changed in place; ties are kept."""
    from torch import nn

    made = {} if made is None else made
    for child in module.children() if recurse else ():
        _replaced_parameters(child, fn, True, made)
    for name, old in module._parameters.items():
        if old is not None:
            if id(old) not in made:
                made[id(old)] = nn.Parameter(fn(old.detach()), requires_grad=old.requires_grad)
            module._parameters[name] = made[id(old)]
    for name, old in module._buffers.items():
        if old is not None:
            module._buffers[name] = fn(old)
    return module


def _on_host(torch: Any) -> Any:
    """Everything meant for an accelerator stays on the host: only shapes matter here."""
    from torch.overrides import TorchFunctionMode

    class OnHost(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            return func(*[_moved(torch, a) for a in args], **{k: _moved(torch, v) for k, v in (kwargs or {}).items()})

    return OnHost()


def _moved(torch: Any, value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type in ("neuron", "cuda") else value
    if isinstance(value, str) and value.split(":")[0] in ("neuron", "cuda"):
        return "cpu"
    return value


def _described(seen: _Seen, name: str) -> Captured:
    """The Model whose shapes the forward pass showed."""
    layers: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for path, shape in seen.linears.items():
        found = re.match(r"(.*?)\.(\d+)\.(.*)", f".{path}")
        if found:
            layers[f"{found[1]}.{found[2]}"][found[3]] = shape
    # The layers of a model are the run of numbered modules that hold the same linear layers.
    runs = Counter((key.rsplit(".", 1)[0], tuple(sorted(shapes.items()))) for key, shapes in layers.items())
    if not runs or not seen.attention:
        raise _unlike(
            name,
            "it has no repeated layers of attention and linear layers (scaled_dot_product_attention is what is looked for)",
        )
    (_, shapes), num_layers = runs.most_common(1)[0]
    (heads, key_heads, head_dim, value_dim, length, causal), _ = seen.attention.most_common(1)[0]
    linears = dict(shapes)
    embedding = _embedding(seen.model)
    vocab_size, hidden = embedding.num_embeddings, embedding.embedding_dim
    config = getattr(seen.model, "config", None)
    experts = int(getattr(config, "num_local_experts", getattr(config, "num_experts", 0)) or 0)
    q_width = heads * head_dim
    key_heads = _key_heads(linears, hidden, heads, key_heads, head_dim)
    ffn, gated = _feed_forward(linears, hidden, q_width, key_heads * head_dim)
    if not ffn and experts:
        ffn, gated = int(getattr(config, "moe_intermediate_size", 0) or getattr(config, "intermediate_size", 0)), True
    if not ffn:
        raise _unlike(name, "its layers hold no pair of linear layers that widen and narrow again")
    parameters = dict(seen.model.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    bias = any(n.endswith("bias") and ".norm" not in n and "ln" not in n for n in parameters)
    layer_norm = any(
        "LayerNorm" in type(m).__name__ and getattr(m, "bias", None) is not None for m in seen.model.modules()
    )
    head = next((m for n, m in seen.model.named_modules() if n and getattr(m, "out_features", 0) == vocab_size), None)
    tied = head is None or head.weight is embedding.weight
    positions = [m for m in seen.model.modules() if type(m).__name__.endswith("Embedding") and m is not embedding
                 and getattr(m, "embedding_dim", 0) == hidden]  # fmt: skip
    stack = Stack(
        num_layers=num_layers, hidden=hidden, num_heads=heads, ffn_hidden=ffn, num_kv_heads=key_heads, head_dim=head_dim,
        v_head_dim=value_dim, gated=gated, norm="layer" if layer_norm else "rms", positions="learned" if positions else "rope",
        causal=causal, bias=bias, activation="silu" if gated else "gelu",
        dropout=any(type(m).__name__ == "Dropout" and m.p > 0 for m in seen.model.modules()), num_experts=experts,
        experts_per_token=int(getattr(config, "num_experts_per_tok", 0) or 0) if experts else 0,
    )  # fmt: skip
    model = Model(
        name=name, stacks=(stack,), vocab_size=vocab_size, tied_embeddings=tied, default_seq_len=length,
        learned_positions=sum(m.num_embeddings for m in positions), published_parameters=float(total), source="captured from the script",
    )  # fmt: skip
    if abs(model.num_parameters / total - 1) > _TOLERANCE:
        raise _unlike(name, f"read as {num_layers} layers of width {hidden} it would have {model.num_parameters / 1e6:,.1f} million parameters, "
                      f"but it has {total / 1e6:,.1f} million")  # fmt: skip
    batch = seen.tokens[0] if len(seen.tokens) > 1 else 1
    return Captured(model, length, batch)


def _unlike(name: str, why: str) -> OpenTrnError:
    return OpenTrnError(
        f"the model of {name} is not a transformer that a plan knows: {why}; describe it in a TOML file and give that to --model"
    )


def _embedding(model: Any) -> Any:
    tables = [m for m in model.modules() if type(m).__name__.endswith("Embedding") and hasattr(m, "num_embeddings")]
    if not tables:
        raise _unlike(type(model).__name__, "it has no token embedding")
    return max(tables, key=lambda m: m.num_embeddings)


def _key_heads(linears: dict[str, tuple[int, int]], hidden: int, heads: int, shown: int, head_dim: int) -> int:
    """Key/value heads: attention calls may see them repeated, the projections tell."""
    if shown != heads:
        return shown
    widths = [out for width, out in linears.values() if width == hidden]
    narrow = [w for w in widths if w < heads * head_dim and w % head_dim == 0 and widths.count(w) >= 2]
    return narrow[0] // head_dim if narrow else heads


def _feed_forward(linears: dict[str, tuple[int, int]], hidden: int, q_width: int, kv_width: int) -> tuple[int, bool]:
    """(width, gated) of the feed-forward block: what the layer narrows from again, attention's output apart."""
    back = Counter(width for width, out in linears.values() if out == hidden)
    if back.get(q_width):
        back[q_width] -= 1  # the output projection of attention
    wide = [w for w, n in back.items() if n > 0 and w != kv_width]
    if not wide:
        return 0, False
    width = max(wide)
    into = [out for given, out in linears.values() if given == hidden]
    fused = 2 * width in into
    return width, fused or into.count(width) > (1 + (1 if width == q_width else 0))
