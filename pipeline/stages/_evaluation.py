"""Evaluation items as n-grams: what `decontaminate` looks for, and how it names what it found.

A row of a set becomes an item by its columns:

    query, choices                llm-foundry's multiple choice      context, continuation   its cloze
    context_options, continuation its schemas (Winograd)             ctx, endings            HellaSwag
    question, choices             MMLU, ARC                          question, A, B, C, D    CMMLU, C-Eval
    question, answer              open questions (GSM8K)             premise, choice1, ...   COPA, XCOPA
    contexts, continuations       a card or version of items
    text (and target)             another card, or version of layout "examples"

What is looked for are the n-grams of context and ending as one text, for each context and each ending that an item
has: so also those that go over from a question into an answer, right or wrong.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import references
from pipeline.kernels.overlap import Index, grams, indexed
from pipeline.sources import SourceError

Ints = NDArray[np.int64]

FORMS = (
    ("query", "choices"),
    ("context", "continuation"),
    ("context_options", "continuation"),
    ("ctx", "endings"),
    ("question", "choices"),
    ("question", "A", "B", "C", "D"),
    ("premise", "choice1", "choice2"),
    ("question", "answer"),
    ("contexts", "continuations"),
    ("text", "target"),
    ("text",),
)


@dataclass(frozen=True)
class Item:
    """One item of a set: the row where it stands, counted from 0, and its texts."""

    name: str
    row: int
    contexts: tuple[str, ...]
    endings: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """Context and ending as one text, for each of both."""
        return [f"{context} {ending}".rstrip() for context in self.contexts for ending in self.endings or ("",)]

    @property
    def text_digest(self) -> str:
        """32 hexadecimal characters: blake2b-128 of the letters and digits of contexts, then endings, in lower case.

        What `"".join(c for c in "\\n".join([*contexts, *endings]).lower() if c.isalnum())` leaves: the same item has
        it in whichever set and row it stands.
        """
        whole = "\n".join([*self.contexts, *self.endings])
        return _hex("".join(char for char in whole.lower() if char.isalnum()))

    @property
    def id(self) -> str:
        """32 hexadecimal characters: blake2b-128 of set, row and `text_digest`, a line feed between them."""
        return _hex(f"{self.name}\n{self.row}\n{self.text_digest}")


def _hex(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def items(name: str) -> Iterator[Item]:
    """The items of a set, in order. Raises SourceError for a row that is none."""
    called = references.title(name)
    for number, row in enumerate(references.rows(name)):
        form = next((form for form in FORMS if all(row.get(key) is not None for key in form)), None)
        if form is None:
            known = "; ".join(", ".join(form) for form in FORMS)
            raise SourceError(f"{name} row {number}: no evaluation item: it has {', '.join(row)}; known are {known}")
        first, *others = (_texts(row[key]) for key in form)
        yield Item(called, number, first, tuple(text for texts in others for text in texts))


def _texts(value: Any) -> tuple[str, ...]:
    """A string, or a list of them, or the Hub's {text: [...], label: [...]}."""
    if isinstance(value, Mapping):
        value = value.get("text", [])
    return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)


@dataclass(frozen=True)
class Evaluation:
    """The items of some sets and their n-grams.

    N-gram g is `index.keys[g]`; it stands in the items members[bounds[g]:bounds[g + 1]], first at the bytes spans[g] of
    `texts[of[g]]`. `sizes` has the length of each item's n-grams, 0 for one that is too short for any, `counts`
    how many of them it has, and `common` how many of each set are left out because too many of its items hold them.
    """

    items: tuple[Item, ...]
    index: Index
    members: Ints
    bounds: Ints
    texts: tuple[str, ...]
    of: Ints
    spans: Ints
    sizes: Ints
    counts: Ints
    common: Mapping[str, int]


def load(names: Sequence[str], ngram: int, short: int, most_items: int) -> Evaluation:
    """The sets, read once for as long as they are what they were. Raises SourceError."""
    return _loaded(tuple(names), references.current(names), ngram, short, most_items)


class _Found(NamedTuple):
    """N-grams as they come: of which text and item, and where."""

    keys: NDArray[np.uint64]
    checks: NDArray[np.uint64]
    text: Ints
    item: Ints
    start: Ints
    end: Ints


@functools.lru_cache(2)
def _loaded(names: tuple[str, ...], state: tuple[str, ...], ngram: int, short: int, most_items: int) -> Evaluation:
    every = tuple(item for name in names for item in items(name))
    texts = [text for item in every for text in item.texts]
    item = np.repeat(np.arange(len(every)), [len(one.texts) for one in every]).astype(np.int64)
    # The longest context says how long the n-grams are, as far as the whole is long enough.
    whole, asked = np.zeros((2, len(every)), np.int64)
    np.maximum.at(whole, item, _words(texts))
    of = np.repeat(np.arange(len(every)), [len(one.contexts) for one in every])
    np.maximum.at(asked, of, _words([context for one in every for context in one.contexts]))
    sizes = np.where(asked >= ngram, ngram, np.where(whole >= short, short, 0))
    found = _sorted(_found(texts, item, sizes, [ngram, short]))
    first = np.ones(found.keys.size, bool)
    first[1:] = (found.keys[1:] != found.keys[:-1]) | (found.checks[1:] != found.checks[:-1])
    number = np.cumsum(first) - 1
    new = first.copy()
    new[1:] |= found.item[1:] != found.item[:-1]
    held = np.bincount(number[new], minlength=int(first.sum()))
    kept = held <= most_items
    common = {references.title(name): 0 for name in names}
    for one in found.item[first][~kept].tolist():
        common[every[one].name] += 1
    renumbered = np.cumsum(kept) - 1
    mine = new & kept[number]
    members, of = found.item[mine], renumbered[number[mine]]
    begins = np.flatnonzero(first)[kept]
    return Evaluation(
        items=every,
        index=indexed(found.keys[begins], found.checks[begins], sorted({ngram, short})),
        members=members,
        bounds=np.searchsorted(of, np.arange(begins.size + 1)),
        texts=tuple(texts),
        of=found.text[begins],
        spans=np.stack([found.start[begins], found.end[begins]], axis=1),
        sizes=sizes,
        counts=np.bincount(members, minlength=len(every)),
        common=common,
    )


def _column(texts: Sequence[str]) -> pa.Array:
    return pa.array([text.encode("utf-8", "replace").decode() for text in texts], pa.large_string())


def _words(texts: Sequence[str]) -> Ints:
    """How many words each text has."""
    return np.diff(grams(_column(texts), 1).bounds)


def _found(texts: Sequence[str], item: Ints, sizes: Ints, lengths: list[int]) -> _Found:
    parts = []
    for size in sorted(set(lengths)):
        mine = np.flatnonzero(sizes[item] == size)
        met = grams(_column([texts[k] for k in mine.tolist()]), size)
        text = np.repeat(mine, np.diff(met.bounds))
        parts.append((met.keys, met.checks, text, item[text], met.starts, met.ends))
    return _Found(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _sorted(found: _Found) -> _Found:
    """By n-gram, item and text: the first of each n-gram is that of the first item that has it."""
    order = np.lexsort((found.start, found.text, found.item, found.checks, found.keys))
    return _Found(*(column[order] for column in found))  # type: ignore[arg-type]


def spelt(evaluation: Evaluation, gram: int) -> str:
    """An n-gram, as the first item that has it spells it."""
    raw = evaluation.texts[int(evaluation.of[gram])].encode("utf-8", "replace")
    start, end = evaluation.spans[gram].tolist()
    return raw[start:end].decode().strip()
