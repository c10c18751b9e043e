"""One transformer layer as operators: what each engine of a core has to do, by shape.

The counts are algebra, not measurements: matrix products by their dimensions, element passes of the Vector and Scalar
engines, and bytes that must cross HBM. How long they take is somebody else's question (`operator_times`).
"""

import math
from dataclasses import dataclass, replace

from opentrn.cluster.models import Model, Stack

__all__ = [
    "Gemm",
    "Operator",
    "Sharding",
    "attention_operator",
    "head_operators",
    "layer_operators",
    "optimizer_operator",
]


@dataclass(frozen=True)
class Gemm:
    """`count` products of an (m, k) by a (k, n) matrix."""

    m: float
    k: float
    n: float
    count: float = 1.0

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.k * self.n * self.count

    def input_gradient(self) -> "Gemm":
        return replace(self, k=self.n, n=self.k)

    def weight_gradient(self) -> "Gemm":
        return replace(self, m=self.k, k=self.m)


@dataclass(frozen=True)
class Operator:
    """Work of one operator on one rank for one micro-batch.

    `psum_elements` are element passes that read PSUM (evictions), `sbuf_elements` passes between SBUF tensors, both on
    the Vector engine; `scalar_elements` passes on the Scalar engine. `hbm_bytes` counts reads and writes. `trains`
    says whether backward also computes a gradient for a weight matrix.
    """

    name: str
    gemms: tuple[Gemm, ...] = ()
    psum_elements: float = 0.0
    sbuf_elements: float = 0.0
    scalar_elements: float = 0.0
    hbm_bytes: float = 0.0
    trains: bool = False
    is_attention: bool = False

    @property
    def flops(self) -> float:
        return sum(gemm.flops for gemm in self.gemms)


@dataclass(frozen=True)
class Sharding:
    """The part of a micro-batch that one rank works on.

    `micro_batch` samples of `seq_len` tokens; `tp` splits heads and feed-forward width, `cp` the tokens of a sample,
    `ep` the experts; with `sp` the token-wise work between the split matrices is split over `tp` too.
    `attention` is "flash" (tiles of the score matrix stay on chip) or "materialised" (scores go through HBM and the
    masked half is computed). `element_bytes` is the width of an activation; `quantised` products take 8-bit operands.
    """

    micro_batch: int
    seq_len: int
    tp: int = 1
    cp: int = 1
    ep: int = 1
    sp: bool = True
    attention: str = "flash"
    element_bytes: int = 2
    frozen_weights: bool = False
    expert_imbalance: float = 1.0
    quantised: bool = False

    def tokens(self, stack: Stack) -> float:
        """Tokens of a micro-batch on one rank as the core sees them.

        A sample's tokens lie along the partitions, and a last tile that does not fill its 128 partitions costs as much
        as a full one.
        """
        return self.micro_batch * self.padded(stack.seq_len(self.seq_len) / self.cp)

    @staticmethod
    def padded(tokens: float) -> float:
        return math.ceil(tokens / 128.0) * 128.0


# Element passes, from the algebra of each operator.
_NORM_PASSES = {"rms": 3.0, "layer": 4.0}  # Vector; one more pass on Scalar squares and accumulates
_ROTARY_PASSES = 4.0  # two products, a rotation and an addition
_DROPOUT_PASSES = 3.0  # draw, compare, multiply
_FLASH_VECTOR, _FLASH_SCALAR = 2.0, 1.0  # mask and running maximum; exponential with accumulation
_SOFTMAX_VECTOR, _SOFTMAX_SCALAR = 5.0, 1.0  # scale, mask, subtract maximum, normalise, cast; exponential
_BACKWARD_ELEMENTWISE = 2.0  # a pass forward is about two passes backward: product rule plus the reduction


def _norm(stack: Stack, tokens: float, name: str, width: float = 1.0) -> Operator:
    elements = tokens * stack.hidden * width
    return Operator(name, sbuf_elements=_NORM_PASSES[stack.norm] * elements, scalar_elements=elements)


def _linear(
    name: str, tokens: float, k: float, n: float, bytes_each: int, *, sbuf: float = 0.0, scalar: float = 0.0
) -> Operator:
    """A matrix product with its eviction from PSUM; weights, input and output cross HBM once.

    `sbuf` and `scalar` are the element passes on Vector and Scalar that ride along.
    """
    traffic = bytes_each * (tokens * k + k * n + tokens * n)
    return Operator(name, (Gemm(tokens, k, n),), tokens * n, sbuf, scalar, traffic, trains=True)


