"""Attention agrees with torch: causal or not, grouped heads, any length and head dimension."""

import pytest

from opentrn.errors import ValidationError
from opentrn.kernels.attending import attention
from opentrn.nki import launch

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("chip", ["trn1", "trn2", "trn3"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 2e-2), ("float16", 3e-3)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "key_heads", "queries", "keys", "head_dim"),
                         [(1, 1, 1, 9, 5), (4, 2, 130, 130, 64), (1, 1, 70, 601, 160)])  # fmt: skip
def test_attention_matches_torch(chip, dtype, tolerance, causal, heads, key_heads, queries, keys, head_dim):
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, queries, head_dim), (1, key_heads, keys, head_dim), (1, key_heads, keys, head_dim)]
    q, k, v = (torch.randn(s, generator=generator).to(getattr(torch, dtype)) for s in shapes)
    with launch.session(chip=chip):
        result = attention(q, k, v, causal=causal)
    wide_k, wide_v = (x.double().repeat_interleave(heads // key_heads, 1) for x in (k, v))
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else None
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), wide_k, wide_v, attn_mask=mask)
    assert result.dtype is q.dtype
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


def test_heads_that_do_not_divide_are_refused():
    q, k = torch.zeros(1, 3, 2, 4), torch.zeros(1, 2, 2, 4)
    with pytest.raises(ValidationError, match="3 heads are no multiple of 2"):
        attention(q, k, k)
