"""Lines and paragraphs: counted, looked at from both ends, and compared byte for byte with those before them.

Two tools, two lines: `lines` are those of str.splitlines, which ends one at ten characters and more; `feeds` are what
stands between line feeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels._jit import Bytes, Hashes, Ints, Table, kernel, trailing_zeros
from pipeline.kernels.scratch import ABSENT, mask_for, next_stamp, put, slot_of, value_at
from pipeline.kernels.unicode import BREAK, SPACE, TERMINAL
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import (
    HIGHS,
    LOWS,
    ONES,
    ZERO,
    characters,
    count8,
    equal8,
    hashed,
    load8,
    same,
    span8,
    within8,
)

HASH, DOT, DASH, BULLET, ELLIPSIS = 0x23, 0x2E, 0x2D, 0x2022, 0x2026
CR, LF = 13, 10
SHORT = 30
S3 = np.uint64(3)
LFS, HASHES, DOTS = (ONES * np.uint64(code) for code in (LF, HASH, DOT))
C2S, E2S = ONES * np.uint64(0xC2), ONES * np.uint64(0xE2)
(FROM_LF, PAST_CR), (FROM_FS, PAST_RS) = span8(10, 13), span8(0x1C, 0x1E)


@kernel
def symbols(data: Bytes, start: int, end: int, out: Ints) -> None:
    """out[0:4] = "#", "..." (not overlapping) and "…", line feeds, code points."""
    hashes = ellipses = feeds = continuing = dots = np.int64(0)
    i = np.int64(start)
    while i < end:
        size = min(np.int64(8), end - i)
        odd = True
        if size == 8:
            word = load8(data, i)
            hashes += count8(equal8(word, HASHES))
            feeds += count8(equal8(word, LFS))
            if word & HIGHS != ZERO:
                continuing += count8(word & ~(word << np.uint64(1)) & HIGHS)
            odd = equal8(word, DOTS) | equal8(word, E2S) != ZERO
            if not odd:
                dots = np.int64(0)
        if odd:
            for k in range(i, i + size):
                c = data[k]
                dots = dots + 1 if c == DOT else np.int64(0)
                if dots == 3 or (c == 0xE2 and k + 2 < end and data[k + 1] == 0x80 and data[k + 2] == 0xA6):
                    ellipses += 1
                    dots = np.int64(0)
                if size < 8:
                    hashes += c == HASH
                    feeds += c == LF
                    continuing += (c & 0xC0) == 0x80
        i += size
    out[0], out[1], out[2], out[3] = hashes, ellipses, feeds, end - start - continuing


@kernel
def lines(data: Bytes, start: int, end: int, table: Table, out: Ints) -> None:
    """Count lines as str.splitlines cuts them, and those that begin with a bullet or end in an ellipsis: out[0:3]."""
    n_lines = n_bullets = n_trailing = np.int64(0)
    i = np.int64(start)
    while i < end:
        at, width = _next_break(data, i, end, table)
        first = _first(data, i, at, table)
        n_lines += 1
        n_bullets += first in (BULLET, DASH)
        n_trailing += _trails(data, i, at, table)
        if width == 1 and data[at] == CR and at + 1 < end and data[at + 1] == LF:
            width += 1
        i = at + width
    out[0], out[1], out[2] = n_lines, n_bullets, n_trailing


@kernel
def _next_break(data: Bytes, i: Any, end: Any, table: Table) -> tuple[np.int64, np.int64]:
    """Where the next character that ends a line stands from data[i] on, and its bytes; (end, 0) where there is none."""
    while i < end:
        if i + 8 <= end:
            word = load8(data, i)
            low = word & LOWS
            control = (within8(low, FROM_LF, PAST_CR) | within8(low, FROM_FS, PAST_RS)) & HIGHS & ~word
            found = control | equal8(word, C2S) | equal8(word, E2S)
            if found == ZERO:
                i += 8
                continue
            i += np.int64(trailing_zeros(found) >> S3)
        if data[i] & 0xC0 == 0x80:
            # The rest of a character that began among eight bytes before.
            i += 1
            continue
        code, width = decode(data, i, end)
        if table[code] & BREAK != 0:
            return i, width
        i += width
    return end, np.int64(0)


@kernel
def _first(data: Bytes, i: int, end: int, table: Table) -> int:
    """The first character that is not white space, or -1."""
    while i < end:
        code, width = decode(data, i, end)
        if table[code] & SPACE == 0:
            return code
        i += width
    return -1


@kernel
def before(data: Bytes, start: int, end: int) -> np.int64:
    """Where the last character of data[start:end] begins."""
    i = np.int64(end) - 1
    while i > start and data[i] & 0xC0 == 0x80:
        i -= 1
    return i


@kernel
def _stripped_end(data: Bytes, start: int, end: int, table: Table) -> np.int64:
    """Where data[start:end] ends without white space behind."""
    while end > start:
        at = before(data, start, end)
        if table[decode(data, at, end)[0]] & SPACE == 0:
            break
        end = at
    return np.int64(end)


@kernel
def _trails(data: Bytes, start: int, end: int, table: Table) -> bool:
    """Whether "..." or "…" stands at the end, before white space."""
    end = _stripped_end(data, start, end, table)
    if end - start < 3:
        return False
    a, b, c = data[end - 3], data[end - 2], data[end - 1]
    return (a == DOT and b == DOT and c == DOT) or (a == 0xE2 and b == 0x80 and c == 0xA6)


@kernel
def feeds(
    data: Bytes,
    start: int,
    end: int,
    table: Table,
    classes: Bytes,
    count: int,
    slots: Hashes,
    stamps: Ints,
    out: Ints,
) -> None:
    """What stands between line feeds, of which there are `count`: out[0:8].

    Runs of line feeds part the first three: lines, those that stood before, their characters. Lines of white space
    alone do not count in the rest: lines, those that end in terminal punctuation, those of fewer than 30 characters,
    those of 30, characters of those that stood before.
    """
    out[:8] = 0
    stamp, mask = next_stamp(slots, stamps), mask_for(min(count, (end - start) // 2) + 1)
    a = np.int64(start)
    while a < end:
        b = next_feed(data, a, end)
        if b > a:
            size = characters(data, a, b)
            repeated = _seen(data, start, a, b, 1, slots, mask, stamp)
            out[0] += 1
            out[1] += repeated
            out[2] += size if repeated else 0
            if _first(data, a, b, table) >= 0:
                out[3] += 1
                out[4] += classes[decode(data, before(data, a, b), b)[0]] & TERMINAL != 0
                out[5] += size < SHORT
                out[6] += size == SHORT
                out[7] += size if repeated else 0
        a = b + 1
    if end > start:
        # A run of line feeds at the start or the end of the text parts off an empty line there.
        empty = np.int64(data[start] == LF) + np.int64(data[end - 1] == LF)
        out[0] += empty
        out[1] += empty == 2


@kernel
def paragraphs(
    data: Bytes, start: int, end: int, table: Table, count: int, slots: Hashes, stamps: Ints, out: Ints
) -> None:
    """What two line feeds and more part in a text without white space around it: out[0:3].

    Paragraphs, those that stood before, their characters. Of a text of white space alone there is one, which is empty.
    """
    out[0] = out[1] = out[2] = 0
    if start == end:
        return
    while start < end:
        code, width = decode(data, start, end)
        if table[code] & SPACE == 0:
            break
        start += width
    end = _stripped_end(data, start, end, table)
    stamp, mask = next_stamp(slots, stamps), mask_for(min(count, (end - start) // 2) + 1)
    a = np.int64(start)
    while a <= end:
        b = next_feed(data, a, end)
        while b + 1 < end and data[b + 1] != LF:
            b = next_feed(data, b + 1, end)
        out[0] += 1
        # The only one has nothing to be compared with.
        if (b < end or out[0] > 1) and _seen(data, start, a, b, 2, slots, mask, stamp):
            out[1] += 1
            out[2] += characters(data, a, b)
        a = b + 1
        while a < end and data[a] == LF:
            a += 1


@kernel
def next_feed(data: Bytes, i: Any, end: int) -> np.int64:
    """Where the next line feed stands from data[i] on, or `end`."""
    while i + 8 <= end:
        found = equal8(load8(data, i), LFS)
        if found != ZERO:
            return i + np.int64(trailing_zeros(found) >> S3)
        i += 8
    while i < end and data[i] != LF:
        i += 1
    return i


@kernel
def _seen(data: Bytes, start: int, a: int, b: int, apart: int, slots: Hashes, mask: int, stamp: int) -> bool:
    """Whether data[a:b], not empty, stood before it in the document from `start` on; `apart` line feeds end a piece."""
    size = b - a
    key = hashed(data, a, b)
    slot = slot_of(key, mask)
    while True:
        value = value_at(slots, slot, stamp)
        if value == ABSENT:
            put(slots, slot, stamp, key, a - start)
            return False
        first = start + value
        fits = slots[slot, 0] == key and first + size + apart <= a
        # A longer piece may begin as this one does.
        if fits and data[first + size] == LF and data[first + size + apart - 1] == LF and same(data, first, a, size):
            return True
        slot = (slot + 1) & mask
