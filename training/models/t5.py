"""An encoder and a decoder in the form of T5 v1.1: pre-norm, relative position bias, gated GELU, no biases.

    encoder:  x = embedding[tokens];  each layer: x += attention(norm(x));  x += feed_forward(norm(x));  norm(x)
    decoder:  the same with a causal attention, and x += attention(norm(x), encoded) before the feed-forward

Raffel et al. 2020 (arXiv 1910.10683), section 2.1; Shazeer 2020 (arXiv 2002.05202) for the gated GELU of v1.1.
Scores are not divided by sqrt(head_width): the initial queries are that much smaller. The laws: the same weights
give the logits of `transformers`' T5ForConditionalGeneration (the largest difference seen in float32 is 2e-6 on
logits of up to 6), and a pair of pieces in packed rows has the hidden states that it has alone: positions enter as
distances, which begin anew with every piece by themselves.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from training.models import Work, product_flops
from training.models._cache import Reader
from training.models._distances import HIDDEN, Bias
from training.models._dropout import EMBEDDING, Dropout, dropped, inside
from training.models.layers import GEGLU, Linear, RMSNorm, attention, product_dtype, projections, together, up_to
from training.order import derive
from training.tables import Table

Size = Annotated[int, Field(ge=1)]


class Config(Table):
    """The keys of `[model]` beside `family`. By default the decoder is as deep as the encoder, heads divide the
    width, and the feed-forward is 8/3 of the width, up to a multiple of 64. `buckets` of distances go up to
    `furthest` tokens. A tied head reads hidden states divided by sqrt(width), as in T5 before v1.1."""

    layers: Size
    decoder_layers: Size
    width: Size
    heads: Size
    head_width: Size
    feed_forward: Size
    buckets: Annotated[int, Field(ge=4, multiple_of=2)] = 32
    furthest: Size = 128
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-6
    tie_embeddings: bool = False

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, table: Any) -> Any:
        if "layers" in table:
            table = {"decoder_layers": table["layers"], **table}
        width, heads = table.get("width"), table.get("heads")
        if not (type(width) is int and type(heads) is int and heads > 0):
            return table  # the fields' own checks say what is wrong
        if "head_width" not in table and width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}; change one or give head_width")
        return {"head_width": width // heads, "feed_forward": -(-width * 8 // (3 * 64)) * 64, **table}

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.furthest <= self.buckets // 2:
            raise ValueError(f"furthest {self.furthest} must be above half of buckets {self.buckets}")
        return self


class Attention(nn.Module):
    """Unscaled attention of x over `seen`: itself, or what the encoder made."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.head_width = config.head_width
        made = projections(config.width, config.heads, config.heads, config.head_width)
        self.query, self.key, self.value, self.output = made

    def keys(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, S, H, head_width]."""
        k, v = (project(seen).unflatten(-1, (-1, self.head_width)) for project in (self.key, self.value))
        return k, v

    def forward(self, x: Tensor, keys: tuple[Tensor, Tensor], sight: Tensor) -> Tensor:
        """x [B, T, width] -> [B, T, width]; `sight` is added to the scores."""
        q = self.query(x).unflatten(-1, (-1, self.head_width))
        result: Tensor = self.output(attention(q, *keys, sight, scale=1.0).flatten(2))
        return result


class Encoded(NamedTuple):
    """What a decoder reads: hidden states [B, S, width] of the encoder, or None where the cache has their keys, and
    [B, 1, T, S] added to the scores."""

    states: Tensor | None
    sight: Tensor


class Layer(nn.Module):
    """One block of either stack; that of a decoder also reads the encoder."""

    def __init__(self, config: Config, *, decoder: bool) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        if decoder:
            self.cross_attention_norm = RMSNorm(config.width, config.norm_epsilon)
            self.cross_attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_epsilon)
        self.feed_forward = GEGLU(config.width, config.feed_forward, approximate="tanh")

    def forward(
        self,
        x: Tensor,
        sight: Tensor,
        encoded: Encoded | None = None,
        cache: Reader | None = None,
        number: int = 0,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """x [B, T, width] -> [B, T, width]; `number` is the layer's in the cache."""
        normed = self.attention_norm(x)
        keys = self.attention.keys(normed)
        seen = self.attention(normed, keys if cache is None else cache.append(number, *keys), sight)
        x = x + dropped(seen, dropout, 0)
        if encoded is not None:
            read = self._read(encoded.states, cache, number)
            x = x + dropped(self.cross_attention(self.cross_attention_norm(x), read, encoded.sight), dropout, 1)
        return x + dropped(self.feed_forward(self.feed_forward_norm(x)), dropout, 2)

    def _read(self, states: Tensor | None, cache: Reader | None, number: int) -> tuple[Tensor, Tensor]:
        keys: tuple[Tensor, Tensor] | None = None if states is None else self.cross_attention.keys(states)
        if cache is not None:
            return cache.read(number, keys)
        assert keys is not None
        return keys


