"""What model families share: norms, rotation, attention, feed-forward, and the cache of keys and values.

The law: all scaled dot-product attention of the house goes through `attention`, so what may see what is decided
in one place, once a forward (`causal`, `both_ways` or a cache), and never layer by layer. Parameters are float32
and zero until somebody fills them; under autocast matrix products run in bfloat16, norms, rotations and sums in
float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from training.models import _blocks, _flex
from training.models._blocks import Blocks
from training.order import derive

Turn = tuple[Tensor, Tensor]  # cosine and sine of rotary positions
# What sees what: blocks on a CPU, tiles on a GPU, a mask [B, 1 or H, T, S] (boolean, or added to the scores), or None:
# all that came before.
Sight = Blocks | BlockMask | Tensor | None


class Linear(nn.Module):
    """y = x W^T, + b with `bias`. W [outputs, inputs] is drawn from nobody's generator."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis (Ba et al. 2016, arXiv 1607.06450)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Computed in float32 at the least; the result is in `dtype`, by default what the next product takes."""
        normed = functional.layer_norm(_wide(x), self.weight.shape, self.weight, self.bias, self.epsilon)
        return normed.to(dtype or product_dtype(x))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Computed in float32 at the least; the result is in `dtype`, by default what the next product takes."""
        result: Tensor = _Normalised.apply(x, self.weight, self.epsilon, dtype or product_dtype(x))
        return result


class _Normalised(torch.autograd.Function):
    """RMSNorm that keeps its input and one number a vector; autograd's own takes up to 5 % more of a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        wide = _wide(x)
        scale = torch.linalg.vecdot(wide, wide).div_(x.shape[-1]).add_(epsilon).rsqrt_()[..., None]
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With n = x s: dw = sum g n and dx = s (g w - n mean(g w n))."""
        x, weight, scale = ctx.saved_tensors
        weight, given, unit = _wide(weight), _wide(gradients[0]), _wide(x) * scale
        product = given * unit
        mean = torch.matmul(product, weight / len(weight))[..., None]
        to_x = torch.addcmul(given * weight, unit, mean, value=-1).mul_(scale)
        return to_x.to(x.dtype), product.flatten(0, -2).sum(0), None, None


def normal(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """Standard normal float32, from a generator that (seed, name) names and nobody else moves."""
    generator = np.random.Generator(np.random.Philox(derive("init", seed, name)))
    return torch.from_numpy(generator.standard_normal(tuple(shape), np.float32))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


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
    result: Tensor = _Rotated.apply(x, *turn, dtype)
    return result


class _Rotated(torch.autograd.Function):
    """A rotation keeps nothing of its input: gradients are turned back by the same angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.dtype = x.dtype
        return _turned(_wide(x), cosine, sine).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        return _turned(_wide(gradients[0]), cosine, -sine).to(ctx.dtype), None, None, None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    if torch.compiler.is_compiling():  # which makes one loop of it, as long as nothing is written in place
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
    result = torch.empty_like(x)
    to_first, to_second = result.chunk(2, -1)
    torch.mul(first, cosine, out=to_first).addcmul_(second, sine, value=-1)
    torch.mul(second, cosine, out=to_second).addcmul_(first, sine)
    return result


def causal(pieces: Tensor | None, tokens: Tensor, heads: int, kv_heads: int) -> Sight:
    """Each token sees its own piece up to itself; `pieces` [B, T] numbers runs of tokens (None: one run a row)."""
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        rows, length = tokens.shape
        return _blocks.lay_out(pieces, rows, length, heads, kv_heads)
    if pieces is None:
        return None
    return _flex.plan(pieces, causal=True) if pieces.is_cuda else up_to(pieces, pieces)


def both_ways(pieces: Tensor | None, tokens: Tensor, heads: int, kv_heads: int) -> Sight:
    """Each token sees all of its own piece; `pieces` [B, T] numbers runs of tokens (None: one run a row)."""
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        rows, length = tokens.shape
        return _blocks.lay_out(pieces, rows, length, heads, kv_heads, causal=False)
    pieces = torch.zeros_like(tokens) if pieces is None else pieces
    return _flex.plan(pieces, causal=False) if pieces.is_cuda else together(pieces, pieces)


def together(mine: Tensor, seen: Tensor) -> Tensor:
    """[B, 1, T, S]: of the same piece; `mine` [B, T] and `seen` [B, S] number pieces."""
    return (mine[:, :, None] == seen[:, None, :])[:, None]


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
    shared = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if shared > 1:
        k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    result = functional.scaled_dot_product_attention(q, k, v, attn_mask=sight, is_causal=sight is None, scale=scale)
    return result.transpose(1, 2)


class Cache:
    """Keys and values of every layer so far, so that one more token costs one token's work.

    All rows grow together; rows of different lengths are padded in front, with a piece number of their own.
    """

    def __init__(self, layers: int, rows: int, length: int, kv_heads: int, head_width: int, like: Tensor) -> None:
        self._keys = like.new_zeros(layers, rows, length, kv_heads, head_width)
        self._values = torch.zeros_like(self._keys)
        self._pieces = torch.zeros(rows, length, dtype=torch.int32, device=like.device)
        self.device, self.used = like.device, 0

    def extend(self, pieces: Tensor) -> Tensor:
        """Make room for tokens [B, T] of these pieces; returns what they see."""
        begin, self.used = self.used, self.used + pieces.shape[1]
        self._pieces[:, begin : self.used] = pieces
        return up_to(pieces, self._pieces[:, : self.used])

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add a layer's keys and values [B, T, G, D] of those tokens; returns all so far."""
        begin = self.used - k.shape[1]
        self._keys[layer, :, begin : self.used] = k
        self._values[layer, :, begin : self.used] = v
        return self._keys[layer, :, : self.used], self._values[layer, :, : self.used]


class Attention(nn.Module):
    """Grouped-query attention. `epsilon` norms queries and keys (QK-norm: Dehghani et al. 2023, arXiv 2302.05442);
    None leaves them as they are. `bias` gives each of the four projections one."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_width: int, epsilon: float | None, bias: bool = False
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.query = Linear(width, heads * head_width, bias)
        self.key = Linear(width, kv_heads * head_width, bias)
        self.value = Linear(width, kv_heads * head_width, bias)
        self.output = Linear(heads * head_width, width, bias)
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


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.gate = Linear(width, feed_forward)
        self.up = Linear(width, feed_forward)
        self.down = Linear(feed_forward, width)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = _Gated.apply(self.gate(x), self.up(x))
        result: Tensor = self.down(product)
        return result


class _Gated(torch.autograd.Function):
    """silu(gate) * up, that keeps these two alone: silu(gate) is worked out again for the gradient."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (given,) = gradients
        return torch.ops.aten.silu_backward(given * up, gate), functional.silu(gate).mul_(given)


class GELU(nn.Module):
    """down(gelu(up(x))) with biases; gelu by its tanh approximation (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.up = Linear(width, feed_forward, bias=True)
        self.down = Linear(feed_forward, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))
