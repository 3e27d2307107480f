"""The language a document is written in, by fastText's lid.176 (Joulin et al. 2016, arXiv 1607.01759).

A document is judged by its first `characters` characters, line feeds read as spaces: the label for 176 languages
(ISO 639-1, or -3 where there is none) and its probability, rounded to 4 decimals so that another build of fastText
says the same. Text without a visible character has no language: both are null. About 5 MB/s of text that is judged.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.models import LANGUAGE_MODEL, language_model
from pipeline.stage import measure

PREFIX = "__label__"


@measure(lang="string", score="float64")
def language(batch: pa.RecordBatch, *, characters: int = 10_000) -> dict[str, pa.Array]:
    """Measure the most likely language and its probability. Raises ModelError where the model cannot be had."""
    head = pc.replace_substring(pc.utf8_slice_codeunits(batch["text"], 0, characters), "\n", " ")
    visible = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(head)), 0).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(visible)
    lang, score = np.full(len(head), None, object), np.full(len(head), np.nan)
    if rows.size:
        labels, scores = _model().predict(head.take(pa.array(rows)).to_pylist())
        lang[rows] = [found[0].removeprefix(PREFIX) for found in labels]
        # A sum of logarithms may end a little above log 1.
        score[rows] = [min(round(float(found[0]), 4), 1.0) for found in scores]
    return {"lang": pa.array(lang, pa.string()), "score": pa.array(score, pa.float64(), mask=~visible)}


def check(*, characters: int) -> None:
    """Raise ValueError for parameters that cannot be."""
    if characters < 1:
        raise ValueError(f"characters must be at least 1, not {characters}")


def resources(**params: object) -> dict[str, str]:
    """The pinned model file."""
    return {LANGUAGE_MODEL["name"]: LANGUAGE_MODEL["sha256"]}


@functools.cache
def _model() -> Any:
    """The model, loaded once a process."""
    import fasttext.FastText

    # load_model writes a warning meant for users of its first release to standard error.
    fasttext.FastText.eprint = lambda *words: None
    return fasttext.FastText.load_model(str(language_model()))
