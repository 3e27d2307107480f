"""Sixty-four bytes at once: for a document, one bit a byte of what stands there, in words of 64 bits.

A plane is an array of uint64; bit k of word b is byte 64 * b + k. Comparing 64 bytes takes a few instructions, so
whatever counts and cuts a text first draws its planes (the way of simdjson: Langdale and Lemire 2019, arXiv 1902.08318)
and then goes from bit to bit. Text is read from a copy with zeros behind it: nothing is read that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Ints, Table, kernel, trailing_zeros
from pipeline.kernels.unicode import BREAK, SPACE
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ALL, ZERO, place

WIDTH = 64
# What is read behind a text.
PAD = 2 * WIDTH + 8
ONE, S1, S63 = np.uint64(1), np.uint64(1), np.uint64(63)


Planes = NDArray[np.uint64]
# What stands at a byte: white space, the first byte of a letter (of those beyond ASCII the common ones), an ASCII
# digit, the second or a later byte of a character, a byte that is not ASCII, the first byte of what ends a line for
# str.splitlines, a line feed. RANK is no plane: how many bytes before the 64 continue a character.
SPACES, LETTERS, DIGITS, CONTINUING, WIDE, BREAKS, FEEDS, RANK = range(8)


def _compared(bits: int, first: int, last: int) -> Callable[..., Any]:
    def typed(typing: Any, data: Any, at: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8), WIDTH)
            there = builder.bitcast(place(context, builder, signature, arguments), vector.as_pointer())
            loaded = builder.load(there, align=1, typ=vector)
            if bits:
                loaded = builder.or_(loaded, ir.Constant(vector, [bits] * WIDTH))
            if first:
                loaded = builder.sub(loaded, ir.Constant(vector, [first] * WIDTH))
            within = builder.icmp_unsigned("<=", loaded, ir.Constant(vector, [last - first] * WIDTH))
            return builder.bitcast(within, ir.IntType(WIDTH))

        return types.uint64(data, types.int64), build

    return typed


def within64(first: int, last: int | None = None, bits: int = 0) -> Any:
    """For kernels: (data, at) to the mask of data[at:at + 64] whose bytes, with `bits` set in them, are first..last."""
    return intrinsic(_compared(bits, first, first if last is None else last))


def _typed_count(typing: Any, x: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), build


# count64(mask): how many bits it has.
count64: Any = intrinsic(_typed_count)


# Inside kernels: masks of data[at:at + 64].
_controls, _blanks, _feeds = within64(9, 13), within64(28, 32), within64(10)
_line_ends, _separators = within64(10, 13), within64(28, 30)
_letters, _digits = within64(ord("a"), ord("z"), 0x20), within64(ord("0"), ord("9"))
_wide, _continuing, _hashes, _dots = within64(0x80, 0xFF), within64(0x80, 0xBF), within64(ord("#")), within64(ord("."))
_c2, _e1, _e2, _e3 = (within64(lead) for lead in (0xC2, 0xE1, 0xE2, 0xE3))
_80, _80_81, _85, _9a, _a0, _a6 = (
    within64(*ends) for ends in ((0x80,), (0x80, 0x81), (0x85,), (0x9A,), (0xA0,), (0xA6,))
)
# First bytes of two and three that only letters have, and second bytes behind others.
_latin, _cyrillic, _han, _hangul = (
    within64(0xC4, 0xCA),
    within64(0xD0, 0xD1),
    within64(0xE5, 0xE9),
    within64(0xEB, 0xEC),
)
_c3, _97, _b7 = within64(0xC3), within64(0x97), within64(0xB7)
_ce, _cf, _91_a1, _a3_bf, _80_b5 = (
    within64(*ends) for ends in ((0xCE,), (0xCF,), (0x91, 0xA1), (0xA3, 0xBF), (0x80, 0xB5))
)
_d8, _d9, _a0_bf, _80_8a = (within64(*ends) for ends in ((0xD8,), (0xD9,), (0xA0, 0xBF), (0x80, 0x8A)))
# E2 80 90..A7: dashes, quotation marks, bullets and dots, which are no white space and common.
_punctuation = within64(0x90, 0xA7)


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
        space = _controls(text, at) | _blanks(text, at) | left
        breaks = _line_ends(text, at) | _separators(text, at)
        letter, wide, within, left = _letters(text, at), _wide(text, at), ZERO, ZERO
        planes[b, RANK] = continuing
        if wide != ZERO:
            letter |= _letters_by_two_bytes(text, at)
            within = _continuing(text, at)
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
            ellipses += count64(_e2(text, at) & _80(text, at + 1) & _a6(text, at + 2))
        dots = _dots(text, at)
        if dots != ZERO:
            dots &= _dots(text, at + 1) & _dots(text, at + 2)
            while dots != ZERO:
                k = at + np.int64(trailing_zeros(dots))
                dots &= dots - ONE
                if k >= spent:
                    ellipses += 1
                    spent = k + 3
        feed = _feeds(text, at)
        planes[b, SPACES], planes[b, WIDE], planes[b, CONTINUING] = space, wide, within
        planes[b, LETTERS], planes[b, DIGITS] = letter, _digits(text, at)
        planes[b, BREAKS], planes[b, FEEDS] = breaks, feed
        hashes += count64(_hashes(text, at))
        feeds += count64(feed)
        continuing += count64(within)
    planes[blocks, RANK] = continuing
    planes[blocks, SPACES] = ALL
    planes[blocks, CONTINUING] = ZERO
    if size % WIDTH != 0:
        planes[blocks - 1, SPACES] |= ALL << np.uint64(size % WIDTH)
    out[0], out[1], out[2], out[3] = hashes, ellipses, feeds, size - continuing


@kernel
def _odd(text: Bytes, at: int) -> np.uint64:
    """Where white space that is not ASCII may begin: U+0085, U+00A0, U+1680, U+2000 to U+207F, U+3000."""
    second = _80(text, at + 1)
    return (
        (_c2(text, at) & (_85(text, at + 1) | _a0(text, at + 1)))
        | (_e1(text, at) & _9a(text, at + 1))
        | (_e2(text, at) & _80_81(text, at + 1) & ~(second & _punctuation(text, at + 2)))
        | (_e3(text, at) & second & _80(text, at + 2))
    )


@kernel
def _letters_by_two_bytes(text: Bytes, at: int) -> np.uint64:
    """First bytes of Latin, Greek, Cyrillic, Arabic, Han and Hangul letters: what two bytes tell for certain."""
    ends = at + 1
    return (
        (_latin(text, at) | _cyrillic(text, at) | _han(text, at) | _hangul(text, at))
        | (_c3(text, at) & ~(_97(text, ends) | _b7(text, ends)))
        | (_ce(text, at) & (_91_a1(text, ends) | _a3_bf(text, ends)))
        | (_cf(text, at) & _80_b5(text, ends))
        | (_d8(text, at) & _a0_bf(text, ends))
        | (_d9(text, at) & _80_8a(text, ends))
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
