"""The repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1) as measurements, in a dialect.

Each dialect is a tool's arithmetic to the bit. The bounds are the paper's in all of them (dolma's published recipes
drop above .30 where lines are counted by characters):

    duplicate_lines                    drop above .30   lines, parted by line feeds
    duplicate_paragraphs               drop above .30   paragraphs, parted by two line feeds and more
    duplicate_line_characters          drop above .20
    duplicate_paragraph_characters     drop above .20
    top_2gram_characters               drop above .20   the commonest run of two words, as often as it stands
    top_3gram_characters               drop above .18
    top_4gram_characters               drop above .16
    duplicate_5gram_characters         drop above .15   runs of five words that stand elsewhere, too
    duplicate_6gram_characters         drop above .14
    duplicate_7gram_characters         drop above .13
    duplicate_8gram_characters         drop above .12
    duplicate_9gram_characters         drop above .11
    duplicate_10gram_characters        drop above .10

What is counted, and to what:

                 datatrove                       dolma                           DCLM
    words        split at white space            split at white space            Unicode words (UAX #29) that begin
                                                                                 with a letter or a digit
    lines        what stood before, of lines     every copy, of lines between    every copy, of lines that are not empty
                 between runs of line feeds      line feeds, empty ones, too     without white space around them
    characters   to all of the text              to all but white space          to those of all such lines
    paragraphs   as lines                        none                            as lines
    top n-gram   with a space between words,     without; the first of several   without; the longest of several, and
                 the first of several, to all    to all but white space          none that stands once, to all words
    duplicate    what stood before, joined       every copy, to all n-grams at   words that every copy covers, each word
    n-grams      without spaces, from left to    all places                      once, to all words
                 right without overlap, to all

"datatrove" is GopherRepetitionFilter over words split at white space (its own default splits English with spaCy's
rules, so its n-grams differ); "dolma" is the tagger gopher_v1; "dclm" is massive_web_repetition_filters, whose words
are uniseg's: ours are those of Unicode 14.0, and a later uniseg knows later characters. There is no dialect of the
paper: it does not say what a word is, nor to what characters are counted.

An empty text has nulls, which quarantine what a rule asks about: let `word_count` of gopher speak first. So has, for
lines and paragraphs of "dclm", one of white space alone. dolma defines all, and divides by 1 where there is nothing.

Chinese, Japanese, Thai and others write no spaces: with `units = "script"` each letter of such a script counts as a
word, and the bounds of n-grams, made for words, are to be given anew. DCLM's Unicode words are such letters already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.kernels.text import Ask, Counts, counts
from pipeline.kernels.unicode import classes_digest, table_digest
from pipeline.stage import measure
from pipeline.stages.gopher import Dialect, Units, check, defined, ratio

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

__all__ = ["check"]

TOP, AGAIN = (2, 3, 4), (5, 6, 7, 8, 9, 10)
LINES, PARAGRAPHS = (
    ("duplicate_lines", "duplicate_line_characters"),
    ("duplicate_paragraphs", "duplicate_paragraph_characters"),
)
NGRAMS = (*(f"top_{n}gram_characters" for n in TOP), *(f"duplicate_{n}gram_characters" for n in AGAIN))
SIGNALS = (LINES[0], PARAGRAPHS[0], LINES[1], PARAGRAPHS[1], *NGRAMS)


@measure(**dict.fromkeys(SIGNALS, "float64"))
def repetition(
    batch: pa.RecordBatch,
    *,
    dialect: Dialect = "datatrove",
    units: Units = "whitespace",
) -> dict[str, pa.Array]:
    """Measure every document."""
    return signals(counts(batch["text"], request(dialect=dialect, units=units)), dialect=dialect)


def columns(*, dialect: str, **params: object) -> list[str]:
    """What a dialect measures."""
    return [name for name in SIGNALS if dialect != "dolma" or name not in PARAGRAPHS]


def request(*, dialect: str, units: str, **params: object) -> Ask:
    """Lines, paragraphs and n-grams compared."""
    return Ask(by_script=units == "script", repetition=True, dialect=dialect)


def signals(n: Counts, *, dialect: str, **params: object) -> dict[str, pa.Array]:
    """From counts to what is declared."""
    match dialect:
        case "dolma":
            return _dolma(n)
        case "dclm":
            return _dclm(n)
    parts = ["fed_again_characters", "paragraphs_again_characters"]
    parts += [*(f"top_{k}" for k in TOP), *(f"again_{k}" for k in AGAIN)]
    shares = [ratio(n["fed_again"], n["fed"]), ratio(n["paragraphs_again"], n["paragraphs"])]
    shares += [ratio(n[part], n["characters"]) for part in parts]
    return dict(zip(SIGNALS, shares, strict=True))


def _dolma(n: Counts) -> dict[str, pa.Array]:
    shares = [defined(n["lines_copied"], n["lines"]), defined(n["line_characters_copied"], n["word_characters"])]
    shares += [defined(n[f"top_{k}"], n["word_characters"]) for k in TOP]
    shares += [defined(n[f"copied_{k}"], n[f"all_{k}"]) for k in AGAIN]
    return dict(zip((*LINES, *NGRAMS), shares, strict=True))


def _dclm(n: Counts) -> dict[str, pa.Array]:
    shares = [ratio(n["lines_copied"], n["lines"]), ratio(n["line_characters_copied"], n["line_characters"])]
    shares.append(ratio(n["paragraphs_copied"], n["paragraphs"]))
    shares.append(ratio(n["paragraph_characters_copied"], n["paragraph_characters"]))
    # A text without n-grams is kept; only an empty one is dropped before they are counted.
    whole = np.where(n["characters"] > 0, np.maximum(n["unicode_characters"], 1), 0)
    shares += [ratio(n[f"top_{k}"], whole) for k in TOP]
    shares += [ratio(n[f"covered_{k}"], whole) for k in AGAIN]
    return dict(zip((*LINES, *PARAGRAPHS, *NGRAMS), shares, strict=True))


def resources(**params: object) -> dict[str, str]:
    """The tables that say what white space and letters are."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Ever more copies of a line, a paragraph or a run of words among others, weighed as the dialect does."""
    from pipeline.examples import WHOLE, fresh, ladder, measured

    def copied(between: str) -> Callable[[int], str]:
        def build(k: int) -> str:
            rows = [fresh(0 if row <= k else 6 * row, 6) for row in range(WHOLE)]
            return between.join(" ".join(row) + "." for row in rows)

        return build

    def runs(k: int) -> str:
        return " ".join(word for n in range(WHOLE) for word in fresh(0 if n < k else length * (n + 1), length)) + "."

    measure = measured(repetition, rule.column, **params)
    length = int("".join(filter(str.isdigit, rule.column)) or 0)
    if length:
        return ladder(rule, limit, runs, measure=measure, most=WHOLE)
    between = "\n\n" if "paragraph" in rule.column else "\n"
    return ladder(rule, limit, copied(between), measure=measure, most=WHOLE - 1)
