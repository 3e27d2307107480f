"""Canaries, as a stage offers them: documents that must and must not trip a rule at its limit.

A stage's module has, beside its function,

    examples(rule, limit, **params) -> Examples      `rule` is over a column of the stage, `limit` is its bound or list

which the build asks for each rule of a recipe (`canaries`) and a law for every column there is. Most are counted out: a
builder makes a text of `k` steps whose value is known, and `ladder` takes the steps on either side of the limit and
those at the ends. Where the arithmetic of a value is the stage's own affair, the value is measured, and what is known
is that it rises with `k`. A ValueError says that no document can ever decide the rule, and why.

`examples` and what it imports inside are no part of the stage's code: a better canary measures no corpus again.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import cuts
from pipeline.digests import canonical
from pipeline.limits import UNBOUNDED
from pipeline.rules import Rule
from pipeline.run import widen
from pipeline.schema import documents
from pipeline.stage import Stage, load


@dataclass(frozen=True)
class Page:
    """A document by its text and where it was found."""

    text: str
    url: str


# A document by its text, by its id and its text, or as a page. Several stand in a corpus of their own, and the last is
# judged.
Document = str | tuple[str, str] | Page
Item = tuple[Document, ...]
# Steps that a ladder climbs at the most, and after which a value that has not moved is taken for one that never does.
TOP, FLAT = 1 << 21, 1 << 9
# Words of a text of which a share is asked.
WHOLE = 100
LETTERS = "bcdfghklmnprstvw", "aeiou"
WORDS = "mill water stone grain wheel flour river basket bread field".split()


class Examples(NamedTuple):
    """What must trip a rule and what must not."""

    trips: list[Item]
    passes: list[Item]


class OutOfReach(ValueError):
    """A limit that only a document too large to be made at each build could decide."""


def chosen(rule: Rule, items: Sequence[Item], values: Sequence[Any]) -> Examples:
    """The items by whether their values must break `rule`; those of which nothing is known are left out.

    What a rule means is said here once more, in words of its own, so that one that is judged otherwise is noticed.
    """
    bound, found = rule.bound, Examples([], [])
    breaks: dict[str, Callable[[Any], bool]] = {
        "below": lambda value: value < bound,
        "above": lambda value: value > bound,
        "in": lambda value: value in bound,
        "not in": lambda value: value not in bound,
    }
    for item, value in zip(items, values, strict=True):
        if value is not None:
            (found.trips if breaks[rule.operator](value) else found.passes).append(item)
    return found


def ladder(
    rule: Rule,
    limit: Any,
    build: Callable[[int], Any],
    value: Callable[[int], float] | None = None,
    *,
    measure: Callable[[Item], Any] | None = None,
    least: int = 0,
    most: int | None = None,
) -> Examples:
    """The steps of `build` around a limit, and at the ends: a text or an item for each k from `least` to `most`.

    Its value is `value(k)`, or k itself, or what `measure` says of it, and never falls with k. Raises OutOfReach.
    """
    item = functools.cache(lambda k: _item(build(k)))
    worth = functools.cache(lambda k: measure(item(k)) if measure else round(value(k), 6) if value else k)
    bounds = limit if isinstance(limit, list) else [limit]
    steps = {least} if most is None else {least, most}
    for bound in bounds:
        first = _first(worth, bound, rule.operator == "above", least, most, measure is not None)
        if first is not None:
            steps |= {first - 1, first, first + 1}
    inside = [k for k in sorted(steps) if k >= least and (most is None or k <= most)]
    return chosen(rule, [item(k) for k in inside], [worth(k) for k in inside])


def _item(made: Any) -> Item:
    return made if isinstance(made, tuple) else (made,)


def _first(
    worth: Callable[[int], Any], bound: float, beyond: bool, least: int, most: int | None, measured: bool
) -> int | None:
    """The lowest step whose value reaches the bound, or lies beyond it; None where none does."""

    def reached(k: int) -> bool:
        found = worth(k)
        return found is not None and (found > bound if beyond else found >= bound)

    if math.isinf(bound):
        return None
    top = max(least, 1) if most is None else most
    while not reached(top):
        if most is not None or (measured and top >= FLAT and worth(top) == worth(top // 2)):
            return None
        top *= 2
        if top > TOP:
            raise OutOfReach(f"a limit of {bound:g} is out of the reach of a document that can be tried at each build")
    low = least
    while low < top:
        middle = (low + top) // 2
        low, top = (low, middle) if reached(middle) else (middle + 1, top)
    return top


def measured(function: Callable[..., Mapping[str, Any]], column: str, **params: Any) -> Callable[[Item], Any]:
    """The value that a measuring stage gives a document, as it is stored."""

    def measure(item: Item) -> Any:
        value = function(batch([item]), **params)[column][-1].as_py()
        return round(value, 6) if isinstance(value, float) else value

    return measure


def batch(items: Sequence[Item]) -> pa.RecordBatch:
    """The documents of some items, in the columns in which a document travels."""
    rows = []
    for number, item in enumerate(items):
        for place, one in enumerate(item):
            doc_id = one[0] if isinstance(one, tuple) else f"canary:{number:06}:{place:06}"
            row = {"doc_id": doc_id, "text": text_of(one), "source": "canary"}
            rows.append({**row, "url": one.url} if isinstance(one, Page) else row)
    return widen(documents(rows))


def text_of(document: Document) -> str:
    """The text of a document of an item."""
    return document.text if isinstance(document, Page) else document[1] if isinstance(document, tuple) else document


def related(stage: Stage, met: pa.RecordBatch, signals: pa.Table | None = None) -> pa.Table:
    """doc_id and the signals of a relating stage over some documents, and nothing else in the corpus.

    `signals` are those documents' own, in their order, where the stage reads any.
    """
    place = {"doc_id": met["doc_id"], "part": pa.array([0] * len(met), pa.int32())}
    sketch = pa.table({**place, "row": pa.array(range(len(met)), pa.int32()), **stage(met)})

    def texts(part: int, rows: Sequence[int]) -> pa.Array:
        return met["text"].take(pa.array(rows))

    found: Any = stage.compare(iter([sketch]), texts, UNBOUNDED)
    if not stage.cuts:
        known = sketch.select(["doc_id", *stage.clustered])
        for name in stage.reads:
            known = known.append_column(name, signals[name] if signals is not None else pa.nulls(len(met)))
        return stage.cluster(known.sort_by("doc_id").combine_chunks(), found)
    whole = sketch.select(["doc_id", "part"]).append_column("row", pa.array(range(len(met)), pa.int64()))
    whole = whole.append_column("text_bytes", pc.binary_length(met["text"]).cast(pa.int64())).sort_by("doc_id")
    # Found in hundreds of buckets, nearly all of them empty here.
    found = pa.concat_tables([stage.module.FOUND.empty_table(), *found])
    spans = stage.module.spans(whole, iter([found]), **stage.params)
    return cuts.signals(whole, cuts.gather(whole, 1, spans, UNBOUNDED))


def cut_examples(
    rule: Rule,
    limit: Any,
    use: str,
    params: Mapping[str, Any],
    passage: Callable[[int], str],
    between: str = " ",
    copies: int = 2,
) -> Examples:
    """Documents that share passages, ever more of them; `passage(n)` is one that no other is like.

    `copies` is how many have to share a passage for the last to lose it.
    """
    said = canonical(dict(params))

    def own(document: int, n: int) -> str:
        return passage((document + 1) * TOP + n)

    def parted(k: int) -> Item:
        """Each shared passage stands before one that is not."""
        return _documents(
            lambda one: [own(one, TOP - 1), *(text for n in range(k) for text in (passage(n), own(one, n)))]
        )

    def joined(k: int) -> Item:
        """The shared ones stand together."""
        rest = range(max(WHOLE - k, 1))
        return _documents(lambda one: [*map(passage, range(k)), *(own(one, n) for n in rest)])

    def _documents(passages: Callable[[int], list[str]]) -> Item:
        return tuple(between.join(passages(one)) for one in range(copies))

    def measure(item: Item) -> Any:
        return _cut(use, said, item)[rule.column]

    build, most = {"cut_spans": (parted, None), "cut_bytes": (joined, None), "cut_share": (joined, WHOLE)}[rule.column]
    return ladder(rule, limit, build, measure=measure, most=most)


@functools.lru_cache(1024)
def _cut(use: str, params: str, item: Item) -> dict[str, Any]:
    """What a stage that cuts measures of the last document of an item."""
    return dict(related(load(use, json.loads(params)), batch([item])).slice(len(item) - 1).to_pylist()[0])


def duplicates(rule: Rule, limit: Any, again: Callable[[int], str]) -> Examples:
    """Clusters of documents for the signals of `exact` and `near`: `again(n)` is text number n of a cluster."""
    match rule.column:
        case "dup_rank":
            return ladder(rule, limit, lambda k: _copies(again, k + 1))
        case "cluster_size":
            return ladder(rule, limit, lambda k: _copies(again, k), least=1)
    named = [((name, again(0)), (f"{name}~", again(1))) for name in ["canary:other", *limit]]
    return chosen(rule, named, ["canary:other", *limit])


def _copies(again: Callable[[int], str], count: int) -> Item:
    return tuple(again(n) for n in range(count))


# Texts


def fresh(first: int, count: int = 1) -> list[str]:
    """`count` words from number `first` on, of nine letters and all different."""
    return [_word(number) for number in range(first, first + count)]


def _word(number: int) -> str:
    letters = []
    for place in range(9):
        alphabet = LETTERS[place % 2]
        number, letter = divmod(number, len(alphabet))
        letters.append(alphabet[letter])
    return "".join(letters)


def cycled(count: int) -> list[str]:
    """`count` words of which some are the same."""
    return list(itertools.islice(itertools.cycle(WORDS), count))


def lines(words: Sequence[str], each: int = 10, end: str = ".") -> str:
    """Words as lines of `each`, of which every last word ends like a sentence."""
    rows = (words[n : n + each] for n in range(0, len(words), each))
    return "\n".join(" ".join(row) + end for row in rows)


def spread(total: int, places: int) -> Iterator[int]:
    """How many of `total` fall to each of `places`, as evenly as can be."""
    yield from ((n + 1) * total // places - n * total // places for n in range(places))
