"""The decoder of our time in three forms: causal attention, pre-norm (Vaswani et al. 2017; Radford et al. 2019).

    x = embedding[tokens];  each layer: x += attention(norm(x));  x += feed_forward(norm(x));  hidden = norm(x)

    form     norm                positions        queries, keys   feed-forward    biases   source
    qwen3    RMSNorm             rotary           RMSNorm each    SwiGLU          none     Qwen3, arXiv 2505.09388
    llama    RMSNorm             rotary           as they are     SwiGLU          none     Llama, arXiv 2302.13971
    gpt2     LayerNorm, biased   learned, added   as they are     GELU (tanh)     all      GPT-2, Radford et al. 2019

The law: the same weights give the logits of `transformers`' Qwen3ForCausalLM, LlamaForCausalLM and GPT2LMHeadModel
(the largest difference seen in float32 is 1.5e-5), and a document in a packed row has the hidden states that it
has alone.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from training.models import Work, product_flops
from training.models._dropout import EMBEDDING, Dropout, dropped, inside
from training.models.layers import (
    GELU,
    Attention,
    Cache,
    LayerNorm,
    Linear,
    RMSNorm,
    Sight,
    SwiGLU,
    Turn,
    causal,
    following,
    normal,
    turns,
)
from training.tables import Table

Size = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
ROTARY_THETA = 10_000.0


class Config(Table):
    """The keys of `[model]` beside `family`. By default every head has its own keys, heads divide the width, and
    the feed-forward is 8/3 of the width, up to a multiple of 64. The form gpt2 knows no other heads, no rotation,
    and by default a feed-forward of 4 times the width."""

    form: Literal["qwen3", "llama", "gpt2"] = "qwen3"
    layers: Size
    width: Size
    heads: Size
    kv_heads: Size
    head_width: Annotated[int, Field(ge=2, multiple_of=2)]
    feed_forward: Size
    rope_theta: Positive | None = None
    norm_epsilon: Positive = 1e-6
    tie_embeddings: bool = True

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, table: Any) -> Any:
        width, heads, learned = table.get("width"), table.get("heads"), table.get("form") == "gpt2"
        if not (type(width) is int and type(heads) is int and heads > 0):
            return table  # the fields' own checks say what is wrong
        if "head_width" not in table and width % heads:
            advice = "change one" if learned else "change one or give head_width"
            raise ValueError(f"width {width} is not a multiple of heads {heads}; {advice}")
        usual = {"kv_heads": heads, "head_width": width // heads}
        if learned:
            return {**usual, "feed_forward": 4 * width, "norm_epsilon": 1e-5, **table}
        return {**usual, "feed_forward": -(-width * 8 // (3 * 64)) * 64, "rope_theta": ROTARY_THETA, **table}

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.rotary and self.rope_theta is None:
            raise ValueError(f"form {self.form!r} needs a rope_theta")
        if not self.rotary:
            usual = {"kv_heads": self.heads, "head_width": self.width // self.heads, "rope_theta": None}
            for key, value in usual.items():
                if (given := getattr(self, key)) != value:
                    raise ValueError(f"form 'gpt2' has no {key} {given}; leave {key} out")
        return self

    @property
    def rotary(self) -> bool:
        """Positions turn queries and keys; otherwise they are learned vectors, added to the embedding."""
        return self.form != "gpt2"


def norm(config: Config) -> nn.Module:
    """The norm of the form, over the width."""
    return (RMSNorm if config.rotary else LayerNorm)(config.width, config.norm_epsilon)


class Layer(nn.Module):
    """One block of the decoder."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        epsilon = c.norm_epsilon if c.form == "qwen3" else None
        self.attention_norm = norm(c)
        self.attention = Attention(c.width, c.heads, c.kv_heads, c.head_width, epsilon, bias=not c.rotary)
        self.feed_forward_norm = norm(c)
        self.feed_forward = (SwiGLU if c.rotary else GELU)(c.width, c.feed_forward)

    def forward(
        self,
        x: Tensor,
        turn: Turn | None,
        sight: Sight,
        cache: Cache | None = None,
        layer: int = 0,
        dropout: Dropout | None = None,
    ) -> Tensor:
        x = x + dropped(self.attention(self.attention_norm(x), turn, sight, cache, layer), dropout, 0)
        return x + dropped(self.feed_forward(self.feed_forward_norm(x)), dropout, 1)


