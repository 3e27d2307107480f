"""The repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1) as measurements, in a dialect.

"datatrove" is the arithmetic of datatrove's GopherRepetitionFilter to the bit, over words split at white space (its
own default splits English with spaCy's rules, so its n-grams differ). A line or paragraph is duplicate where it stood
before; characters are to all characters of the text. The bounds are the paper's:

    duplicate_lines                    drop above .30   lines, parted by line feeds
    duplicate_paragraphs               drop above .30   paragraphs, parted by two line feeds and more
    duplicate_line_characters          drop above .20
    duplicate_paragraph_characters     drop above .20
    top_2gram_characters               drop above .20   the commonest run of two words, as often as it stands
    top_3gram_characters               drop above .18
    top_4gram_characters               drop above .16
    duplicate_5gram_characters         drop above .15   runs of five words that stood before, without overlap
    duplicate_6gram_characters         drop above .14
    duplicate_7gram_characters         drop above .13
    duplicate_8gram_characters         drop above .12
    duplicate_9gram_characters         drop above .11
    duplicate_10gram_characters        drop above .10

An empty text has nulls, which quarantine what a rule asks about: let `word_count` of gopher speak first.

Chinese, Japanese, Thai and others write no spaces: with `units = "script"` each letter of such a script counts as a
word, and the bounds of n-grams, made for words, are to be given anew.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from pipeline.kernels.text import Ask, Counts, counts
from pipeline.kernels.unicode import classes_digest, table_digest
from pipeline.stage import measure
from pipeline.stages.gopher import ratio

TOP, AGAIN = (2, 3, 4), (5, 6, 7, 8, 9, 10)
SIGNALS = (
    *("duplicate_lines", "duplicate_paragraphs", "duplicate_line_characters", "duplicate_paragraph_characters"),
    *(f"top_{n}gram_characters" for n in TOP),
    *(f"duplicate_{n}gram_characters" for n in AGAIN),
)


@measure(**dict.fromkeys(SIGNALS, "float64"))
def repetition(
    batch: pa.RecordBatch,
    *,
    dialect: Literal["datatrove"] = "datatrove",
    units: Literal["whitespace", "script"] = "whitespace",
) -> dict[str, pa.Array]:
    """Measure every document."""
    return signals(counts(batch["text"], request(units=units)))


def request(*, units: str, **params: object) -> Ask:
    """Lines, paragraphs and n-grams compared."""
    return Ask(by_script=units == "script", repetition=True)


def signals(n: Counts, **params: object) -> dict[str, pa.Array]:
    """From counts to what is declared."""
    parts = ["fed_again_characters", "paragraphs_again_characters"]
    parts += [*(f"top_{k}" for k in TOP), *(f"again_{k}" for k in AGAIN)]
    shares = [ratio(n["fed_again"], n["fed"]), ratio(n["paragraphs_again"], n["paragraphs"])]
    shares += [ratio(n[part], n["characters"]) for part in parts]
    return dict(zip(SIGNALS, shares, strict=True))


def resources(**params: object) -> dict[str, str]:
    """The tables that say what white space and letters are."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}
