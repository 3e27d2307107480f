"""An encoder in the form of BERT: post-norm, learned positions, segments, GELU, and a head that fills masked places.

    x = norm(embedding[tokens] + position[positions] + segment[segments])
    each layer:  x = norm(x + attention(x));  x = norm(x + feed_forward(x))
    logits = norm(gelu(dense(x))) embedding^T + bias

Devlin et al. 2019 (arXiv 1810.04805). Attention goes both ways and never leaves a document piece.

The law: the same weights give the logits of `transformers`' BertForMaskedLM (the largest difference seen in
float32 is 1.2e-6 on logits of up to 2.3), and a document in a packed row has the hidden states that it has alone.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from training.models import Work, product_flops
from training.models._dropout import EMBEDDING, Dropout, dropped, inside
from training.models.layers import LayerNorm, Linear, Sight, attention, both_ways, normal, product_dtype, projections
from training.tables import Table

Size = Annotated[int, Field(ge=1)]


class Config(Table):
    """The keys of `[model]` beside `family`. By default the feed-forward is four times the width."""

    layers: Size
    width: Size
    heads: Size
    feed_forward: Size
    segments: Size = 2
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-12

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, table: Any) -> Any:
        width = table.get("width")
        return {"feed_forward": 4 * width, **table} if type(width) is int else table

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}; change one")
        return self


class Layer(nn.Module):
    """One block of the encoder."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.heads = c.heads
        made = projections(c.width, c.heads, c.heads, c.width // c.heads, bias=True)
        self.query, self.key, self.value, self.output = made
        self.attention_norm = LayerNorm(c.width, c.norm_epsilon)
        self.up = Linear(c.width, c.feed_forward, bias=True)
        self.down = Linear(c.feed_forward, c.width, bias=True)
        self.feed_forward_norm = LayerNorm(c.width, c.norm_epsilon)

    def forward(self, x: Tensor, sight: Sight, dropout: Dropout | None = None) -> Tensor:
        """x [B, T, width] -> [B, T, width]; what runs from layer to layer stays in the type of x."""
        seen = x.to(product_dtype(x))
        q, k, v = (project(seen).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value))
        seen = self.output(attention(q, k, v, sight).flatten(2))
        x = self.attention_norm(x + dropped(seen, dropout, 0), x.dtype)
        made = self.down(functional.gelu(self.up(x)))
        return self.feed_forward_norm(x + dropped(made, dropout, 1), x.dtype)


class Head(nn.Module):
    """What turns a hidden state into logits over a table of embeddings."""

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.dense = Linear(config.width, config.width, bias=True)
        self.norm = LayerNorm(config.width, config.norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., width], what the table is multiplied with."""
        result: Tensor = self.norm(functional.gelu(self.dense(hidden)))
        return result


class Model(nn.Module):
    """The encoder; `length` is the longest piece that it has positions for."""

    causal = False

    def __init__(self, config: Config, *, vocab_size: int, length: int) -> None:
        super().__init__()
        self.config, self.vocab_size, self.length = config, vocab_size, length
        self.embedding, self.positions, self.segments = (
            nn.Embedding(rows, config.width, _weight=torch.zeros(rows, config.width))
            for rows in (vocab_size, length, config.segments)
        )
        self.norm = LayerNorm(config.width, config.norm_epsilon)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.head = Head(config, vocab_size)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        pieces: Tensor | None,
        segments: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Hidden states [B, T, width] of tokens, positions and segments [B, T] int64 (None: all of segment 0).

        `pieces` [B, T] int32 numbers the document piece of each token, the tokens of one side by side; attention
        goes both ways and never leaves a piece. None: one piece a row.
        """
        segment = self.segments.weight[0] if segments is None else self.segments(segments)
        x = self.norm(self.embedding(tokens) + self.positions(positions) + segment, self.embedding.weight.dtype)
        sight = both_ways(pieces, tokens, self.config.heads, self.config.heads)
        x = dropped(x, dropout, EMBEDDING)
        for number, layer in enumerate(self.layers):
            x = layer(x, sight, inside(dropout, number))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., vocab_size]."""
        return functional.linear(*self.projection(hidden))

    def projection(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x [..., width], W [vocab_size, width] and b, or None, of the logits x W^T + b."""
        return self.head(hidden), self.embedding.weight, self.head.bias

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill every parameter: matrices normal(0, .02), norms 1, biases 0. Each matrix has a generator named by
        (seed, its name), so nothing else moves it."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                parameter.copy_(normal(seed, name, parameter.shape).mul_(0.02))
            else:
                parameter.fill_(1 if name.endswith("norm.weight") else 0)

    def flops(self, work: Work) -> int:
        """Training FLOPs of a batch: 6 N tokens + 6 width (width + vocab_size) targets + 12 layers width length tokens.

        N counts the matrices of the layers; the head is its dense layer and the table of embeddings. Of what is
        frozen 6 is 4.
        """
        c = self.config
        head = product_flops([*(self.head.parameters() if self.head else []), self.embedding.weight])
        each = product_flops(self.layers.parameters()) + 12 * c.layers * c.width * work.length
        return each * work.tokens + head * work.targets

    def parameter_counts(self) -> dict[str, int]:
        """All parameters, and those whose rows are tokens: the embedding, which the head shares."""
        everything = sum(p.numel() for p in self.parameters())
        return {"parameters": everything, "embedding_parameters": self.embedding.weight.numel()}
