"""The line rules of FineWeb (Penedo et al. 2024, arXiv 2406.17557, 3.6) as measurements, in a dialect.

A line stands between line feeds and holds more than white space. "datatrove" is the arithmetic of datatrove's
FineWebQualityFilter to the bit, over words split at white space (its own default splits English with spaCy's rules,
which moves `newline_ratio` alone). The paper and the released code do not agree on the bounds:

                                  paper         released code
    punctuated_line_ratio         drop <= .12   drop below .12    lines that end in terminal punctuation
    short_line_ratio              drop >= .67   drop above .67    lines of fewer than 30 characters; of at most 30
    duplicate_line_characters     drop >= .1    drop above .01    characters of lines that stood before, to all but
                                                                  line feeds
    newline_ratio                               drop above .3     line feeds to words

FineWeb-2 (arXiv 2506.20920) drops duplicated characters above .1, leaves short lines out and gives bounds a language.
Terminal punctuation is datatrove's set of about 160 marks of many scripts: a closing quotation mark is none. With
`units = "script"`, which is for Chinese and its like, a line of speech that ends in 。” has ended, too.

A text without such a line has nulls, which quarantine what a rule asks about: let `word_count` of gopher speak first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.kernels.text import Ask, Counts, counts
from pipeline.kernels.unicode import classes_digest, table_digest
from pipeline.stage import measure
from pipeline.stages.gopher import ratio

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule


@measure(
    punctuated_line_ratio="float64",
    short_line_ratio="float64",
    duplicate_line_characters="float64",
    newline_ratio="float64",
)
def fineweb(
    batch: pa.RecordBatch,
    *,
    dialect: Literal["datatrove", "paper"] = "datatrove",
    units: Literal["whitespace", "script"] = "whitespace",
) -> dict[str, pa.Array]:
    """Measure every document."""
    return signals(counts(batch["text"], request(units=units)), dialect=dialect, units=units)


def request(*, units: str, **params: object) -> Ask:
    """Lines and words."""
    return Ask(by_script=units == "script")


def signals(n: Counts, *, dialect: str, units: str, **params: object) -> dict[str, pa.Array]:
    """From counts to what is declared."""
    ended = n["ended"] + n["quoted"] if units == "script" else n["ended"]
    short = n["short"] if dialect == "paper" else n["short"] + n["thirty"]
    # The filter has spoken ("empty") before it divides where there is no line.
    rest = np.where(n["filled"] > 0, n["characters"] - n["feeds"], 0)
    return {
        "punctuated_line_ratio": ratio(ended, n["filled"]),
        "short_line_ratio": ratio(short, n["filled"]),
        "duplicate_line_characters": ratio(n["filled_again_characters"], rest),
        "newline_ratio": ratio(n["feeds"], n["words"]),
    }


def resources(**params: object) -> dict[str, str]:
    """The tables that say what white space and terminal punctuation are."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Lines of the kind that is counted among others, and words over ever more lines."""
    from pipeline.examples import WHOLE, cycled, fresh, ladder, measured, spread

    def shared(line: str, other: str) -> Callable[[int], str]:
        return lambda k: "\n".join([line] * k + [other] * (WHOLE - k))

    def copied(k: int) -> str:
        return "\n".join(" ".join(fresh(0 if row <= k else 6 * row, 6)) + "." for row in range(WHOLE))

    def fed(k: int) -> str:
        """As many words with k line feeds between them, evenly."""
        ends = [f"{'.' * (n > 0)}{chr(10) * n or ' '}" for n in spread(k, WHOLE - 1)]
        return "".join(word + end for word, end in zip(cycled(WHOLE), [*ends, "."], strict=True))

    def share(k: int) -> float:
        return k / WHOLE

    long = " ".join(cycled(12))
    match rule.column:
        case "punctuated_line_ratio":
            return ladder(rule, limit, shared(f"{long}.", long), share, most=WHOLE)
        case "short_line_ratio":
            return ladder(rule, limit, shared("The mill grinds.", f"{long}."), share, most=WHOLE)
        case "newline_ratio":
            return ladder(rule, limit, fed, share)
    return ladder(rule, limit, copied, measure=measured(fineweb, rule.column, **params), most=WHOLE - 1)