def attention_operator(stack: Stack, part: Sharding, keys: float | None = None) -> Operator:
    """Scores, softmax and weighted sum of one layer; `keys` is the key length when it is not the query length."""
    queries = part.padded(stack.seq_len(part.seq_len) / part.cp)
    self_causal = stack.causal and keys is None
    keys = part.padded(stack.seq_len(part.seq_len) if keys is None else keys)
    heads = max(1.0, stack.num_heads / part.tp) * part.micro_batch
    computed = 0.5 if self_causal and part.attention == "flash" else 1.0
    scores = heads * queries * keys * computed
    products = (
        Gemm(queries, stack.head_dim, keys * computed, heads),
        Gemm(queries, keys * computed, stack.v_head_dim, heads),
        # The probabilities are transposed on the Tensor engine before the second product.
        Gemm(queries, 128.0, keys * computed, heads),
    )
    width = part.micro_batch * queries * heads / part.micro_batch
    traffic = part.element_bytes * width * (2 * stack.head_dim + 2 * stack.v_head_dim)
    if part.attention == "flash":
        vector, scalar = _FLASH_VECTOR, _FLASH_SCALAR
    else:
        vector, scalar = _SOFTMAX_VECTOR, _SOFTMAX_SCALAR
        traffic += 4.0 * part.element_bytes * scores  # scores out and in, probabilities out and in
        if stack.dropout:
            vector += _DROPOUT_PASSES
    return Operator(
        "attention",
        products,
        psum_elements=scores + width * stack.v_head_dim,
        sbuf_elements=(vector - 1.0) * scores,
        scalar_elements=scalar * scores,
        hbm_bytes=traffic,
        is_attention=True,
    )


def _projections(stack: Stack, part: Sharding, tokens: float) -> list[Operator]:
    """Query, key and value (or their latent forms), and rotary embedding."""
    b, tp = part.element_bytes, part.tp
    heads = max(1.0, stack.num_heads / tp)
    if stack.kv_lora_rank:
        nope = stack.head_dim - stack.rope_head_dim
        operators = [
            _linear("q_down", tokens, stack.hidden, stack.q_lora_rank, b, sbuf=3.0 * tokens * stack.q_lora_rank),
            _linear("q_up", tokens, stack.q_lora_rank, heads * stack.head_dim, b),
            _linear(
                "kv_down",
                tokens,
                stack.hidden,
                stack.kv_lora_rank + stack.rope_head_dim,
                b,
                sbuf=3.0 * tokens * stack.kv_lora_rank,
            ),
            _linear("kv_up", tokens, stack.kv_lora_rank, heads * (nope + stack.v_head_dim), b),
        ]
        rotated = tokens * (heads + 1) * stack.rope_head_dim
        return [*operators, Operator("rotary", sbuf_elements=_ROTARY_PASSES * rotated)]
    kv_heads = max(1.0, stack.num_kv_heads / tp)  # fewer key/value heads than ranks are replicated
    width = (heads + 2.0 * kv_heads) * stack.head_dim
    operators = [_linear("qkv", tokens, stack.hidden, width, b)]
    rotated = tokens * (heads + kv_heads) * stack.head_dim
    if stack.qk_norm:
        operators.append(Operator("qk_norm", sbuf_elements=3.0 * rotated, scalar_elements=rotated))
    if stack.positions == "rope":
        operators.append(Operator("rotary", sbuf_elements=_ROTARY_PASSES * rotated))
    return operators


def _feed_forward(stack: Stack, part: Sharding, tokens: float) -> list[Operator]:
    b, tp = part.element_bytes, part.tp
    matrices = 2.0 if stack.gated else 1.0
    if not stack.num_experts:
        width = stack.ffn_hidden / tp
        return [
            _linear(
                "up",
                tokens,
                stack.hidden,
                matrices * width,
                b,
                scalar=tokens * width,
                sbuf=(1.0 if stack.gated else 0.0) * tokens * width,
            ),
            _linear("down", tokens, width, stack.hidden, b),
        ]
    width = stack.ffn_hidden / tp
    local_experts = stack.num_experts / part.ep
    routed = tokens * stack.experts_per_token * part.expert_imbalance
    each = routed / local_experts
    weights = (matrices + 1.0) * stack.hidden * width
    operators = [
        _linear(
            "router",
            tokens,
            stack.hidden,
            stack.num_experts,
            b,
            sbuf=4.0 * tokens * stack.num_experts,
            scalar=tokens * stack.num_experts,
        ),
        # Gathering tokens by expert and scattering them back are copies through HBM.
        Operator("dispatch", sbuf_elements=2.0 * routed * stack.hidden, hbm_bytes=4.0 * b * routed * stack.hidden),
        Operator(
            "experts_up",
            (Gemm(each, stack.hidden, matrices * width, local_experts),),
            trains=True,
            psum_elements=routed * matrices * width,
            scalar_elements=routed * width,
            sbuf_elements=routed * width,
            hbm_bytes=b
            * (routed * (stack.hidden + matrices * width) + local_experts * weights * matrices / (matrices + 1.0)),
        ),
        Operator(
            "experts_down",
            (Gemm(each, width, stack.hidden, local_experts),),
            trains=True,
            psum_elements=routed * stack.hidden,
            hbm_bytes=b * (routed * (stack.hidden + width) + local_experts * weights / (matrices + 1.0)),
        ),
    ]
    if stack.num_shared_experts:
        shared = stack.num_shared_experts * width
        operators.append(
            _linear(
                "shared_up",
                tokens,
                stack.hidden,
                matrices * shared,
                b,
                scalar=tokens * shared,
                sbuf=tokens * shared,
            )
        )
        operators.append(_linear("shared_down", tokens, shared, stack.hidden, b))
    return operators


