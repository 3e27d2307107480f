"""Attention inside document pieces, causal or both ways, as dense blocks: what a CPU does best.

A packed row holds many pieces, and a mask over whole rows computes mostly what it then throws away.
Here the pieces of all rows are laid side by side, those of about equal length in one batch of
matrices [pieces x heads, length, width of a head]: padded behind, where causality hides the padding from
every token, so no mask over pieces is needed at all. A long piece is cut into blocks of 128 queries, and
each block reads the keys up to its own end: only the last 128 columns need the triangle. Both ways, each
block reads all keys of its piece, and only the last 32 columns, where padding may be, need a mask; where
a token sees no further than its reach, a block reads the keys that any of its queries reaches.

The law: a token's result depends on nothing outside its piece. The number that matters: forward and
backward in bfloat16 take .3 to .5 of the time of torch's fused kernel with a mask, at 4,096 tokens in rows
of 512, because the fused CPU kernel runs at 100 GFLOP/s on cores whose bfloat16 matrix product does 350.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 128  # queries at once: 64 and 256 were slower
MULTIPLE = 32  # pieces are padded to a multiple of this
KEEP = 1024  # attention weights of longer pieces are computed again for the backward pass rather than kept


class Group(NamedTuple):
    """`matrices` matrices of `length` rows each, from row `first` of the laid-out tokens.

    `hidden` [matrices, 1, last columns] is -inf where a key is padding and else 0; None where attention is causal.
    `reach` is how far a query sees to either side, where that is less than all.
    """

    first: int
    matrices: int
    length: int
    hidden: Tensor | None
    reach: int | None = None

    def of(self, *laid_out: Tensor) -> list[Tensor]:
        """Views [matrices, length, width of a head]."""
        end = self.first + self.matrices * self.length
        return [x[self.first : end].view(self.matrices, self.length, -1) for x in laid_out]

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """(queries, keys that they may see) of each block, the last block first."""
        for begin in reversed(range(0, self.length, BLOCK)):
            end = min(begin + BLOCK, self.length)
            if self.reach is not None:
                # Up to a whole MULTIPLE, so that a block reads all of the columns that may be padding or none.
                last = min(-(-(end + self.reach) // MULTIPLE) * MULTIPLE, self.length)
                yield slice(begin, end), slice(max(begin - self.reach, 0), last)
            else:
                yield slice(begin, end), slice(0, end if self.hidden is None else self.length)


@dataclass(eq=False)  # not a tuple: a compiler would read its parts, and compile again for every batch
class Blocks:
    """Where every head of every token lies. `queries` and `keys` fill the layout, `back` reads it."""

    groups: list[Group]
    queries: Tensor  # [laid-out rows], into [tokens x heads]
    keys: Tensor  # [laid-out rows], into [tokens x kv_heads]
    back: Tensor  # [tokens x heads], into the laid-out rows
    padding: Tensor  # laid-out rows that hold no token


def lay_out(pieces: Tensor | None, rows: int, length: int, heads: int, kv_heads: int, *, causal: bool = True) -> Blocks:
    """Plan the layout of `rows` rows of `length` tokens; `pieces` [rows, length] numbers runs of tokens."""
    starts, sizes = _runs(pieces, rows, length)
    padded = -(-sizes // MULTIPLE) * MULTIPLE
    groups: list[Group] = []
    tokens, exists, heads_of = [], [], []
    for size in np.unique(padded).tolist():
        chosen = padded == size
        offsets = np.arange(size)
        inside = offsets < sizes[chosen, None]
        shape = (len(inside), heads, size)
        tokens.append(_flat(np.where(inside, starts[chosen, None] + offsets, 0)[:, None], shape))
        exists.append(_flat(inside[:, None], shape))
        heads_of.append(_flat(np.arange(heads)[:, None], shape))
        hidden = None if causal else _padded_keys(inside, heads)
        groups.append(Group(sum(g.matrices * g.length for g in groups), len(inside) * heads, size, hidden))
    token, exist, head = (np.concatenate(x) for x in (tokens, exists, heads_of))
    queries, keys = token * heads + head, token * kv_heads + head // (heads // kv_heads)
    back = np.empty(rows * length * heads, np.int64)
    back[queries[exist]] = np.flatnonzero(exist)
    return Blocks(groups, *map(torch.from_numpy, (queries, keys, back, np.flatnonzero(~exist))))


def within(blocks: Blocks, reach: int) -> Blocks:
    """The same layout both ways, in which no token sees further than `reach` to either side."""
    groups = [group._replace(reach=reach if reach < group.length - 1 else None) for group in blocks.groups]
    return replace(blocks, groups=groups)


def _runs(pieces: Tensor | None, rows: int, length: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """First token and number of tokens of each piece, over the rows end to end."""
    begins = np.zeros((rows, length), bool)
    begins[:, 0] = True
    if pieces is not None:
        numbers = pieces.numpy()
        begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    starts = np.flatnonzero(begins)
    return starts, np.diff(starts, append=rows * length)


def _padded_keys(inside: np.ndarray[Any, Any], heads: int) -> Tensor:
    """What is added to the scores of the last columns; pieces are padded by less than `MULTIPLE`."""
    hidden = np.where(inside[:, None, -MULTIPLE:], np.float32(0), np.float32(-np.inf))
    return torch.from_numpy(np.repeat(hidden, heads, axis=0))


def _flat(values: np.ndarray[Any, Any], shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Values for [pieces, heads, length], end to end."""
    return np.broadcast_to(values, shape).reshape(-1)


