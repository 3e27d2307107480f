"""Intervals of scores that were taken item by item and seed by seed: both are drawn again, with replacement.

A side is an array [seeds, items]. The items of two sides are the same, and a difference is of the same draw of them;
their seeds have nothing to do with one another and are drawn apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
DRAWS, AT_ONCE = 2000, 100


class Interval(NamedTuple):
    """A mean and the middle 95 % of those of the draws."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} | {self.low:.3f} to {self.high:.3f}"


def interval(scores: Scores) -> Interval:
    """Of the mean over seeds and items."""
    return _middle(float(scores.mean()), _means(scores, np.random.default_rng(1), np.random.default_rng(2)))


def difference(ours: Scores, theirs: Scores) -> Interval:
    """Of the mean of `ours` less that of `theirs`, over the same items."""
    means = [_means(side, np.random.default_rng(1), np.random.default_rng(n)) for n, side in ((2, ours), (3, theirs))]
    return _middle(float(ours.mean() - theirs.mean()), means[0] - means[1])


def _means(scores: Scores, of_items: np.random.Generator, of_seeds: np.random.Generator) -> Scores:
    """The mean of each draw [DRAWS]."""
    seeds, items = scores.shape
    found = []
    for _ in range(0, DRAWS, AT_ONCE):
        drawn = scores[:, of_items.integers(0, items, (AT_ONCE, items))].mean(2)
        found.append(np.take_along_axis(drawn, of_seeds.integers(0, seeds, (seeds, AT_ONCE)), 0).mean(0))
    return np.concatenate(found)


def _middle(mean: float, draws: Scores) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975]).tolist()
    return Interval(mean, low, high)
