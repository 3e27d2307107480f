"""An encoder in the form of ModernBERT: pre-norm, rotary positions, GeGLU, no biases, and layers that see near or far.

    x = norm(embedding[tokens])
    each layer:  x += attention(norm(x));  x += feed_forward(norm(x))      the first has no norm before its attention
    hidden = norm(x);  logits = norm(gelu(dense(hidden))) embedding^T + bias

Every `global_every`-th layer, the first among them, sees all of its document piece; the others see `window` / 2 tokens
to either side, and turn queries and keys by a base of their own. Warner et al. 2024 (arXiv 2412.13663, section 2.1),
without dropout: nothing is drawn in a forward.

The law: the same weights give the logits of `transformers`' ModernBertForMaskedLM, and a document in a packed row has
the hidden states that it has alone. The number that matters: a small one learns masked words from a tenth of the
tokens that the form of 2018 needs (`bert`; tests/bench/RESULTS.md, "learning: masked").
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from training.models import Work, product_flops
from training.models._dropout import EMBEDDING, Dropout, dropped, inside
from training.models.layers import GEGLU, Attention, LayerNorm, Linear, Sight, Turn, both_ways, normal, turns
from training.tables import Table

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Config(Table):
    """The keys of `[model]` beside `family`. By default the feed-forward is 3/2 of the width."""

    layers: Size
    width: Size
    heads: Size
    feed_forward: Size
    global_every: Size = 3
    window: Annotated[int, Field(ge=2, multiple_of=2)] = 128
    rope_theta: Positive = 160_000.0
    local_rope_theta: Positive = 10_000.0
    norm_epsilon: Positive = 1e-5

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, table: Any) -> Any:
        width = table.get("width")
        return {"feed_forward": max(width * 3 // 2, 1), **table} if type(width) is int else table

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of twice the heads, {2 * self.heads}; change one")
        return self

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def sees_all(self, layer: int) -> bool:
        """Whether a layer, counted from 0, sees the whole piece."""
        return layer % self.global_every == 0


class Layer(nn.Module):
    """One block of the encoder."""

    def __init__(self, config: Config, number: int) -> None:
        super().__init__()
        c = config
        # What the first layer reads was normed as it was looked up.
        self.attention_norm = LayerNorm(c.width, c.norm_epsilon, bias=False) if number else None
        self.attention = Attention(c.width, c.heads, c.heads, c.head_width, None)
        self.feed_forward_norm = LayerNorm(c.width, c.norm_epsilon, bias=False)
        self.feed_forward = GEGLU(c.width, c.feed_forward)

    def forward(self, x: Tensor, turn: Turn, sight: Sight, dropout: Dropout | None = None) -> Tensor:
        """x [B, T, width] -> [B, T, width]."""
        seen = self.attention(x if self.attention_norm is None else self.attention_norm(x), turn, sight)
        x = x + dropped(seen, dropout, 0)
        return x + dropped(self.feed_forward(self.feed_forward_norm(x)), dropout, 1)


class Head(nn.Module):
    """What turns a hidden state into one that meets a table: of the vocabulary, with a bias each, or of classes."""

    def __init__(self, config: Config, vocab_size: int | None = None) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width)
        self.norm = LayerNorm(config.width, config.norm_epsilon, bias=False)
        self.bias = None if vocab_size is None else nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        result: Tensor = self.norm(functional.gelu(self.dense(hidden)))
        return result


class Model(nn.Module):
    """The encoder; `length` is the longest piece that it is made for."""

    causal = False

    def __init__(self, config: Config, *, vocab_size: int, length: int) -> None:
        super().__init__()
        self.config, self.vocab_size, self.length = config, vocab_size, length
        self.embedding = nn.Embedding(vocab_size, config.width, _weight=torch.zeros(vocab_size, config.width))
        self.embedding_norm = LayerNorm(config.width, config.norm_epsilon, bias=False)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.layers))
        self.norm = LayerNorm(config.width, config.norm_epsilon, bias=False)
        self.head = Head(config, vocab_size)

    def forward(
        self, tokens: Tensor, positions: Tensor, pieces: Tensor | None, dropout: Dropout | None = None
    ) -> Tensor:
        """Hidden states [B, T, width] of tokens and positions [B, T] int64.

        `pieces` [B, T] int32 numbers the document piece of each token, the tokens of one side by side; attention
        goes both ways and never leaves a piece. None: one piece a row.
        """
        c = self.config
        far = both_ways(pieces, tokens, c.heads, c.heads), turns(positions, c.head_width, c.rope_theta)
        near = far
        if not all(map(c.sees_all, range(c.layers))):
            sight = both_ways(pieces, tokens, c.heads, c.heads, reach=c.window // 2, whole=far[0])
            near = sight, turns(positions, c.head_width, c.local_rope_theta)
        # What runs from layer to layer stays in the type of the embedding.
        x = self.embedding_norm(self.embedding(tokens), self.embedding.weight.dtype)
        x = dropped(x, dropout, EMBEDDING)
        for number, layer in enumerate(self.layers):
            sight, turn = far if c.sees_all(number) else near
            x = layer(x, turn, sight, inside(dropout, number))
        hidden: Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., vocab_size]."""
        return functional.linear(*self.projection(hidden))

    def projection(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x [..., width], W [vocab_size, width] and b, or None, of the logits x W^T + b."""
        return self.head(hidden), self.embedding.weight, self.head.bias

    def pooler(self) -> Head:
        """What the mean of a text's states goes through before it meets a table of classes."""
        return Head(self.config)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill every parameter: matrices normal(0, .02), projections into the residual stream by 1 / sqrt(2 layers) of
        that (GPT-2, section 2.3), norms 1, the bias 0. Each matrix has a generator named by (seed, its name), so
        nothing else moves it."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
                deviation = 0.02 / math.sqrt(2 * self.config.layers) if into_residual else 0.02
                parameter.copy_(normal(seed, name, parameter.shape).mul_(deviation))
            else:
                parameter.fill_(0 if name.endswith("bias") else 1)

    def flops(self, work: Work) -> int:
        """Training FLOPs of a batch: 6 N tokens + 6 width (width + vocab_size) targets + 12 width S tokens.

        N counts the matrices of the layers, and S is the sum over layers of the places that a token sees: the length,
        or in a layer that sees near at most window + 1. Of what is frozen 6 is 4.
        """
        c = self.config
        near = min(work.length, c.window + 1)
        seen = sum(work.length if c.sees_all(number) else near for number in range(c.layers))
        head = product_flops([*(self.head.parameters() if self.head else []), self.embedding.weight])
        return (product_flops(self.layers.parameters()) + 12 * c.width * seen) * work.tokens + head * work.targets

    def parameter_counts(self) -> dict[str, int]:
        """All parameters, and those whose rows are tokens: the embedding, which the head shares."""
        everything = sum(p.numel() for p in self.parameters())
        return {"parameters": everything, "embedding_parameters": self.embedding.weight.numel()}
