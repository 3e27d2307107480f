"""The yardstick: interpolated modified Kneser-Ney n-grams over exactly the tokens that the model read.

A loss means little alone. Next to it stands what counting achieves: the same training
rows, the same targets, no gradient. The method is Chen and Goodman (1999, "An empirical
study of smoothing techniques for language modeling", section 3), three discounts an order
from counts of counts, down to a uniform base over the vocabulary:

    P_k(w | h) = (c(hw) - D(c(hw))) / c(h.) + (D1 N1(h.) + D2 N2(h.) + D3 N3+(h.)) / c(h.) * P_{k-1}(w | h')
    Y = n1 / (n1 + 2 n2),    D_i = i - (i + 1) Y n_{i+1} / n_i    for i = 1, 2, 3

At the highest order c is the raw count; below it is the number of distinct left
neighbours. A context never crosses the start of a piece, so a gram that begins there has
no left neighbour to count: each such occurrence counts one. For grams that begin with
<|endoftext|> this is the raw count that KenLM gives to <s>; the continuation of a cut
document starts, like the model's, with nothing before its first token.

The law: probabilities sum to 1 over the vocabulary after every context.

Only what will be asked is kept. Training tokens are streamed in blocks of targets with
the same last token, in which every count of an order is final, so memory is a few arrays
of one block and of the questions, whatever the size of the corpus. The number that
matters: 2 M tokens up to order 4, all three orders, in about 3 seconds of one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from training.shards import Rows

BLOCK = 1 << 22  # targets counted at once: about 400 MB of working arrays at order 4
FALLBACK = (0.5, 1.0, 1.5)  # KenLM's discounts where counts of counts give none
Array = np.ndarray[Any, Any]


class Flat(NamedTuple):
    """Pieces end to end: their tokens, and each token's position in its piece (0: no target, a start or padding)."""

    tokens: Array
    position: Array


def flat(pieces: Iterable[Sequence[int] | Array]) -> Flat:
    """Lay token sequences end to end."""
    arrays = [np.asarray(piece, dtype=np.int64) for piece in pieces]
    return Flat(
        np.concatenate([np.empty(0, np.int64), *arrays]),
        np.concatenate([np.empty(0, np.int64), *(np.arange(len(a)) for a in arrays)]),
    )


def flat_rows(rows: Rows) -> Flat:
    """The tokens of packed rows, with their positions in their pieces; padding is left out."""
    _, position = rows.layout()
    real = position >= 0
    return Flat(rows.tokens[real].astype(np.int64), position[real])


class _Targets(NamedTuple):
    """Targets with what stands left of them: `left[t - 1]` is the token t places before, valid where depth >= t."""

    word: Array
    left: list[Array]
    depth: Array


def _targets(text: Flat, order: int, low: int = 0, high: int | None = None) -> _Targets:
    """The targets of a text whose token lies in [low, high), each with up to order - 1 tokens before it."""
    chosen = text.position > 0
    if high is not None:
        chosen &= (text.tokens >= low) & (text.tokens < high)
    at = np.flatnonzero(chosen)
    left = [text.tokens[np.maximum(at - t, 0)].astype(np.int64) for t in range(1, order)]
    # One more than the contexts use: it tells "exactly at the start of the piece" from "further in".
    return _Targets(text.tokens[at].astype(np.int64), left, np.minimum(text.position[at], order))


