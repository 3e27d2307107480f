"""The language a document is written in, by fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759).

A document is judged by its first `characters` characters, line feeds read as spaces: the label for 176 languages
(ISO 639-1, or -3 where there is none) and its probability, rounded to 4 decimals so that another machine's logarithms
say the same. The labels are those of fastText itself, computed nine times as fast (`kernels.fasttext`). Text without a
visible character has no language: both are null.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import fasttext_model
from pipeline.kernels.fasttext import Labeller
from pipeline.models import LANGUAGE_MODEL, language_model
from pipeline.stage import measure, suggest

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

PREFIX = "__label__"
GLANCE = 32


@measure(lang="string", score="float64")
def language(batch: pa.RecordBatch, *, characters: int = 10_000) -> dict[str, pa.Array]:
    """Measure the most likely language and its probability. Raises ModelError where the model cannot be had."""
    text = batch["text"]
    hidden = _hidden(text, characters)
    if hidden.all():
        nothing = pa.nulls(len(text), pa.float64())
        return {"lang": nothing.cast(pa.string()), "score": nothing}
    labels, probabilities = _labeller()(text, characters=characters)
    blind = hidden | (labels[:, 0] < 0)
    # A sum of logarithms may end a little above log 1.
    score = np.minimum(np.round(probabilities[:, 0].astype(np.float64), 4), 1.0)
    return {
        "lang": _languages().take(pa.array(labels[:, 0], mask=blind)),
        "score": pa.array(score, pa.float64(), mask=blind),
    }


def _hidden(text: pa.Array, characters: int) -> NDArray[np.bool_]:
    """Which texts have no visible character among the first `characters`; most show one at once."""
    hidden = np.ones(len(text), bool)
    for some in (min(GLANCE, characters), characters):
        rows = np.flatnonzero(hidden)
        head = pc.utf8_slice_codeunits(text.take(pa.array(rows)) if rows.size < len(text) else text, 0, some)
        seen = pc.greater(pc.binary_length(pc.utf8_trim_whitespace(head)), 0)
        hidden[rows] = ~pc.fill_null(seen, False).to_numpy(zero_copy_only=False)
    return hidden


def check(*, characters: int) -> None:
    """Raise ValueError for parameters that cannot be."""
    if characters < 1:
        raise ValueError(f"characters must be at least 1, not {characters}")


def resources(**params: object) -> dict[str, str]:
    """The pinned model file."""
    return {LANGUAGE_MODEL["name"]: LANGUAGE_MODEL["sha256"]}


@functools.cache
def _labeller() -> Labeller:
    """The model, loaded once a process."""
    return Labeller(fasttext_model.read(language_model()))


@functools.cache
def _languages() -> pa.Array:
    return pa.array([label.removeprefix(PREFIX) for label in _labeller().labels], pa.string())


def examples(rule: Rule, limit: Any, *, characters: int) -> Examples:
    """Texts that ship with the program, and of other languages the words that the model is surest of."""
    from pipeline.examples import OutOfReach, chosen
    from pipeline.stages._specimens import specimens

    texts = specimens()
    values = language(pa.record_batch([pa.array(texts)], ["text"]), characters=characters)[rule.column]
    if rule.column == "lang":
        known, labels = set(values.drop_null().to_pylist()), _languages().to_pylist()
        if unknown := [lang for lang in limit if lang not in labels]:
            raise ValueError(f"the model knows no language {unknown[0]!r}{suggest(unknown[0], labels)}")
        if not known & set(limit):
            raise OutOfReach(f"no text is at hand in {', '.join(limit)}")
    return chosen(rule, [(text,) for text in texts], values.to_pylist())
