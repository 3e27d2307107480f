"""Attention inside document pieces on a GPU: FlexAttention over the blocks that hold something.

Tiles of 128 queries by 128 keys in which no query sees a key are never computed, those in which all see all need no
mask, and only the rest ask token by token (Dong et al. 2024, arXiv 2412.05496). What is in a tile follows from the
first and the last piece of its queries and keys, since the pieces of a row stand one after the other: so the plan of a
batch costs T + (T / 128)^2 a row, not T^2, and is made once a forward.

Why not torch's varlen attention: its kernels take no float32, and its cumulative lengths have as many entries as a
batch has pieces: another shape, and a wait for the GPU, at every step, also inside a compiled model. FlexAttention's
kernels take every type, grouped heads and any pieces in one shape, and are traced with the model.

There is no backward of it on a CPU, and none of it runs there: `_blocks` does. T5, whose scores have a bias of their
own, keeps its dense masks on both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # queries, and keys, of a tile; the kernels' own tiles divide it
NARROWEST = 16  # width of a head that the kernels take


def plan(pieces: Tensor, *, causal: bool, reach: int | None = None) -> BlockMask:
    """What each token of rows [B, T] sees: its own piece, `causal` up to itself, or no further than `reach` to either
    side; `pieces` numbers runs of tokens."""
    length = pieces.shape[1]
    changes = functional.pad((pieces[:, 1:] != pieces[:, :-1]).to(torch.int32), (1, 0))
    # Ends with the sum: its result is memory that a kernel can read. What only names other memory, as an assignment to
    # a part of a tensor does, a compiled model works out inside the kernel's mask, which torch 2.11 cannot.
    runs = changes.cumsum(1, dtype=torch.int32)
    begin = torch.arange(0, length, BLOCK, device=pieces.device)
    first, last = runs[:, begin], runs[:, (begin + BLOCK).clamp(max=length) - 1]
    some = (first[:, :, None] <= last[:, None]) & (last[:, :, None] >= first[:, None])
    full = (first[:, :, None] == last[:, None]) & (last[:, :, None] == first[:, None])
    if causal:
        some, full = some.tril(), full.tril(-1)
    if reach is not None:
        apart = (begin[:, None] - begin).abs()
        some, full = some & (apart - BLOCK < reach), full & (apart + BLOCK <= reach + 1)
    whole = begin + BLOCK <= length
    full = full & whole[:, None] & whole
    sees = _causal(runs) if causal else _both_ways(runs) if reach is None else _near(runs, reach)
    partly, wholly = _listed(some & ~full), _listed(full)
    return BlockMask.from_kv_blocks(*partly, *wholly, BLOCK, sees, (length, length))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T) v: q [B, T, H, D], k and v [B, T, G, D] of one dtype -> [B, T, H, D]."""
    width = q.shape[-1]
    scale = width**-0.5 if scale is None else scale
    if width < NARROWEST:  # zeros move no score
        q, k, v = (functional.pad(x, (0, NARROWEST - width)) for x in (q, k, v))
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    run: Any = flex_attention if torch.compiler.is_compiling() else _fused()
    # Whatever else is installed, the kernels that torch itself writes: nothing in them sums in the order of arrival.
    options = {"BACKEND": "TRITON"} if q.is_cuda else None
    shared = q.shape[1] != k.shape[1]
    result: Tensor = run(q, k, v, block_mask=mask, scale=scale, enable_gqa=shared, kernel_options=options)
    return result.transpose(1, 2)[..., :width]


@lru_cache(maxsize=1)
def _fused() -> Callable[..., Any]:
    """Compiled where the model around it is not: otherwise all scores would be written out."""
    return torch.compile(flex_attention)


def _causal(runs: Tensor) -> Callable[..., Tensor]:
    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (runs[row, query] == runs[row, key]) & (key <= query)

    return sees


def _both_ways(runs: Tensor) -> Callable[..., Tensor]:
    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return runs[row, query] == runs[row, key]

    return sees


def _near(runs: Tensor, reach: int) -> Callable[..., Tensor]:
    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (runs[row, query] == runs[row, key]) & ((query - key).abs() <= reach)

    return sees


def _listed(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """Of tiles [B, n, n]: how many are set for each block of queries [B, 1, n], and these first in [B, 1, n, n]."""
    found = tiles.to(torch.int32)[:, None]
    order = found.argsort(stable=True, dim=-1, descending=True)
    return found.sum(-1, dtype=torch.int32), order.to(torch.int32)
