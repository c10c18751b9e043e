"""Device memory of a rank: weights, gradients, optimizer state, activations, logits, buffers.

Everything is computed for whole columns of layouts at once. The activation counts follow the tensors that backward
needs (Korthikanti et al., arXiv:2205.05198), written for any of the catalogue's stacks; a pipeline rank holds as many
micro-batches as its schedule keeps in flight.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from opentrn.cluster.candidates import LayoutTable
from opentrn.cluster.job import Job
from opentrn.cluster.layout import RECOMPUTE, SCHEDULES
from opentrn.cluster.models import Stack

__all__ = ["MemoryTable", "expert_parameters", "memory_table", "shared_parameters"]

GIB = 2.0**30


@dataclass(frozen=True)
class MemoryTable:
    """Bytes on the fullest rank, one entry a layout, by purpose."""

    weights: np.ndarray
    gradients: np.ndarray
    optimizer: np.ndarray
    activations: np.ndarray
    logits: np.ndarray
    buffers: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers

    def parts(self, index: int) -> dict[str, float]:
        """GiB by purpose for one layout."""
        return {
            name: float(getattr(self, name)[index]) / GIB
            for name in ("weights", "gradients", "optimizer", "activations", "logits", "buffers")
        }


def shared_parameters(stack: Stack, tp: Any) -> Any:
    """Weights of one layer that every expert-parallel rank holds, on one tensor-parallel rank.

    `tp` is a number or an array. Key and value projections with fewer heads than ranks are replicated, norms and
    routers always.
    """
    kv_share = 1.0 if stack.kv_lora_rank else np.minimum(tp, stack.num_kv_heads)
    if stack.kv_lora_rank:
        attention = stack.attention_parameters / tp
    else:
        kv = 2 * stack.hidden * stack.num_kv_heads * stack.head_dim
        attention = (stack.attention_parameters - kv) / tp + kv / kv_share
    if stack.cross_attention:
        attention = 2 * attention
    if stack.num_experts:
        dense = stack.num_shared_experts * stack.expert_parameters / tp + stack.hidden * stack.num_experts
    else:
        dense = stack.expert_parameters / tp
    return attention + dense + stack.norm_parameters


def expert_parameters(stack: Stack, tp: Any, ep: Any) -> Any:
    """Weights of one layer's routed experts on one rank; `tp` and `ep` are numbers or arrays."""
    return stack.num_experts * stack.expert_parameters / (tp * ep) + 0.0 * tp


