"""Lines and paragraphs: counted, looked at from both ends, and compared byte for byte with those before them.

Two tools, two lines: `lines` are those of str.splitlines, which ends one at ten characters and more; `feeds` are what
stands between line feeds.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel, trailing_zeros
from pipeline.kernels.planes import BREAKS, ONE, WIDTH, Planes, after_space, before_space, characters_before, next_feed
from pipeline.kernels.scratch import ABSENT, mask_for, next_stamp, put, slot_of, value_at
from pipeline.kernels.unicode import TERMINAL
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ZERO, hashed_padded, same_padded

DOT, DASH, CR, LF = 0x2E, 0x2D, 13, 10
SHORT = 30
# Quotation marks that close: ” ’ 」 』
CLOSING = (0x201D, 0x2019, 0x300D, 0x300F)


@kernel
def lines(text: Bytes, size: int, planes: Planes, out: Ints) -> None:
    """Count lines as str.splitlines cuts them, and those that begin with a bullet or end in an ellipsis: out[0:3]."""
    out[0] = out[1] = out[2] = 0
    start = np.int64(0)
    for b in range((size + WIDTH - 1) // WIDTH):
        ends = planes[b, BREAKS]
        while ends != ZERO:
            at = b * WIDTH + np.int64(trailing_zeros(ends))
            ends &= ends - ONE
            if at < start:
                # The line feed behind a carriage return.
                continue
            _line(text, start, at, planes, out)
            start = at + line_end(text, at)
    if start < size:
        _line(text, start, size, planes, out)


@kernel
def line_end(text: Bytes, at: int) -> int:
    """Bytes of what ends a line at text[at]; a carriage return and its line feed are one end."""
    if text[at] < 0x80:
        return 2 if text[at] == CR and text[at + 1] == LF else 1
    return 2 if text[at] < 0xE0 else 3


@kernel
def _line(text: Bytes, start: int, end: int, planes: Planes, out: Ints) -> None:
    """Count one line that stands at text[start:end]."""
    out[0] += 1
    first = after_space(planes, start, end)
    if first == end:
        return
    out[1] += text[first] == DASH or three(text, first, 0xE2, 0x80, 0xA2)
    last = before_space(planes, start, end) - 3
    out[2] += last >= start and (three(text, last, DOT, DOT, DOT) or three(text, last, 0xE2, 0x80, 0xA6))


@kernel
def three(text: Bytes, at: int, a: int, b: int, c: int) -> bool:
    """Whether the bytes a, b, c stand at text[at]."""
    return text[at] == a and text[at + 1] == b and text[at + 2] == c


@kernel
def before(text: Bytes, start: int, end: int) -> np.int64:
    """Where the last character of text[start:end] begins."""
    i = np.int64(end) - 1
    while i > start and text[i] & 0xC0 == 0x80:
        i -= 1
    return i


@kernel
def feeds(
    text: Bytes, size: int, planes: Planes, classes: Bytes, count: int, slots: Hashes, stamps: Ints, out: Ints
) -> None:
    """What stands between line feeds, of which there are `count`: out[0:9].

    Runs of line feeds part the first three: lines, those that stood before, their characters. Lines of white space
    alone do not count in the rest: lines, those that end in terminal punctuation, those of fewer than 30 characters,
    those of 30, characters of those that stood before, lines that end in a quotation mark behind terminal punctuation.
    """
    out[:9] = 0
    stamp, mask = next_stamp(slots, stamps), mask_for(min(count, size // 2) + 1)
    a = np.int64(0)
    while a < size:
        b = next_feed(planes, a, size)
        if b > a:
            points = characters_before(planes, b) - characters_before(planes, a)
            repeated = _seen(text, a, b, 1, slots, mask, stamp)
            again = points if repeated else np.int64(0)
            out[0] += 1
            out[1] += repeated
            out[2] += again
            if after_space(planes, a, b) < b:
                out[3] += 1
                last = before(text, a, b)
                end = decode(text, last, b)[0]
                out[4] += classes[end] & TERMINAL != 0
                if end in CLOSING and last > a:
                    out[8] += classes[decode(text, before(text, a, last), last)[0]] & TERMINAL != 0
                out[5] += points < SHORT
                out[6] += points == SHORT
                out[7] += again
        a = b + 1
    if size > 0:
        # A run of line feeds at the start or the end of the text parts off an empty line there.
        empty = np.int64(text[0] == LF) + np.int64(text[size - 1] == LF)
        out[0] += empty
        out[1] += empty == 2


@kernel
def paragraphs(text: Bytes, size: int, planes: Planes, count: int, slots: Hashes, stamps: Ints, out: Ints) -> None:
    """What two line feeds and more part in a text without white space around it: out[0:3].

    Paragraphs, those that stood before, their characters. Of a text of white space alone there is one, which is empty.
    """
    out[0] = out[1] = out[2] = 0
    if size == 0:
        return
    a = after_space(planes, 0, size)
    end = before_space(planes, a, size)
    stamp, mask = next_stamp(slots, stamps), mask_for(min(count, (end - a) // 2) + 1)
    while a <= end:
        b = next_feed(planes, a, end)
        while b + 1 < end and text[b + 1] != LF:
            b = next_feed(planes, b + 1, end)
        out[0] += 1
        # The only one has nothing to be compared with.
        if (b < end or out[0] > 1) and _seen(text, a, b, 2, slots, mask, stamp):
            out[1] += 1
            out[2] += characters_before(planes, b) - characters_before(planes, a)
        a = b + 1
        while a < end and text[a] == LF:
            a += 1


@kernel
def _seen(text: Bytes, a: int, b: int, apart: int, slots: Hashes, mask: int, stamp: int) -> bool:
    """Whether text[a:b], not empty, stood before it in the document; `apart` line feeds end a piece."""
    size = b - a
    key = hashed_padded(text, a, b)
    slot = slot_of(key, mask)
    while True:
        first = value_at(slots, slot, stamp)
        if first == ABSENT:
            put(slots, slot, stamp, key, a)
            return False
        fits = slots[slot, 0] == key and first + size + apart <= a
        # A longer piece may begin as this one does.
        if (
            fits
            and text[first + size] == LF
            and text[first + size + apart - 1] == LF
            and same_padded(text, first, a, size)
        ):
            return True
        slot = (slot + 1) & mask
