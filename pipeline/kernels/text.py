"""Counts that quality rules are made of, over the bytes of a column of text.

One call a batch. What stands where in a document is drawn once (`planes`); from that are read symbols, words (`words`),
the n-grams of them (`ngrams`), lines and paragraphs (`lines`). Counts are integers, ratios are taken once at the end:
so they are the same to the bit wherever they are computed, and equal to datatrove's own arithmetic over words split at
white space (`str.split`). Its default word tokenizer is another thing and gives other counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Ints, Table, allocating_kernel, kernel
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.dialects import NAMES, measure_dclm, measure_dolma
from pipeline.kernels.lines import feeds, lines, paragraphs
from pipeline.kernels.ngrams import joined_duplicates, number_words, top_ngrams
from pipeline.kernels.planes import draw
from pipeline.kernels.scratch import Scratch, scratch, take
from pipeline.kernels.unicode import classes, table
from pipeline.kernels.words import StopWords, stop_words, words

Counts = dict[str, Ints]
COUNTS = (
    "words",  # all words
    "worded",  # words with a character that is not punctuation
    "worded_characters",  # characters in those
    "alphabetic",  # words with a letter
    "stop_words",  # distinct ones of the list that occur, as written
    "hashes",  # "#" anywhere
    "ellipses",  # "..." (not overlapping) and "…" anywhere
    "feeds",  # line feeds
    "characters",  # code points
    "lines",  # as str.splitlines
    "bullets",  # lines that begin with "•" or "-" after white space
    "trailing",  # lines that end in "..." or "…" before white space
    "fed",  # lines between runs of line feeds, an empty one where the text begins or ends with one
    "fed_again",  # those that stood before
    "fed_again_characters",
    "filled",  # lines between line feeds that hold more than white space
    "ended",  # those that end in terminal punctuation
    "short",  # those of fewer than 30 characters
    "thirty",  # those of 30
    "filled_again_characters",  # characters of those that stood before
    "quoted",  # those that end in a closing quotation mark (” ’ 」 』) behind terminal punctuation
    "paragraphs",  # between two line feeds and more, of the text without white space around it
    "paragraphs_again",  # those that stood before
    "paragraphs_again_characters",
    *(f"top_{n}" for n in (2, 3, 4)),  # characters of the commonest n-gram with its spaces, times how often it stands
    *(f"again_{n}" for n in range(5, 11)),  # characters of n-grams, joined without spaces, that stood before
)
SYMBOLS, LINES, FED, PARAGRAPHS, TOP, AGAIN = map(
    COUNTS.index, ("hashes", "lines", "fed", "paragraphs", "top_2", "again_5")
)


@dataclass(frozen=True)
class Ask:
    """What a stage asks of a column of text. What it does not ask for is 0, unless another stage asks.

    With `by_script` each letter of a script without spaces is a word of its own, with the marks and the punctuation
    that follow it; other words are split at white space in either case. Without `repetition` paragraphs and n-grams are
    not compared. `stop_words` None asks for none. In another dialect than datatrove's other things are counted
    (`dialects.NAMES`).
    """

    by_script: bool = False
    repetition: bool = False
    stop_words: tuple[str, ...] | None = None
    dialect: str = "datatrove"

    def with_(self, other: Ask) -> Ask | None:
        """What answers both, or None where one call cannot."""
        lists = {ask.stop_words for ask in (self, other)} - {None}
        if (self.by_script, self.dialect) != (other.by_script, other.dialect) or len(lists) > 1:
            return None
        return Ask(self.by_script, self.repetition or other.repetition, next(iter(lists), None), self.dialect)


def counts(text: pa.Array, ask: Ask) -> Counts:
    """The COUNTS of every document, int64 [n] each, or those of its dialect. Raises ValueError for one of 2 GB."""
    data, offsets = text_buffers(text)
    names = NAMES.get(ask.dialect, COUNTS)
    out = np.zeros((len(text), len(names)), np.int64)
    stop = stop_words([word.encode() for word in ask.stop_words or ()])
    room = scratch(int(np.diff(offsets).max(initial=0)))
    match ask.dialect:
        case "datatrove":
            measure(data, offsets, table(), classes(), stop, ask.by_script, ask.repetition, room, out)
        case "dolma":
            measure_dolma(data, offsets, table(), stop, ask.repetition, room, out)
        case "dclm":
            quality = ask.stop_words is not None
            measure_dclm(data, offsets, table(), classes(), stop, quality, ask.repetition, room, out)
        case _:
            raise ValueError(f"nobody counts in the dialect {ask.dialect!r}")
    return dict(zip(names, out.T, strict=True))


@allocating_kernel
def measure(
    data: Bytes,
    offsets: Ints,
    table: Table,
    classes: Bytes,
    stop: StopWords,
    by_script: bool,
    repetition: bool,
    room: Scratch,
    out: Ints,
) -> None:
    """Fill out[document, count] for every document."""
    seen = np.zeros(stop.sizes.size, np.int64)
    text, planes = room.text, room.planes
    for d in range(offsets.size - 1):
        row = out[d]
        size = take(data, offsets[d], offsets[d + 1], text)
        draw(text, size, table, planes, row[SYMBOLS:])
        n = words(text, size, table, stop, seen, by_script, room, row)
        lines(text, size, planes, row[LINES:])
        count = row[SYMBOLS + 2]
        feeds(text, size, planes, classes, count, room.table, room.stamp, row[FED:])
        if repetition:
            paragraphs(text, size, planes, count, room.table, room.stamp, row[PARAGRAPHS:])
            repeats(n, room, row)


@kernel
def repeats(n: int, room: Scratch, row: Ints) -> None:
    """The n-grams of one document whose n words lie packed."""
    number_words(n, room)
    top_ngrams(n, 1, False, room, row[TOP:])
    joined_duplicates(n, room, row[AGAIN:])
