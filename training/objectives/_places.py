"""What objectives share: the loss at places of rows, the sum to train on, and texts of which each is a row of its own.

Logits of all places at once would be fresh memory from the system at every step, the largest of the step by far. On a
CPU the sum comes with its gradients, a few places at a time while their logits are in the cache, and none is kept
(the idea of Liger's fused cross-entropy, Hsu et al. 2024, arXiv 2410.10989): at 8,192 tokens of a vocabulary this
takes a tenth off a step of 14 M parameters on one core, and a sixth of its peak memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear

from training.models.layers import product_dtype
from training.objectives import Batch

PLACES = 512  # logits at once, where autograd keeps them
NEAR = 256  # logits at once that stay in the cache
SUMMED = 1024  # places whose gradients by logits are summed into the table's at once
MULTIPLE = 32  # rows are as wide as their longest text, up to a multiple of this: a compiled model meets few shapes


def losses(model: Any, batch: Batch) -> Tensor:
    """-log P of `targets` [N] by the hidden states at the flat places `at` [N], in nats, [N] float32."""
    return _surprise(model, _hidden(model, batch), batch)


def _surprise(model: Any, hidden: Tensor, batch: Batch) -> Tensor:
    hidden = hidden.flatten(0, 1)[batch["at"]]
    if hidden.device.type != "cpu":  # which keeps its memory, and a compiled model meets one piece of any length
        return cross_entropy(model.logits(hidden).float(), batch["targets"], reduction="none")
    size = PLACES if torch.is_grad_enabled() else NEAR
    places = zip(hidden.split(size), batch["targets"].split(size), strict=True)
    return torch.cat([cross_entropy(model.logits(h).float(), t, reduction="none") for h, t in places])


def loss(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Sum of `losses` and the number of targets."""
    return total(model, _hidden(model, batch), batch)


def total(model: Any, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The same by hidden states [B, T, width]."""
    targets = batch["targets"]
    count = torch.tensor(len(targets), dtype=torch.float64)
    if hidden.device.type != "cpu" or torch.compiler.is_compiling():
        return _surprise(model, hidden, batch).sum(), count
    inputs, table, bias = model.projection(_At.apply(hidden, batch["at"]))
    summed: Tensor = _Total.apply(inputs, table, bias, targets, product_dtype(inputs))
    return summed, count


def _hidden(model: Any, batch: Batch) -> Tensor:
    """Hidden states of the rows that have targets; of pairs of texts those of the decoder."""
    pairs = "encoder_tokens" in batch
    names = ["encoder_tokens", "encoder_pieces", "tokens", "pieces"] if pairs else ["tokens", "positions", "pieces"]
    hidden: Tensor = model(*(batch[name] for name in names))
    return hidden


class _At(torch.autograd.Function):
    """Rows [N, width] of hidden [B, T, width] at ascending flat places; each is taken once, so gradients are copied."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, at: Tensor) -> Tensor:
        ctx.save_for_backward(at)
        ctx.shape = hidden.shape
        return hidden.flatten(0, 1).index_select(0, at)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (at,) = ctx.saved_tensors
        whole = gradients[0].new_zeros(ctx.shape)
        whole.flatten(0, 1).index_copy_(0, at, gradients[0])
        return whole, None


class _Total(torch.autograd.Function):
    """sum over n of -log softmax(x W^T + b)[n, target n]: x [N, width], W [V, width], b [V] or None -> float32.

    The gradients by all three are worked out with the sum: with p the softmax and e the unit vector of the target,
    (p - e) W, (p - e)^T x and the sum of (p - e) over n.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor, dtype: torch.dtype) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        to_table, to_bias = (
            torch.zeros_like(each) if each is not None and ctx.needs_input_grad[n] else None
            for n, each in enumerate((table, bias), 1)
        )
        inputs, weight = x.to(dtype), table.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        to_inputs = torch.empty_like(inputs)
        found = torch.empty(len(x), dtype=torch.promote_types(dtype, torch.float32))
        room = torch.empty(min(len(x), SUMMED), len(table), dtype=dtype) if wanted else None
        for first in range(0, len(x), SUMMED):
            group = slice(first, min(first + SUMMED, len(x)))
            for begin in range(group.start, group.stop, NEAR):
                near = slice(begin, min(begin + NEAR, group.stop))
                logits = linear(inputs[near], weight, offset).to(found.dtype)
                shares = torch.softmax(logits, -1)
                at = targets[near, None]
                found[near] = _logs(shares, logits, at)
                if room is not None:
                    given = room[near.start - first : near.stop - first]
                    given.copy_(shares.scatter_add_(1, at, -torch.ones_like(at, dtype=shares.dtype)))
                    torch.mm(given, weight, out=to_inputs[near])
            if room is not None:
                given = room[: group.stop - first]
                if to_table is not None:
                    to_table += given.T @ inputs[group]
                if to_bias is not None:
                    to_bias += given.sum(0, dtype=found.dtype)
        if wanted:
            ctx.save_for_backward(to_inputs.to(x.dtype), to_table, to_bias)
        return -found.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to = ctx.saved_tensors
        factor = float(gradients[0])
        if factor != 1:
            to = [None if gradient is None else gradient * factor for gradient in to]
        return *to, None, None


def _logs(shares: Tensor, logits: Tensor, at: Tensor) -> Tensor:
    """Logarithms of softmax's `shares` [N, V] of logits [N, V] at `at` [N, 1]: [N].

    A share holds as many digits as its logarithm, unless it is so small that they are lost.
    """
    mine = shares.gather(1, at)[:, 0]
    if bool((mine < torch.finfo(mine.dtype).tiny).any()):
        return torch.log_softmax(logits, -1).gather(1, at)[:, 0]
    return mine.log_()


def as_one_piece(
    tokens: NDArray[np.integer[Any]], used: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Texts [B, length] of `used` [B] tokens, cut to the width T of the longest: tokens, place in its row, and whether
    that is inside the text, each [B, T]."""
    width = min(tokens.shape[1], -(-int(used.max()) // MULTIPLE) * MULTIPLE)
    place = np.broadcast_to(np.arange(width), (len(used), width))
    return tokens[:, :width].astype(np.int64), place, place < used[:, None]
