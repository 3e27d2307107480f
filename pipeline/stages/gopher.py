"""The quality rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A1) as measurements, in a dialect.

Each dialect is a tool's arithmetic to the bit; the bounds are the paper's in all of them:

                            drop               datatrove                  dolma              DCLM
    word_count              < 50, > 100,000    not of punctuation alone   all                that begin with a letter
                                                                                             or a digit
    mean_word_length        < 3, > 10          of those words                                of all words
    median_word_length      < 3, > 10                                     of all words
    hash_ratio              > .1               "#" to all words
    ellipsis_ratio          > .1               "..." and "…" to words
    symbol_ratio            > .1                                          words with "#"     "#", "...", ". . ." and
                                                                          or "…" to words    "…" to words
    bullet_line_ratio       > .9               lines with "•", "-"        "*", "-"           "●", "•", "*", "-"
    ellipsis_line_ratio     > .3               end in "...", "…"          "…"                "...", ". . .", "…"
    alphabetic_word_ratio   < .8               words with a letter        the same           the same
    stop_word_count         < 2                distinct ones              occurrences        occurrences in any case

The stop words are: the be to of and that have with. A dialect has no columns but those it says something about.

"datatrove" is GopherQualityFilter over words split at white space (its own default splits English with spaCy's rules,
so its counts differ) and lines of str.splitlines, white space around them aside. "dolma" is the tagger gopher_v1: words
split at white space, lines between line feeds, as they stand and also where they are empty. "dclm" is the filters of
DCLM-Baseline in the configuration of the RefinedWeb reproduction: words split at white space, but `word_count` is of
words as fastText cuts them (ASCII white space and NUL; `page_length_filter` asks for no other model, and its Unicode
words are for n-grams alone, see `repetition`), and lines between line feeds that are not empty without the white space
around them. There is no dialect of the paper: what it states are the bounds.

A quantity that a tool does not define (no words, no lines) is null; let `word_count` speak first and such documents are
dropped by it instead of quarantined. dolma defines all, and divides by 1 where there is nothing.

Chinese, Japanese, Thai and others write no spaces, and white space then counts clauses, not words. `units = "script"`
counts each letter of such a script as a word (Han characters, kana, Thai letters; marks and punctuation go with the
one before), and all else as before, in the dialect datatrove alone. There a word count is a count of characters, the
length of a word lies near 1 and says nothing, and `stop_word_count` needs a list of the language: give the bounds of
such a recipe anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels.text import Ask, Counts, counts
from pipeline.kernels.unicode import classes_digest, table_digest
from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

Dialect = Literal["datatrove", "dolma", "dclm"]
Units = Literal["whitespace", "script"]
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
COLUMNS = {
    "datatrove": ("mean_word_length", "hash_ratio", "ellipsis_ratio"),
    "dolma": ("median_word_length", "symbol_ratio"),
    "dclm": ("mean_word_length", "symbol_ratio"),
}
COMMON = ("bullet_line_ratio", "ellipsis_line_ratio", "alphabetic_word_ratio", "stop_word_count")


@measure(
    word_count="int32",
    mean_word_length="float64",
    median_word_length="float64",
    hash_ratio="float64",
    ellipsis_ratio="float64",
    symbol_ratio="float64",
    bullet_line_ratio="float64",
    ellipsis_line_ratio="float64",
    alphabetic_word_ratio="float64",
    stop_word_count="int32",
)
def gopher(
    batch: pa.RecordBatch,
    *,
    dialect: Dialect = "datatrove",
    units: Units = "whitespace",
    stop_words: list[str] | None = None,
) -> dict[str, pa.Array]:
    """Measure every document; `stop_words` None means the paper's eight, compared as they are written.

    In the dialect "dclm" A to Z in the text count as a to z there.
    """
    asked = request(dialect=dialect, units=units, stop_words=stop_words)
    return signals(counts(batch["text"], asked), dialect=dialect)


def columns(*, dialect: str, **params: object) -> list[str]:
    """What a dialect measures."""
    return ["word_count", *COLUMNS[dialect], *COMMON]


def check(*, dialect: str, units: str, **params: object) -> None:
    """Raises ValueError where a dialect has words of its own."""
    if dialect != "datatrove" and units != "whitespace":
        raise ValueError(f"dialect {dialect!r} has words of its own, and none by units {units!r}")


def request(*, dialect: str, units: str, stop_words: list[str] | None, **params: object) -> Ask:
    """Words and lines, and which stop words."""
    listed = STOP_WORDS if stop_words is None else tuple(sorted(set(stop_words)))
    return Ask(units == "script", stop_words=listed, dialect=dialect)


def signals(n: Counts, *, dialect: str, **params: object) -> dict[str, pa.Array]:
    """From counts to what is declared."""
    share = defined if dialect == "dolma" else ratio
    found = {
        "bullet_line_ratio": share(n["bullets"], n["lines"]),
        "ellipsis_line_ratio": share(n["trailing"], n["lines"]),
        "alphabetic_word_ratio": share(n["alphabetic"], n["words"]),
        "stop_word_count": pa.array(n["stop_words"], pa.int32()),
    }
    match dialect:
        case "dolma":
            found["word_count"] = pa.array(n["words"], pa.int32())
            found["median_word_length"] = pa.array(n["twice_median"] / 2, pa.float64())
            found["symbol_ratio"] = defined(n["symbol_words"], n["words"])
        case "dclm":
            found["word_count"] = pa.array(n["counted"], pa.int32())
            found["mean_word_length"] = ratio(n["word_characters"], n["words"])
            found["symbol_ratio"] = ratio(n["hashes"] + n["ellipses"] + n["spaced"], n["words"])
            # Of no line none begins with a bullet: the filters keep such a text.
            found["bullet_line_ratio"] = defined(n["bullets"], n["lines"])
            found["ellipsis_line_ratio"] = defined(n["trailing"], n["lines"])
        case _:
            found["word_count"] = pa.array(n["worded"], pa.int32())
            found["mean_word_length"] = ratio(n["worded_characters"], n["worded"])
            found["hash_ratio"] = ratio(n["hashes"], n["words"])
            found["ellipsis_ratio"] = ratio(n["ellipses"], n["words"])
    return found


def resources(**params: object) -> dict[str, str]:
    """The tables that say what a letter, a space or a mark of punctuation is."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}


def ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> pa.Array:
    """part / whole as float64, null where whole is 0."""
    empty = whole == 0
    return pa.array(part / np.where(empty, 1, whole), pa.float64(), mask=empty)


def defined(part: NDArray[np.int64], whole: NDArray[np.int64]) -> pa.Array:
    """part / whole as float64, and part where whole is 0."""
    return pa.array(part / np.maximum(whole, 1), pa.float64())


def examples(rule: Rule, limit: Any, *, dialect: str, stop_words: list[str] | None, **params: object) -> Examples:
    """Words, lines and marks, counted out. A "#" and an ellipsis stand before a word, which stays one."""
    from pipeline.examples import WHOLE, cycled, fresh, ladder, lines, spread

    def marked(mark: str) -> Callable[[int], str]:
        return lambda k: lines([mark * n + word for n, word in zip(spread(k, WHOLE), cycled(WHOLE), strict=True)])

    def lengths(k: int) -> str:
        sizes = enumerate(sorted(spread(k, WHOLE)))
        return lines(["m" * (n - 1) + ("." if n > 1 and row % 10 == 9 else "m") for row, n in sizes], end="")

    def stops(k: int) -> str:
        return lines([listed[n % len(listed)] for n in range(k)] + fresh(0, WHOLE), end="\n.")

    def few(k: int, special: str) -> str:
        return "\n".join([special] * k + [f"{row}."] * (WHOLE - k))

    def share(k: int) -> float:
        return k / WHOLE

    listed = STOP_WORDS if stop_words is None else tuple(sorted(set(stop_words)))
    row, once = " ".join(cycled(8)), dialect == "dolma"
    build, value, least, most = {
        "word_count": (lambda k: lines(cycled(k)), None, 0, None),
        "mean_word_length": (lengths, share, WHOLE, None),
        "median_word_length": (lambda k: lengths(WHOLE * k // 2), lambda k: k / 2, 2, None),
        "hash_ratio": (marked("#"), share, 0, None),
        "ellipsis_ratio": (marked("\u2026"), share, 0, None),
        "symbol_ratio": (marked("#"), share, 0, WHOLE if once else None),
        "bullet_line_ratio": (lambda k: few(k, f"- {row}."), share, 0, WHOLE),
        "ellipsis_line_ratio": (lambda k: few(k, f"{row}\u2026"), share, 0, WHOLE),
        "alphabetic_word_ratio": (lambda k: lines(cycled(k) + ["1855"] * (WHOLE - k)), share, 0, WHOLE),
        "stop_word_count": (stops, None, 0, len(listed) if dialect == "datatrove" else None if listed else 0),
    }[rule.column]
    return ladder(rule, limit, build, value, least=least, most=most)
