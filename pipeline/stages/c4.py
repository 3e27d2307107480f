"""C4's rules for a page (Raffel et al. 2020, arXiv 1910.10683, 2.2) as measurements, in a dialect; `c4_lines` cleans.

A line is judged in the order of the released code (TFDS, c4_utils.clean_page): a word of more than 1,000 characters, no
terminal punctuation, too few words, "javascript", a phrase about cookies, privacy or terms of use. The page as it came
is measured; what is counted are the lines that would reach a rule, so "{" in a line that goes for its end is none.

                     tfds           datatrove     dolma
    sentences        drop below 3   below 5       (none)      of the lines that stay
    lorem_ipsum      drop above 0   above 0       above 0     lines with it
    curly_bracket    drop above 0   above 0       above 0     lines with "{"
    characters       drop above 190,000 (tfds)
    words of a line  5              3             3
    ends of a line   . ? ! "        and '         . ? ! " ; an ellipsis is one, too

"dolma" is its tagger c4_v1: it cuts at line feeds alone, cleans nothing, and every line meets every rule; `javascript`
is that word between white space. `terminal_punctuation` false lets a line end as it will, as FineWeb runs the filter.

Chinese, Japanese, Thai and others write no spaces and have marks of their own, so that hardly a line of theirs meets
these rules. With `units = "script"` each letter of such a script counts as a word, as in `gopher`, and a line may end
with what ends a sentence in any script (。！？) or with a closing quotation mark (” ’ 」 』). "dolma" has none of it.

Sentences are counted by rule (kernels.sentences). TFDS counts with nltk's trained Punkt, datatrove by spaCy's
sentencizer, so pages near the bound may fall to the other side. The paper's list of bad words and its repeated
three-sentence spans over the corpus are not here: for the latter see `paragraphs` and `substring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.cleaning import (
    ANY_END,
    APOSTROPHE,
    BY_SCRIPT,
    COUNT_ONLY,
    COUNTS,
    ELLIPSIS,
    WORDS_AFTER,
    Rules,
    clean,
)
from pipeline.kernels.scratch import scratch
from pipeline.kernels.unicode import classes, classes_digest, table, table_digest
from pipeline.stage import measure
from pipeline.stages.gopher import Units

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

Dialect = Literal["datatrove", "tfds", "dolma"]
# Flags of the dialect, words that a line has at least, characters that a word has at most.
DIALECTS = {
    "datatrove": (APOSTROPHE | ELLIPSIS, 3, 1000),
    "tfds": (ELLIPSIS | WORDS_AFTER, 5, 1000),
    "dolma": (COUNT_ONLY, 3, -1),
}
SIGNALS = {
    "lines": "lines",
    "lines_kept": "kept",
    "lines_with_long_word": "long_word",
    "lines_without_terminal_punctuation": "unended",
    "lines_with_too_few_words": "few_words",
    "javascript": "javascript",
    "policy": "policy",
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
    "sentences": "sentences",
    "characters": "characters",
}


@measure(**dict.fromkeys(SIGNALS, "int64"))
def c4(
    batch: pa.RecordBatch,
    *,
    dialect: Dialect = "datatrove",
    units: Units = "whitespace",
    terminal_punctuation: bool = True,
) -> dict[str, pa.Array]:
    """Measure every document."""
    counts, _, _ = cleaned(batch["text"], dialect, units, terminal_punctuation, writes=False)
    return {name: pa.array(np.ascontiguousarray(counts[:, COUNTS.index(count)])) for name, count in SIGNALS.items()}


def check(*, dialect: str, units: str, **params: object) -> None:
    """Raise ValueError for parameters that cannot be."""
    if dialect == "dolma" and units != "whitespace":
        raise ValueError(f"dialect 'dolma' has words of its own, and none by units {units!r}")


def cleaned(
    text: pa.Array, dialect: str, units: str, terminal_punctuation: bool, *, writes: bool
) -> tuple[np.ndarray, ...]:
    """(int64 [n, COUNTS], bytes of the lines that stay, int64 where each document's end); the last two if it writes."""
    data, offsets = text_buffers(text)
    flags, least_words, longest_word = DIALECTS[dialect]
    room = scratch(int(np.diff(offsets).max(initial=0)))
    counts = np.zeros((len(text), len(COUNTS)), np.int64)
    out = np.empty(int(offsets[-1] - offsets[0]) + len(text) if writes else 0, np.uint8)
    ends = np.zeros(len(text) if writes else 0, np.int64)
    flags |= (0 if terminal_punctuation else ANY_END) | (BY_SCRIPT if units == "script" else 0)
    clean(data, offsets, Rules(table(), classes(), flags, least_words, longest_word), room, counts, out, ends)
    return counts, out, ends


def resources(**params: object) -> dict[str, str]:
    """The tables that say what white space, digits and terminal punctuation are."""
    return {"unicode14": table_digest(), "classes14": classes_digest()}


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Ever more lines of the kind that is counted."""
    from pipeline.examples import cycled, ladder, measured

    good = " ".join(cycled(8))
    line = {
        "lines_with_long_word": f"{good} {'m' * 1001}.",
        "lines_without_terminal_punctuation": good,
        "lines_with_too_few_words": "Flour.",
        "javascript": f"{good} javascript {good}.",
        "policy": f"{good} privacy policy {good}.",
        "lorem_ipsum": f"{good} lorem ipsum {good}.",
        "curly_bracket": f"{good} {{ {good}.",
    }.get(rule.column, f"{good}.".capitalize())

    def build(k: int) -> str:
        if rule.column == "characters":
            return (f"{good}.\n" * (k // len(good) + 1))[: max(k - 1, 0)] + "." * (k > 0)
        return "\n".join([line] * k)

    return ladder(rule, limit, build, measure=measured(c4, rule.column, **params))
