"""Every window of `length` tokens of a document, as a 128-bit hash of its bytes, and the anchors that find them.

A token is a unit of `kernels.shingles` (a run of letters and digits, or one letter of a script without spaces) with
the bytes behind it up to the next unit; what stands before the first unit belongs to the first token. So tokens tile
the text, begin at characters, and are compared byte for byte: case, punctuation and layout count.

An anchor is the leftmost of the least hashes among the grams (runs of (length + 1) // 2 tokens) of a window: winnowing
(Schleimer, Wilkerson, Aiken, "Winnowing: local algorithms for document fingerprinting", SIGMOD 2003). It depends on
the window alone, so windows that are equal have equal anchors at the same place in them: a window whose anchor stands
nowhere else need not be looked at. Of random grams 2 in (grams of a window + 1) are anchors, 1 in 13.5 at length 50.

Window hashes roll: two polynomials modulo 2^64 over two independent hashes of each token, so two windows that differ
agree with probability 2^-128. Modulo a power of two a polynomial cannot tell the words of Thue and Morse from their
complements once they are long enough (2,048 tokens): hence MOST_TOKENS.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Flags, Hashes, Ints, Table, allocating_kernel, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.passages import ASCII, BEYOND, FULL, step
from pipeline.kernels.shingles import GOLDEN
from pipeline.kernels.unicode import ALNUM, MARK, SPACELESS, table
from pipeline.kernels.units import MIX_1, MIX_2, mix
from pipeline.kernels.utf8 import decode

MOST_TOKENS = 1000
NO_INTS = frozen(np.zeros(0, np.int64))


@functools.cache
def _ascii() -> Flags:
    """Which ASCII characters are letters or digits."""
    return frozen(table()[:ASCII] & ALNUM != 0)


class Anchors(NamedTuple):
    """Anchors bounds[i]:bounds[i + 1] are those of document i, `at` the number of their first token, ascending."""

    hashes: Hashes
    at: Ints
    bounds: Ints


class Windows(NamedTuple):
    """Windows bounds[i]:bounds[i + 1] are those of document i; spans in bytes from the beginning of its text."""

    hashes: Hashes
    starts: Ints
    ends: Ints
    bounds: Ints


def anchors(text: pa.Array, length: int) -> Anchors:
    """The anchors of every document; one of fewer than `length` tokens has none."""
    hashes, numbers, bounds = _scan(text, length, NO_INTS, NO_INTS)
    return Anchors(hashes[:, 0].copy(), numbers[:, 0].copy(), bounds)


def windows(text: pa.Array, length: int, wanted: Ints, wanted_bounds: Ints) -> Windows:
    """The windows of document i whose anchor is among wanted[wanted_bounds[i]:wanted_bounds[i + 1]], ascending."""
    hashes, numbers, bounds = _scan(text, length, frozen(wanted), frozen(wanted_bounds))
    return Windows(hashes, numbers[:, 0].copy(), numbers[:, 1].copy(), bounds)


def _scan(text: pa.Array, length: int, wanted: Ints, wanted_bounds: Ints) -> tuple[Hashes, Ints, Ints]:
    data, offsets = text_buffers(text)
    # A token takes a byte and a separator, or the three bytes of a letter. Pages that are not written cost nothing.
    most = int((np.diff(offsets) // 2 + 1).sum())
    hashes, numbers = np.empty((most, 2), np.uint64), np.empty((most, 2), np.int64)
    bounds = np.zeros(len(text) + 1, np.int64)
    scan(data, offsets, table(), _ascii(), length, (length + 1) // 2, wanted, wanted_bounds, hashes, numbers, bounds)
    return hashes[: bounds[-1]], numbers[: bounds[-1]], bounds


@allocating_kernel
def scan(
    data: Bytes,
    offsets: Ints,
    table: Table,
    ascii: Flags,
    length: int,
    gram: int,
    wanted: Ints,
    wanted_bounds: Ints,
    hashes: Hashes,
    numbers: Ints,
    bounds: Ints,
) -> None:
    """Write what `_document` finds in each document, and where it ends."""
    ring = 1  # a power of two, because a remainder costs as much as all else
    while ring < length:
        ring *= 2
    rings = np.empty((2, ring), np.uint64)
    begins = np.empty(ring, np.int64)
    least, at = np.empty(ring, np.uint64), np.empty(ring, np.int64)
    n = 0
    for d in range(offsets.size - 1):
        first, last = np.int64(0), np.int64(-1)
        if wanted_bounds.size:
            first, last = wanted_bounds[d], wanted_bounds[d + 1]
        edges = (offsets[d], offsets[d + 1], first, last)
        n = _document(data, edges, table, ascii, length, gram, wanted, rings, begins, least, at, hashes, numbers, n)
        bounds[d + 1] = n


@kernel
def _document(
    data: Bytes,
    edges: tuple[int, int, int, int],
    table: Table,
    ascii: Flags,
    length: int,
    gram: int,
    wanted: Ints,
    rings: Hashes,
    begins: Ints,
    least: Hashes,
    at: Ints,
    hashes: Hashes,
    numbers: Ints,
    n: int,
) -> int:
    """Write the document's anchors (last < 0) or its wanted windows behind the first n; return how many there are then.

    rings[lane] and `begins` hold the last tokens, `least` and `at` the grams that may yet be the least of a window, the
    least first.
    """
    start, end, next, last = edges
    ring = begins.size - 1
    tokens = head = tail = 0
    grams = one_window = two_window = np.uint64(0)
    gram_top, one_top, two_top = power(GOLDEN, gram), power(MIX_1, length), power(MIX_2, length)
    emitted = -1
    one, two = GOLDEN, MIX_1
    word, bits = np.uint64(1), 0
    begin = i = start
    inside = spaceless = begun = False
    while i <= end:
        width, new, code = 1, True, 0
        if i < end:
            code = int(data[i])
            if code < ASCII:
                wordly = ascii[code]
                new = wordly and (not inside or spaceless)
                inside, spaceless = wordly, False
            else:
                code, width = decode(data, i, end)
                entry = int(table[code])
                new = False
                if not entry & MARK:
                    alone = entry & SPACELESS != 0
                    wordly = alone or entry & ALNUM != 0
                    new = wordly and (not inside or alone or spaceless)
                    inside, spaceless = wordly, alone
        if new and begun:
            one, two = step(one, two, word)
            one, two = mix(one), mix(two)
            slot, oldest = tokens & ring, (tokens - length) & ring
            if tokens >= length:
                one_window -= rings[0, oldest] * one_top
                two_window -= rings[1, oldest] * two_top
            if tokens >= gram:
                grams -= rings[0, (tokens - gram) & ring] * gram_top
            rings[0, slot], rings[1, slot], begins[slot] = one, two, begin
            grams = (grams + one) * GOLDEN
            one_window = (one_window + one) * MIX_1
            two_window = (two_window + two) * MIX_2
            tokens += 1
            if tokens >= gram:
                if tail > head and at[head & ring] < tokens - length:
                    head += 1
                value = mix(grams)
                while tail > head and least[(tail - 1) & ring] > value:
                    tail -= 1
                least[tail & ring], at[tail & ring] = value, tokens - gram
                tail += 1
            if tokens >= length:
                anchor = at[head & ring]
                if last < 0:
                    if anchor != emitted:
                        hashes[n, 0], numbers[n, 0] = least[head & ring], anchor
                        n += 1
                        emitted = anchor
                else:
                    while next < last and wanted[next] < anchor:
                        next += 1
                    if next < last and wanted[next] == anchor:
                        hashes[n, 0], hashes[n, 1] = mix(one_window), mix(two_window)
                        numbers[n, 0], numbers[n, 1] = begins[(tokens - length) & ring] - start, i - start
                        n += 1
            one, two = GOLDEN, MIX_1
            word, bits = np.uint64(1), 0
            begin = i
        if i < end:
            begun = begun or new
            size = 8 if code < ASCII else 24
            word = word << np.uint64(size) | np.uint64(code if code < ASCII else code | BEYOND)
            bits += size
            if bits >= FULL:
                one, two = step(one, two, word)
                word, bits = np.uint64(1), 0
        i += width
    return n


@kernel
def power(base: np.uint64, exponent: int) -> np.uint64:
    """base ** exponent modulo 2^64."""
    out = np.uint64(1)
    for _ in range(exponent):
        out *= base
    return out
