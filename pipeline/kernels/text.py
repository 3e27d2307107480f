"""Counts that quality rules are made of, over the bytes of a column of text.

One call a batch; each family of counts is one pass over a document that lies in cache (`words`, `lines`; repetition
and others join in `measure`). Counts are integers, ratios are taken once at the end: so they are the same to the bit
wherever they are computed, and equal to datatrove's own arithmetic over words split at white space (`str.split`).
Its default word tokenizer is another thing and gives other counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Flags, Ints, Table, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.unicode import ALNUM, ALPHA, BREAK, MARK, PUNCT, SPACE, SPACELESS, table
from pipeline.kernels.utf8 import decode

COUNTS = (
    "words",  # all words
    "worded",  # words with a character that is not punctuation
    "worded_characters",  # characters in those
    "alphabetic",  # words with a letter
    "hashes",  # "#" anywhere
    "ellipses",  # "..." (not overlapping) and "…" anywhere
    "stop_words",  # distinct ones of the list that occur, as written
    "lines",  # as str.splitlines
    "bullets",  # lines that begin with "•" or "-" after white space
    "trailing",  # lines that end in "..." or "…" before white space
)
HASH, DOT, DASH, BULLET, ELLIPSIS = 0x23, 0x2E, 0x2D, 0x2022, 0x2026
CR, LF = 13, 10
NOWHERE = np.int64(-1)


def counts(text: pa.Array, stop_words: Sequence[str], by_script: bool = False) -> dict[str, Ints]:
    """The COUNTS of every document, int64 [n] each.

    With `by_script` each letter of a script without spaces is a word of its own, with the marks and the punctuation
    that follow it; other words are split at white space in either case.
    """
    data, offsets = text_buffers(text)
    listed = [word.encode() for word in stop_words]
    starts = np.cumsum([0, *map(len, listed)], dtype=np.int64)
    out = np.zeros((len(text), len(COUNTS)), np.int64)
    stop = frozen(np.frombuffer(b"".join(listed), np.uint8))
    measure(data, offsets, table(), stop, frozen(starts), by_script, out)
    return dict(zip(COUNTS, out.T, strict=True))


@kernel
def measure(
    data: Bytes, offsets: Ints, table: Table, stop: Bytes, stop_starts: Ints, by_script: bool, out: Ints
) -> None:
    """Fill out[document, count] for every document."""
    seen = np.zeros(stop_starts.size - 1, np.bool_)
    for d in range(offsets.size - 1):
        start, end = offsets[d], offsets[d + 1]
        words(data, start, end, table, stop, stop_starts, seen, by_script, out[d])
        lines(data, start, end, table, out[d])


@kernel
def words(
    data: Bytes,
    start: int,
    end: int,
    table: Table,
    stop: Bytes,
    stop_starts: Ints,
    seen: Flags,
    by_script: bool,
    out: Ints,
) -> None:
    """Count words and symbols: out[0:7]."""
    n_words = n_worded = n_worded_characters = n_alphabetic = n_hashes = n_ellipses = 0
    characters = dots = 0
    alphabetic = worded = False
    # Typed, because a literal would have the helpers compiled twice.
    spaceless: Any = np.bool_(False)
    begin: Any = NOWHERE
    i = start
    while i <= end:
        if i < end:
            code, width = decode(data, i, end)
            flags = int(table[code])
        else:
            code, width, flags = LF, 1, SPACE
        space = flags & SPACE != 0
        cut = by_script and begin >= 0 and _cuts(flags, spaceless)
        if begin >= 0 and (space or cut):
            n_words += 1
            n_alphabetic += alphabetic
            if worded:
                n_worded += 1
                n_worded_characters += characters
            _mark_stop_word(data, begin, i, stop, stop_starts, seen)
            begin = NOWHERE
        if not space:
            if begin < 0:
                begin, characters, alphabetic, worded = i, 0, False, False
                spaceless = flags & SPACELESS != 0
            characters += 1
            alphabetic |= flags & ALPHA != 0
            worded |= flags & PUNCT == 0
            n_hashes += code == HASH
            n_ellipses += code == ELLIPSIS
        dots = dots + 1 if code == DOT else 0
        if dots == 3:
            n_ellipses += 1
            dots = 0
        i += width
    out[0], out[1], out[2], out[3] = n_words, n_worded, n_worded_characters, n_alphabetic
    out[4], out[5], out[6] = n_hashes, n_ellipses, 0
    for k in range(seen.size):
        out[6] += seen[k]
        seen[k] = False


@kernel
def lines(data: Bytes, start: int, end: int, table: Table, out: Ints) -> None:
    """Count lines as str.splitlines cuts them, by their first and last characters: out[7:10]."""
    n_lines = n_bullets = n_trailing = 0
    first, dots, last, length, previous = -1, 0, -1, 0, -1
    i = start
    while i <= end:
        if i < end:
            code, width = decode(data, i, end)
            flags = int(table[code])
        else:
            code, width, flags = -1, 1, BREAK
        if flags & BREAK:
            if not (code == LF and previous == CR) and not (code == -1 and length == 0):
                n_lines += 1
                n_bullets += first in (BULLET, DASH)
                n_trailing += dots >= 3 or last == ELLIPSIS
            first, dots, last, length = -1, 0, -1, 0
        else:
            length += 1
            if not flags & SPACE:
                first = code if first < 0 else first
                # Dots count only where they stand together: white space between them starts again.
                dots = (dots + 1 if previous == DOT else 1) if code == DOT else 0
                last = code
        previous = code
        i += width
    out[7], out[8], out[9] = n_lines, n_bullets, n_trailing


@kernel
def _cuts(flags: int, spaceless: bool) -> bool:
    """Whether a character begins a new word inside a run without white space."""
    return flags & SPACELESS != 0 or (spaceless and flags & ALNUM != 0 and flags & MARK == 0)


@kernel
def _mark_stop_word(data: Bytes, begin: int, end: int, stop: Bytes, stop_starts: Ints, seen: Flags) -> None:
    """Set seen[k] where the word data[begin:end] is stop word k, byte for byte."""
    size = end - begin
    for k in range(seen.size):
        first = stop_starts[k]
        if stop_starts[k + 1] - first != size or seen[k]:
            continue
        j = 0
        while j < size and stop[first + j] == data[begin + j]:
            j += 1
        if j == size:
            seen[k] = True
