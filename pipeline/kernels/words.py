"""Words as str.split cuts them: counted, and laid one behind another for what compares them (`ngrams`).

Runs of ASCII go eight bytes at a time, other characters one by one through the table. With `by_script` each letter of
a script without spaces is a word of its own, with the marks and the punctuation that follow it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels._jit import Bytes, Flags, Ints, Table, kernel, trailing_zeros
from pipeline.kernels.scratch import Shorts
from pipeline.kernels.unicode import ALNUM, ALPHA, MARK, PUNCT, SPACE, SPACELESS
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import CASES, HIGHS, LOWS, ZERO, load8, span8, store8, within8

S3 = np.uint64(3)
(TAB, PAST_CR), (FS, PAST_SPACE) = span8(9, 13), span8(28, 32)
(FROM_A, PAST_Z), (FROM_0, PAST_9) = span8(ord("a"), ord("z")), span8(ord("0"), ord("9"))


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
    packed: Bytes,
    ends: Shorts,
    sizes: Shorts,
    out: Ints,
) -> np.int64:
    """Pack the words of one document and count them: out[0:5] as text.COUNTS begins. Returns how many there are."""
    n = filled = characters = np.int64(0)
    worded = worded_characters = alphabetic = np.int64(0)
    ends[0] = sizes[0] = 0
    i = np.int64(start)
    while True:
        while i < end and data[i] < 0x80 and table[data[i]] & SPACE != 0:
            i += 1
        if i >= end:
            break
        begin = i
        i, size, flags = _word(data, i, end, table, by_script)
        if i == begin:
            # White space that is not ASCII.
            i += decode(data, i, end)[1]
            continue
        _copy(data, begin, i, end, packed, filled)
        filled += i - begin
        characters += size
        if flags & ALPHA != 0:
            alphabetic += 1
        if flags & ALNUM != 0:
            worded += 1
            worded_characters += size
        mark_stop_word(data, begin, i, stop, stop_starts, seen)
        n += 1
        ends[n] = filled
        sizes[n] = characters
    out[0], out[1], out[2], out[3], out[4] = n, worded, worded_characters, alphabetic, 0
    for k in range(seen.size):
        out[4] += seen[k]
        seen[k] = False
    return n


@kernel
def _word(data: Bytes, i: Any, end: int, table: Table, by_script: bool) -> tuple[np.int64, np.int64, np.int64]:
    """The word at data[i]: where it ends, its characters, and ALPHA and ALNUM where it has a letter and a character
    that is not punctuation."""
    size = flags = np.int64(0)
    spaceless = False
    while i < end:
        if data[i] < 0x80 and i + 8 <= end and not spaceless:
            run, found = _ascii(load8(data, i))
            i += run
            size += run
            flags |= found
            if run == 8:
                continue
        if i == end:
            break
        code, width = decode(data, i, end)
        entry = np.int64(table[code])
        if entry & SPACE != 0:
            break
        if by_script and size > 0 and cuts(entry, spaceless):
            break
        if size == 0:
            spaceless = by_script and entry & SPACELESS != 0
        size += 1
        flags |= (entry & ALPHA) | (0 if entry & PUNCT != 0 else ALNUM)
        i += width
    return i, size, flags


@kernel
def _ascii(word: np.uint64) -> tuple[np.int64, np.int64]:
    """How many of eight bytes stand before white space or what is not ASCII, and ALPHA and ALNUM of those."""
    low = word & LOWS
    stop = (word | within8(low, TAB, PAST_CR) | within8(low, FS, PAST_SPACE)) & HIGHS
    cased = low | CASES
    letters = within8(cased, FROM_A, PAST_Z) & HIGHS
    digits = within8(low, FROM_0, PAST_9) & HIGHS
    run = np.int64(8)
    if stop != ZERO:
        # Only what lies below the lowest stop counts.
        below = (stop & (ZERO - stop)) - np.uint64(1)
        run = np.int64(trailing_zeros(stop) >> S3)
        letters &= below
        digits &= below
    flags = np.int64(0)
    if letters != ZERO:
        flags = np.int64(ALPHA | ALNUM)
    elif digits != ZERO:
        flags = np.int64(ALNUM)
    return run, flags


@kernel
def _copy(data: Bytes, begin: int, i: int, end: int, packed: Bytes, filled: int) -> None:
    """packed[filled:] = data[begin:i]; up to seven bytes behind may be overwritten."""
    at = begin
    while at < i and at + 8 <= end:
        store8(packed, filled, load8(data, at))
        filled += 8
        at += 8
    while at < i:
        packed[filled] = data[at]
        filled += 1
        at += 1


@kernel
def cuts(entry: int, spaceless: bool) -> bool:
    """Whether a character begins a new word inside a run without white space."""
    return entry & SPACELESS != 0 or (spaceless and entry & ALNUM != 0 and entry & MARK == 0)


@kernel
def mark_stop_word(data: Bytes, begin: int, end: int, stop: Bytes, stop_starts: Ints, seen: Flags) -> None:
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
