"""What layers compute with gradients of our own: each keeps little for the backward pass and works the rest out again.

The law: values and gradients are those of the formula that the layer states, as autograd finds them (`test_gpt` and the
model laws hold them to `transformers`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def wide(x: Tensor) -> Tensor:
    """The values in float32 at the least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Normalised(torch.autograd.Function):
    """RMSNorm that keeps its input and one number a vector; autograd's own takes up to 5 % more of a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        whole = wide(x)
        scale = torch.linalg.vecdot(whole, whole).div_(x.shape[-1]).add_(epsilon).rsqrt_()[..., None]
        ctx.save_for_backward(x, weight, scale)
        return (whole * scale).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With n = x s: dw = sum g n and dx = s (g w - n mean(g w n))."""
        x, weight, scale = ctx.saved_tensors
        weight, given, unit = wide(weight), wide(gradients[0]), wide(x) * scale
        product = given * unit
        mean = torch.matmul(product, weight / len(weight))[..., None]
        to_x = torch.addcmul(given * weight, unit, mean, value=-1).mul_(scale)
        to_weight = product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return to_x.to(x.dtype), to_weight, None, None


class Rotated(torch.autograd.Function):
    """A rotation keeps nothing of its input: gradients are turned back by the same angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        ctx.dtype = x.dtype
        return _turned(wide(x), cosine, sine).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        return _turned(wide(gradients[0]), cosine, -sine).to(ctx.dtype), None, None, None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    if torch.compiler.is_compiling():  # which makes one loop of it, as long as nothing is written in place
        return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
    result = torch.empty_like(x)
    to_first, to_second = result.chunk(2, -1)
    torch.mul(first, cosine, out=to_first).addcmul_(second, sine, value=-1)
    torch.mul(second, cosine, out=to_second).addcmul_(first, sine)
    return result


class Gated(torch.autograd.Function):
    """(silu(gate) * up) W^T, that keeps these three alone: the product of the first two is worked out again.

    With a feed-forward of 8/3 of the width it would be a tenth of what a layer keeps.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        weight = weight.to(gate.dtype)
        ctx.save_for_backward(gate, up, weight)
        return functional.linear(functional.silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        (given,) = gradients
        silu = functional.silu(gate)
        to_weight = given.flatten(0, -2).T @ (silu * up).flatten(0, -2) if ctx.needs_input_grad[2] else None
        to_product = given @ weight
        to_up = silu.mul_(to_product)
        return torch.ops.aten.silu_backward(to_product.mul_(up), gate), to_up, to_weight
