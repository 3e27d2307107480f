"""The lines or paragraphs of a document, each as a 128-bit hash of what it says.

A unit is a line that holds more than white space, or a run of such lines up to a blank one. Its span begins with its
line and ends where the next unit begins, so the blank lines behind it are its own, and those at the beginning of the
text belong to the first unit: the units tile the text, and without all of them nothing is left.

What is hashed is the unit without white space at its ends, every run of white space being one space; `folded` also
lower-cases it, writes every digit as 0 and leaves out punctuation and control characters.

Two lanes of 64 bits take four to seven bytes at a time. Each step is a bijection, so units that differ in one such
word never agree; others do in both lanes with probability 2^-128: for 10^10 units that some two of them are taken for
equal is less likely than 2e-19. The lanes are no secret: who forges a line that agrees with another's can have it cut.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Hashes, Ints, Table, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.shingles import GOLDEN
from pipeline.kernels.unicode import ALNUM, ALPHA, CONTROL, LOWER, PUNCT, SPACE, table
from pipeline.kernels.units import MIX_1, MIX_2, S30, S31, mix
from pipeline.kernels.utf8 import decode

LF, ZERO_DIGIT = 10, 0x30
ASCII = 0x80
# What a character becomes, in one number: its code in the low 24 bits (with the highest of them beyond ASCII), how many
# bits of a word it takes, and whether it is white space or is left out.
BEYOND, WIDTH, IS_SPACE, IS_NOTHING = 0x800000, 24, 1 << 30, 1 << 31
BLANK, NOTHING = 0x20 | 8 << WIDTH | IS_SPACE, IS_NOTHING
FULL = 32  # bits: a word takes 24 more, and the bit that marks its length


class Units(NamedTuple):
    """Units bounds[i]:bounds[i + 1] are those of document i; spans in bytes from the beginning of its text."""

    hashes: Hashes
    starts: Ints
    ends: Ints
    bounds: Ints


def units(text: pa.Array, paragraphs: bool, folded: bool, min_characters: int) -> Units:
    """The units of every document whose hashed form has at least `min_characters` characters and one at all."""
    data, offsets = text_buffers(text)
    most = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == LF)) + len(text)
    hashes, spans = np.empty((most, 2), np.uint64), np.empty((2, most), np.int64)
    bounds = np.zeros(len(text) + 1, np.int64)
    fill(data, offsets, table(), _ascii(folded), paragraphs, folded, max(1, min_characters), hashes, spans, bounds)
    count = bounds[-1]
    return Units(hashes[:count].copy(), spans[0, :count].copy(), spans[1, :count].copy(), bounds)


def _ascii(folded: bool) -> Ints:
    """What each ASCII character becomes."""
    entries = table()[:ASCII].astype(np.int64)
    values = np.arange(ASCII) | 8 << WIDTH
    if folded:
        digits = (entries & ALNUM != 0) & (entries & ALPHA == 0)
        values = np.where(digits, ZERO_DIGIT, entries & LOWER) | 8 << WIDTH
        values = np.where(entries & (PUNCT | CONTROL) != 0, NOTHING, values)
    return frozen(np.where(entries & SPACE != 0, BLANK, values))


@kernel
def fill(
    data: Bytes,
    offsets: Ints,
    table: Table,
    ascii: Ints,
    paragraphs: bool,
    folded: bool,
    least: int,
    hashes: Hashes,
    spans: Ints,
    bounds: Ints,
) -> None:
    """Write hashes[unit, lane], spans[start | end, unit] and bounds[document]."""
    n = 0
    for d in range(offsets.size - 1):
        first = offsets[d]
        n = _document(data, first, offsets[d + 1], table, ascii, paragraphs, folded, least, hashes, spans, n)
        for k in range(bounds[d], n):
            spans[0, k] -= first
            spans[1, k] -= first
        bounds[d + 1] = n


@kernel
def _document(
    data: Bytes,
    start: int,
    end: int,
    table: Table,
    ascii: Ints,
    paragraphs: bool,
    folded: bool,
    least: int,
    hashes: Hashes,
    spans: Ints,
    n: int,
) -> int:
    """Write the units of one document behind the first n; return how many there are then.

    What is hashed has a space behind it, as it has between its words: then every run of white space is one space.
    """
    one, two = GOLDEN, MIX_1
    word, bits, characters = np.uint64(1), 0, 0
    gap = 1
    begun = started = False
    begin, unended = start, -1
    i = start
    while i < end:
        line, inked = i, 0
        while i < end and data[i] != LF:
            width = 1
            if data[i] < ASCII:
                entry = ascii[data[i]]
            else:
                entry, width = _wide(data, i, end, table, folded)
            i += width
            # Without a branch, which would be guessed wrong at every word.
            space = (entry & IS_SPACE) >> 30
            taken = 1 - (space & gap)
            size = (entry >> WIDTH & 31) * taken
            gap = space | gap & entry >> 31
            inked |= 1 - space
            word = word << np.uint64(size) | np.uint64((entry & 0xFFFFFF) * taken)
            bits += size
            characters += size > 0
            if bits >= FULL:
                one, two = step(one, two, word)
                word, bits = np.uint64(1), 0
        if inked and not begun:
            begin = line if started else start  # blank lines before the first unit belong to it
            begun = started = True
            if unended >= 0:
                spans[1, unended] = begin
                unended = -1
        i += 1
        if not gap:
            word, bits, characters, gap = word << np.uint64(8) | np.uint64(0x20), bits + 8, characters + 1, 1
            if bits >= FULL:
                one, two = step(one, two, word)
                word, bits = np.uint64(1), 0
        if begun and (not paragraphs or not inked or i >= end):
            if characters > least:
                one, two = step(one, two, word)
                hashes[n, 0], hashes[n, 1] = mix(one), mix(two)
                spans[0, n], unended = begin, n
                n += 1
            one, two = GOLDEN, MIX_1
            word, bits, characters = np.uint64(1), 0, 0
            begun = False
    if unended >= 0:
        spans[1, unended] = end
    return n


@kernel
def step(one: np.uint64, two: np.uint64, word: np.uint64) -> tuple[np.uint64, np.uint64]:
    one = (one ^ word) * MIX_1
    two = (two ^ word) * MIX_2
    return one ^ (one >> S31), two ^ (two >> S30)


@kernel
def _wide(data: Bytes, i: int, end: int, table: Table, folded: bool) -> tuple[int, int]:
    """(what a character beyond ASCII becomes, its bytes)."""
    code, width = decode(data, i, end)
    entry = int(table[code])
    if entry & SPACE:
        return BLANK, width
    if folded:
        if entry & (PUNCT | CONTROL):
            return NOTHING, width
        code = ZERO_DIGIT if entry & ALNUM and not entry & ALPHA else entry & LOWER
    return (code | 8 << WIDTH if code < ASCII else code | BEYOND | 24 << WIDTH), width