def layer_operators(stack: Stack, part: Sharding, encoder_tokens: float = 0.0) -> tuple[list[Operator], list[Operator]]:
    """Forward operators of one layer on one rank: (attention block, feed-forward block), in execution order.

    The two lists are separate because the tensor-parallel collectives stand between them.
    """
    tokens = part.tokens(stack)
    between = tokens / (part.tp if part.sp else 1)
    heads = max(1.0, stack.num_heads / part.tp)
    residual = (1.0 + (_DROPOUT_PASSES if stack.dropout else 0.0)) * between * stack.hidden
    attention = [
        _norm(stack, between, "norm"),
        *_projections(stack, part, tokens),
        attention_operator(stack, part),
        _linear("out", tokens, heads * stack.v_head_dim, stack.hidden, part.element_bytes, sbuf=residual),
    ]
    if stack.cross_attention:
        attention += [
            _norm(stack, between, "cross_norm"),
            _linear("cross_q", tokens, stack.hidden, heads * stack.head_dim, part.element_bytes),
            _linear(
                "cross_kv",
                encoder_tokens * part.micro_batch,
                stack.hidden,
                2 * heads * stack.head_dim,
                part.element_bytes,
            ),
            attention_operator(stack, part, keys=encoder_tokens),
            _linear("cross_out", tokens, heads * stack.v_head_dim, stack.hidden, part.element_bytes, sbuf=residual),
        ]
    feed_forward = [_norm(stack, between, "norm"), *_feed_forward(stack, part, tokens)]
    feed_forward.append(Operator("residual", sbuf_elements=residual))
    if part.quantised:
        attention, feed_forward = [_quantised(op) for op in attention], [_quantised(op) for op in feed_forward]
    return attention, feed_forward


def _quantised(operator: Operator) -> Operator:
    """A product of 8-bit operands converts its activations first: one more pass over them."""
    if not operator.trains:
        return operator
    inputs = sum(gemm.m * gemm.k * gemm.count for gemm in operator.gemms)
    return replace(operator, sbuf_elements=operator.sbuf_elements + inputs)


def backward(operator: Operator) -> tuple[Operator, Operator | None]:
    """The backward of an operator: (gradient of its input, gradient of its weight or None)."""
    passes = _BACKWARD_ELEMENTWISE
    if operator.is_attention:
        # Recomputed scores, dV, dP, dQ and dK: five products and one transposition for the forward's two.
        scores, weighted, transposed = operator.gemms
        products = (
            scores,
            scores,
            weighted.weight_gradient(),
            scores.input_gradient(),
            scores.weight_gradient(),
            transposed,
        )
        return replace(
            operator,
            gemms=products,
            psum_elements=passes * operator.psum_elements,
            sbuf_elements=passes * operator.sbuf_elements,
            hbm_bytes=passes * operator.hbm_bytes,
        ), None
    data = replace(
        operator,
        gemms=tuple(g.input_gradient() for g in operator.gemms),
        sbuf_elements=passes * operator.sbuf_elements,
        scalar_elements=passes * operator.scalar_elements,
    )
    if not operator.trains:
        return data, None
    weight = replace(
        operator,
        name=operator.name + "_dw",
        gemms=tuple(g.weight_gradient() for g in operator.gemms),
        psum_elements=sum(g.k * g.n * g.count for g in operator.gemms),
        sbuf_elements=0.0,
        scalar_elements=0.0,
    )
    return data, weight


def head_operators(model: Model, part: Sharding) -> list[Operator]:
    """Output projection and cross-entropy on the last pipeline stage (empty for a model without a vocabulary)."""
    if not model.vocab_size:
        return []
    stack = model.stacks[-1]
    tokens, width = part.tokens(stack), model.vocab_size / part.tp
    logits = tokens * width
    projection = _linear("head", tokens, stack.hidden, width, part.element_bytes)
    loss = Operator(
        "loss", sbuf_elements=3.0 * logits, scalar_elements=logits, hbm_bytes=2.0 * part.element_bytes * logits
    )
    return [projection, loss]


def optimizer_operator(parameters: float, optimizer: str = "adamw", master_weights: bool = True) -> Operator:
    """One optimizer step over `parameters` weights held by this rank.

    Adam reads gradient, two moments and the (fp32) weight, and writes the moments, the weight and its bf16 copy. LAMB
    adds two norms per tensor, which is another reading of weight and update.
    """
    moments = {"adamw": 16.0, "lamb": 16.0, "muon": 8.0, "sgd": 8.0}[optimizer]
    traffic = moments + 4.0 + (8.0 if master_weights else 4.0) + 2.0 + (8.0 if optimizer == "lamb" else 0.0)
    passes = {"adamw": 10.0, "lamb": 14.0, "muon": 6.0, "sgd": 3.0}[optimizer]
    return Operator(
        "optimizer", sbuf_elements=passes * parameters, scalar_elements=parameters, hbm_bytes=traffic * parameters
    )
