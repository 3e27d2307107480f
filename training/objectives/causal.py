"""Predict the next token of the same document piece (Bengio et al. 2003; Radford et al. 2019).

Law: every token but the first of a piece is a target exactly once, and is predicted from the tokens of its
own piece alone. Padding is neither read nor predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from training.objectives import Batch
from training.shards import Rows
from training.tables import Table

# Logits of all places at once are fresh memory from the system at every step, which costs a fifth of it on a CPU.
PLACES = 512


class Objective(Table):
    """Causal language modelling; it has no parameters and draws nothing."""

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch:
        """tokens, positions, pieces [B, T]; at [N], the flat places before a target; targets [N], in order of place."""
        piece, position = rows.layout()
        target = np.flatnonzero(position > 0)
        flat = rows.tokens.astype(np.int64)
        return {
            "tokens": torch.from_numpy(flat),
            "positions": torch.from_numpy(np.maximum(position, 0)),
            "pieces": torch.from_numpy(piece),
            "at": torch.from_numpy(target - 1),
            "targets": torch.from_numpy(flat.reshape(-1)[target]),
        }

    def losses(self, model: Any, batch: Batch) -> torch.Tensor:
        """-log P of each target in nats, [N] float32."""
        hidden = model(batch["tokens"], batch["positions"], batch["pieces"]).flatten(0, 1)[batch["at"]]
        places = zip(hidden.split(PLACES), batch["targets"].split(PLACES), strict=True)
        return torch.cat([cross_entropy(model.logits(h).float(), t, reduction="none") for h, t in places])

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of targets."""
        losses = self.losses(model, batch)
        return losses.sum(), torch.tensor(losses.numel(), dtype=torch.float64)
