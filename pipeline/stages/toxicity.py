"""Words of a list that you name, and the score of a classifier that you trained: how much of a text is abuse.

    words     files of words and phrases, one a line, as LDNOOBW has them for each language; all hold for every document
    model     a fastText model (`gristmill train-filter ... --labels toxic,clean`), whose `label` is scored

    listed        how many entries stand in the text
    listed_share  their words to all words of the text; a letter of Han or Thai is a word
    score         the probability of `label`, where a model is given

In English an entry is a word of its own, in Chinese it may stand anywhere (`kernels.listed`). Words are counted, not
meant: a page about medicine has many, and a list of one language has innocent words of another, so give a recipe the
lists of the languages that it keeps, and look at a what-if before you believe a bound.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import given
from pipeline.given import File
from pipeline.kernels.listed import Trie, matches, trie
from pipeline.kernels.text import Ask, counts
from pipeline.kernels.unicode import classes_digest, table_digest
from pipeline.mistakes import suggest
from pipeline.scores import labeller, labels, scores
from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

MISSING = {
    "model": "train it: gristmill train-filter NAME --labels toxic,clean --positive CARD --negative CARD --out {folder}"
}
UNITS = Ask(by_script=True)


@measure(listed="int32", listed_share="float64", score="float64")
def toxicity(
    batch: pa.RecordBatch, *, words: list[File] | None = None, model: File | None = None, label: str = "toxic"
) -> dict[str, pa.Array]:
    """Measure every document; a text without a word has no share."""
    found = {}
    if words:
        entries, units = matches(batch["text"], _listed(tuple(words)))
        whole = counts(batch["text"], UNITS)["words"]
        found["listed"] = pa.array(entries, pa.int32())
        share = np.minimum(units / np.maximum(whole, 1), 1.0)
        found["listed_share"] = pa.array(share, pa.float64(), mask=whole == 0)
    if model is not None:
        chances = scores(labeller(model), batch["text"], label)
        found["score"] = pa.array(chances, pa.float64(), mask=np.isnan(chances))
    return found


def columns(*, words: list[str] | None, model: str | None, **params: object) -> list[str]:
    """What is measured with lists, and with a model."""
    return [*(["listed", "listed_share"] if words else []), *(["score"] if model is not None else [])]


def check(*, words: list[str] | None, model: str | None, label: str) -> None:
    """Raise ValueError where neither is given, for a list that is empty, and for a model without the label."""
    if not words and model is None:
        raise ValueError("give `words`, `model`, or both")
    if words and all(map(given.NAMED.fullmatch, words)):
        _listed(tuple(words))
    if model is not None and given.NAMED.fullmatch(model) and label not in (known := labels(labeller(model))):
        raise ValueError(f"the model has no label {label!r}{suggest(label, known)}")


def resources(**params: object) -> dict[str, str]:
    """The tables that say what a letter, a space and lower case are."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}


@functools.lru_cache(4)
def _listed(files: tuple[str, ...]) -> Trie:
    entries = _entries(files)
    units = counts(pa.array(entries, pa.large_string()), UNITS)["words"]
    return trie(entries, np.maximum(units, 1).tolist())


def _entries(files: tuple[str, ...]) -> list[str]:
    """What the lists name, each entry once."""
    found: dict[str, None] = {}
    for file in files:
        path = given.find(file)
        try:
            rows = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8: {error}") from error
        mine = [entry for row in rows if (entry := " ".join(row.split()))]
        if not mine:
            raise ValueError(f"{path}: the list is empty")
        found |= dict.fromkeys(mine)
    return list(found)


def examples(rule: Rule, limit: Any, *, words: list[str] | None, model: str | None, label: str) -> Examples:
    """An entry of a list among words that are in none; or words that pull to the label, in mixtures."""
    from pipeline.examples import WHOLE, chosen, fresh, ladder, measured
    from pipeline.stages.classifier import mixtures

    if rule.column == "score":
        texts = mixtures(str(model), label)
        values = scores(labeller(str(model)), pa.array(texts, pa.large_string()), label).tolist()
        return chosen(rule, [(text,) for text in texts], [None if np.isnan(v) else round(v, 6) for v in values])
    entry = min(_entries(tuple(words or ())), key=lambda one: (len(one.split()), len(one), one))
    measure = measured(toxicity, rule.column, words=words, model=model, label=label)
    if rule.column == "listed":
        return ladder(rule, limit, lambda k: " . ".join([entry] * k), measure=measure)
    return ladder(rule, limit, lambda k: " ".join([*[entry] * k, *fresh(0, WHOLE - k)]), measure=measure, most=WHOLE)
