"""How well a score tells two labels apart, on texts that the model has not seen.

The area under the ROC curve is the probability that a positive text scores higher than a negative one, ties counting
half (Hanley and McNeil 1982). Its interval is the percentile bootstrap (Efron and Tibshirani 1993, chapter 13): texts
are drawn again within each label, so both sizes stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
RESAMPLES, LEVEL = 2000, 0.95


def auc(positive: Values, negative: Values) -> float:
    """The area under the ROC curve of two non-empty sets of scores."""
    below = np.searchsorted(negative_sorted := np.sort(negative), positive, "left")
    upto = np.searchsorted(negative_sorted, positive, "right")
    return float((below + upto).sum() / (2 * positive.size * negative.size))


def interval(positive: Values, negative: Values, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The bounds between which the area lies with probability LEVEL, by drawing texts again."""
    draw = np.random.default_rng(seed)
    areas = [
        auc(
            positive[draw.integers(positive.size, size=positive.size)],
            negative[draw.integers(negative.size, size=negative.size)],
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(areas, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def thresholds(positive: Values, negative: Values) -> list[dict[str, float]]:
    """A row for each share of the negative texts that a threshold lets through, at most: the threshold (keep from it
    on), the shares of negative and of all texts that are kept, precision and recall.

    Where ties would let more through, the threshold lies above them, and a row that adds nothing is left out.
    """
    falling = np.sort(negative)[::-1]
    rows: dict[float, dict[str, float]] = {}
    for share in SHARES:
        allowed = int(share * negative.size)
        if not allowed:
            continue
        over = falling[allowed] if allowed < falling.size else -np.inf
        higher = np.concatenate([positive, negative])
        higher = higher[higher > over]
        if higher.size:
            rows[float(higher.min())] = _row(float(higher.min()), positive, negative)
    return [rows[threshold] for threshold in sorted(rows, reverse=True)]


def _row(threshold: float, positive: Values, negative: Values) -> dict[str, float]:
    hits, passed = int((positive >= threshold).sum()), int((negative >= threshold).sum())
    return {
        "threshold": round(threshold, 5),
        "negative_kept": round(passed / negative.size, 4),
        "kept": round((hits + passed) / (positive.size + negative.size), 4),
        "precision": round(hits / (hits + passed), 4),
        "recall": round(hits / positive.size, 4),
    }


def report(positive: Values, negative: Values, seed: int) -> dict[str, Any]:
    """What a card says of the held-back texts."""
    low, high = interval(positive, negative, seed)
    return {
        "positive": int(positive.size),
        "negative": int(negative.size),
        "auc": round(auc(positive, negative), 4),
        "auc_interval": [round(low, 4), round(high, 4)],
        "level": LEVEL,
        "thresholds": thresholds(positive, negative),
        "negative_scores": [
            round(float(score), 5) for score in np.quantile(negative, np.linspace(0, 1, 101), method="lower")
        ],
    }
