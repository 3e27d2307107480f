"""How well a model sorts the texts of a split into classes, and what naming the commonest class would give.

    accuracy   texts whose likeliest class is their label, of all texts with a label
    F1         2 TP / (2 TP + FP + FN) of a class; macro F1 is its mean over the classes that occur as label or guess
    baseline   every text is given the commonest label of the training rows

Everything is kept by document first (`evaluation/SPLIT.parquet`: label, predicted, probability, nats), so every number
can be followed back to the documents. Texts without a label are not judged, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from training import TrainingError, evaluate
from training.classifier import Classifier
from training.config import Evaluation, Precision
from training.manifest import Version
from training.objectives import Batch, Objective
from training.parallel import Group
from training.progress import Reporter
from training.shards import Rows, Split

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
LARGEST = 50  # classes of a confusion matrix that a report holds; the documents' file has every guess


@dataclass
class Judged:
    """Per document of the index: its label and the likeliest class (numbers into `labels`; -1 where it was not judged),
    that class's probability, and -log P of the label. `unlabelled` rows of the split were passed over."""

    version: Version
    split: str
    labels: list[str]
    gold: Ints
    predicted: Ints
    probability: Doubles
    nats: Doubles
    unlabelled: int = 0

    def numbers(self, judge: str = "model", chosen: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """loss (nats a text), accuracy and macro_f1 over the chosen documents."""
        pick = (self.gold >= 0) if chosen is None else chosen
        loss = float(self.nats[pick].mean()) if pick.any() else math.nan
        return {"loss": loss, **scores(confusion(self.gold[pick], self.predicted[pick], len(self.labels)))}

    def counts(self, chosen: NDArray[np.bool_] | None = None) -> dict[str, int]:
        judged = int((self.gold >= 0).sum() if chosen is None else chosen.sum())
        return {"documents": judged, "targets": judged}

    def by(self, column: str) -> dict[str, NDArray[np.bool_]]:
        """Which judged documents have each value of a column of the index; null is 'unknown'."""
        values = np.array([v or "unknown" for v in self.version.documents[column].to_pylist()], object)
        judged = self.gold >= 0
        return {name: (values == name) & judged for name in sorted(set(values[judged]))}

    def described(self) -> dict[str, Any]:
        """What a report states: in all, by class, by source and by language, beside the commonest class."""
        table = confusion(self.gold[self.gold >= 0], self.predicted[self.gold >= 0], len(self.labels))
        groups = {
            f"by_{column}": {
                name: {**self.counts(chosen), **self.numbers("model", chosen)}
                for name, chosen in self.by(column).items()
            }
            for column in ("source", "language")
        }
        return {
            "split": self.split,
            **self.counts(),
            "unlabelled": self.unlabelled,
            "labels": self.labels,
            "model": self.numbers(),
            "baseline": self.baseline(),
            "confusion": table.tolist() if len(self.labels) <= LARGEST else None,
            "by_label": dict(zip(self.labels, by_class(table), strict=True)),
            **groups,
        }

    def baseline(self) -> dict[str, Any]:
        """The commonest label of the training rows (of equals the first), and its scores as the answer to all."""
        commonest = int(np.argmax(label_counts(self.version, "train", len(self.labels))))
        gold = self.gold[self.gold >= 0]
        always = confusion(gold, np.full_like(gold, commonest), len(self.labels))
        return {"label": self.labels[commonest], **scores(always)}

    def write(self, folder: Path) -> str:
        """One row a judged document, in the order of the index; returns the file's name."""
        rows = np.flatnonzero(self.gold >= 0)
        table = self.version.documents.select(["doc_id", "source", "language", "licence"]).take(pa.array(rows))
        names = pa.array(self.labels, pa.string())
        for name, values in (("label", self.gold), ("predicted", self.predicted)):
            table = table.append_column(name, names.take(pa.array(values[rows])))
        for name, numbers in (("probability", self.probability), ("nats_model", self.nats)):
            table = table.append_column(name, pa.array(numbers[rows]))
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{self.split}.parquet", compression="zstd")
        return f"{folder.name}/{self.split}.parquet"


def score(
    model: Any,
    objective: Any,
    version: Version,
    settings: Evaluation,
    precision: Precision,
    group: Group,
    *,
    rows: int | None = None,
    progress: Reporter | None = None,
) -> Judged:
    """As `evaluate.score`, of a classifier."""
    split = Split(version, settings.split)
    count = version.manifest.documents.rows
    gold, predicted = np.zeros(count, np.int64), np.zeros(count, np.int64)  # one more than the label; 0: not judged
    probability, nats, judged = np.zeros(count), np.zeros(count), np.zeros(1)

    def enter(part: Rows, document: Ints, batch: Batch, logits: torch.Tensor) -> None:
        log_p = torch.log_softmax(logits.double(), -1).cpu().numpy()
        label, best = batch["targets"].numpy(), log_p.argmax(1)
        gold[document], predicted[document] = label + 1, best + 1
        nats[document] = -log_p[np.arange(len(label)), label]
        probability[document] = np.exp(log_p.max(1))
        judged[0] += len(part) - len(label)

    ask = objective.logits
    evaluate.judge(model, objective, ask, enter, split, settings, precision, group, rows=rows, progress=progress)
    for values in (gold, predicted, probability, nats, judged):
        group.sum_(torch.from_numpy(values))
    return Judged(version, settings.split, model.labels, gold - 1, predicted - 1, probability, nats, int(judged[0]))


def scorer(model: Any) -> Callable[..., evaluate.Tally | Judged]:
    """What judges a model: `score` here for a classifier, and that of `evaluate` for all that predict tokens."""
    return score if isinstance(model, Classifier) else evaluate.score


def check(objective: Objective, version: Version, settings: Evaluation) -> None:
    """Raise TrainingError where the split cannot be evaluated on: asked before the first step, not at the last."""
    if not len(Split(version, settings.split)):
        raise TrainingError(f"{version.folder}: split {settings.split!r} has no row to evaluate on")
    if hasattr(objective, "logits") and not label_counts(version, settings.split, None).any():
        raise TrainingError(
            f"{version.folder}: split {settings.split!r} has no row with a label to evaluate on; choose another in "
            "[evaluation] split"
        )


def label_counts(version: Version, name: str, labels: int | None) -> Ints:
    """Rows of a split with each label."""
    split = Split(version, name, *(version.beside if name == "train" else ()))
    blocks: list[Any] = [block for shard in split.shards for block in shard.blocks]
    found = [block.label[block.label >= 0] for block in blocks]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *found]), minlength=labels or 0).astype(np.int64)


def confusion(gold: Ints, predicted: Ints, labels: int) -> Ints:
    """Documents [labels, labels] by their label and the class they were given."""
    return np.bincount(gold * labels + predicted, minlength=labels**2).reshape(labels, labels).astype(np.int64)


def scores(table: Ints) -> dict[str, float]:
    """accuracy and macro_f1 of a confusion matrix; NaN where nothing was judged."""
    total = int(table.sum())
    occurs = table.sum(0) + table.sum(1) > 0
    f1 = np.array([values["f1"] for values in by_class(table)])[occurs]
    accuracy = float(np.trace(table)) / total if total else math.nan
    return {"accuracy": accuracy, "macro_f1": float(f1.mean()) if total else math.nan}


def by_class(table: Ints) -> list[dict[str, float]]:
    """documents, precision, recall and f1 of each class; a ratio of nothing to nothing is 0."""
    right, named, given = np.diag(table), table.sum(0), table.sum(1)
    return [
        {
            "documents": int(of),
            "precision": float(hit / guesses) if guesses else 0.0,
            "recall": float(hit / of) if of else 0.0,
            "f1": float(2 * hit / (guesses + of)) if guesses + of else 0.0,
        }
        for hit, guesses, of in zip(right, named, given, strict=True)
    ]
