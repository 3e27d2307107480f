"""Numbers of a classification, from labels and guesses alone: F1, intervals, and whether the model is as sure as right.

F1           2 TP / (2 TP + FP + FN) of a class; macro F1 is its mean over the classes that occur as label or guess
interval     percentile bootstrap over documents (Efron & Tibshirani 1993, section 13.3): drawing documents with
             replacement is drawing the cells of the confusion matrix from a multinomial, whatever their number
calibration  documents in bins (k - 1, k] / 15 of the likeliest class's probability; the expected calibration error
             is the mean over documents of |accuracy - mean probability| of their bin (Guo et al. 2017, arXiv
             1706.04599, section 2, equation 3)
Brier        sum over the classes of (P - 1 for the label, P - 0 for all others)^2, the mean over documents: from 0,
             certain and right, to 2 (Brier 1950, "Verification of forecasts expressed in terms of probability")
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import RESAMPLES, bounds

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
BINS = 15


def confusion(gold: Ints, predicted: Ints, labels: int) -> Ints:
    """Documents [labels, labels] by their label and the class they were given."""
    return np.bincount(gold * labels + predicted, minlength=labels**2).reshape(labels, labels).astype(np.int64)


def scores(table: Ints) -> dict[str, float]:
    """accuracy and macro_f1 of a confusion matrix; NaN where nothing was judged."""
    total = int(table.sum())
    accuracy = float(np.trace(table)) / total if total else math.nan
    return {"accuracy": accuracy, "macro_f1": float(_mean_f1(np.diag(table), table.sum(0), table.sum(1)))}


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


def macro_f1(gold: Ints, predicted: Ints) -> Doubles:
    """Macro F1 over the last axis of labels and guesses [..., n], numbered from 0."""
    count, shape = int(max(gold.max(), predicted.max())) + 1, gold.shape[:-1]
    gold, predicted = (values.reshape(-1, values.shape[-1]) for values in (gold, predicted))
    begin = np.arange(len(gold))[:, None] * count

    def counted(values: Ints) -> Ints:
        return np.bincount(values.ravel(), minlength=len(gold) * count).reshape(-1, count).astype(np.int64)

    found = _mean_f1(counted((begin + gold)[gold == predicted]), counted(begin + predicted), counted(begin + gold))
    return found.reshape(shape)


def _mean_f1(hits: Ints, named: Ints, given: Ints) -> Doubles:
    """The mean over the last axis of the F1 of the classes that occur; NaN where none does."""
    occurs = named + given
    f1 = np.divide(2.0 * hits, occurs, out=np.zeros(hits.shape), where=occurs > 0)
    classes = (occurs > 0).sum(-1)
    return np.divide(f1.sum(-1), classes, out=np.full(classes.shape, math.nan), where=classes > 0)


def intervals(table: Ints) -> dict[str, dict[str, float]]:
    """low and high of accuracy and macro_f1, which hold 95 % of the resamples; a function of the matrix alone."""
    gold, predicted = np.nonzero(table)
    counts, total = table[gold, predicted], int(table.sum())
    if not total:
        nothing = {"low": math.nan, "high": math.nan}
        return {"accuracy": nothing, "macro_f1": nothing}
    drawn = np.random.default_rng([0, total]).multinomial(total, counts / total, RESAMPLES)
    hits, named, given = (np.zeros((RESAMPLES, len(table)), np.int64) for _ in range(3))
    # Cell by cell in a loop: as many as there are kinds of mistake, and a class has several.
    for column, (label, guess) in zip(drawn.T, zip(gold.tolist(), predicted.tolist(), strict=True), strict=True):
        given[:, label] += column
        named[:, guess] += column
        if label == guess:
            hits[:, label] += column
    found = {"accuracy": hits.sum(1) / total, "macro_f1": _mean_f1(hits, named, given)}
    return {name: dict(zip(("low", "high"), bounds(values), strict=True)) for name, values in found.items()}


def calibration(probability: Doubles, right: NDArray[np.bool_], brier: Doubles) -> dict[str, Any]:
    """error (expected calibration error), brier, and the bins that hold a document: from, to, documents, probability
    (the mean of the likeliest class) and accuracy."""
    count, edges = len(probability), np.linspace(0, 1, BINS + 1)
    place = np.searchsorted(edges[1:-1], probability)
    bins = []
    for number in np.unique(place).tolist():
        inside = place == number
        known = {"from": float(edges[number]), "to": float(edges[number + 1]), "documents": int(inside.sum())}
        bins.append(
            {**known, "probability": float(probability[inside].mean()), "accuracy": float(right[inside].mean())}
        )
    error = sum(one["documents"] * abs(one["accuracy"] - one["probability"]) for one in bins) / max(count, 1)
    return {
        "error": error if count else math.nan,
        "brier": float(brier.mean()) if count else math.nan,
        "bins": bins,
    }
