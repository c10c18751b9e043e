"""A 2-D convolution as products of shifted input rows, with an optional max pool; a depthwise 1-D convolution."""

from __future__ import annotations

from typing import Any

import opentrn.nki.isa as nisa
import opentrn.nki.language as nl
from opentrn.nki.arrays import Spec
from opentrn.validation.programs import builder
from opentrn.validation.programs.tiles import load, out, sbuf, store, transpose


@builder
def conv2d(
    height: int, width: int, channels: int, filters: int, dtype: str, pool: int = 1, rows: int = 2, block: int = 8
) -> Any:
    """3 x 3, no padding: weights transposed once, ``block`` output rows of input on chip at a time, ``rows`` a
    product.
    """
    tall, wide = height - 2, width - 2

    def conv2d_kernel(x, w, bias):
        result = out(filters, tall // pool, wide // pool, dtype=dtype)
        deep, many = channels // 128, filters // 128
        weights = {}
        for f in range(many):
            raw = load(w[f * 128 : f * 128 + 128])
            for d in range(deep):
                for tap in range(9):
                    turned = sbuf(128, 128, dtype=dtype)
                    transpose(raw[:, d * 128 : d * 128 + 128, tap], turned)
                    weights[f, d, tap] = turned
        offsets = [load(bias[f * 128 : f * 128 + 128]) for f in range(many)]
        for y in range(0, tall, block):
            height_now = min(block, tall - y)
            pixels = [load(x[d * 128 : d * 128 + 128, y : y + height_now + 2]) for d in range(deep)]
            for f in range(many):
                done = sbuf(128, height_now, wide, dtype=dtype)
                for r in range(0, height_now, rows):
                    now = min(rows, height_now - r)
                    product = nl.ndarray((128, now, wide), dtype="float32", buffer=nl.psum)
                    for d in range(deep):
                        for tap in range(9):
                            dy, dx = divmod(tap, 3)
                            nisa.nc_matmul(
                                product, weights[f, d, tap], pixels[d][:, r + dy : r + dy + now, dx : dx + wide]
                            )
                    nisa.tensor_scalar(done[:, r : r + now], product, nl.add, offsets[f])
                where = slice(f * 128, f * 128 + 128)
                if pool == 1:
                    store(result[where, y : y + height_now], done)
                    continue
                small = sbuf(128, height_now // 2, wide // 2, dtype=dtype)
                across = sbuf(128, height_now, wide // 2, dtype=dtype)
                nisa.tensor_tensor(across, done[:, :, 0:wide:2], done[:, :, 1:wide:2], nl.maximum)
                nisa.tensor_tensor(small, across[:, 0:height_now:2], across[:, 1:height_now:2], nl.maximum)
                store(result[where, y // 2 : (y + height_now) // 2], small)
        return result

    return conv2d_kernel, (
        Spec((channels, height, width), dtype),
        Spec((filters, channels, 9), dtype),
        Spec((filters, 1), "float32"),
    )


@builder
def depthwise_conv1d(batch: int, channels: int, width: int, taps: int = 3) -> Any:
    """Each channel with its own filter: shifted multiply-adds over whole rows."""

    def depthwise_conv1d_kernel(x, w):
        result = out(batch, channels, width)
        for c in range(channels // 128):
            rows = slice(c * 128, c * 128 + 128)
            factors = load(w[rows])
            for n in range(batch):
                padded = sbuf(128, width + taps - 1)
                nisa.memset(padded[:, 0:1], 0.0)
                nisa.memset(padded[:, width + 1 : width + 2], 0.0)
                nisa.dma_copy(padded[:, 1 : width + 1], x[n, rows])
                total = sbuf(128, width)
                nisa.tensor_scalar(total, padded[:, 0:width], nl.multiply, factors[:, 0:1])
                for t in range(1, taps):
                    nisa.scalar_tensor_tensor(
                        total, padded[:, t : t + width], nl.multiply, factors[:, t : t + 1], nl.add, total
                    )
                store(result[n, rows], total)
        return result

    return depthwise_conv1d_kernel, (Spec((batch, channels, width), "float32"), Spec((channels, taps), "float32"))
