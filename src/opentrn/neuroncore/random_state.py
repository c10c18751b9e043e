"""The random number generators of the Vector and GpSimd engines: XORWOW, a state a lane.

The state words are those that `rand_set_state` and `rand_get_state` move: six 32-bit words (x, y, z, w, v and the
counter d of Marsaglia's xorwow), four such states a lane on Vector and one on GpSimd. NeuronCore-v2 and v3 have another
generator (a shift register whose polynomial is not published) on Vector; its place is taken by this one.
"""

from __future__ import annotations

import numpy as np

__all__ = ["GPSIMD_STREAMS", "STATE_WORDS", "VECTOR_STREAMS", "initial_state", "seeded_state", "random_words"]

STATE_WORDS = 6
VECTOR_STREAMS = 4
GPSIMD_STREAMS = 1
_WEYL = np.uint32(362437)
_GOLDEN = 0x9E3779B97F4A7C15


def seeded_state(seed: int, num_lanes: int, streams: int) -> np.ndarray:
    """States (lanes, streams, 6) derived from one 32-bit seed by SplitMix64, so that no two lanes run alike."""
    count = num_lanes * streams * STATE_WORDS
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(seed & 0xFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z.astype(np.uint32).reshape(num_lanes, streams, STATE_WORDS)


def initial_state(num_lanes: int, streams: int) -> np.ndarray:
    """The state before any seed is given; the same for every launch."""
    return seeded_state(0, num_lanes, streams)


def random_words(state: np.ndarray, count: int) -> np.ndarray:
    """``count`` 32-bit words for each lane of ``state`` (lanes, streams, 6), which moves on.

    The streams of a lane take turns: word k comes from stream ``k % streams``. A last incomplete turn is taken in full
    by every stream and its surplus dropped.
    """
    lanes, streams, _ = state.shape
    turns = -(-count // streams)
    out = np.empty((turns, lanes, streams), np.uint32)
    x, y, z, w, v, d = (state[..., k].copy() for k in range(STATE_WORDS))
    t, u = np.empty_like(x), np.empty_like(x)
    two, one, four = np.uint32(2), np.uint32(1), np.uint32(4)
    for word in out:
        np.right_shift(x, two, out=t)
        t ^= x
        np.left_shift(t, one, out=u)
        t ^= u
        np.left_shift(v, four, out=u)
        u ^= v
        u ^= t
        x, y, z, w, v, u = y, z, w, v, u, x
        d += _WEYL
        np.add(d, v, out=word)
    for k, part in enumerate((x, y, z, w, v, d)):
        state[..., k] = part
    return out.transpose(1, 0, 2).reshape(lanes, turns * streams)[:, :count]
