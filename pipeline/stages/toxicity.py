"""Words of a list that you name, and the score of a classifier that you trained: how much of a text is abuse.

    words        files of words and phrases, one a line, as LDNOOBW has them; they hold for every document
    by_language  such a file for each language, by its code: by_language = {en = "en.txt", zh = "zh.txt"}. It holds for
                 the documents of that language alone, as a stage before this one measured it (`language`), else as the
                 source states it; for a document of which nobody says it, all of them do
    model        a fastText model (`gristmill train-filter ... --labels toxic,clean`), whose `label` is scored

    listed        how many entries stand in the text
    listed_share  their words to all words of the text; a letter of Han or Thai is a word
    score         the probability of `label`, where a model is given

In English an entry is a word of its own, in Chinese it may stand anywhere (`kernels.listed`). Words are counted, not
meant: a page about medicine has many, and a list of one language has innocent words of another, so name its language,
and look at a what-if before you believe a bound.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
Ints = NDArray[np.int64]


@measure(listed="int32", listed_share="float64", score="float64")
def toxicity(
    batch: pa.RecordBatch,
    *,
    words: list[File] | None = None,
    by_language: dict[str, File] | None = None,
    model: File | None = None,
    label: str = "toxic",
) -> dict[str, pa.Array]:
    """Measure every document; a text without a word has no share."""
    found = {}
    if words or by_language:
        entries, units = _found(batch, tuple(words or ()), by_language or {})
        whole = counts(batch["text"], UNITS)["words"]
        found["listed"] = pa.array(entries, pa.int32())
        share = np.minimum(units / np.maximum(whole, 1), 1.0)
        found["listed_share"] = pa.array(share, pa.float64(), mask=whole == 0)
    if model is not None:
        chances = scores(labeller(model), batch["text"], label)
        found["score"] = pa.array(chances, pa.float64(), mask=np.isnan(chances))
    return found


def _found(batch: pa.RecordBatch, words: tuple[str, ...], by_language: Mapping[str, str]) -> tuple[Ints, Ints]:
    """How many entries of the lists that hold for it stand in each text, and their units."""
    of = np.array(_languages(batch, by_language), object)
    entries, units = (np.zeros(batch.num_rows, np.int64) for _ in range(2))
    for language in dict.fromkeys(of.tolist()):
        own = by_language.values() if language is None else [by_language[language]] if language else []
        if lists := tuple(dict.fromkeys((*words, *own))):
            rows = np.flatnonzero(of == language)
            entries[rows], units[rows] = matches(batch["text"].take(pa.array(rows)), _listed(lists))
    return entries, units


def _languages(batch: pa.RecordBatch, by_language: Mapping[str, str]) -> list[str | None]:
    """The language of each document where there is a list of it, "" where there is none, None where nobody says it."""
    names = [name for name in batch.schema.names if name.endswith(".lang") or name == "language"]
    if not by_language or not names:
        return [None] * batch.num_rows
    said = pc.coalesce(*(batch[name].cast(pa.string()) for name in sorted(names, reverse=True, key="language".__ne__)))
    primary = (language and language.partition("-")[0] for language in said.to_pylist())
    return [language if language is None or language in by_language else "" for language in primary]


def columns(
    *, words: list[str] | None, by_language: dict[str, str] | None, model: str | None, **params: object
) -> list[str]:
    """What is measured with lists, and with a model."""
    return [*(["listed", "listed_share"] if words or by_language else []), *(["score"] if model is not None else [])]


def check(*, words: list[str] | None, by_language: dict[str, str] | None, model: str | None, label: str) -> None:
    """Raise ValueError where nothing is given, for a list that is empty, for what is no code of a language, and for a
    model without the label."""
    if not words and not by_language and model is None:
        raise ValueError("give `words`, `by_language`, `model`, or several of them")
    for language in by_language or {}:
        if not re.fullmatch("[a-z]{2,3}", language):
            raise ValueError(f"`by_language`: {language!r} is no code of a language, as en or zh")
    lists = [*(words or ()), *(by_language or {}).values()]
    for each in lists if all(map(given.NAMED.fullmatch, lists)) else ():
        _listed((each,))
    if model is not None and given.NAMED.fullmatch(model) and label not in (known := labels(labeller(model))):
        raise ValueError(f"the model has no label {label!r}{suggest(label, known)}")


def resources(**params: object) -> dict[str, str]:
    """The tables that say what a letter, a space and lower case are."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}


@functools.lru_cache(64)
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


def examples(
    rule: Rule,
    limit: Any,
    *,
    words: list[str] | None,
    by_language: dict[str, str] | None,
    model: str | None,
    label: str,
) -> Examples:
    """An entry of a list among words that are in none, or of a list of one language behind a text in it; or words that
    pull to the label, in mixtures."""
    from pipeline.examples import WHOLE, chosen, fresh, ladder, measured
    from pipeline.stages._specimens import LANGUAGES, shipped
    from pipeline.stages.classifier import mixtures

    if rule.column == "score":
        texts = mixtures(str(model), label)
        values = scores(labeller(str(model)), pa.array(texts, pa.large_string()), label).tolist()
        return chosen(rule, [(text,) for text in texts], [None if np.isnan(v) else round(v, 6) for v in values])
    language = min(by_language or {}, key=lambda one: (one not in LANGUAGES, one), default=None)
    lists = [*(words or []), *([by_language[language]] if by_language and language and not words else [])]
    entry = min(_entries(tuple(lists)), key=lambda one: (len(one.split()), len(one), one))
    measure = measured(toxicity, rule.column, words=words, by_language=by_language)
    around, before = fresh(0, WHOLE), list[str]()
    if not words and language in LANGUAGES:  # whoever measures the language must find that of the list
        text = shipped(str(language))
        pieces = pa.array(text.split() if language not in ("ja", "zh") else re.findall(r"\w", text), pa.large_string())
        innocent = pieces.filter(pa.array(matches(pieces, _listed(tuple((by_language or {}).values())))[0] == 0))
        around = before = [*islice(cycle(innocent.to_pylist()), WHOLE)]
    if rule.column == "listed":
        return ladder(rule, limit, lambda k: " . ".join([" ".join(before), *[entry] * k]), measure=measure)
    return ladder(rule, limit, lambda k: " ".join([*[entry] * k, *around[k:]]), measure=measure, most=WHOLE)
