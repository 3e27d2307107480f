"""How well a model sorts the texts of a split into classes, and what naming the commonest class would give.

    accuracy   texts whose likeliest class is their label, of all texts with a label
    baseline   every text is given the commonest label of the training rows

`classes` has the formulas of the other numbers. Everything is kept by document first (`evaluation/SPLIT.parquet`:
label, predicted, probability, nats, brier), so every number can be followed back to the documents. Texts without a
label are not judged, and counted.
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

from training import TrainingError, classes, evaluate, vocabulary
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
MISTAKES = 10  # that a report shows, those of which the model was surest
EXCERPT = 400  # characters of their texts


@dataclass
class Judged:
    """Per document of the index: its label and the likeliest class (numbers into `labels`; -1 where it was not judged),
    that class's probability, -log P of the label, the Brier score, and its row of the split. `unlabelled` rows of the
    split were passed over."""

    version: Version
    split: str
    labels: list[str]
    gold: Ints
    predicted: Ints
    probability: Doubles
    nats: Doubles
    brier: Doubles
    row: Ints
    unlabelled: int = 0

    def numbers(self, judge: str = "model", chosen: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """loss (nats a text), accuracy and macro_f1 over the chosen documents."""
        pick = (self.gold >= 0) if chosen is None else chosen
        loss = float(self.nats[pick].mean()) if pick.any() else math.nan
        return {"loss": loss, **classes.scores(self.table(pick))}

    def table(self, chosen: NDArray[np.bool_]) -> Ints:
        """The confusion matrix of the chosen documents."""
        return classes.confusion(self.gold[chosen], self.predicted[chosen], len(self.labels))

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
        judged = self.gold >= 0
        table, right = self.table(judged), (self.gold == self.predicted)[judged]
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
            "interval": classes.intervals(table),
            "baseline": self.baseline(),
            "calibration": classes.calibration(self.probability[judged], right, self.brier[judged]),
            "confusion": table.tolist() if len(self.labels) <= LARGEST else None,
            "by_label": dict(zip(self.labels, classes.by_class(table), strict=True)),
            **groups,
            "mistakes": self.mistakes(),
        }

    def mistakes(self) -> list[dict[str, Any]]:
        """The documents that were given a wrong class with the highest probability, as the model read them."""
        wrong = np.flatnonzero((self.gold >= 0) & (self.gold != self.predicted))
        chosen = wrong[np.lexsort((wrong, -self.probability[wrong]))][:MISTAKES]
        rows = Split(self.version, self.split).take(self.row[chosen])
        tokenizer, of = vocabulary.extended(self.version.tokenizer_file, ()), self.version.manifest.tokenizer
        around = (of.start, of.eot)
        known = self.version.documents.select(["doc_id", "source", "language"]).take(pa.array(chosen)).to_pylist()
        found = []
        for number, (document, entry) in enumerate(zip(chosen.tolist(), known, strict=True)):
            tokens = [t for t in rows.tokens[number, : rows.used[number]].tolist() if t not in around]
            text = tokenizer.decode(tokens, skip_special_tokens=False)
            named = {"label": self.labels[self.gold[document]], "predicted": self.labels[self.predicted[document]]}
            excerpt = text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + " ..."
            found.append({**entry, **named, "probability": float(self.probability[document]), "text": excerpt})
        return found

    def baseline(self) -> dict[str, Any]:
        """The commonest label of the training rows (of equals the first), and its scores as the answer to all."""
        commonest = int(np.argmax(label_counts(self.version, "train", len(self.labels))))
        gold = self.gold[self.gold >= 0]
        always = classes.confusion(gold, np.full_like(gold, commonest), len(self.labels))
        return {"label": self.labels[commonest], **classes.scores(always)}

    def write(self, folder: Path) -> str:
        """One row a judged document, in the order of the index; returns the file's name."""
        rows = np.flatnonzero(self.gold >= 0)
        table = self.version.documents.select(["doc_id", "source", "language", "licence"]).take(pa.array(rows))
        names = pa.array(self.labels, pa.string())
        for name, values in (("label", self.gold), ("predicted", self.predicted)):
            table = table.append_column(name, names.take(pa.array(values[rows])))
        for name, numbers in (
            ("probability", self.probability),
            ("nats_model", self.nats),
            ("brier", self.brier),
        ):
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
    # Of labels and rows one more than the number; 0: not judged.
    gold, predicted, row = (np.zeros(count, np.int64) for _ in range(3))
    probability, nats, brier, judged = np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(1)

    def enter(part: Rows, document: Ints, batch: Batch, logits: torch.Tensor) -> None:
        log_p = torch.log_softmax(logits.double(), -1).cpu().numpy()
        label, best = batch["targets"].numpy(), log_p.argmax(1)
        gold[document], predicted[document] = label + 1, best + 1
        p, places = np.exp(log_p), np.arange(len(label))
        nats[document], probability[document] = -log_p[places, label], p.max(1)
        brier[document] = (p**2).sum(1) - 2 * p[places, label] + 1
        row[document] = part.index[np.asarray(part.labels) >= 0] + 1
        judged[0] += len(part) - len(label)

    ask = objective.logits
    evaluate.judge(model, objective, ask, enter, split, settings, precision, group, rows=rows, progress=progress)
    for values in (gold, predicted, row, probability, nats, brier, judged):
        group.sum_(torch.from_numpy(values))
    known = (gold - 1, predicted - 1, probability, nats, brier, row - 1)
    return Judged(version, settings.split, model.labels, *known, int(judged[0]))


def scorer(model: Any) -> Callable[..., evaluate.Tally | Judged]:
    """What judges a model: `score` here for a classifier, and that of `evaluate` for all that predict tokens."""
    return score if isinstance(model, Classifier) else evaluate.score


def check(objective: Objective, version: Version, settings: Evaluation) -> None:
    """Raise TrainingError where the split cannot be evaluated on: asked before the first step, not at the last."""
    if not len(Split(version, settings.split)):
        raise TrainingError(f"{version.folder}: split {settings.split!r} has no row to evaluate on")
    if not hasattr(objective, "logits"):
        return
    if not label_counts(version, settings.split, None).any():
        raise TrainingError(
            f"{version.folder}: split {settings.split!r} has no row with a label to evaluate on; choose another in "
            "[evaluation] split"
        )
    labels = version.manifest.labels or []
    named = np.flatnonzero(label_counts(version, "train", len(labels)))
    if len(named) < 2:
        said = f"the label {labels[named[0]]!r} alone" if len(named) else "no label at all"
        raise TrainingError(
            f"{version.folder}: the rows of train have {said}, so there is nothing to tell apart; label more of the "
            "source, or give it another [pack] split"
        )


def label_counts(version: Version, name: str, labels: int | None) -> Ints:
    """Rows of a split with each label."""
    split = Split(version, name, *(version.beside if name == "train" else ()))
    blocks: list[Any] = [block for shard in split.shards for block in shard.blocks]
    found = [block.label[block.label >= 0] for block in blocks]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *found]), minlength=labels or 0).astype(np.int64)
