"""A fused RMSNorm and gated MLP block in NKI, as in Llama, checked against NumPy.

    trn run examples/mlp.py
    trn profile examples/mlp.py --chip trn2

Tokens are normalised and transposed once; the hidden activation never leaves SBUF.
"""

from __future__ import annotations

import sys

import ml_dtypes
import nki.isa as nisa
import nki.language as nl
import numpy as np

import nki

TILE = 128
WIDE = 512


@nki.jit
def rmsnorm_mlp(x, gain, w_gate, w_up, w_down, epsilon=1e-5):
    """down(silu(gate(rmsnorm(x))) * up(rmsnorm(x))).

    Args:
        x: (tokens, width); gain: (1, width); w_gate, w_up: (width, hidden); w_down: (hidden, width).
            tokens a multiple of 128, width and hidden of 512.

    Returns:
        (tokens, width) in the type of ``x``.
    """
    tokens, width = x.shape
    hidden = w_gate.shape[1]
    num_k, num_h = width // TILE, hidden // TILE
    kind = x.dtype
    out = nl.ndarray((tokens, width), dtype=kind, buffer=nl.shared_hbm)

    # Weights stay in SBUF for all tokens, contraction dimension on partitions.
    gate = nl.ndarray((TILE, num_k, hidden), dtype=kind, buffer=nl.sbuf)
    up = nl.ndarray((TILE, num_k, hidden), dtype=kind, buffer=nl.sbuf)
    down = nl.ndarray((TILE, num_h, width), dtype=kind, buffer=nl.sbuf)
    nisa.dma_copy(dst=gate, src=w_gate.reshape((num_k, TILE, hidden)).permute((1, 0, 2)))
    nisa.dma_copy(dst=up, src=w_up.reshape((num_k, TILE, hidden)).permute((1, 0, 2)))
    nisa.dma_copy(dst=down, src=w_down.reshape((num_h, TILE, width)).permute((1, 0, 2)))
    # The gain multiplies along the free dimension: the same row on every partition.
    gains = nl.ndarray((TILE, width), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=gains, src=gain.ap([[0, TILE], [1, width]]))
    eps = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
    nisa.memset(dst=eps, value=epsilon)

    for t in range(tokens // TILE):
        rows = nl.ndarray((TILE, width), dtype=kind, buffer=nl.sbuf)
        nisa.dma_copy(dst=rows, src=x[t * TILE : (t + 1) * TILE, :])
        squares = nl.ndarray((TILE, width), dtype=nl.float32, buffer=nl.sbuf)
        power = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation_reduce(dst=squares, op=nl.square, data=rows, reduce_op=nl.add, reduce_res=power)
        inverse = nl.ndarray((TILE, 1), dtype=nl.float32, buffer=nl.sbuf)
        nisa.activation(dst=inverse, op=nl.rsqrt, data=power, scale=1.0 / width, bias=eps)
        normal = nl.ndarray((TILE, width), dtype=kind, buffer=nl.sbuf)
        nisa.scalar_tensor_tensor(
            dst=normal, data=rows, op0=nl.multiply, operand0=inverse, op1=nl.multiply, operand1=gains
        )

        # Turn tokens onto the free dimension: (width on partitions, tokens).
        turned = nl.ndarray((TILE, num_k, TILE), dtype=kind, buffer=nl.sbuf)
        for k in range(num_k):
            block = nl.ndarray((TILE, TILE), dtype=kind, buffer=nl.psum)
            nisa.nc_transpose(dst=block, data=normal[:, k * TILE : (k + 1) * TILE])
            nisa.tensor_copy(dst=turned[:, k, :], src=block)

        # (hidden on partitions, tokens): ready to be contracted by the down projection.
        active = nl.ndarray((TILE, num_h, TILE), dtype=kind, buffer=nl.sbuf)
        for h in range(num_h):
            columns = slice(h * TILE, (h + 1) * TILE)
            gated = nl.ndarray((TILE, TILE), dtype=nl.float32, buffer=nl.psum)
            upped = nl.ndarray((TILE, TILE), dtype=nl.float32, buffer=nl.psum)
            for k in range(num_k):
                nisa.nc_matmul(dst=gated, stationary=gate[:, k, columns], moving=turned[:, k, :], accumulate=k > 0)
                nisa.nc_matmul(dst=upped, stationary=up[:, k, columns], moving=turned[:, k, :], accumulate=k > 0)
            swish = nl.ndarray((TILE, TILE), dtype=nl.float32, buffer=nl.sbuf)
            nisa.activation(dst=swish, op=nl.silu, data=gated)
            nisa.tensor_tensor(dst=active[:, h, :], data1=swish, data2=upped, op=nl.multiply)

        for n in range(width // WIDE):
            columns = slice(n * WIDE, (n + 1) * WIDE)
            result = nl.ndarray((TILE, WIDE), dtype=nl.float32, buffer=nl.psum)
            for h in range(num_h):
                nisa.nc_matmul(dst=result, stationary=active[:, h, :], moving=down[:, h, columns], accumulate=h > 0)
            final = nl.ndarray((TILE, WIDE), dtype=kind, buffer=nl.sbuf)
            nisa.tensor_copy(dst=final, src=result)
            nisa.dma_copy(dst=out[t * TILE : (t + 1) * TILE, columns], src=final)
    return out


def reference(x, gain, w_gate, w_up, w_down, epsilon=1e-5):
    """The same in float64."""
    x, gain, w_gate, w_up, w_down = (a.astype(np.float64) for a in (x, gain, w_gate, w_up, w_down))
    y = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + epsilon) * gain
    g = y @ w_gate
    return (g / (1 + np.exp(-g)) * (y @ w_up)) @ w_down


def inputs(tokens: int, width: int, hidden: int):
    """Random activations and weights in bfloat16; the gain is float32."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, by: float = 1.0):
        return (rng.standard_normal(shape) * by).astype(ml_dtypes.bfloat16)

    return (
        normal(tokens, width), np.ones((1, width), np.float32), normal(width, hidden, by=width**-0.5),
        normal(width, hidden, by=width**-0.5), normal(hidden, width, by=hidden**-0.5),
    )  # fmt: skip


def main(tokens: int = 256, width: int = 512, hidden: int = 1536) -> None:
    arguments = inputs(tokens, width, hidden)
    result = rmsnorm_mlp(*arguments)
    error = np.abs(result.astype(np.float64) - reference(*arguments)).max()
    print(
        f"RMSNorm and gated MLP, {tokens} tokens, {width} -> {hidden}: largest difference from float64 is {error:.4f}"
    )
    if not error < 0.05:
        raise SystemExit("the kernel does not match its reference")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