class Attention(torch.autograd.Function):
    """q [N, heads, D], k and v [N, kv_heads, D] of one dtype -> [N, heads, D]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> Tensor:
        width = q.shape[-1]
        laid = [_take(q, blocks.queries).mul_(width**-0.5), _take(k, blocks.keys), _take(v, blocks.keys)]
        out = torch.empty_like(laid[0])
        kept = []
        for group in blocks.groups:
            queries, keys, values, results = group.of(*laid, out)
            for mine, seen in group.blocks():
                weights = _weights(queries, keys, group, mine, seen)
                results[:, mine] = torch.bmm(weights, values[:, seen])
                if group.length <= KEEP:
                    kept.append(weights)
        ctx.blocks, ctx.kv_heads = blocks, k.shape[1]
        ctx.save_for_backward(*laid, *kept)
        return _take(out, blocks.back).view(q.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        blocks: Blocks = ctx.blocks
        gradient = gradients[0]
        # The padding was filled with some token's queries; nobody reads what came of them.
        given = _take(gradient, blocks.queries).index_fill_(0, blocks.padding, 0)
        to = [torch.empty_like(q), torch.empty_like(q), torch.empty_like(q)]
        weights = iter(kept)
        for group in blocks.groups:
            _backward(group, group.of(q, k, v, given), group.of(*to), weights)
        shape = gradient.shape
        dq, dk, dv = (_take(x, blocks.back).view(shape) for x in to)
        return dq.mul_(shape[-1] ** -0.5), _shared(dk, ctx.kv_heads), _shared(dv, ctx.kv_heads), None


# What a compiler is to leave alone, that would compile again for each layout (`leave_alone`).
attend: Callable[[Tensor, Tensor, Tensor, Blocks], Tensor] = Attention.apply


def leave_alone() -> None:
    """Whatever is compiled from here on calls attention as it is."""
    global attend
    attend = torch.compiler.disable(Attention.apply)


def _backward(group: Group, inputs: list[Tensor], outputs: list[Tensor], kept: Iterator[Tensor]) -> None:
    """Gradients of one group; where the last block sees all keys, it comes first and fills what others add to."""
    queries, keys, values, given = inputs
    to_queries, to_keys, to_values = outputs
    if group.reach is not None:
        to_keys.zero_()
        to_values.zero_()
    for mine, seen in group.blocks():
        weights = next(kept) if group.length <= KEEP else _weights(queries, keys, group, mine, seen)
        to_weights = torch.bmm(given[:, mine], values[:, seen].mT)
        to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        to_queries[:, mine] = torch.bmm(to_scores, keys[:, seen])
        add_keys, add_values = torch.bmm(to_scores.mT, queries[:, mine]), torch.bmm(weights.mT, given[:, mine])
        if group.reach is None and mine.stop == group.length:
            to_keys.copy_(add_keys)
            to_values.copy_(add_values)
        else:
            to_keys[:, seen] += add_keys
            to_values[:, seen] += add_values


def _weights(queries: Tensor, keys: Tensor, group: Group, mine: slice, seen: slice) -> Tensor:
    """Softmax over the keys that a block of queries sees."""
    scores = torch.bmm(queries[:, mine], keys[:, seen].mT)
    if group.reach is not None:
        apart = (torch.arange(mine.start, mine.stop)[:, None] - torch.arange(seen.start, seen.stop)).abs()
        # Finite: around a query of padding there may be nothing but padding.
        scores.masked_fill_(apart > group.reach, torch.finfo(scores.dtype).min)
    if group.hidden is None:  # the last key is the last query's
        size = mine.stop - mine.start
        scores[:, :, -size:] += torch.full((size, size), -math.inf, dtype=scores.dtype).triu_(1)
    elif seen.stop == group.length:
        scores[:, :, -group.hidden.shape[-1] :] += group.hidden
    return torch.softmax(scores, -1)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of the last axis, by their number over all axes before it."""
    return x.reshape(-1, x.shape[-1]).index_select(0, index)


def _shared(gradient: Tensor, kv_heads: int) -> Tensor:
    """Sum over the query heads that read one key head."""
    tokens, heads, width = gradient.shape
    if heads == kv_heads:
        return gradient
    return gradient.view(tokens, kv_heads, heads // kv_heads, width).sum(2)
