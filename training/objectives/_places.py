"""What objectives share: the loss at places of rows, and texts of which each is a row of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from training.objectives import Batch

# Logits of all places at once are fresh memory from the system at every step, which costs a fifth of it on a CPU.
PLACES = 512
MULTIPLE = 32  # rows are as wide as their longest text, up to a multiple of this: a compiled model meets few shapes


def losses(model: Any, batch: Batch) -> torch.Tensor:
    """-log P of `targets` [N] by the hidden states at the flat places `at` [N], in nats, [N] float32."""
    hidden = model(batch["tokens"], batch["positions"], batch["pieces"])
    return surprise(model, hidden, batch)


def surprise(model: Any, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    """-log P of `targets` [N] by those of the hidden states [B, T, width] that stand `at` [N], in nats, [N] float32."""
    hidden = hidden.flatten(0, 1)[batch["at"]]
    if hidden.device.type != "cpu":  # which keeps its memory, and a compiled model meets one piece of any length
        return cross_entropy(model.logits(hidden).float(), batch["targets"], reduction="none")
    places = zip(hidden.split(PLACES), batch["targets"].split(PLACES), strict=True)
    return torch.cat([cross_entropy(model.logits(h).float(), t, reduction="none") for h, t in places])


def loss(losses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses and the number of targets."""
    return losses.sum(), torch.tensor(losses.numel(), dtype=torch.float64)


def as_one_piece(
    tokens: NDArray[np.integer[Any]], used: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Texts [B, length] of `used` [B] tokens, cut to the width T of the longest: tokens, place in its row, and whether
    that is inside the text, each [B, T]."""
    width = min(tokens.shape[1], -(-int(used.max()) // MULTIPLE) * MULTIPLE)
    place = np.broadcast_to(np.arange(width), (len(used), width))
    return tokens[:, :width].astype(np.int64), place, place < used[:, None]
