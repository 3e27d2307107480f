"""What a model is asked to learn: one file an objective, over the same packed rows.

An objective is a module with a class `Objective`, a checked table of its own parameters, and

    prepare(rows, keys) -> batch     tensors on the CPU; `keys` [B] uint64 are the row's only randomness
    loss(model, batch)  -> (sum, weight)   summed over targets, in nats, and how many they were

The loop divides by the weight of all micro-batches and ranks, so neither changes the loss. The folder is
the registry: `use = "causal"` is `training/objectives/causal.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training import TrainingError
from training.shards import Rows
from training.tables import check, suggest

Batch = dict[str, torch.Tensor]


class Objective(Protocol):
    """What the loop and the evaluation need of an objective."""

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch: ...

    def losses(self, model: Any, batch: Batch) -> torch.Tensor: ...

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]: ...


def available() -> list[str]:
    """Names of the objectives in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_")


def load(table: Mapping[str, Any], where: str) -> Objective:
    """The objective that `use` names, with its own parameters. Raises TrainingError listing what exists."""
    parameters = {"use": "causal", **table}
    use = parameters.pop("use")
    if use not in available():
        raise TrainingError(f"{where}: unknown objective {use!r}{suggest(str(use), available())}")
    objective: Objective = check(importlib.import_module(f"{__name__}.{use}").Objective, parameters, f"{where} ({use})")
    return objective
