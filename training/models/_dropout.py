"""Dropout whose every draw is a function of a row's key and a place: nothing is drawn from a generator.

Each number of what a sublayer adds to the residual stream, and of the embeddings, is left out with the probability
`share`, and those that stay are divided by 1 - share (Srivastava et al. 2014, "Dropout", JMLR 15, section 4; the places
are those of Vaswani et al. 2017, arXiv 1706.03762, section 5.4). The attention weights keep all of theirs.

The law: what is left out of a row hangs on its key alone, whatever rows lie beside it and however long the batch is, so
a step is the same for any micro-batching and number of processes, and after a resume.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Sites that are no layer's: what the layers read, the state that classes are read from, and all of a second reading.
EMBEDDING, STATE, AGAIN = -1, -2, -3


def _signed(x: int) -> int:
    """The 64 bits of x as a signed number, which is what torch multiplies."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


GAMMA = _signed(0x9E3779B97F4A7C15)


class Dropout(NamedTuple):
    """What is left out of the rows of a batch: a share of it, by the rows' keys [B] int64."""

    share: float
    keys: Tensor

    def inside(self, number: int) -> Dropout:
        """That of a part of the model, by its number."""
        return Dropout(self.share, mix(self.keys + _signed(number * GAMMA)))

    def rows(self, chosen: Tensor) -> Dropout:
        """That of some rows [N], one of them as often as it is named."""
        return Dropout(self.share, self.keys[chosen])

    def twice(self) -> Dropout:
        """That of the rows and, behind them, of the same rows once more, of which something else is left out."""
        return Dropout(self.share, torch.cat([self.keys, self.inside(AGAIN).keys]))


def inside(dropout: Dropout | None, number: int) -> Dropout | None:
    """`Dropout.inside`, where something is left out."""
    return None if dropout is None else dropout.inside(number)


def dropped(x: Tensor, dropout: Dropout | None, site: int) -> Tensor:
    """x [B, ...] without what is left out at this site; x itself where there is no dropout."""
    if dropout is None:
        return x
    places = torch.arange(1, math.prod(x.shape[1:]) + 1, device=x.device) * GAMMA
    bits = mix(dropout.inside(site).keys[:, None] + places)
    stays = (bits >= round(dropout.share * 2**64) - 2**63).view(x.shape)
    return x * stays.to(x.dtype).div_(1 - dropout.share)


def mix(x: Tensor) -> Tensor:
    """`order.mix` of int64: the same bits."""
    y = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    y = (y ^ _shifted(y, 27)) * _signed(0x94D049BB133111EB)
    return y ^ _shifted(y, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x shifted to the right as if it had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