def _saved_bytes_per_token(stack: Stack, job: Job, table: LayoutTable) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that backward needs of one token in one layer: (with the layout's recompute policy, without any)."""
    tp, sp, recompute = table.column("tp"), table.column("sp"), table.column("recompute")
    e = 4.0 if job.dtype == "fp32" else 2.0
    between = np.where(sp == 1, tp, 1)
    heads = np.maximum(1.0, stack.num_heads / tp)
    kv = (
        (stack.kv_lora_rank + stack.rope_head_dim)
        if stack.kv_lora_rank
        else (np.maximum(1.0, stack.num_kv_heads / tp) * (stack.head_dim + stack.v_head_dim))
    )
    stream = e * stack.hidden / between
    attention = e * heads * (stack.head_dim + stack.v_head_dim) + e * kv
    scores = np.zeros(len(table))
    if job.software.attention != "flash":
        per_score = e + ((1.0 + e) if stack.dropout else 0.0)
        scores = per_score * heads * stack.seq_len(job.seq_len)
    width = stack.ffn_hidden / tp
    matrices = 2.0 if stack.gated else 1.0
    if stack.num_experts:
        routed = stack.experts_per_token + stack.num_shared_experts
        activated = routed * e * width
        feed_forward = routed * (e * stack.hidden / between + e * matrices * width)
    else:
        activated = e * width
        feed_forward = e * matrices * width
    masks = (2.0 * stack.hidden / between) if stack.dropout else 0.0
    # Inputs of two norms, their outputs, and the inputs of the residual additions' branches.
    whole = 4.0 * stream + attention + scores + feed_forward + activated + masks
    if stack.cross_attention:
        whole = whole + 2.0 * stream + attention + scores
    # Selective recomputation drops scores, activated feed-forward values and norm outputs.
    selective = whole - scores - activated - 2.0 * stream
    kept = np.select(
        [recompute == RECOMPUTE.index("none"), recompute == RECOMPUTE.index("selective")], [whole, selective], stream
    )
    return kept, whole


def memory_table(job: Job, table: LayoutTable) -> MemoryTable:
    """Bytes on the fullest rank of each layout (the first stage holds most activations, the last the logits)."""
    dp, tp, pp, cp, ep, zero, mb, chunks = (
        table.column(a).astype(float) for a in ("dp", "tp", "pp", "cp", "ep", "zero", "micro_batch", "chunks")
    )
    schedule = table.column("schedule")
    num_micro = np.maximum(1.0, job.global_batch / (dp * mb))
    model = job.model
    layers_held = np.ceil(model.num_layers / (pp * chunks)) * chunks
    shared, experts = np.zeros(len(table)), np.zeros(len(table))
    kept, whole, largest_layer = np.zeros(len(table)), np.zeros(len(table)), np.zeros(len(table))
    # The fullest rank holds layers of the kind that is heaviest for it.
    for stack in model.stacks:
        layer_shared, layer_experts = shared_parameters(stack, tp), expert_parameters(stack, tp, ep)
        tokens = mb * stack.seq_len(job.seq_len) / cp
        token_kept, token_whole = _saved_bytes_per_token(stack, job, table)
        # Without a pipeline a rank holds every stack, with one the part of a stack that a stage can hold.
        held = np.where(pp == 1, stack.num_layers, np.minimum(layers_held, stack.num_layers))
        if len(model.stacks) > 1:
            held = np.where(pp == 1, held, layers_held * stack.num_layers / model.num_layers)
        shared += held * layer_shared
        experts += held * layer_experts
        kept += held * token_kept * tokens
        whole = np.maximum(whole, token_whole * tokens)
        largest_layer = np.maximum(largest_layer, layer_shared + layer_experts)

    embedding = (model.embedding_parameters + model.stem_parameters) / tp
    head = np.where(pp == 1, model.head_parameters / tp, 0.0)
    shared = shared + embedding + head
    replicas, expert_replicas = dp * cp, np.maximum(1.0, dp * cp / ep)
    lora = job.tuning == "lora"
    trained = _trained_fraction(job)

    def sharded(stage: int) -> np.ndarray:
        whole_weights = zero < stage
        return np.where(whole_weights, shared + experts, shared / replicas + experts / expert_replicas)

    element = 4.0 if job.dtype == "fp32" else 2.0
    weights = element * (shared + experts) if lora else element * sharded(3)
    gradients = job.software.grad_bytes * trained * sharded(2)
    optimizer = job.optimizer_bytes_per_parameter * trained * sharded(1)

    in_flight = np.minimum(num_micro, pp)
    interleaved = np.minimum(num_micro, pp * (1.0 + (pp - 1.0) / (pp * chunks)))
    in_flight = np.where(schedule == SCHEDULES.index("interleaved"), interleaved, in_flight)
    recomputed = np.where(table.column("recompute") > 0, whole, 0.0)
    activations = kept * in_flight + recomputed
    last: Stack = model.stacks[len(model.stacks) - 1]
    tokens = mb * last.seq_len(job.seq_len) / cp
    logits = tokens * model.vocab_size / tp * (element + 4.0)
    gathered = np.where(zero >= 3, 2.0 * element * largest_layer, 0.0)
    buffers = gathered + job.software.runtime_reserve_gib * GIB
    return MemoryTable(weights, gradients, optimizer, activations, logits, buffers + 0.0 * tp)


def _trained_fraction(job: Job) -> float:
    """Part of the weights that have gradients and optimizer state: all, or adapters of `lora_rank` on every matrix."""
    if job.tuning == "full":
        return 1.0
    adapters = 0.0
    for stack in job.model.stacks:
        q, kv = stack.num_heads * stack.head_dim, stack.num_kv_heads * stack.head_dim
        sides = (
            (stack.hidden + q) * 2
            + (stack.hidden + kv) * 2
            + (stack.hidden + stack.ffn_hidden) * (3 if stack.gated else 2)
        )
        adapters += stack.num_layers * job.lora_rank * sides
    return adapters / job.model.num_parameters
