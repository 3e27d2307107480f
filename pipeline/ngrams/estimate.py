"""Interpolated modified Kneser-Ney (Chen and Goodman 1998; Heafield et al. 2013, section 3), as an ARPA file.

    D_n(k) = k - (k + 1) t_{n,1} t_{n,k+1} / ((t_{n,1} + 2 t_{n,2}) t_{n,k})    for k = 1, 2 and 3 or more
    u(w|h) = (a(hw) - D(a(hw))) / sum over x of a(hx)
    b(h)   = (D(1) N1(h) + D(2) N2(h) + D(3) N3+(h)) / sum over x of a(hx)
    p(w|h) = u(w|h) + b(h) p(w|h without its first word),    p(w) = u(w) + b() / |V|

a is a gram's count as `counting` says, t_{n,k} the number of grams of n words whose count is k, N_k(h) of words x for
which a(hx) is k. V is all words, </s> and <unk>, but not <s>, which is never asked for. Nothing is pruned. Where counts
of counts give no discount between 0 and its count, KenLM's fallback stands (.5, 1, 1.5).

The law: after every context the probabilities sum to 1. The number that matters: six digits behind the point, what the
file says of a logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.ngrams.counting import BEGIN, Counted, Grams

Floats = NDArray[np.float64]
FALLBACK = (0.5, 1.0, 1.5)
NEVER = -99.0
WRITTEN = 1 << 16


@dataclass(frozen=True)
class Model:
    """Probabilities of the grams of each order, weights of what backs off from them (1 where nothing does), and the
    discounts of each order."""

    counted: Counted
    probability: list[Floats]
    backoff: list[Floats]
    discounts: list[tuple[float, float, float]]


def estimate(counted: Counted) -> Model:
    """The model of counted grams."""
    words = len(counted.words)
    asked = np.arange(words) != BEGIN
    given = np.where(asked, 1.0 / (words - 1), 0.0)  # of an order, what the one below it says of each gram's suffix
    probability: list[Floats] = []
    backoff: list[Floats] = []
    discounts = []
    for k, grams in enumerate(counted.orders, 1):
        counts = np.where(asked, grams.count, 0) if k == 1 else grams.count
        discount = _discount(counts)
        contexts = 1 if k == 1 else len(counted.orders[k - 2])
        least = np.array([0.0, *discount])[np.minimum(counts, 3)]
        total = np.bincount(grams.context, weights=counts, minlength=contexts)
        freed = np.bincount(grams.context, weights=least, minlength=contexts)
        whole = np.maximum(total, 1)
        lower = given if k == 1 else probability[-1][grams.suffix]
        weight = np.where(total > 0, freed / whole, 1.0)
        probability.append((counts - least) / whole[grams.context] + weight[grams.context] * lower)
        if k > 1:
            backoff.append(weight)
        discounts.append(discount)
    return Model(counted, probability, backoff, discounts)


def _discount(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """D(1), D(2) and D(3) of one order."""
    t = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float).tolist()
    if min(t) > 0:
        y = t[0] / (t[0] + 2 * t[1])
        found = tuple(k - (k + 1) * y * t[k] / t[k - 1] for k in (1, 2, 3))
        if all(0 < d <= k for k, d in enumerate(found, 1)):
            return found[0], found[1], found[2]
    return FALLBACK


def write(model: Model, path: Path) -> None:
    """Write the ARPA file."""
    orders = model.counted.orders
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n" + "".join(f"ngram {k}={len(grams)}\n" for k, grams in enumerate(orders, 1)))
        names = model.counted.words
        for k, grams in enumerate(orders, 1):
            if k > 1:
                names = [f"{names[c]} {model.counted.words[w]}" for c, w in zip(grams.context, grams.word, strict=True)]
            file.write(f"\n\\{k}-grams:\n")
            file.writelines(_rows(names, model.probability[k - 1], _weights(model, k), grams))
        file.write("\n\\end\\\n")


def _weights(model: Model, k: int) -> Floats | None:
    """What backs off from the grams of an order: not a number where no longer gram begins like one."""
    if k == len(model.counted.orders):
        return None
    begun = np.zeros(len(model.backoff[k - 1]), bool)
    begun[model.counted.orders[k].context] = True
    return np.where(begun, np.log10(model.backoff[k - 1]), np.nan)


def _rows(names: list[str], probability: Floats, weights: Floats | None, grams: Grams) -> Iterator[str]:
    with np.errstate(divide="ignore"):
        logs = np.where(probability > 0, np.log10(probability), NEVER)
    for start in range(0, len(grams), WRITTEN):
        some = slice(start, start + WRITTEN)
        tails = [""] * len(names[some])
        if weights is not None:
            tails = ["" if weight != weight else f"\t{weight:.6f}" for weight in weights[some].tolist()]
        for log, name, tail in zip(logs[some].tolist(), names[some], tails, strict=True):
            yield f"{log:.6f}\t{name}{tail}\n"