@dataclass
class _Level:
    """What is kept of one order: the contexts and grams that will be asked, and their statistics.

    Every statistic exists twice: index 0 of raw counts, index 1 of adjusted counts (distinct left neighbours).
    """

    contexts: Array  # sorted keys: slot of the context one shorter * vocabulary + the token left of it
    grams: Array  # sorted keys: slot of the context * vocabulary + the token
    slot: Array  # of every question: its context's row, -1 where it has not so many tokens before it
    gram: Array  # of every question: its gram's row
    count: Array = field(init=False)  # [2, grams]
    sums: Array = field(init=False)  # [2, contexts, 4]: total, and how many grams have count 1, 2, 3 or more
    spectrum: Array = field(init=False)  # [2, 4]: how many grams of this order have count 1, 2, 3, 4

    def __post_init__(self) -> None:
        self.count = np.zeros((2, len(self.grams)), np.int64)
        self.sums = np.zeros((2, len(self.contexts), 4), np.int64)
        self.spectrum = np.zeros((2, 4), np.int64)

    def record(self, kind: int, word: Array, slot: Array, count: Array, vocab_size: int) -> None:
        """Add distinct grams: their last token, the slot of their context (-1: nobody asks) and their count."""
        self.spectrum[kind] += np.bincount(np.minimum(count, 5), minlength=6)[1:5]
        asked = np.flatnonzero(slot >= 0)
        word, slot, count = word[asked], slot[asked], count[asked]
        rows = len(self.contexts)
        self.sums[kind, :, 0] += np.bincount(slot, weights=count, minlength=rows).astype(np.int64)
        for n in (1, 2, 3):
            of_n = slot[count >= 3 if n == 3 else count == n]
            self.sums[kind, :, n] += np.bincount(of_n, minlength=rows)
        where = _find(self.grams, slot * vocab_size + word)
        self.count[kind, where[where >= 0]] = count[where >= 0]


class KneserNey:
    """Modified Kneser-Ney of every order up to `order`, restricted to the questions it is made with.

    `asked` are the pieces whose targets will be scored; `read` then counts the training text;
    `log_probabilities(n)` answers for any order n up to `order`.
    """

    def __init__(self, asked: Flat, *, vocab_size: int, order: int) -> None:
        if order < 1 or vocab_size < 1:
            raise ValueError(f"order and vocab_size must be at least 1, not {order} and {vocab_size}")
        self.vocab_size, self.order = vocab_size, order
        questions = _targets(asked, order)
        self.levels: list[_Level] = []
        slot = np.zeros(len(questions.word), np.int64)
        contexts = np.zeros(1, np.int64)  # order 1 has one context: the empty one
        for k in range(1, order + 1):
            if k > 1:
                contexts, slot = _number(slot * vocab_size + questions.left[k - 2], questions.depth >= k - 1)
            grams, gram = _number(slot * vocab_size + questions.word, slot >= 0)
            self.levels.append(_Level(contexts, grams, slot, gram))

    def read(self, text: Callable[[], Iterable[Flat]], *, block: int = BLOCK) -> KneserNey:
        """Count a training text. `text()` must give the same chunks of whole pieces each time it is called.

        It is called once, plus once for every `block` targets.
        """
        for low, high in self._ranges(text, block):
            parts = [_targets(chunk, self.order, low, high) for chunk in text()]
            word, depth = (np.concatenate([p[i] for p in parts]) for i in (0, 2))
            left = [np.concatenate([p.left[t] for p in parts]) for t in range(self.order - 1)]
            del parts
            self._count(_Targets(word, left, depth))
        return self

    def _ranges(self, text: Callable[[], Iterable[Flat]], block: int) -> Iterator[tuple[int, int]]:
        """Cut the vocabulary into ranges of at most `block` targets (or one token that alone has more)."""
        seen = np.zeros(self.vocab_size, np.int64)
        for chunk in text():
            words = chunk.tokens[chunk.position > 0]
            if words.size and int(words.max()) >= self.vocab_size:
                raise ValueError(f"token {int(words.max())} is not in a vocabulary of {self.vocab_size}")
            seen += np.bincount(words, minlength=self.vocab_size)
        ends = np.concatenate([[0], np.cumsum(seen)])
        low = 0
        while low < self.vocab_size and ends[low] < ends[-1]:
            high = max(low + 1, int(np.searchsorted(ends, ends[low] + block, side="right")) - 1)
            yield low, high
            low = high

    def _count(self, block: _Targets) -> None:
        """Count the grams of one block, shortest first.

        `gram` numbers each occurrence's gram of length k. One token to the left it splits into grams of length
        k + 1, and the number of those is its adjusted count.
        """
        word, left, depth = block
        slot = np.zeros(len(word), np.int64)
        gram, chosen, count = _distinct(word)
        for k, level in enumerate(self.levels, start=1):
            kept = word[chosen], slot[chosen]
            level.record(0, *kept, count, self.vocab_size)
            if k == self.order:
                return
            adjusted = np.bincount(gram[depth == k - 1], minlength=len(chosen))  # begins where its piece begins
            inner = depth >= k
            word, depth, slot, gram = word[inner], depth[inner], slot[inner], gram[inner]
            left = [tokens[inner] for tokens in left]
            slot = _extend(self.levels[k].contexts, slot, left[k - 1], self.vocab_size)
            longer, chosen, count = _distinct(gram * self.vocab_size + left[k - 1])
            adjusted += np.bincount(gram[chosen], minlength=len(adjusted))
            level.record(1, *kept, adjusted, self.vocab_size)
            gram = longer

    def discounts(self, k: int, *, highest: bool) -> tuple[float, float, float]:
        """D1, D2, D3+ of grams of length k, as the highest order of a model (raw counts) or below it."""
        return _discounts(self.levels[k - 1].spectrum[0 if highest else 1])

    def log_probabilities(self, order: int | None = None) -> Array:
        """Natural logarithm of P(target | what stands left of it), one float64 for each target asked, in order."""
        order = self.order if order is None else order
        if not 1 <= order <= self.order:
            raise ValueError(f"order {order} was not counted; this model counted 1 to {self.order}")
        p = np.full(len(self.levels[0].slot), 1.0 / self.vocab_size)
        for k, level in enumerate(self.levels[:order], start=1):
            kind = 0 if k == order else 1
            discount = np.array([0.0, *_discounts(level.spectrum[kind])])
            known = np.flatnonzero(level.slot >= 0)
            known = known[level.sums[kind, level.slot[known], 0] > 0]  # after an unseen context the shorter one speaks
            sums = level.sums[kind, level.slot[known]]
            count = level.count[kind, level.gram[known]]
            rest = (discount[1] * sums[:, 1] + discount[2] * sums[:, 2] + discount[3] * sums[:, 3]) * p[known]
            p[known] = (count - discount[np.minimum(count, 3)] + rest) / sums[:, 0]
        return np.log(p)


