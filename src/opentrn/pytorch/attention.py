"""Scaled dot product attention as one operation of the device, forward and backward, instead of its pieces.

PyTorch would split it into matmuls and a softmax for a backend written in Python. On the chip it is a flash kernel,
so it is kept
whole: the values come from PyTorch's flash attention for the CPU (fp32 accumulation, as in PSUM), or from the plain
formula where
that one has no rule (dropout, a gradient of the bias).
"""

from __future__ import annotations

from typing import Any

import torch

from opentrn.pytorch import memory, recording

__all__ = ["backward", "forward", "scaled_dot_product_attention"]

aten = torch.ops.aten
_OVERRIDEABLE = aten._scaled_dot_product_fused_attention_overrideable


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``torch.nn.functional.scaled_dot_product_attention`` on the device; shapes (batch, heads, sequence, head
    size)."""
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    whole = (
        dropout_p == 0.0
        and query.dim() == 4
        and key.shape[-1] == value.shape[-1]
        and query.dtype == key.dtype == value.dtype
        and not (is_causal and attn_mask is not None)
        and not (attn_mask is not None and attn_mask.requires_grad)
    )
    if not whole:
        return aten._scaled_dot_product_attention_math(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)[
            0
        ]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    return _OVERRIDEABLE(query, key, value, attn_mask, 0.0, is_causal, False, scale=scale)[0]


def forward(func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple:
    """Output, log-sum-exp of each row, and placeholders for what other backends return."""
    from opentrn.pytorch.tensor import NeuronTensor, to_device

    query, key, value, bias, _, causal, *_ = (*args, *(None,) * 7)[:7]
    q, k, v = query._data, key._data, value._data
    scale = kwargs.get("scale")
    mask = None if bias is None else bias._data
    if q.is_meta:
        out, lse = torch.empty_like(q), torch.empty(q.shape[:3], dtype=torch.float32, device="meta")
    else:
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, bool(causal), attn_mask=mask, scale=scale
        )
    device = query._buffer.device
    out = to_device(out, device)
    rest = to_device(lse, device)
    # PyTorch's schema has places for the seeds of other backends.
    nothing = NeuronTensor(q.new_empty(0, dtype=torch.int64), memory.allocate(0, device))
    if out._value is not None:
        recording.record(func, args, kwargs, (out, rest))
    return out, rest, nothing, nothing, q.shape[2], k.shape[2], nothing, nothing, nothing


def backward(func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple:
    """Gradients of query, key and value."""
    from opentrn.pytorch.tensor import to_device

    grad, query, key, value, bias, _, out, lse, *_ = args
    causal = bool(args[13])
    mask = None if bias is None else bias._data
    if grad._data.is_meta:
        grads = [torch.empty_like(t._data) for t in (query, key, value)]
    else:
        grads = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad._data,
            query._data,
            key._data,
            value._data,
            out._data,
            lse._data,
            0.0,
            causal,
            attn_mask=mask,
            scale=kwargs.get("scale"),
        )
    made = tuple(to_device(g, query._buffer.device) for g in grads)
    if made[0]._value is not None:
        recording.record(func, args, kwargs, made)
    return (*made, None)
