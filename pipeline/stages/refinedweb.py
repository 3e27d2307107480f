"""The line-wise corrections of RefinedWeb (Penedo et al. 2023, arXiv 2306.01116, appendix G.2) as measurements.

A line between line feeds goes if it is mainly composed of capitals (more than half of its characters), only composed
of digits, a counter ("3 likes"), or one word. Of a line of ten words at the most these go, whatever their case: "sign
in", "sign out", "sign up" and "log in" where it begins (also as one word, or with a hyphen), "read more", "continue
reading" and the like where it ends, and "items in cart" anywhere.

    flagged_word_ratio   drop above .05   words of what goes, to all words
    flagged_lines                         lines that go or lose something

The paper states the rules with one example each; its lists were not published. Counters and phrases are DCLM's
reading (arXiv 2406.11794, baselines of RefinedWeb), and what one meets beside them. `refinedweb_lines` takes them out;
let this stage stand before it.

Chinese and its like write a line as one word: with `units = "script"` each letter of such a script is a word.
A text without a word has null, which quarantines it: let `word_count` of gopher speak first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kernels.linewise import lines
from pipeline.kernels.unicode import table_digest
from pipeline.stage import measure
from pipeline.stages.gopher import Units, ratio

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

# What a line has at the most that is looked through for patterns: longer ones of few words are no text.
SHORT, MOST_BYTES = 10, 1000
COUNTED = (
    "likes?|shares?|comments?|retweets?|reposts?|quotes?|bookmarks?|upvotes?|downvotes?|downloads?|views?|followers?"
    "|replies"
)
COUNTER = re.compile(rf"\W*\d[\d,.]*[kmb]?\s+(?:{COUNTED})\W*", re.IGNORECASE | re.ASCII)
# Nothing but white space and marks may stand before what a line begins with, or behind what it ends in; they go, too.
BEGINS = r"^\W*(?:sign[ -]?(?:in|out|up)|log[ -]?(?:in|out))\b\W*"
ENDS = r"\s*\b(?:read more|continue reading|see more|show more|load more)\W*$"
ANYWHERE = r"\s*\b(?:\d+ )?items? in (?:your |the )?cart\b\s*"
CUT = re.compile(f"{BEGINS}|{ENDS}|{ANYWHERE}", re.IGNORECASE | re.ASCII)
# For RE2, over whole documents: one without has no line that a pattern could fit.
HINT = (
    r"(?i)sign[ -]?(?:in|out|up)|log[ -]?(?:in|out)|(?:read|see|show|load) more|continue reading|items? in "
    rf"|\d[kmb]?\s+(?:{COUNTED})"
)


class Found(NamedTuple):
    """Of every document words and flagged words and lines, int64 [n]; and the lines of those that have any: of each
    its text, or None where it goes."""

    words: np.ndarray
    flagged_words: np.ndarray
    flagged_lines: np.ndarray
    kept: dict[int, list[str | None]]


@measure(flagged_word_ratio="float64", flagged_lines="int64")
def refinedweb(batch: pa.RecordBatch, *, units: Units = "whitespace") -> dict[str, pa.Array]:
    """Measure every document."""
    found = flagged(batch["text"], units)
    return {
        "flagged_word_ratio": ratio(found.flagged_words, found.words),
        "flagged_lines": pa.array(found.flagged_lines),
    }


def flagged(text: pa.Array, units: str) -> Found:
    """What goes of every document, and why nothing more does: a line that lost something is judged again."""
    n = lines(text, units == "script")
    document, words = n["document"], n["words"]
    whole = np.bincount(document, words, len(text)).astype(np.int64)
    goes = (words == 1) | (2 * n["capitals"] > n["characters"]) | ((n["digits"] == n["characters"]) & (words > 0))
    hinted = pc.match_substring_regex(text, HINT).to_numpy(zero_copy_only=False)
    short = (words > 0) & (words <= SHORT) & (n["end"] - n["start"] <= MOST_BYTES)
    looked = np.flatnonzero(~goes & short & hinted[document])
    cut: dict[int, str] = {}
    cut_words = np.zeros(len(document), np.int64)
    for row, line in zip(looked.tolist(), _texts(text, n, looked), strict=True):
        rest = _without(line, units)
        if rest is None:
            goes[row] = True
        elif rest != line:
            cut[row] = rest
            cut_words[row] = words[row] - _words(rest, units)
    cut_words[goes] = words[goes]
    marked = goes | (cut_words > 0)
    marked[list(cut)] = True
    lost = np.bincount(document, cut_words, len(text)).astype(np.int64)
    kept = _kept(text, n, marked, goes, cut)
    return Found(whole, lost, np.bincount(document, marked, len(text)).astype(np.int64), kept)


def _texts(text: pa.Array, n: dict[str, np.ndarray], rows: np.ndarray) -> Iterator[str]:
    """The lines of these rows, which ascend."""
    for document, group in groupby(rows.tolist(), key=lambda row: int(n["document"][row])):
        raw = text[document].as_buffer().to_pybytes()
        for row in group:
            yield raw[n["start"][row] : n["end"][row]].decode()


def _kept(
    text: pa.Array, n: dict[str, np.ndarray], marked: np.ndarray, goes: np.ndarray, cut: dict[int, str]
) -> dict[int, list[str | None]]:
    """The lines of every document that has a marked one."""
    first = np.searchsorted(n["document"], np.arange(len(text) + 1))
    found: dict[int, list[str | None]] = {}
    for document in np.unique(n["document"][marked]).tolist():
        rows = range(first[document], first[document + 1])
        said = text[document].as_py().split("\n")
        found[document] = [None if goes[row] else cut.get(row, line) for row, line in zip(rows, said, strict=True)]
    return found


def _without(line: str, units: str) -> str | None:
    """A short line without its patterns; None where it is a counter, or what is left of it is to go."""
    while True:
        if COUNTER.fullmatch(line):
            return None
        rest = CUT.sub(" ", line).strip()
        if rest == line.strip():
            return line
        if not rest or _goes(rest, units):
            return None
        line = rest


def _goes(line: str, units: str) -> bool:
    n = lines(pa.array([line], pa.large_string()), units == "script")
    characters = n["characters"][0]
    return bool(n["words"][0] <= 1 or 2 * n["capitals"][0] > characters or n["digits"][0] == characters)


def _words(line: str, units: str) -> int:
    return int(lines(pa.array([line], pa.large_string()), units == "script")["words"][0])


def resources(**params: object) -> dict[str, str]:
    """The table that says what a word, a capital and a digit are."""
    return {"unicode14": table_digest()}


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Lines of one word among others."""
    from pipeline.examples import WHOLE, cycled, ladder

    row = " ".join(cycled(8))
    build: Callable[[int], str] = lambda k: "\n".join(["Flour"] * k + [row] * 3)  # noqa: E731
    if rule.column == "flagged_lines":
        return ladder(rule, limit, build)
    return ladder(
        rule,
        limit,
        lambda k: "\n".join(["Flour"] * k + [" ".join(cycled(WHOLE - k))]),
        lambda k: k / WHOLE,
        most=WHOLE - 2,
    )
