"""What a model is asked to learn: one file an objective, over the same rows.

An objective is a module with a class `Objective`, a checked table of its own parameters, and

    over(version)       -> the objective, knowing the version's tokens; what follows is asked of that one
    targets(rows, keys) -> flat places [N] of the tokens that the losses are about, in the order of the losses
    prepare(rows, keys) -> batch     tensors on the CPU; `keys` [B] uint64 are the row's only randomness
    losses(model, batch) -> [N] nats, one a target
    loss(model, batch)  -> (sum, weight)   summed over targets, in nats, and how many they were

and beside them `causal`, whether it needs a causal family or one that sees both ways (None: any); `measure`, what
the exponential of its mean loss is called; and `extra_tokens`, the names of ids behind the tokenizer's that it uses.
One that reads one text and writes another has `pairs = True`: it needs an encoder-decoder. One whose targets cannot
be asked of n-grams has `ngrams = False`, one whose pieces may grow says by how much in `extra_length`, and one whose
model wants a text to continue in a form of its own has `prompt(text) -> text`, and one that makes a model to talk to a
`template` of chats. One that asks for other outputs than tokens has `model(backbone, version)`, which gives the model
that has them. One that reads texts otherwise to learn from them than to be judged has `perturbed(rows, keys) -> rows`.
One that passes over rows says how many in `left_out(split)`, and one that reads more than the row's text
says what there is to multiply in `work(rows, batch)`. One that reads the rows' targets too has `answers = True`.

The loop divides by the weight of all micro-batches and ranks, so neither changes the loss. The folder is
the registry: `use = "causal"` is `training/objectives/causal.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training import TrainingError, models
from training.manifest import Version
from training.shards import Rows, Split
from training.tables import check, suggest

Batch = dict[str, torch.Tensor]


class Objective(Protocol):
    """What the loop and the evaluation need of an objective."""

    causal: ClassVar[bool | None]
    measure: ClassVar[str]

    @property
    def extra_tokens(self) -> tuple[str, ...]: ...

    def over(self, version: Version) -> Objective: ...

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> NDArray[np.int64]: ...

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


def described(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with every default written out. Raises TrainingError as `load` does."""
    parameters: Any = load(table, "[objective]")
    return {"use": "causal", **table, **parameters.model_dump(mode="json")}


def prompted(objective: Objective, text: str) -> str:
    """A text as a model of this objective wants to read it, to continue it or to fill its gaps."""
    form = getattr(objective, "prompt", None)
    return text if form is None else str(form(text))


def perturbed(objective: Objective, rows: Rows, keys: NDArray[np.uint64]) -> Rows:
    """Rows as an objective learns from them, of as many rows in the same order."""
    change = getattr(objective, "perturbed", None)
    return rows if change is None else change(rows, keys)


def read(objective: Objective, rows: Rows, work: Sequence[models.Work]) -> int:
    """How many tokens of rows are read, whose batches are such work: those of their texts, and of the targets where
    these are told as well."""
    if not getattr(objective, "answers", False):
        return int(rows.used.sum())
    return sum(each.tokens + each.encoder_tokens for each in work)


def work(rows: Rows, batch: Batch) -> models.Work:
    """What a batch prepared from rows has a model multiply, where the objective does not say it itself."""
    found = {"length": batch["tokens"].shape[1], "targets": len(batch["targets"])}
    if "encoder_tokens" not in batch:
        return models.Work(int(rows.used.sum()), **found)
    tokens, read = (int((batch[name] >= 0).sum()) for name in ("pieces", "encoder_pieces"))
    return models.Work(tokens, **found, encoder_tokens=read, encoder_length=batch["encoder_tokens"].shape[1])


def left_out(objective: Objective, split: Split) -> dict[str, int] | None:
    """How many rows of a split the objective passes over, of all; None where it takes every row as it is.

    Raises TrainingError where it passes over all.
    """
    count = getattr(objective, "left_out", None)
    if count is None:
        return None
    left = {"rows": int(count(split)), "of": len(split)}
    if left["rows"] == len(split):
        raise TrainingError(
            f"[objective]: none of the {len(split):,} rows of {split.name!r} has an answer and fits into "
            f"{split.length:,} tokens; build the version with a larger [pack] length"
        )
    return left


def build(objective: Objective, table: Mapping[str, Any], version: Version, where: str) -> Any:
    """The model of a `[model]` table for an objective over a version: its vocabulary has the extra tokens at its end,
    and its length is that of a row and what a piece may grow by.

    Raises TrainingError where the family sees another way than the objective needs, or the version lacks what it asks.
    """
    vocabulary = version.manifest.tokenizer.vocab_size + len(objective.extra_tokens)
    length = version.manifest.length + getattr(objective, "extra_length", 0)
    model = models.build(table, vocab_size=vocabulary, length=length, where=where)
    if objective.causal is None:
        return objective.model(model, version) if hasattr(objective, "model") else model
    if model.causal != objective.causal:
        ways = {True: "what stands before a token", False: "both sides of a token"}
        raise TrainingError(
            f"{where}: the family {table['family']} sees {ways[model.causal]}, and the objective asks for one that "
            f"sees {ways[objective.causal]}; change one of the two"
        )
    if models.has_encoder_and_decoder(model) != getattr(objective, "pairs", False):
        raise TrainingError(
            f"{where}: the family {table['family']} and the objective do not fit: one that writes what it reads in "
            f"another text (span, seq2seq) needs an encoder and a decoder (t5), and all others need a single stack"
        )
    return model
