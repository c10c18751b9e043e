"""A training script's model, found without its data, is the one that the catalogue describes."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch")

GPT = """
import torch, torch.nn as nn, torch.nn.functional as F

class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.ln_2(x))))

class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(50257, 1024), nn.Embedding(1024, 1024)
        self.blocks = nn.ModuleList([Block(1024, 16) for _ in range(24)])
        self.norm, self.head = nn.LayerNorm(1024), nn.Linear(1024, 50257, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, i):
        x = self.tokens(i) + self.positions(torch.arange(i.shape[1], device=i.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

model = GPT().to("neuron")
optimizer = torch.optim.AdamW(model.parameters())
ids = torch.randint(0, 50257, (4, 1025)).to("neuron")
loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
loss.backward()
raise SystemExit("a captured script never gets here")
"""

CHECK = """
from opentrn.cluster.capture import capture
from opentrn.cluster.models import load_model
found = capture("train.py")
known = load_model("gpt2-medium")
ours, theirs = found.model.stacks[0], known.stacks[0]
for name in ("num_layers", "hidden", "num_heads", "ffn_hidden", "num_kv_heads", "head_dim", "gated", "norm", "positions", "causal", "bias"):
    assert getattr(ours, name) == getattr(theirs, name), (name, getattr(ours, name), getattr(theirs, name))
assert found.model.tied_embeddings and found.seq_len == 1024 and found.batch == 4
assert abs(found.model.num_parameters / known.num_parameters - 1) < 0.001
"""


def python(code: str, folder) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True, timeout=110
    )


def test_a_plain_gpt_is_read_as_the_catalogue_has_it(tmp_path):
    (tmp_path / "train.py").write_text(GPT)
    run = python(CHECK, tmp_path)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("print('no training here')", "without asking for gradients"),
        (
            "import torch\nw = torch.ones(3, requires_grad=True)\nm = torch.nn.Linear(3, 3)\nm(w).sum().backward()",
            "no repeated layers",
        ),
        ("raise ValueError('broken')", "ValueError: broken"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(tmp_path, script, sentence):
    (tmp_path / "train.py").write_text(script)
    run = subprocess.run(
        [sys.executable, "-m", "opentrn", "plan", "--script", "train.py", "--chips", "16"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert run.returncode == 1
    assert sentence in run.stderr and "Traceback" not in run.stderr
