"""The language a document is written in, by fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759).

A document is judged by its first `characters` characters, line feeds read as spaces: the label for 176 languages
(ISO 639-1, or -3 where there is none) and its probability, rounded to 4 decimals so that another machine's logarithms
say the same. The labels are those of fastText itself, computed nine times as fast (`kernels.fasttext`). Text without a
visible character has no language: both are null.

lid.176 knows no Zulu, and calls it English with a score of .17. `second` is another fastText model, trained on labelled
sentences (`filters.training`), whose label and score are taken instead where the first one's score lies below `doubt`.
On one half of 74,150 sentences in 75 languages the mean of the languages' accuracies rises from .799 to .936 (`no`
counting as nb) by a model trained on the other half, which comes from the same collection (`tests/bench/lid.py`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import fasttext_model, given
from pipeline.given import File
from pipeline.kernels.fasttext import Labeller
from pipeline.models import LANGUAGE_MODEL, language_model
from pipeline.scores import labeller, labels
from pipeline.stage import measure, suggest

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

GLANCE = 32


@measure(lang="string", score="float64")
def language(
    batch: pa.RecordBatch, *, characters: int = 10_000, second: File | None = None, doubt: float = 0.5
) -> dict[str, pa.Array]:
    """Measure the most likely language and its probability. Raises ModelError where the model cannot be had."""
    text = batch["text"]
    hidden = _hidden(text, characters)
    if hidden.all():
        nothing = pa.nulls(len(text), pa.float64())
        return {"lang": nothing.cast(pa.string()), "score": nothing}
    lang, score = _said(identifier(), text, characters)
    if second is not None:
        rows = np.flatnonzero((score < doubt) & ~hidden)
        other, surer = _said(labeller(second), text.take(pa.array(rows)), characters)
        found = np.arange(len(text))
        found[rows] = len(text) + np.arange(rows.size)
        lang, score[rows] = pa.concat_arrays([lang, other]).take(pa.array(found)), surer
    blind = pa.array(hidden | np.isnan(score))
    return {
        "lang": pc.if_else(blind, None, lang),
        "score": pc.if_else(blind, None, pa.array(score, pa.float64())),
    }


def _said(model: Labeller, text: pa.Array, characters: int) -> tuple[pa.Array, NDArray[np.float64]]:
    """The best label of each text and its probability; null and NaN where the model knows nothing of it."""
    labels, probabilities = model(text, characters=characters)
    blind = labels[:, 0] < 0
    # A sum of logarithms may end a little above log 1.
    score = np.minimum(np.round(probabilities[:, 0].astype(np.float64), 4), 1.0)
    return _names(model).take(pa.array(labels[:, 0], mask=blind)), np.where(blind, np.nan, score)


def _hidden(text: pa.Array, characters: int) -> NDArray[np.bool_]:
    """Which texts have no visible character among the first `characters`; most show one at once."""
    hidden = np.ones(len(text), bool)
    for some in (min(GLANCE, characters), characters):
        rows = np.flatnonzero(hidden)
        head = pc.utf8_slice_codeunits(text.take(pa.array(rows)) if rows.size < len(text) else text, 0, some)
        seen = pc.greater(pc.binary_length(pc.utf8_trim_whitespace(head)), 0)
        hidden[rows] = ~pc.fill_null(seen, False).to_numpy(zero_copy_only=False)
    return hidden


def check(*, characters: int, second: str | None, doubt: float) -> None:
    """Raise ValueError for parameters that cannot be, and where `second` is no fastText model."""
    if characters < 1:
        raise ValueError(f"characters must be at least 1, not {characters}")
    if not 0 <= doubt <= 1:
        raise ValueError(f"doubt is a score between 0 and 1, not {doubt:g}")
    if second is not None and given.NAMED.fullmatch(second):
        labeller(second)


def resources(**params: object) -> dict[str, str]:
    """The pinned model file."""
    return {LANGUAGE_MODEL["name"]: LANGUAGE_MODEL["sha256"]}


@functools.cache
def identifier() -> Labeller:
    """The model, loaded once a process."""
    return Labeller(fasttext_model.read(language_model()))


@functools.lru_cache(8)
def _names(model: Labeller) -> pa.Array:
    return pa.array(labels(model), pa.string())


def examples(rule: Rule, limit: Any, *, characters: int, second: str | None = None, doubt: float = 0.5) -> Examples:
    """Texts that ship with the program, and of other languages the words that the model is surest of."""
    from pipeline.examples import OutOfReach, chosen
    from pipeline.stages._specimens import specimens

    texts = specimens()
    batch = pa.record_batch([pa.array(texts)], ["text"])
    values = language(batch, characters=characters, second=second, doubt=doubt)[rule.column]
    if rule.column == "lang":
        known, named = set(values.drop_null().to_pylist()), _names(identifier()).to_pylist()
        named += _names(labeller(second)).to_pylist() if second is not None else []
        if unknown := [lang for lang in limit if lang not in named]:
            raise ValueError(f"the model knows no language {unknown[0]!r}{suggest(unknown[0], named)}")
        if not known & set(limit):
            raise OutOfReach(f"no text is at hand in {', '.join(limit)}")
    return chosen(rule, [(text,) for text in texts], values.to_pylist())
