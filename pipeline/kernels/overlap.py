"""Runs of n words that a document shares with a set of texts: every n-gram of some texts, and where others hold them.

A word is what stands between white space, lower-cased and without what is no letter, digit or combining mark (GPT-3,
arXiv 2005.14165, appendix C); each letter of a script written without spaces is a word of its own. What holds no letter
or digit is no word. An n-gram begins with its first word and ends where the word behind its last one begins.

An n-gram is known by two hashes of 64 bits of the hashes of its words: the first rolls over the document and is looked
up, the second is made where the first is met. Words are 64 bits, so of texts of 10^10 words that two are taken for one
another is a matter of 5 in 10^10 for each word of an n-gram that is asked for.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, Table, allocating_kernel, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.shingles import GOLDEN, most_units
from pipeline.kernels.unicode import ALNUM, LOWER, MARK, SPACE, SPACELESS, table
from pipeline.kernels.units import MIX_1, MIX_2, S31, mix
from pipeline.kernels.utf8 import decode
from pipeline.kernels.windows import power

Slots = NDArray[np.int32]

ASCII = 0x80
IS_SPACE, IS_NOTHING = -1, 0
# Outside a word, in one that goes on with the next letter, in one of a single letter.
OUTSIDE, RUN, SINGLE = range(3)
# Bits of the filter for each n-gram: of a hundred that are asked for in vain six are looked up.
FILTER_BITS = 16
S6, S63, ONE = np.uint64(6), np.uint64(63), np.uint64(1)


class Grams(NamedTuple):
    """N-grams bounds[i]:bounds[i + 1] are those of text i in order: both hashes, and bytes [start, end) of the text."""

    keys: Hashes
    checks: Hashes
    starts: Ints
    ends: Ints
    bounds: Ints


class Index(NamedTuple):
    """Distinct n-grams, known by their places in `keys` and `checks`, of the lengths `sizes`."""

    keys: Hashes
    checks: Hashes
    slots: Slots
    filter: Hashes
    sizes: Ints


class Hits(NamedTuple):
    """Hits bounds[i]:bounds[i + 1] are those of document i: n-gram of the index, and bytes [start, end) of its text."""

    grams: Ints
    starts: Ints
    ends: Ints
    bounds: Ints


@functools.cache
def _ascii() -> Ints:
    """What each ASCII character is to a word: its lower case, or white space, or nothing."""
    entries = table()[:ASCII].astype(np.int64)
    letters = np.where(entries & ALNUM != 0, entries & LOWER, IS_NOTHING)
    return frozen(np.where(entries & SPACE != 0, IS_SPACE, letters))


def grams(text: pa.Array, size: int) -> Grams:
    """Every run of `size` words of every text; one of fewer words has none."""
    data, offsets = text_buffers(text)
    most = int(most_units(np.diff(offsets)).sum())
    hashes, spans, bounds = (
        np.empty((2, most), np.uint64),
        np.empty((2, most), np.int64),
        np.zeros(len(text) + 1, np.int64),
    )
    listed(data, offsets, table(), _ascii(), size, hashes, spans, bounds)
    count = bounds[-1]
    return Grams(
        hashes[0, :count].copy(), hashes[1, :count].copy(), spans[0, :count].copy(), spans[1, :count].copy(), bounds
    )


def indexed(keys: Hashes, checks: Hashes, sizes: list[int]) -> Index:
    """The index of n-grams that are distinct, of some lengths."""
    slots = np.full(1 << max(4, int(2 * keys.size).bit_length()), -1, np.int32)
    bits = np.zeros(1 << max(6, int(FILTER_BITS * keys.size).bit_length()) - 6, np.uint64)
    laid(frozen(keys), slots, bits)
    return Index(frozen(keys), frozen(checks), frozen(slots), frozen(bits), frozen(np.array(sizes, np.int64)))


def find(text: pa.Array, index: Index, around: int = 0) -> Hits:
    """Where the n-grams of an index stand in each document, by size and place, and `around` characters on each side."""
    data, offsets = text_buffers(text)
    most = int(most_units(np.diff(offsets)).sum()) * index.sizes.size
    spans, bounds = np.empty((3, most), np.int64), np.zeros(len(text) + 1, np.int64)
    # Pages that are not written cost nothing.
    met(data, offsets, table(), _ascii(), around, *index, spans, bounds)
    count = bounds[-1]
    return Hits(spans[0, :count].copy(), spans[1, :count].copy(), spans[2, :count].copy(), bounds)


@allocating_kernel
def listed(
    data: Bytes,
    offsets: Ints,
    table: Table,
    ascii: Ints,
    size: int,
    grams: Hashes,
    spans: Ints,
    bounds: Ints,
) -> None:
    """Write both hashes of every n-gram of each text to grams[:, k] and its span to spans[:, k], and where they end."""
    hashes, begins = _room(offsets)
    top, used = power(GOLDEN, size), 0
    for d in range(offsets.size - 1):
        start = offsets[d]
        n = words(data, start, offsets[d + 1], table, ascii, hashes, begins)
        begins[n] = offsets[d + 1]
        window = np.uint64(0)
        for k in range(n):
            if k >= size:
                window -= hashes[k - size] * top
            window = (window + hashes[k]) * GOLDEN
            if k + 1 >= size:
                grams[0, used] = mix(window ^ np.uint64(size))
                grams[1, used] = _check(hashes, k + 1 - size, size)
                spans[0, used], spans[1, used] = begins[k + 1 - size] - start, begins[k + 1] - start
                used += 1
        bounds[d + 1] = used


@allocating_kernel
def met(
    data: Bytes,
    offsets: Ints,
    table: Table,
    ascii: Ints,
    around: int,
    keys: Hashes,
    checks: Hashes,
    slots: Slots,
    filter: Hashes,
    sizes: Ints,
    spans: Ints,
    bounds: Ints,
) -> None:
    """Write n-gram, start and end of each hit to spans[:, hit], and where those of each document end."""
    hashes, begins = _room(offsets)
    used = 0
    for d in range(offsets.size - 1):
        start, end = offsets[d], offsets[d + 1]
        n = words(data, start, end, table, ascii, hashes, begins)
        begins[n] = end
        for s in range(sizes.size):
            size = sizes[s]
            top, window = power(GOLDEN, size), np.uint64(0)
            for k in range(n):
                if k >= size:
                    window -= hashes[k - size] * top
                window = (window + hashes[k]) * GOLDEN
                if k + 1 < size:
                    continue
                key = mix(window ^ np.uint64(size))
                if not _may_be(filter, key):
                    continue
                first = k + 1 - size
                gram = _looked_up(keys, checks, slots, key, hashes, first, size)
                if gram >= 0:
                    spans[0, used] = gram
                    spans[1, used] = _back(data, begins[first], start, around) - start
                    spans[2, used] = _ahead(data, begins[k + 1], end, around) - start
                    used += 1
        bounds[d + 1] = used


@kernel
def laid(keys: Hashes, slots: Slots, filter: Hashes) -> None:
    """Lay n-grams out: their numbers by open addressing, and a bit of the filter for each."""
    for k in range(keys.size):
        place = _slot(slots, keys[k])
        while slots[place] >= 0:
            place = (place + 1) & (slots.size - 1)
        slots[place] = k
        bit = _bit(filter, keys[k])
        filter[np.int64(bit >> S6)] |= ONE << (bit & S63)


@allocating_kernel
def _room(offsets: Ints) -> tuple[Hashes, Ints]:
    """Room for the words of the longest document, and where each begins."""
    longest = 0
    for d in range(offsets.size - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    return np.empty(longest // 2 + 2, np.uint64), np.empty(longest // 2 + 2, np.int64)


@kernel
def words(data: Bytes, start: int, end: int, table: Table, ascii: Ints, hashes: Hashes, begins: Ints) -> int:
    """Write the hash of every word of one document and the byte where it begins; return how many there are."""
    n, state, h = 0, OUTSIDE, GOLDEN
    i = start
    while i < end:
        width, alone, mark = 1, False, False
        if data[i] < ASCII:
            code = ascii[data[i]]
        else:
            point, width = decode(data, i, end)
            entry = np.int64(table[point])
            code = entry & LOWER
            alone, mark = entry & SPACELESS != 0, entry & MARK != 0
            if entry & SPACE:
                code = IS_SPACE
            elif not (alone or mark or entry & ALNUM):
                code = IS_NOTHING
        if code > IS_NOTHING:
            if not mark and (alone or state != RUN):
                if state != OUTSIDE:
                    hashes[n] = mix(h)
                    n += 1
                begins[n] = i
                state, h = (SINGLE if alone else RUN), GOLDEN
            if state != OUTSIDE:
                h = (h ^ np.uint64(code)) * MIX_1
        elif code == IS_SPACE and state != OUTSIDE:
            hashes[n] = mix(h)
            n += 1
            state = OUTSIDE
        i += width
    if state != OUTSIDE:
        hashes[n] = mix(h)
        n += 1
    return n


@kernel
def _check(hashes: Hashes, first: int, size: int) -> np.uint64:
    """The second hash of the n-gram of words first, first + 1, ..."""
    check = MIX_1
    for k in range(first, first + size):
        check = (check ^ hashes[k]) * MIX_2
        check ^= check >> S31
    return check


@kernel
def _looked_up(
    keys: Hashes, checks: Hashes, slots: Slots, key: np.uint64, hashes: Hashes, first: int, size: int
) -> np.int64:
    """The number of an n-gram, -1 where it is none of the index."""
    place = _slot(slots, key)
    while slots[place] >= 0:
        gram = slots[place]
        if keys[gram] == key and checks[gram] == _check(hashes, first, size):
            return np.int64(gram)
        place = (place + 1) & (slots.size - 1)
    return np.int64(-1)


@kernel
def _slot(slots: Slots, key: np.uint64) -> np.int64:
    return np.int64(key & np.uint64(slots.size - 1))


@kernel
def _bit(filter: Hashes, key: np.uint64) -> np.uint64:
    """The bit of a key: by its high half, where its slot hangs on the low bits."""
    return (key >> np.uint64(24)) & np.uint64(filter.size * 64 - 1)


@kernel
def _may_be(filter: Hashes, key: np.uint64) -> bool:
    bit = _bit(filter, key)
    return (filter[np.int64(bit >> S6)] >> (bit & S63)) & ONE != np.uint64(0)


@kernel
def _back(data: Bytes, i: int, start: int, characters: int) -> int:
    """The byte where the character begins that stands so many before the one at i, or the text."""
    for _ in range(characters):
        if i <= start:
            break
        i -= 1
        while i > start and data[i] & 0xC0 == 0x80:
            i -= 1
    return i


@kernel
def _ahead(data: Bytes, i: int, end: int, characters: int) -> int:
    """The byte where the character begins that stands so many behind i, or the end of the text."""
    for _ in range(characters):
        if i >= end:
            break
        i += 1
        while i < end and data[i] & 0xC0 == 0x80:
            i += 1
    return i
