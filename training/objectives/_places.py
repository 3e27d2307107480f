"""What objectives over places of packed rows share: the loss at each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from training.objectives import Batch

# Logits of all places at once are fresh memory from the system at every step, which costs a fifth of it on a CPU.
PLACES = 512


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
