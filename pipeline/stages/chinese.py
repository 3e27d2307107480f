"""Rules for Chinese, whose units make sense without spaces: characters for words, 。！？ for the ends of sentences.

                        drop         by whom
    characters          < 200        ChineseWebText   all that is no white space
    han_ratio           < .3         ChineseWebText   Han characters to all
    line_length         < 10         ChineseWebText   characters to lines that hold any
    digit_ratio         > .3         MAP-CC           digits to letters and digits
    punctuation_ratio   0            MAP-CC           punctuation of any width to all
    bracket_ratio       > .1         MAP-CC           characters between 【 and 】 to all
    more_line_ratio     > .3         MAP-CC           lines that end in 更多, 展开, "read more" or 。。。
    unique_ratio        <= .1        MAP-CC           different characters to all: falls with the length of a text
    entropy             < 3          MAP-CC           of the distribution of characters, nats
    sentences           < 2          MAP-CC           by rule (`kernels.sentences`): 。！？ end one whatever follows
    sentence_length                                   characters to sentences
    simplified_ratio                                  Han characters that only Simplified Chinese has, to all Han
    traditional_ratio                                 those that only Traditional Chinese has

ChineseWebText is Chen et al. 2023 (arXiv 2311.01149), MAP-CC Du et al. 2024 (arXiv 2404.04167) by its released code,
but that counts white space as characters, and maps full-width punctuation to half-width first, which changes none of
these. MAP-CC's bounds are for texts of 50 to 10,000 characters: on longer ones `unique_ratio` says how long a text is.
A tenth and more of a page's Han characters are in its script alone, and less than a twentieth in the other alone
(`kernels.chinese`): a bound of .05 on the other's ratio tells them apart. Japanese has both.

`gopher`, `repetition`, `fineweb`, `c4` and `c4_lines` count characters for words by `units = "script"`.

A text without a character has nulls, which quarantine what a rule asks about: let `characters` speak first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kernels import chinese as scripts
from pipeline.kernels.han import counts
from pipeline.kernels.unicode import classes_digest, table_digest
from pipeline.stage import measure
from pipeline.stages.gopher import defined, ratio

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

# For RE2, which takes time in proportion to the text whatever stands there.
MORE = r"(?m)(?:更多|展开|展開|[Rr]ead ?more|。。。)[ \t\x{3000}]*$"


@measure(
    characters="int64",
    han_ratio="float64",
    line_length="float64",
    digit_ratio="float64",
    punctuation_ratio="float64",
    bracket_ratio="float64",
    more_line_ratio="float64",
    unique_ratio="float64",
    entropy="float64",
    sentences="int64",
    sentence_length="float64",
    simplified_ratio="float64",
    traditional_ratio="float64",
)
def chinese(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Measure every document."""
    text = batch["text"]
    n, entropy = counts(text)
    more = pc.count_substring_regex(text, MORE).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return {
        "characters": pa.array(np.ascontiguousarray(n["characters"])),
        "han_ratio": ratio(n["han"], n["characters"]),
        "line_length": ratio(n["characters"], n["lines"]),
        "digit_ratio": ratio(n["digits"], n["alphanumeric"]),
        "punctuation_ratio": ratio(n["punctuation"], n["characters"]),
        "bracket_ratio": ratio(n["bracketed"], n["characters"]),
        "more_line_ratio": ratio(more, n["lines"]),
        "unique_ratio": ratio(n["distinct"], n["characters"]),
        # Another machine's logarithms say the same to so many decimals.
        "entropy": pa.array(np.round(entropy, 4), mask=n["characters"] == 0),
        "sentences": pa.array(np.ascontiguousarray(n["sentences"])),
        "sentence_length": ratio(n["characters"], n["sentences"]),
        "simplified_ratio": defined(n["simplified"], n["han"]),
        "traditional_ratio": defined(n["traditional"], n["han"]),
    }


def resources(**params: object) -> dict[str, str]:
    """The tables that say what a letter or a mark is, and which script has it."""
    return {"unicode14": table_digest(), "classes14": classes_digest(), "chinese": scripts.digest()}


def examples(rule: Rule, limit: Any, **params: object) -> Examples:
    """Characters, sentences and lines, counted out."""
    from pipeline.examples import WHOLE, ladder, measured

    def among(special: str, other: str, between: str = "") -> Callable[[int], str]:
        return lambda k: between.join([special] * k + [other] * (WHOLE - k))

    def distinct(k: int) -> str:
        return "".join(chr(0x4E00 + n) for n in range(k))

    def share(k: int) -> float:
        return k / WHOLE

    builds: dict[str, Callable[[int], str]] = {
        "han_ratio": among("磨", "m"),
        "digit_ratio": among("7", "磨"),
        "punctuation_ratio": among("，", "磨"),
        "more_line_ratio": among("更多", "磨坊。", "\n"),
        "simplified_ratio": among("国", "坊"),
        "traditional_ratio": among("國", "坊"),
    }
    match rule.column:
        case "bracket_ratio":
            value = measured(chinese, rule.column)
            return ladder(rule, limit, lambda k: f"【{'磨' * k}】{'坊' * (WHOLE - k)}", measure=value, most=WHOLE)
        case "unique_ratio":
            return ladder(rule, limit, lambda k: distinct(k) + distinct(1) * (WHOLE - k), share, least=1, most=WHOLE)
        case "entropy":
            return ladder(rule, limit, distinct, measure=measured(chinese, rule.column), least=1)
        case "sentences":
            return ladder(rule, limit, lambda k: "水轮转动着。" * k)
        case "sentence_length":
            return ladder(rule, limit, lambda k: "磨" * (k - 1) + "。", least=1)
        case "characters" | "line_length":
            return ladder(rule, limit, lambda k: "磨" * k, least=rule.column == "line_length")
    return ladder(rule, limit, builds[rule.column], share, most=WHOLE)
