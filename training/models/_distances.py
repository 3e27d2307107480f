"""What the distance between two tokens adds to an attention score: the relative position bias of T5.

Raffel et al. 2020 (arXiv 1910.10683), section 2.1. The law: the same table gives what `transformers`' T5Attention adds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HIDDEN = -1e30  # of a score that must not count; finite, so padding that sees nothing at all gives no NaN


def bucket(distance: Tensor, count: int, furthest: int, *, both: bool) -> Tensor:
    """Bucket in [0, count) of each distance (key minus query): one a distance at first, then logarithmic.

    `both` gives half of the buckets to keys that come later; else these share bucket 0 (Raffel et al., section 2.1).
    """
    later = torch.zeros_like(distance)
    if both:
        count //= 2
        later = (distance > 0).long() * count
        distance = distance.abs()
    else:
        distance = -distance.clamp(max=0)
    exact = count // 2
    scaled = torch.log(distance.clamp(min=1).float() / exact) / math.log(furthest / exact) * (count - exact)
    return later + torch.where(distance < exact, distance, (exact + scaled.long()).clamp(max=count - 1))


class Bias(nn.Module):
    """What a distance adds to the scores of each head: one table for all layers of a stack."""

    def __init__(self, buckets: int, furthest: int, heads: int, *, both: bool) -> None:
        super().__init__()
        self.furthest, self.both = furthest, both
        self.table = nn.Embedding(buckets, heads, _weight=torch.zeros(buckets, heads))

    def forward(self, mask: Tensor, dtype: torch.dtype, places: Tensor | None = None) -> Tensor:
        """What is added to the scores [B, H, T, S], for `mask` [B, 1, T, S]. The queries are the last of the keys, or
        stand at `places` [B, T] among them."""
        weight, (queries, keys) = self.table.weight, mask.shape[2:]
        if places is not None:
            apart = torch.arange(keys, device=weight.device) - places[..., None]
            found = self.table(bucket(apart, len(weight), self.furthest, both=self.both))
            return torch.where(mask, found.permute(0, 3, 1, 2), HIDDEN).to(dtype)
        distance = torch.arange(1 - keys, queries, device=weight.device)
        by_distance = self.table(bucket(distance, len(weight), self.furthest, both=self.both)).T
        # Row i of the matrix is a window into the distances, one further back for each query.
        bias = by_distance.unfold(1, keys, 1).flip(1)[None]
        return torch.where(mask, bias, HIDDEN).to(dtype)
