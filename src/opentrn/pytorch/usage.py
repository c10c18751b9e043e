"""What device memory is used for: weights, gradients, optimizer state, and the activations that remain."""

from __future__ import annotations

import gc
import weakref
from typing import Any

__all__ = ["advice", "by_use", "watch_optimizer"]

_optimizers: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_optimizer(optimizer: Any) -> None:
    """Remember an optimizer, whose state counts as such."""
    _optimizers.add(optimizer)


def by_use(device: int | None = None) -> dict[str, int]:
    """Bytes allocated now: ``weights``, ``gradients``, ``optimizer_state``, ``activations`` (everything else). Looks
    at all live tensors."""
    from opentrn.pytorch import memory
    from opentrn.pytorch.tensor import NeuronTensor

    index = memory.current_device() if device is None else device
    seen: dict[int, str] = {}
    sizes: dict[int, int] = {}

    def claim(tensor: Any, use: str) -> None:
        if type(tensor) is NeuronTensor and tensor._buffer.device == index and tensor._buffer.id not in seen:
            seen[tensor._buffer.id] = use
            sizes[tensor._buffer.id] = tensor._buffer.num_bytes

    parameters = [t for t in gc.get_objects() if type(t) is NeuronTensor and getattr(t, "_is_param", False)]
    for p in parameters:
        claim(p, "weights")
    for p in parameters:
        claim(p.grad, "gradients")
    for optimizer in _optimizers:
        for state in optimizer.state.values():
            for entry in state.values() if isinstance(state, dict) else ():
                claim(entry, "optimizer_state")
    totals = {"weights": 0, "gradients": 0, "optimizer_state": 0}
    for key, use in seen.items():
        totals[use] += sizes[key]
    totals["activations"] = max(memory.device_memory(index).allocated_bytes - sum(totals.values()), 0)
    return totals


def advice(held: dict[str, float]) -> str:
    """What would make it fit, from what takes the most."""
    biggest = max(held, key=lambda k: held[k]) if held else "activations"
    return {
        "weights": "shard the weights over more cores (tensor parallel, FSDP) or hold them in bf16",
        "gradients": "shard the gradients (FSDP) or accumulate them in bf16",
        "optimizer_state": "shard the optimizer state (ZeRO-1, FSDP) or use an optimizer with less of it",
        "activations": "use a smaller batch or sequence, or recompute activations (torch.utils.checkpoint)",
    }[biggest]
