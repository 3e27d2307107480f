"""From log-likelihoods to scores: metrics item by item, their means with bootstrap intervals, and chance.

    raw             the gold choice has the highest  log P(continuation | context)
    normalised      ... log P / bytes of the continuation (acc_norm of lm-eval, which divides by characters)
    unconditional   ... log P(continuation | context) - log P(continuation | answer context)   (GPT-3, arXiv 2005.14165,
                    section 2.4)
    exact_match     greedy decoding writes the continuation of a cloze, token by token
    log_likelihood  nats a byte of the continuation of a cloze

Of choices that are equally likely the first wins, as in lm-eval. Chance is the mean over items of 1 / choices. An
interval is that of the percentile bootstrap over items (Efron & Tibshirani 1993, section 13.3), the same resamples for
every metric and every model that answered the same items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.bootstrap import RESAMPLES, bounds
from training.suites.prompts import Asked
from training.suites.suite import CLOZE, Metric

Doubles = NDArray[np.float64]
BLOCK = 1 << 22  # numbers that are drawn at once


def of_item(
    metric: Metric, asked: Asked, nats: Sequence[float], alone: Sequence[float], greedy: Sequence[bool]
) -> float:
    """What one item scores: 1 or 0, or nats a byte."""
    if metric == "exact_match":
        return float(greedy[0])
    sizes = np.array(asked.sizes, np.float64)
    if metric == "log_likelihood":
        return float(nats[0] / sizes[0])
    values = np.array(nats, np.float64)
    if metric == "normalised":
        # Several contexts and one continuation: its bytes are those of each.
        values = values / sizes
    elif metric == "unconditional":
        values = values - np.array(alone, np.float64)
    return float(int(np.argmax(values)) == asked.item.gold)


def chance(metric: Metric, choices: NDArray[np.int64]) -> float | None:
    """What a model that knows nothing scores; None where that is no number."""
    if metric in CLOZE:
        return 0.0 if metric == "exact_match" else None
    return float(np.mean(1 / choices)) if len(choices) else None


def interval(values: Doubles, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean; NaN for no values."""
    if not len(values):
        return math.nan, math.nan
    means = np.concatenate([values[drawn].mean(1) for drawn in resamples(len(values), seed)])
    return bounds(means)


def resamples(count: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """RESAMPLES rows of `count` item numbers drawn with replacement, some at a time; a function of both numbers."""
    rng, left = np.random.default_rng([seed, count]), RESAMPLES
    while left:
        some = max(1, min(left, BLOCK // max(count, 1)))
        yield rng.integers(0, count, (some, count))
        left -= some


def summary(metrics: Sequence[Metric], values: dict[str, Doubles], choices: NDArray[np.int64]) -> dict[str, Any]:
    """score, low, high and chance of every metric over some items; null where there are none."""
    found: dict[str, Any] = {}
    for metric in metrics:
        mine = values[metric]
        low, high = interval(mine)
        score = float(mine.mean()) if len(mine) else math.nan
        known = {"score": score, "low": low, "high": high, "chance": chance(metric, choices)}
        found[metric] = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in known.items()}
    return found
