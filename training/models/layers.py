"""What model families share: norms, rotation, attention, feed-forward, and the cache of keys and values.

The law: all scaled dot-product attention of the house goes through `attention`, so what may see what is decided
in one place, once a forward (`causal`, `both_ways` or a cache), and never layer by layer. Parameters are float32
and zero until somebody fills them; under autocast matrix products run in bfloat16, norms, rotations and sums in
float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from training.models import _blocks, _flex
from training.models._blocks import Blocks
from training.models._cache import Cache
from training.models._gradients import Gated, Normalised, Rotated, wide
from training.order import derive

Turn = tuple[Tensor, Tensor]  # cosine and sine of rotary positions
# What sees what: blocks on a CPU, tiles on a GPU, a mask [B, 1 or H, T, S] (boolean, or added to the scores), or None:
# all that came before.
Sight = Blocks | BlockMask | Tensor | None


class Linear(nn.Module):
    """y = x W^T, + b with `bias`. W [outputs, inputs] is drawn from nobody's generator.

    `heads` tells the optimiser that W holds heads: (0, width) those of its rows, (1, width) those of its columns.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False, *, heads: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


def projections(
    width: int, heads: int, kv_heads: int, head_width: int, bias: bool = False
) -> tuple[Linear, Linear, Linear, Linear]:
    """What makes queries, keys and values of x [..., width], and what takes the heads back to it."""
    query, key, value = (
        Linear(width, count * head_width, bias, heads=(0, head_width)) for count in (heads, kv_heads, kv_heads)
    )
    return query, key, value, Linear(heads * head_width, width, bias, heads=(1, head_width))


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * weight, + bias with `bias`, over the last axis (Ba et al. 2016, arXiv
    1607.06450)."""

    def __init__(self, width: int, epsilon: float, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.epsilon = epsilon

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Computed in float32 at the least; the result is in `dtype`, by default what the next product takes."""
        normed = functional.layer_norm(wide(x), self.weight.shape, self.weight, self.bias, self.epsilon)
        return normed.to(dtype or product_dtype(x))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Computed in float32 at the least; the result is in `dtype`, by default what the next product takes."""
        result: Tensor = Normalised.apply(x, self.weight, self.epsilon, dtype or product_dtype(x))
        return result


def normal(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """Standard normal float32, from a generator that (seed, name) names and nobody else moves."""
    generator = np.random.Generator(np.random.Philox(derive("init", seed, name)))
    return torch.from_numpy(generator.standard_normal(tuple(shape), np.float32))


def product_dtype(x: Tensor) -> torch.dtype:
    """The type in which a matrix product with x would run: autocast's, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def turns(positions: Tensor, width: int, theta: float) -> Turn:
    """Cosine and sine [B, T, 1, width / 2] of position * theta^(-2i / width) (RoPE: Su et al. 2021, section 3.2.2)."""
    frequencies = 1.0 / theta ** (torch.arange(0, width, 2, device=positions.device).float() / width)
    angles = positions[..., None, None].float() * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: Turn, dtype: torch.dtype) -> Tensor:
    """Turn each pair (x_i, x_{i + width/2}) of x [B, T, H, width] by its angle: the half-split form."""
    result: Tensor = Rotated.apply(x, *turn, dtype)
    return result


def causal(pieces: Tensor | None, tokens: Tensor, heads: int, kv_heads: int) -> Sight:
    """Each token sees its own piece up to itself; `pieces` [B, T] numbers runs of tokens (None: one run a row)."""
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        rows, length = tokens.shape
        return _blocks.lay_out(pieces, rows, length, heads, kv_heads)
    if pieces is None:
        return None
    return _flex.plan(pieces, causal=True) if pieces.is_cuda else up_to(pieces, pieces)


def following(cache: Cache, tokens: Tensor, heads: int, kv_heads: int) -> Sight:
    """Each token sees its own row of the cache, to which it is added, up to itself."""
    first = cache.empty
    cache.extend(tokens.shape[1])
    # What is read first needs no mask: one of a long prompt would be as large as its length squared.
    return causal(None, tokens, heads, kv_heads) if first else cache.mask()


def both_ways(
    pieces: Tensor | None,
    tokens: Tensor,
    heads: int,
    kv_heads: int,
    *,
    reach: int | None = None,
    whole: Sight = None,
) -> Sight:
    """Each token sees all of its own piece; `pieces` [B, T] numbers runs of tokens (None: one run a row).

    With `reach` it sees so many tokens to either side of it at most; `whole` is then what all see without.
    """
    if isinstance(whole, Blocks) and reach is not None:
        return _blocks.within(whole, reach)
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        rows, length = tokens.shape
        return _blocks.lay_out(pieces, rows, length, heads, kv_heads, causal=False)
    pieces = torch.zeros_like(tokens) if pieces is None else pieces
    if pieces.is_cuda:
        return _flex.plan(pieces, causal=False, reach=reach)
    return together(pieces, pieces) if reach is None else together(pieces, pieces) & near(tokens, reach)


