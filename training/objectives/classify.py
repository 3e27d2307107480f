"""Say which class a text belongs to: sequence classification over rows of examples.

The classes are the labels of the version. Law: every labelled row is one target, whatever rows lie beside it; a row
without a label is read and is no target. What a row is asked about is one hidden state: see `classifier`.

`word_dropout` leaves each token of a text out with that probability, each time that it is read to be learnt from (Iyyer
et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text Classification", section 3.1); a text that is
judged is read whole. `dropout` does the same to hidden states, where BERT and T5 do it when they are fine-tuned: see
`models._dropout`. What is left out is a function of the row and its key alone.

`r_drop` is the weight alpha of R-Drop (Wu et al. 2021, arXiv 2106.14448, section 2.1): each text is read twice, with
other states left out, and the two distributions p and q over the classes are to be right and alike,

    loss = -(log p(label) + log q(label)) / 2 + alpha / 4 (KL(p || q) + KL(q || p)),

half of the paper's, so that it is the plain loss at alpha = 0. It takes twice the memory and the work.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch.nn.functional import cross_entropy, nll_loss

from training import TrainingError, objectives
from training.classifier import Classifier
from training.manifest import Version
from training.models import Work
from training.models._dropout import Dropout
from training.objectives import Batch, _places
from training.order import uniform
from training.shards import Rows
from training.tables import Table

READ = ("tokens", "positions", "pieces", "at")  # what a classifier reads of a batch
LeftOut = Annotated[float, Field(ge=0, lt=1)]


class Objective(Table):
    """Sequence classification. Of a text to learn from a share of `word_dropout` of its tokens is left out, and of what
    its sublayers add to the hidden states a share of `dropout`; `r_drop` weighs how far two readings of it may differ
    that leave out other states."""

    word_dropout: LeftOut = 0.0
    dropout: LeftOut = 0.0
    r_drop: Annotated[float, Field(ge=0)] = 0.0

    causal: ClassVar[bool | None] = None
    measure: ClassVar[str] = "perplexity"
    extra_tokens: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _differ(self) -> Objective:
        if self.r_drop and not self.dropout:
            raise ValueError("r_drop compares two readings that leave out other states, so it needs dropout above 0")
        return self

    def over(self, version: Version) -> Objective:
        """The objective over a version's labels. Raises TrainingError where there are not two at least."""
        labels_of(version)
        return self

    def model(self, backbone: Any, version: Version) -> Classifier:
        """A classifier into the version's labels on this backbone."""
        return Classifier(backbone, labels_of(version), version.manifest.tokenizer.eot)

    def perturbed(self, rows: Rows, keys: NDArray[np.uint64]) -> Rows:
        """The rows as they are learnt from: `tokens` and `used` without what is left out. First and last token stay,
        which say where a text begins and ends."""
        if not self.word_dropout:
            return rows
        place = np.arange(rows.tokens.shape[1])
        last = rows.used[:, None] - 1
        chance = uniform(keys[:, None], place.astype(np.uint64) + 1, "classify", "leave out")
        stays = (place <= last) & ((chance >= self.word_dropout) | (place == 0) | (place == last))
        order = np.argsort(~stays, axis=1, kind="stable")  # what stays comes first, in its order
        return replace(rows, tokens=np.take_along_axis(rows.tokens, order, axis=1), used=stays.sum(1))

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Flat places [N] of the last token of each labelled row, ascending."""
        row = _labelled(rows)
        return row * rows.tokens.shape[1] + rows.used[row] - 1

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch:
        """tokens, positions, pieces [B, T], T that of the longest row; at [N], the flat places of the last tokens of
        labelled rows; targets [N], their labels; keys [B] int64, where something is left out by them."""
        tokens, place, inside = _places.as_one_piece(rows.tokens, rows.used)
        row = _labelled(rows)
        labels = np.asarray(rows.labels)[row]
        left_out = {"keys": torch.from_numpy(keys.view(np.int64))} if self.dropout else {}
        return {
            "tokens": torch.from_numpy(tokens),
            "positions": torch.from_numpy(np.where(inside, place, 0)),
            "pieces": torch.from_numpy(np.where(inside, np.arange(len(rows))[:, None], -1).astype(np.int32)),
            "at": torch.from_numpy(row * tokens.shape[1] + rows.used[row] - 1),
            "targets": torch.from_numpy(labels.astype(np.int64)),
            **left_out,
        }

    def work(self, rows: Rows, batch: Batch) -> Work:
        """What a batch to learn from has a model multiply: each text twice under `r_drop`."""
        once = objectives.work(rows, batch)
        return once._replace(tokens=2 * once.tokens, targets=2 * once.targets) if self.r_drop else once

    def logits(self, model: Classifier, batch: Batch) -> torch.Tensor:
        """Logits [N, labels] of the labelled rows, float32. A model that learns leaves something out."""
        return _logits(model, batch, self._dropout(model, batch))

    def losses(self, model: Any, batch: Batch) -> torch.Tensor:
        """-log P of each label in nats, [N] float32."""
        return cross_entropy(self.logits(model, batch), batch["targets"], reduction="none")

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of labelled rows."""
        dropout = self._dropout(model, batch)
        losses = self._r_drop(model, batch, dropout) if dropout and self.r_drop else self.losses(model, batch)
        return losses.sum(), torch.tensor(len(losses), dtype=torch.float64)

    def _dropout(self, model: Classifier, batch: Batch) -> Dropout | None:
        return Dropout(self.dropout, batch["keys"]) if model.training and self.dropout else None

    def _r_drop(self, model: Classifier, batch: Batch, dropout: Dropout) -> torch.Tensor:
        """The loss of each labelled row over two readings, in nats, [N] float32."""
        again = {"at": batch["at"] + batch["tokens"].numel()}
        both = {name: torch.cat([batch[name], again.get(name, batch[name])]) for name in (*READ, "targets")}
        log_p = _logits(model, both, dropout.twice()).log_softmax(-1)
        right = nll_loss(log_p, both["targets"], reduction="none")
        (p, q), (of_p, of_q) = log_p.chunk(2), right.chunk(2)
        apart = ((p.exp() - q.exp()) * (p - q)).sum(-1)  # both divergences in one sum
        return (of_p + of_q) / 2 + self.r_drop / 4 * apart


def _logits(model: Classifier, batch: Batch, dropout: Dropout | None) -> torch.Tensor:
    logits: torch.Tensor = model(*(batch[name] for name in READ), dropout)
    return logits.float()


def labels_of(version: Version) -> list[str]:
    """The names of a version's classes. Raises TrainingError where there are not two at least."""
    manifest = version.manifest
    if manifest.layout != "examples":
        raise TrainingError(
            f"[objective] (classify): {version.address} has the layout {manifest.layout!r}, whose rows have no labels; "
            'build it from a source whose card maps a label, with [pack] layout = "examples"'
        )
    if len(labels := manifest.labels or []) < 2:
        said = f"the label {labels[0]!r} alone" if labels else "no labels"
        raise TrainingError(
            f"[objective] (classify): {version.address} has {said}, and classes are two at least; map the label in the "
            "source's card (columns) and build the version again"
        )
    return labels


def _labelled(rows: Rows) -> NDArray[np.int64]:
    """Numbers of the rows that have a label."""
    return np.flatnonzero(np.asarray(rows.labels) >= 0)
