"""Predict the next token of the same document piece (Bengio et al. 2003; Radford et al. 2019).

Law: every token but the first of a piece is a target exactly once, and is predicted from the tokens of its
own piece alone. Padding is neither read nor predicted.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from training.manifest import Version
from training.objectives import Batch, _places
from training.shards import Rows
from training.tables import Table


class Objective(Table):
    """Causal language modelling; it has no parameters and draws nothing."""

    causal: ClassVar[bool] = True
    measure: ClassVar[str] = "perplexity"
    extra_tokens: ClassVar[tuple[str, ...]] = ()

    def over(self, version: Version) -> Objective:
        """It asks nothing of a version."""
        return self

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Flat places [N] of all targets, ascending."""
        return np.flatnonzero(rows.layout()[1] > 0)

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
        return _places.losses(model, batch)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of targets."""
        return _places.loss(model, batch)
