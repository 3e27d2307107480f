"""The quality rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A1) as measurements, in a dialect.

"datatrove" is the arithmetic of datatrove's GopherQualityFilter to the bit, over words split at white space. Its own
default splits English with spaCy's rules, so its counts differ; the bounds are the paper's in either case:

    word_count              drop below 50, above 100,000   words with a character that is not punctuation
    mean_word_length        drop below 3, above 10         characters in such a word
    hash_ratio              drop above .1                  "#" to all words
    ellipsis_ratio          drop above .1                  "..." and "…" to all words
    bullet_line_ratio       drop above .9                  lines that begin with "•" or "-"
    ellipsis_line_ratio     drop above .3                  lines that end in an ellipsis
    alphabetic_word_ratio   drop below .8                  words with a letter
    stop_word_count         drop below 2                   distinct ones of: the be to of and that have with

A quantity that is not defined (no words, no lines) is null; let `word_count` speak first and such documents are
dropped by it instead of quarantined.

Chinese, Japanese, Thai and others write no spaces, and white space then counts clauses, not words. `units = "script"`
counts each letter of such a script as a word (Han characters, kana, Thai letters; marks and punctuation go with the
one before), and all else as before. There a word count is a count of characters, `mean_word_length` lies near 1 and
says nothing, and `stop_word_count` needs a list of the language: give the bounds of such a recipe anew.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.text import Ask, Counts, counts
from pipeline.kernels.unicode import classes_digest, table_digest
from pipeline.stage import measure

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


@measure(
    word_count="int32",
    mean_word_length="float64",
    hash_ratio="float64",
    ellipsis_ratio="float64",
    bullet_line_ratio="float64",
    ellipsis_line_ratio="float64",
    alphabetic_word_ratio="float64",
    stop_word_count="int32",
)
def gopher(
    batch: pa.RecordBatch,
    *,
    dialect: Literal["datatrove"] = "datatrove",
    units: Literal["whitespace", "script"] = "whitespace",
    stop_words: list[str] | None = None,
) -> dict[str, pa.Array]:
    """Measure every document; `stop_words` None means the paper's eight, compared as they are written."""
    return signals(counts(batch["text"], request(units=units, stop_words=stop_words)))


def request(*, units: str, stop_words: list[str] | None, **params: object) -> Ask:
    """Words and lines, and which stop words."""
    return Ask(units == "script", stop_words=STOP_WORDS if stop_words is None else tuple(sorted(set(stop_words))))


def signals(n: Counts, **params: object) -> dict[str, pa.Array]:
    """From counts to what is declared."""
    return {
        "word_count": pa.array(n["worded"], pa.int32()),
        "mean_word_length": ratio(n["worded_characters"], n["worded"]),
        "hash_ratio": ratio(n["hashes"], n["words"]),
        "ellipsis_ratio": ratio(n["ellipses"], n["words"]),
        "bullet_line_ratio": ratio(n["bullets"], n["lines"]),
        "ellipsis_line_ratio": ratio(n["trailing"], n["lines"]),
        "alphabetic_word_ratio": ratio(n["alphabetic"], n["words"]),
        "stop_word_count": pa.array(n["stop_words"], pa.int32()),
    }


def resources(**params: object) -> dict[str, str]:
    """The tables that say what a letter, a space or a mark of punctuation is."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}


def ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> pa.Array:
    """part / whole as float64, null where whole is 0."""
    empty = whole == 0
    return pa.array(part / np.where(empty, 1, whole), pa.float64(), mask=empty)
