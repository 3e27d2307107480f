"""Muon for matrices, whole or of which every process holds some rows.

    M <- b M + (1 - b) G;   W <- W - r s polar((1 - b) G + b M),   s = .2 sqrt(max(rows, columns))

(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; s by Liu et al. 2025, arXiv 2502.16982, section 2.2).
The polar factor of X = U S V^T is U V^T, and an odd polynomial of X changes S alone. Three of them, one after the
other, are as near as Jordan's five:

    X <- a X + b (X X^T) X + c (X X^T)^2 X

First X is divided by (sum of s^4)^(1/4) = |X X^T|_F^(1/2): no smaller than the largest singular value s, nearer to it
than the norm of X (.58 of that on average of a run), and nearly free, as X X^T is there. Then each step has the
coefficients that bring what the last one left of [.01, 1] nearest to 1 (Amsel et al. 2025, arXiv 2505.16932, section
3), with 1 % of room for rounding. In exact arithmetic singular values from .01 of the bound on end in [.72, 1.28], in
bfloat16 in [.64, 1.29]; five of Jordan's leave [.68, 1.21]. What is smaller grows 77-fold at the most.

The last two steps are polynomials of one G = X X^T, and these commute: G is brought along by the second, T G T, and X
is multiplied once, by both. (By all three at once, a matrix of low rank would drown in the rounding of what grows
77-fold.) Matrices of one shape go through it together: of small products the calls cost more than the arithmetic.

What attention has of one matrix is many, one a head: of each the polar factor is taken by itself, so that no head
waits for a louder one, and rows in number of a head's width cost a fraction of the whole (GLM-5, arXiv 2602.15763,
"Muon Split"; Kimi K3, arXiv 2607.24653, section 2.5, for queries, keys and values; here for the output too).

Momentum and weights stay sharded. The polar factor needs the whole matrix, so the update is gathered, each process
works it out, and keeps its own rows: one gather a matrix and step, and no memory that lasts. The law: but for the
polynomial a step is torch.optim.Muon's on matrices and heads, to the bit, and sharded ones follow the same formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from training.sharded import is_sharded

STEPS = ((8.0172, -22.941, 16.6113), (3.6119, -2.6521, 0.5123), (2.661, -1.9451, 0.4357))
SMALLEST = 1e-7  # torch.optim.Muon's
AT_ONCE = 1 << 24  # numbers of matrices that are turned together, in bfloat16


class Muon(torch.optim.Muon):
    """torch.optim.Muon with another polynomial, that takes heads one by one, and sharded matrices too.

    A group's `heads` is None, or (axis, width): the matrices hold heads of that many rows (axis 0) or columns (1).
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            for parameters in _together(group["params"]):
                self._turn(parameters, group)
        return None

    def _turn(self, parameters: Sequence[Any], group: dict[str, Any]) -> None:
        """One update of matrices of one shape."""
        from torch.optim._muon import _adjust_lr

        heads = group.get("heads")
        shape = split(parameters[0], heads).shape
        parts = torch.empty(len(parameters), *shape, dtype=torch.bfloat16, device=parameters[0].device)
        for parameter, room in zip(parameters, parts, strict=True):
            gradient = parameter.grad
            momentum = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(gradient))
            momentum.lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            room.copy_(split(update.full_tensor() if is_sharded(update) else update, heads))
        rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], shape[1:])
        for parameter, turned in zip(parameters, polar(parts.flatten(0, 1)).view_as(parts), strict=True):
            factor = join(turned, heads)
            if is_sharded(parameter):
                from torch.distributed.tensor import DTensor, Replicate

                here = DTensor.from_local(factor.contiguous(), parameter.device_mesh, [Replicate()], run_check=False)
                factor = here.redistribute(placements=parameter.placements)
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(factor, alpha=-rate)


def _together(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Those that have a gradient, by shape, so many at once as `AT_ONCE` allows."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            shapes.setdefault(parameter.shape, []).append(parameter)
    for shape, alike in shapes.items():
        count = max(1, AT_ONCE // shape.numel())
        yield from (alike[first : first + count] for first in range(0, len(alike), count))


def split(matrix: Tensor, heads: tuple[int, int] | None) -> Tensor:
    """[rows, columns] -> its heads [heads, rows or width, width or columns]; where there are none, itself as one."""
    if heads is None:
        return matrix[None]
    axis, width = heads
    return matrix.unflatten(axis, (-1, width)).movedim(axis, 0)


def join(parts: Tensor, heads: tuple[int, int] | None) -> Tensor:
    """The inverse of `split`."""
    return parts[0] if heads is None else parts.movedim(0, heads[0]).flatten(heads[0], heads[0] + 1)


def polar(matrices: Tensor) -> Tensor:
    """U V^T of U S V^T, nearly, of each of [count, rows, columns]: the same in bfloat16; of zeros, zeros."""
    x = matrices.bfloat16()
    x = x / _norms(x)
    tall = x.shape[1] > x.shape[2]
    gram = x.mT @ x if tall else x @ x.mT
    bound = _norms(gram)
    turn = _step(gram / bound, *STEPS[0]) * bound.rsqrt()
    x = x @ turn if tall else turn @ x
    gram = x.mT @ x if tall else x @ x.mT
    second = _step(gram, *STEPS[1])
    turn = _step(second @ (gram @ second), *STEPS[2]) @ second
    return x @ turn if tall else turn @ x


def _step(gram: Tensor, a: float, b: float, c: float) -> Tensor:
    """a + b G + c G^2."""
    turn = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    turn.diagonal(dim1=1, dim2=2).add_(a)
    return turn


def _norms(matrices: Tensor) -> Tensor:
    """Of each matrix, and nothing that divides by 0."""
    return torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True).clamp(min=SMALLEST)
