"""Sixty-four bytes at once: for a document, one bit a byte of what stands there, in words of 64 bits.

A plane is an array of uint64; bit k of word b is byte 64 * b + k. Comparing 64 bytes takes a few instructions, so
whatever counts and cuts a text first draws its planes (the way of simdjson: Langdale and Lemire 2019, arXiv 1902.08318)
and then goes from bit to bit. Text is read from a copy with zeros behind it: nothing is read that is not ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Ints, Table, kernel, trailing_zeros
from pipeline.kernels.lanes import WIDTH, byte64, count64, within64
from pipeline.kernels.unicode import BREAK, SPACE
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ALL, ZERO

# What is read behind a text.
PAD = 2 * WIDTH + 8
ONE, S1, S63 = np.uint64(1), np.uint64(1), np.uint64(63)


Planes = NDArray[np.uint64]
# What stands at a byte: white space, the first byte of a letter (of those beyond ASCII the common ones), an ASCII
# digit, the second or a later byte of a character, a byte that is not ASCII, the first byte of what ends a line for
# str.splitlines, a line feed. RANK is no plane: how many bytes before the 64 continue a character.
SPACES, LETTERS, DIGITS, CONTINUING, WIDE, BREAKS, FEEDS, RANK = range(8)


def planes(most_bytes: int) -> Planes:
    """Room for a document of so many bytes: uint64 [blocks, 8], the planes of 64 bytes in one line of cache."""
    return np.zeros((most_bytes // WIDTH + 2, 8), np.uint64)


@kernel
def draw(text: Bytes, size: int, table: Table, planes: Planes, out: Ints) -> None:
    """Draw the planes of text[:size]; out[0:4] = "#", "..." (not overlapping) and "…", line feeds, code points.

    Behind the text there is white space. White space and ends of lines that are not ASCII are marked: the one at all
    their bytes, the other at the first.
    """
    hashes = ellipses = feeds = continuing = spent = np.int64(0)
    left = ZERO
    blocks = (size + WIDTH - 1) // WIDTH
    for b in range(blocks):
        at = b * WIDTH
        space = within64(text, at, 0, 9, 13) | within64(text, at, 0, 28, 32) | left
        breaks = within64(text, at, 0, 10, 13) | within64(text, at, 0, 28, 30)
        letter, wide, within, left = (
            within64(text, at, 0x20, ord("a"), ord("z")),
            within64(text, at, 0, 0x80, 0xFF),
            ZERO,
            ZERO,
        )
        planes[b, RANK] = continuing
        if wide != ZERO:
            letter |= _letters(text, at)
            within = within64(text, at, 0, 0x80, 0xBF)
            odd = _odd(text, at)
            while odd != ZERO:
                k = np.int64(trailing_zeros(odd))
                odd &= odd - ONE
                code, width = decode(text, at + k, size)
                entry = table[code]
                if entry & SPACE != 0:
                    marked = (ONE << np.uint64(width)) - ONE
                    space |= marked << np.uint64(k)
                    left = (marked >> S1) >> np.uint64(63 - k)
                if entry & BREAK != 0:
                    breaks |= ONE << np.uint64(k)
            ellipses += count64(byte64(text, at, 0xE2) & byte64(text, at + 1, 0x80) & byte64(text, at + 2, 0xA6))
        dots = byte64(text, at, ord("."))
        if dots != ZERO:
            dots &= byte64(text, at + 1, ord(".")) & byte64(text, at + 2, ord("."))
            while dots != ZERO:
                k = at + np.int64(trailing_zeros(dots))
                dots &= dots - ONE
                if k >= spent:
                    ellipses += 1
                    spent = k + 3
        feed = byte64(text, at, 10)
        planes[b, SPACES], planes[b, WIDE], planes[b, CONTINUING] = space, wide, within
        planes[b, LETTERS], planes[b, DIGITS] = letter, within64(text, at, 0, ord("0"), ord("9"))
        planes[b, BREAKS], planes[b, FEEDS] = breaks, feed
        hashes += count64(byte64(text, at, ord("#")))
        feeds += count64(feed)
        continuing += count64(within)
    # What an earlier text left behind the end must not be read as this one's.
    for plane in range(RANK):
        planes[blocks, plane] = ZERO
    planes[blocks, RANK] = continuing
    if size % WIDTH != 0:
        planes[blocks - 1, SPACES] |= ALL << np.uint64(size % WIDTH)
    out[0], out[1], out[2], out[3] = hashes, ellipses, feeds, size - continuing


@kernel
def _odd(text: Bytes, at: int) -> np.uint64:
    """Where white space that is not ASCII may begin: U+0085, U+00A0, U+1680, U+2000 to U+207F, U+3000.

    Of U+2000 on without U+2010 to U+2027: dashes, quotation marks, bullets and dots, which are common.
    """
    second = byte64(text, at + 1, 0x80)
    common = second & within64(text, at + 2, 0, 0x90, 0xA7)
    return (
        (byte64(text, at, 0xC2) & (byte64(text, at + 1, 0x85) | byte64(text, at + 1, 0xA0)))
        | (byte64(text, at, 0xE1) & byte64(text, at + 1, 0x9A))
        | (byte64(text, at, 0xE2) & within64(text, at + 1, 0, 0x80, 0x81) & ~common)
        | (byte64(text, at, 0xE3) & second & byte64(text, at + 2, 0x80))
    )


@kernel
def _letters(text: Bytes, at: int) -> np.uint64:
    """First bytes of the commonest letters of Latin, Greek, Cyrillic, Arabic, Thai, kana, Han and Hangul."""
    ends, third = at + 1, at + 2
    kana, thai = byte64(text, at, 0xE3), byte64(text, at, 0xE0)
    return (
        (
            within64(text, at, 0, 0xC4, 0xCA)
            | within64(text, at, 0, 0xD0, 0xD1)
            | within64(text, at, 0, 0xE5, 0xE9)
            | within64(text, at, 0, 0xEB, 0xEC)
        )
        | (byte64(text, at, 0xC3) & ~(byte64(text, ends, 0x97) | byte64(text, ends, 0xB7)))
        | (byte64(text, at, 0xCE) & (within64(text, ends, 0, 0x91, 0xA1) | within64(text, ends, 0, 0xA3, 0xBF)))
        | (byte64(text, at, 0xCF) & within64(text, ends, 0, 0x80, 0xB5))
        | (byte64(text, at, 0xD8) & within64(text, ends, 0, 0xA0, 0xBF))
        | (byte64(text, at, 0xD9) & within64(text, ends, 0, 0x80, 0x8A))
        | (byte64(text, at, 0xE4) & (within64(text, ends, 0, 0x80, 0xB6) | within64(text, ends, 0, 0xB8, 0xBF)))
        | (kana & byte64(text, ends, 0x81) & within64(text, third, 0, 0x81, 0xBF))
        | (
            kana
            & byte64(text, ends, 0x82)
            & (within64(text, third, 0, 0x80, 0x96) | within64(text, third, 0, 0xA1, 0xBF))
        )
        | (
            kana
            & byte64(text, ends, 0x83)
            & (within64(text, third, 0, 0x80, 0xBA) | within64(text, third, 0, 0xBC, 0xBF))
        )
        | (
            thai
            & byte64(text, ends, 0xB8)
            & (within64(text, third, 0, 0x81, 0xB0) | within64(text, third, 0, 0xB2, 0xB3))
        )
        | (thai & byte64(text, ends, 0xB9) & within64(text, third, 0, 0x80, 0x86))
    )


@kernel
def bits(planes: Planes, plane: int, at: int) -> np.uint64:
    """The 64 bits of a plane from byte `at` on."""
    b, k = at >> 6, np.uint64(at & 63)
    return (planes[b, plane] >> k) | ((planes[b + 1, plane] << S1) << (S63 - k))


@kernel
def some(planes: Planes, plane: int, a: int, b: int) -> bool:
    """Whether any bit of a plane is set from byte a to before byte b."""
    while b - a > WIDTH:
        if bits(planes, plane, a) != ZERO:
            return True
        a += WIDTH
    return b > a and bits(planes, plane, a) << np.uint64(WIDTH - (b - a)) != ZERO


@kernel
def characters_before(planes: Planes, at: int) -> np.int64:
    """Code points that begin before byte `at`."""
    b, k = at >> 6, np.uint64(at & 63)
    return at - np.int64(planes[b, RANK]) - count64(planes[b, CONTINUING] & ((ONE << k) - ONE))


@kernel
def after_space(planes: Planes, at: int, end: int) -> np.int64:
    """The first byte from `at` on that is not white space, or `end`."""
    b = at >> 6
    free = (~planes[b, SPACES] >> np.uint64(at & 63)) << np.uint64(at & 63)
    while free == ZERO and (b + 1) * WIDTH < end:
        b += 1
        free = ~planes[b, SPACES]
    return min(b * WIDTH + np.int64(trailing_zeros(free)), np.int64(end))


@kernel
def before_space(planes: Planes, start: int, end: int) -> np.int64:
    """Where text[start:end] ends without white space behind."""
    while end > start and planes[(end - 1) >> 6, SPACES] >> np.uint64((end - 1) & 63) & ONE != ZERO:
        end -= 1
    return np.int64(end)


@kernel
def next_feed(planes: Planes, at: int, end: int) -> np.int64:
    """Where the next line feed stands from byte `at` on, or `end`."""
    if at >= end:
        return np.int64(end)
    b = at >> 6
    found = (planes[b, FEEDS] >> np.uint64(at & 63)) << np.uint64(at & 63)
    while found == ZERO and (b + 1) * WIDTH < end:
        b += 1
        found = planes[b, FEEDS]
    return min(b * WIDTH + np.int64(trailing_zeros(found)), np.int64(end))