def together(mine: Tensor, seen: Tensor) -> Tensor:
    """[B, 1, T, S]: of the same piece; `mine` [B, T] and `seen` [B, S] number pieces."""
    return (mine[:, :, None] == seen[:, None, :])[:, None]


def near(tokens: Tensor, reach: int) -> Tensor:
    """[1, 1, T, T]: at most `reach` places apart in rows of tokens [B, T]."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return ((place[:, None] - place).abs() <= reach)[None, None]


def up_to(mine: Tensor, seen: Tensor) -> Tensor:
    """[B, 1, T, S]: the same piece, and not later; `mine` [B, T] are the last T of `seen` [B, S]."""
    length, whole = mine.shape[1], seen.shape[1]
    order = torch.ones(length, whole, dtype=torch.bool, device=mine.device).tril(whole - length)
    return together(mine, seen) & order


def attention(q: Tensor, k: Tensor, v: Tensor, sight: Sight, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T) v over what each token sees: q [B, T, H, D], k and v [B, S, G, D] -> [B, T, H, D].

    The scale is 1 / sqrt(D) by default. H is a multiple of G: query heads share key heads (Ainslie et al. 2023,
    arXiv 2305.13245).
    """
    if isinstance(sight, Blocks):
        if scale is not None:
            q = q * (scale * q.shape[-1] ** 0.5)  # the blocks divide by sqrt(D)
        dtype = product_dtype(q)
        flat_q, flat_k, flat_v = (x.to(dtype).flatten(0, 1) for x in (q, k, v))
        joined = _blocks.attend(flat_q, flat_k, flat_v, sight)
        return joined.view(q.shape)
    if isinstance(sight, BlockMask):
        q, k, v = (x.to(product_dtype(q)) for x in (q, k, v))
        return _flex.attention(q, k, v, sight, scale)
    rows, queries, heads, width = q.shape
    shared = heads // k.shape[2]
    if queries == 1:
        # As with a cache: the heads that share keys are so many queries of these, and no key is copied.
        q, k, v = q.reshape(rows, -1, shared, width), k.transpose(1, 2), v.transpose(1, 2)
        one = functional.scaled_dot_product_attention(q, k, v, attn_mask=sight, scale=scale)
        return one.reshape(rows, 1, heads, width)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if shared > 1:
        k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    result = functional.scaled_dot_product_attention(q, k, v, attn_mask=sight, is_causal=sight is None, scale=scale)
    return result.transpose(1, 2)


class Attention(nn.Module):
    """Grouped-query attention. `epsilon` norms queries and keys (QK-norm: Dehghani et al. 2023, arXiv 2302.05442);
    None leaves them as they are. `bias` gives each of the four projections one."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_width: int, epsilon: float | None, bias: bool = False
    ) -> None:
        super().__init__()
        self.head_width = head_width
        made = projections(width, heads, kv_heads, head_width, bias)
        self.query, self.key, self.value, self.output = made
        self.query_norm = None if epsilon is None else RMSNorm(head_width, epsilon)
        self.key_norm = None if epsilon is None else RMSNorm(head_width, epsilon)

    def forward(self, x: Tensor, turn: Turn | None, sight: Sight, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """x [B, T, width] -> [B, T, width]; queries and keys are turned by `turn`, where positions are rotary.

        With a cache, `sight` is over its tokens too.
        """
        q, k, v = (project(x).unflatten(-1, (-1, self.head_width)) for project in (self.query, self.key, self.value))
        q, k = self._placed(q, self.query_norm, turn), self._placed(k, self.key_norm, turn)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        return self.output(attention(q, k, v, sight).flatten(2))

    @staticmethod
    def _placed(x: Tensor, norm: RMSNorm | None, turn: Turn | None) -> Tensor:
        """Queries or keys as they meet: normed, then turned, in float32 between the two."""
        dtype = x.dtype
        if norm is not None:
            x = norm(x, torch.promote_types(dtype, torch.float32))
        return x.to(dtype) if turn is None else rotate(x, turn, dtype)


class Gate(nn.Module):
    """What gated feed-forwards have in common (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.gate = Linear(width, feed_forward)
        self.up = Linear(width, feed_forward)
        self.down = Linear(feed_forward, width)


class SwiGLU(Gate):
    """down(silu(gate(x)) * up(x))."""

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate(x), self.up(x)
        if type(self.down) is not Linear:  # more than its weight (`lora`)
            return self.down(functional.silu(gate) * up)
        result: Tensor = Gated.apply(gate, up, self.down.weight)
        return result


class GEGLU(Gate):
    """down(gelu(gate(x)) * up(x)); gelu as it is, or by its "tanh" approximation."""

    def __init__(self, width: int, feed_forward: int, approximate: str = "none") -> None:
        super().__init__(width, feed_forward)
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.gate(x), approximate=self.approximate) * self.up(x))


class GELU(nn.Module):
    """down(gelu(up(x))) with biases; gelu by its tanh approximation (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.up = Linear(width, feed_forward, bias=True)
        self.down = Linear(feed_forward, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))
