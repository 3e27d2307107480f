"""Lines of words to distinct grams, order by order, with the counts that Kneser-Ney smoothing asks for.

A line is a sentence: <s>, its words, </s>; no gram crosses a line. The adjusted count of a gram below the highest order
is the number of distinct words that stand left of it; one that begins with <s> has nothing left of it and keeps its
count (Heafield et al. 2013, "Scalable modified Kneser-Ney language model estimation", 2.1). The number that matters:
about 60 bytes of memory a word of text and order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
BEGIN, END, UNKNOWN = 0, 1, 2
SPECIAL = ("<s>", "</s>", "<unk>")


@dataclass(frozen=True)
class Grams:
    """The distinct grams of one order, sorted: [grams] each.

    `context` is the row of the gram without its last word, `suffix` of that without its first, both of the order below
    (0 where there is none); `word` is the last word; `count` is adjusted below the highest order, else raw.
    """

    context: Ints
    suffix: Ints
    word: Ints
    count: Ints

    def __len__(self) -> int:
        return len(self.word)


@dataclass(frozen=True)
class Counted:
    """The words, SPECIAL first and the others sorted, and the grams of orders 1, 2 and so on."""

    words: list[str]
    orders: list[Grams]
    sentences: int
    tokens: int


def count(lines: Iterable[Sequence[str]], order: int) -> Counted:
    """Count lines of words; a word that is one of SPECIAL is left out, and so is a line without words."""
    text, depth, words, sentences = _laid(lines)
    rows = np.arange(len(words), dtype=np.int64)
    raw = np.bincount(text, minlength=len(words)).astype(np.int64)
    nothing = np.zeros(len(words), np.int64)
    found = [Grams(nothing, nothing, rows, raw)]
    begins = [rows == BEGIN]
    gram = text
    for k in range(2, order + 1):
        at = np.flatnonzero(depth >= k - 1)
        context = gram[at - 1]
        keys, first, place, counts = np.unique(
            context * len(words) + text[at], return_index=True, return_inverse=True, return_counts=True
        )
        suffix = gram[at[first]]
        below = found[-1]
        left = np.bincount(suffix, minlength=len(below)).astype(np.int64)
        found[-1] = Grams(below.context, below.suffix, below.word, np.where(begins[-1], below.count, left))
        parent = keys // len(words)
        found.append(Grams(parent, suffix, keys % len(words), counts.astype(np.int64)))
        begins.append(begins[-1][parent])
        gram = np.full(len(text), -1, np.int64)
        gram[at] = place
    return Counted(words, found, sentences, len(text) - 2 * sentences)


def _laid(lines: Iterable[Sequence[str]]) -> tuple[Ints, Ints, list[str], int]:
    """Lines end to end by their words' rows, each place's depth in its line, the words, and how many lines."""
    numbers: dict[str, int] = {}
    laid: list[int] = []
    sizes: list[int] = []
    for line in lines:
        if words := [word for word in line if word not in SPECIAL]:
            laid.append(BEGIN)
            laid += [numbers.setdefault(word, len(numbers) + len(SPECIAL)) for word in words]
            laid.append(END)
            sizes.append(len(words) + 2)
    order = sorted(numbers)
    renamed = np.arange(len(order) + len(SPECIAL), dtype=np.int64)
    renamed[[numbers[word] for word in order]] = np.arange(len(SPECIAL), len(renamed))
    starts = np.cumsum([0, *sizes[:-1]]) if sizes else np.zeros(0, np.int64)
    depth = np.arange(len(laid), dtype=np.int64) - np.repeat(starts, sizes).astype(np.int64)
    return renamed[np.array(laid, np.int64)], depth, [*SPECIAL, *order], len(sizes)
