"""A training loop in the style of nanoGPT (Karpathy 2022), as plain as its train.py: what ours is measured against.

    x = embedding[tokens] + positions;  each layer: x += attention(norm(x));  x += mlp(norm(x));  norm, tied head

LayerNorm and Linear without bias (its default), learned positions, fused query, key and value, causal
`scaled_dot_product_attention`, exact GELU of 4 times the width, autocast to bfloat16, gradients clipped at 1, AdamW
fused with decay on matrices. Documents are not masked: a token sees all of its row that stands before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class Norm(nn.Module):
    """LayerNorm without bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class Block(nn.Module):
    """Attention and feed-forward of one layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = Norm(width), Norm(width)
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.attn_proj = nn.Linear(width, width, bias=False)
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.c_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.ln_1(x))
        return x + self.c_proj(functional.gelu(self.c_fc(self.ln_2(x))))

    def attend(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = self.c_attn(x).split(width, dim=2)
        q, k, v = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attn_proj(y.transpose(1, 2).contiguous().view(rows, length, width))


class GPT(nn.Module):
    """The decoder with its loss."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = Norm(width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                last = name.endswith("proj.weight")
                nn.init.normal_(parameter, 0.0, 0.02 / math.sqrt(2 * layers) if last else 0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        logits = functional.linear(self.ln_f(x), self.wte.weight)
        return functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, fused; matrices decay."""
    matrices, vectors = ([p for p in model.parameters() if (p.ndim == 2) == which] for which in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)


def batches(tokens: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Steps of `rows` rows of tokens [N, T] int64, and what follows each token (nanoGPT reads one flat file)."""
    following = torch.cat([tokens.flatten()[1:], tokens.flatten()[:1]]).view(tokens.shape)
    for first in range(0, len(tokens) - rows + 1, rows):
        yield tokens[first : first + rows].clone(), following[first : first + rows].clone()


def train(model: GPT, tokens: Tensor, rows: int, compiled: bool) -> Iterator[Tensor]:
    """One step at a time: its loss, once the weights are changed."""
    run = torch.compile(model) if compiled else model
    steps = optimizer(model)
    for x, y in batches(tokens, rows):
        with torch.autocast("cpu", torch.bfloat16):
            loss = run(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        steps.zero_grad(set_to_none=True)
        yield loss.detach()