class Model(nn.Module):
    """The decoder; `length` is the longest context that it is made for."""

    causal = True

    def __init__(self, config: Config, *, vocab_size: int, length: int) -> None:
        super().__init__()
        self.config, self.vocab_size, self.length = config, vocab_size, length
        self.embedding = _table(vocab_size, config.width)
        self.positions = None if config.rotary else _table(length, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = norm(config)
        self.head = None if config.tie_embeddings else Linear(config.width, vocab_size)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        pieces: Tensor | None,
        cache: Cache | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Hidden states [B, T, width] after the final norm, of tokens and positions [B, T] int64.

        `pieces` [B, T] int32 numbers the document piece of each token, the tokens of one side by side; attention
        is causal and never leaves a piece. None: one piece a row. With a cache the tokens follow those in it, a row
        is one piece, and `pieces` is None.
        """
        c = self.config
        if cache is None:
            sight = causal(pieces, tokens, c.heads, c.kv_heads)
        else:
            sight = following(cache, tokens, c.heads, c.kv_heads)
        turn = None if c.rope_theta is None else turns(positions, c.head_width, c.rope_theta)
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions(positions)
        x = dropped(x, dropout, EMBEDDING)
        for number, layer in enumerate(self.layers):
            x = layer(x, turn, sight, cache, number, inside(dropout, number))
        hidden: Tensor = self.norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., vocab_size], by the embedding where it is tied."""
        return functional.linear(*self.projection(hidden))

    def projection(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x [..., width], W [vocab_size, width] and b, or None, of the logits x W^T + b."""
        return hidden, (self.head or self.embedding).weight, None

    def cache(self, rows: int) -> Cache:
        """An empty cache of `rows` rows."""
        c = self.config
        return Cache(c.layers, rows, c.kv_heads, c.head_width, self.embedding.weight)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill every parameter: normal(0, .02), projections into the residual stream by 1 / sqrt(2 layers) of that
        (GPT-2, section 2.3), norms 1, biases 0. Each has a generator named by (seed, its name), so nothing else
        moves it."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0 if name.endswith("bias") else 1)
                continue
            into_residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            deviation = 0.02 / math.sqrt(2 * self.config.layers) if into_residual else 0.02
            parameter.copy_(normal(seed, name, parameter.shape).mul_(deviation))

    def flops(self, work: Work) -> int:
        """Training FLOPs of a batch: (6 N + 12 layers heads head_width length) tokens + 6 width vocab_size targets.

        N counts the matrices of the layers: no norms, no biases, and no table that is only looked up. Of what is
        frozen 6 is 4.
        """
        c = self.config
        each = product_flops(self.layers.parameters()) + 12 * c.layers * c.heads * c.head_width * work.length
        return each * work.tokens + product_flops([(self.head or self.embedding).weight]) * work.targets

    def parameter_counts(self) -> dict[str, int]:
        """All parameters, and those whose rows are tokens (embedding and head)."""
        tables = [self.embedding.weight, *(self.head.parameters() if self.head else [])]
        everything = sum(p.numel() for p in self.parameters())
        return {"parameters": everything, "embedding_parameters": sum(table.numel() for table in tables)}


def _table(rows: int, width: int) -> nn.Embedding:
    """A lookup table, zero; torch's own would draw from the global generator."""
    return nn.Embedding(rows, width, _weight=torch.zeros(rows, width))