def _discounts(spectrum: Array) -> tuple[float, float, float]:
    """Chen and Goodman's D1, D2, D3+ from n1..n4; KenLM's fallback where these are undefined or not in (0, i].

    A discount of 0 would leave nothing for unseen tokens, hence an infinite loss: it counts as undefined.
    """
    n = [float(x) for x in spectrum]
    if min(n) > 0:
        y = n[0] / (n[0] + 2 * n[1])
        d = tuple(i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3))
        if min(d) > 0:
            return d[0], d[1], d[2]
    return FALLBACK


def _number(keys: Array, valid: Array) -> tuple[Array, Array]:
    """The sorted distinct keys where `valid`, and each key's place among them (-1 elsewhere)."""
    place = np.full(len(keys), -1, np.int64)
    distinct, place[valid] = np.unique(keys[valid], return_inverse=True)
    return distinct, place


def _distinct(keys: Array) -> tuple[Array, Array, Array]:
    """Number the distinct keys: (each key's number, for each number one index that has it, how often it occurs)."""
    order = np.argsort(keys)
    ordered = keys[order]
    first = np.flatnonzero(np.concatenate([ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]]))
    count = np.diff(np.append(first, len(keys)))
    number = np.empty(len(keys), np.int64)
    number[order] = np.repeat(np.arange(len(first)), count)
    return number, order[first], count


def _find(ordered: Array, keys: Array) -> Array:
    """Places of `keys` in a sorted array, -1 where they are not."""
    if not len(ordered):
        return np.full(len(keys), -1, np.int64)
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[place] == keys, place, -1)


def _extend(contexts: Array, slot: Array, token: Array, vocab_size: int) -> Array:
    """Slots of contexts one token longer; what nobody asks stays -1."""
    longer = np.full(len(slot), -1, np.int64)
    asked = np.flatnonzero(slot >= 0)
    longer[asked] = _find(contexts, slot[asked] * vocab_size + token[asked])
    return longer
