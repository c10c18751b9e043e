"""Which operations ``torch.autocast("neuron")`` runs in bf16 and which in fp32; the lists of PyTorch's CUDA autocast.

PyTorch has no Python interface for a backend's autocast rules, so each rule is an implementation under the backend's
autocast key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["register"]

# Matmuls and convolutions: the Tensor engine runs them in bf16 at full rate and accumulates in fp32.
_LOWER = [
    "linear",
    "matmul",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
    "addbmm",
    "addmv",
    "addr",
    "mv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d.input",
    "conv_transpose3d.input",
    "_convolution",
    "convolution",
    "scaled_dot_product_attention",
    "einsum",
    "prelu",
    "chain_matmul",
    "linalg_multi_dot",
    "lstm_cell",
    "gru_cell",
    "rnn_tanh_cell",
    "rnn_relu_cell",
]
# Operations whose result in bf16 would be wrong: exponentials, sums over many elements, losses.
_FP32 = [
    "__rpow__",
    "acos",
    "asin",
    "cosh",
    "erfinv",
    "exp",
    "expm1",
    "log",
    "log10",
    "log2",
    "log1p",
    "reciprocal",
    "rsqrt",
    "sinh",
    "tan",
    "pow.Tensor_Scalar",
    "pow.Tensor_Tensor",
    "pow.Scalar",
    "softplus",
    "layer_norm",
    "native_layer_norm",
    "group_norm",
    "norm.Scalar",
    "norm.ScalarOpt_dim",
    "nuclear_norm",
    "cosine_similarity",
    "cosine_embedding_loss",
    "nll_loss",
    "nll_loss2d",
    "hinge_embedding_loss",
    "kl_div",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "mse_loss",
    "margin_ranking_loss",
    "multilabel_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "multi_margin_loss",
    "binary_cross_entropy_with_logits",
    "dist",
    "pdist",
    "cdist",
    "renorm",
    "logsumexp",
    "cross_entropy_loss",
]
_FP32_OUT = ("softmax.int", "log_softmax.int", "cumprod", "cumsum", "prod", "prod.dim_int", "sum", "sum.dim_IntList")
_WIDEST = ("addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "index_put", "tensordot", "scatter_add", "vdot")

_registered: list[torch.library.Library] = []
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def _rule(
    op: Any, keys: Any, convert: Callable[[tuple, dict[str, Any]], tuple[tuple, dict[str, Any]]]
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):  # type: ignore[attr-defined]
            cast_args, cast_kwargs = convert(args, kwargs)
            return op(*cast_args, **cast_kwargs)

    return run


def _cast(x: Any, dtype: torch.dtype) -> Any:
    if isinstance(x, torch.Tensor):
        return x.to(dtype) if x.dtype in _FLOATS and x.dtype != dtype and x.device.type == "neuron" else x
    if isinstance(x, (list, tuple)):
        return type(x)(_cast(v, dtype) for v in x)
    return x


def _to(dtype: Callable[[], torch.dtype]) -> Callable[[tuple, dict[str, Any]], tuple[tuple, dict[str, Any]]]:
    def convert(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        target = dtype()
        return tuple(_cast(a, target) for a in args), {k: _cast(v, target) for k, v in kwargs.items()}

    return convert


def _fp32_result(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Ask for an fp32 result unless the caller asked for a type; 'softmax(x, dim, dtype)' takes it by position too."""
    first = args[0] if args else None
    if isinstance(first, torch.Tensor) and first.dtype in _FLOATS and kwargs.get("dtype") is None:
        return tuple(_cast(a, torch.float32) for a in args), kwargs
    return args, kwargs


def _widest(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    found = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor) and a.dtype in _FLOATS]
    if not any(t.dtype == torch.float32 for t in found):
        return args, kwargs
    return _to(lambda: torch.float32)(args, kwargs)


def _overload(name: str) -> Any:
    base, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, base, None)
    return None if packet is None else getattr(packet, overload or "default", None)


def register() -> None:
    """Install the rules for the device's autocast key; everything else falls through."""
    key = "AutocastPrivateUse1"
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))
    others = torch.library.Library("_", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, key)
    rules = torch.library.Library("aten", "IMPL", key)
    _registered.extend((others, rules))
    lower = _to(lambda: torch.get_autocast_dtype("neuron"))
    for names, convert in (
        (_LOWER, lower),
        (_FP32, _to(lambda: torch.float32)),
        (_FP32_OUT, _fp32_result),
        (_WIDEST, _widest),
    ):
        for name in names:
            op = _overload(name)
            if op is not None:
                rules.impl(name, _rule(op, keys, convert), key)