class Stack(nn.Module):
    """The layers of the encoder or of the decoder, with the one table of distances and the final norm."""

    def __init__(self, config: Config, count: int, *, decoder: bool) -> None:
        super().__init__()
        self.bias = Bias(config.buckets, config.furthest, config.heads, both=not decoder)
        self.layers = nn.ModuleList(Layer(config, decoder=decoder) for _ in range(count))
        self.norm = RMSNorm(config.width, config.norm_epsilon)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        encoded: Encoded | None = None,
        cache: Reader | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Hidden states [B, T, width]; `mask` [B, 1, T, S] is true where a token sees another."""
        sight = self.bias(mask, product_dtype(x), None if cache is None else cache.places())
        x = dropped(x, dropout, EMBEDDING)
        for number, layer in enumerate(self.layers):
            x = layer(x, sight, encoded, cache, number, inside(dropout, number))
        hidden: Tensor = self.norm(x)
        return hidden


class Model(nn.Module):
    """Encoder and decoder over one embedding; `length` is the longest text that it is made for."""

    causal = False

    def __init__(self, config: Config, *, vocab_size: int, length: int) -> None:
        super().__init__()
        self.config, self.vocab_size, self.length = config, vocab_size, length
        self.embedding = nn.Embedding(vocab_size, config.width, _weight=torch.zeros(vocab_size, config.width))
        self.encoder = Stack(config, config.layers, decoder=False)
        self.decoder = Stack(config, config.decoder_layers, decoder=True)
        self.head = None if config.tie_embeddings else Linear(config.width, vocab_size)

    def forward(
        self,
        tokens: Tensor,
        pieces: Tensor | None,
        decoder_tokens: Tensor,
        decoder_pieces: Tensor | None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Hidden states [B, U, width] of decoder tokens [B, U], which read the encoder's tokens [B, T]."""
        encoded = self.encode(tokens, pieces, inside(dropout, 0))
        return self.decode(decoder_tokens, decoder_pieces, encoded, pieces, dropout=inside(dropout, 1))

    def encode(self, tokens: Tensor, pieces: Tensor | None, dropout: Dropout | None = None) -> Tensor:
        """Hidden states [B, T, width] after the encoder's norm; each token sees its whole piece.

        `pieces` [B, T] int32 numbers the piece of each token, the tokens of one side by side; None: one a row. What
        distances add to the scores, [B, H, T, T], grows with the square of T, as in `transformers`.
        """
        numbers = _numbers(pieces, tokens)
        encoded: Tensor = self.encoder(self.embedding(tokens), together(numbers, numbers), dropout=dropout)
        return encoded

    def decode(
        self,
        tokens: Tensor,
        pieces: Tensor | None,
        encoded: Tensor | None,
        encoded_pieces: Tensor | None,
        cache: Reader | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Hidden states [B, U, width] after the decoder's norm, of tokens and pieces [B, U].

        A token sees its own piece up to itself, and of `encoded` [B, T, width] the piece of the same number.
        With a cache the tokens follow those in it, `pieces` is None, and in `encoded_pieces` 0 is a row's text and
        anything else is padding behind it; `encoded` is given with the first tokens, and None from then on.
        """
        x, numbers = self.embedding(tokens), _numbers(pieces, tokens)
        if cache is None:
            assert encoded is not None
            mask = up_to(numbers, numbers)
            across = together(numbers, _numbers(encoded_pieces, encoded[..., 0]))
        else:
            if encoded is not None:
                cache.encoded = (_numbers(encoded_pieces, encoded[..., 0]) == 0).sum(1).tolist()
            cache.extend(tokens.shape[1])
            seen = cache.mask()
            everything = torch.ones(1, 1, 1, max(cache.lengths), dtype=torch.bool, device=x.device)
            mask, across = everything if seen is None else seen, cache.across()
        sight = torch.where(across, 0.0, HIDDEN).to(product_dtype(x))
        hidden: Tensor = self.decoder(x, mask, Encoded(encoded, sight), cache, dropout)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., vocab_size], by the embedding where it is tied."""
        return functional.linear(*self.projection(hidden))

    def projection(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """x [..., width], W [vocab_size, width] and b, or None, of the logits x W^T + b."""
        if self.head is None:
            return hidden * self.config.width**-0.5, self.embedding.weight, None
        return hidden, self.head.weight, None

    def cache(self, rows: int) -> Reader:
        """An empty cache of `rows` rows."""
        c = self.config
        return Reader(c.decoder_layers, rows, c.heads, c.head_width, self.embedding.weight)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill every parameter: the embedding normal(0, 1), norms 1, a matrix normal(0, 1 / sqrt(inputs)), queries
        by 1 / sqrt(head_width) of that, which stands for the scaling of scores (as in the code of T5). Each has a
        generator named by (seed, its name), so nothing else moves it."""
        c = self.config
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1)
                continue
            deviation = {"embedding.weight": 1.0}.get(name, parameter.shape[1] ** -0.5)
            if name.endswith("attention.query.weight"):
                deviation *= c.head_width**-0.5
            if name.endswith("bias.table.weight"):
                deviation = c.width**-0.5
            generator = np.random.Generator(np.random.Philox(derive("init", seed, name)))
            drawn = generator.standard_normal(tuple(parameter.shape), np.float32)
            parameter.copy_(torch.from_numpy(drawn).mul_(deviation))

    def flops(self, work: Work) -> int:
        """Training FLOPs of a batch: 6 for each weight of a layer and place of its own stack, but those that make keys
        and values of the encoder count at its places; 6 width vocab_size a target; and for each token 12 heads
        head_width times the places that it attends to, layer by layer. Of what is frozen 6 is 4."""
        c = self.config
        inner = c.heads * c.head_width
        encoder, decoder = (product_flops(stack.layers.parameters()) for stack in (self.encoder, self.decoder))
        of_encoded = (".cross_attention.key.", ".cross_attention.value.")
        read = product_flops(p for n, p in self.decoder.named_parameters() if any(part in n for part in of_encoded))
        attended = c.decoder_layers * (work.length + work.encoder_length)
        return (
            (encoder + read + 12 * inner * c.layers * work.encoder_length) * work.encoder_tokens
            + (decoder - read + 12 * inner * attended) * work.tokens
            + product_flops([(self.head or self.embedding).weight]) * work.targets
        )

    def parameter_counts(self) -> dict[str, int]:
        """All parameters, and those whose rows are tokens (embedding and head)."""
        tables = [self.embedding.weight, *(self.head.parameters() if self.head else [])]
        everything = sum(p.numel() for p in self.parameters())
        return {"parameters": everything, "embedding_parameters": sum(table.numel() for table in tables)}


def _numbers(pieces: Tensor | None, like: Tensor) -> Tensor:
    """Piece numbers [B, T]; one piece a row where there are none."""
    return torch.zeros(like.shape, dtype=torch.int32, device=like.device) if pieces is None else pieces
