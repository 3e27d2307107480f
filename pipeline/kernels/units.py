"""A document as units, what a shingle is made of: the hash of each, in the order of the text.

A unit is a maximal run of letters and digits, lower-cased, with the combining marks inside it; each letter of a
script written without spaces is a unit of its own, with its marks. Its hash is that of its UTF-8 in words of eight
bytes, the last filled up with zeros, mixed one after another: NUL is in no unit, so no two have the same words.

Three passes, each over what the one before left in the processor's cache: lower-case bytes with two bits for each (in
a unit, begins one), sixty-four at a time where they are ASCII; from the bits to where units begin and end; hashes.
What hangs on the text is arithmetic and seldom a branch: one that is not foreseen costs as much as ten bytes here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels import random
from pipeline.kernels._jit import Bytes, Hashes, Ints, Table, kernel, trailing_zeros
from pipeline.kernels.lanes import fold64
from pipeline.kernels.unicode import ALNUM, LOWER, MARK, SPACELESS
from pipeline.kernels.wide import ALL, CASES, HIGHS, LOWS, ZERO, load8, span8, store8, within8

MIX_1, MIX_2 = np.uint64(random.MIX_1), np.uint64(random.MIX_2)
ONE, TWO, THREE, FOUR, EIGHT = (np.uint64(n) for n in (1, 2, 3, 4, 8))
S6, S7, S8, S12, S16, S18, S24, S27, S30, S31, S56, S63, S64 = (
    np.uint64(bits) for bits in (6, 7, 8, 12, 16, 18, 24, 27, 30, 31, 56, 63, 64)
)
(FROM_A, PAST_Z), (FROM_0, PAST_9) = span8(ord("a"), ord("z")), span8(ord("0"), ord("9"))
# Bytes that are 0 or 1, times this: a bit for each of them, in the top byte.
GATHER = np.uint64(0x0102040810204080)
# Of UTF-8: the bits that a byte carries which continues a character, its mark, and the first bytes of longer ones.
BYTE, SIX, CONTINUES = np.uint64(0xFF), np.uint64(0x3F), np.uint64(0x80)
OF_2, OF_3, OF_4 = np.uint64(0xC0), np.uint64(0xE0), np.uint64(0xF0)
FROM_2, FROM_3, FROM_4, PAST = (np.uint64(code) for code in (0x80, 0x800, 0x10000, 0x110000))
REPLACEMENT = np.uint64(0xFFFD)
CODE = np.uint64(LOWER)
# Outside a unit, in one that goes on with the next letter, in one of a single letter.
OUTSIDE, RUN, SINGLE = range(3)
IN, NEW = 4, 8
# What a character that is no letter, a letter, a mark or a letter that stands alone does in each state: four bits, the
# state behind it, whether it is in a unit and whether it begins one.
_STEPS = (
    *(OUTSIDE, RUN | IN | NEW, OUTSIDE, SINGLE | IN | NEW),
    *(OUTSIDE, RUN | IN, RUN | IN, SINGLE | IN | NEW),
    *(OUTSIDE, RUN | IN | NEW, SINGLE | IN, SINGLE | IN | NEW),
)
STEPS = np.uint64(sum(step << 4 * place for place, step in enumerate(_STEPS)))
ALNUM_BIT, MARK_BIT, SPACELESS_BIT = (np.uint64(flag.bit_length() - 1) for flag in (ALNUM, MARK, SPACELESS))
# Words of bits that are looked at together, and how many places are written before one looks whether there are more.
BLOCK, UNROLLED = 64, 4


class Room(NamedTuple):
    """Where the lower-case bytes of one document lie, with their bits, and the units of a block."""

    lower: Bytes
    inside: Hashes
    begins: Hashes
    first: Ints
    last: Ints


def room(most_bytes: int) -> Room:
    """Room for documents of so many bytes: two bytes of a character may be three in lower case."""
    lower = most_bytes + most_bytes // 2 + 64
    words, places = lower // 64 + 2, 64 * BLOCK + UNROLLED + 1
    bits = np.empty((2, words), np.uint64)
    spans = np.empty((2, places), np.int64)
    return Room(np.empty(lower, np.uint8), bits[0], bits[1], spans[0], spans[1])


@kernel
def mix(x: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection in which every bit moves every other."""
    x = (x ^ (x >> S30)) * MIX_1
    x = (x ^ (x >> S27)) * MIX_2
    return x ^ (x >> S31)


@kernel
def units(data: Bytes, start: int, end: int, table: Table, room: Room, out: Hashes) -> int:
    """Write the hash of every unit of one document; return how many."""
    lower, inside, begins, first, last = room
    words = (_fold(data, start, end, table, lower, inside, begins) >> 6) + 1
    n = opened = 0
    before = ZERO
    for block in range(0, words, BLOCK):
        closed = 0
        for word in range(block, min(block + BLOCK, words)):
            mine, new = inside[word], begins[word]
            ended = (mine << ONE | before) & (~mine | new)
            before = mine >> S63
            places(new, word << 6, first, opened)
            places(ended, word << 6, last, closed)
            opened += count(new)
            closed += count(ended)
        for k in range(closed):
            out[n + k] = _hash(lower, first[k], last[k])
        n += closed
        # One may go on in the next block.
        first[0] = first[closed]
        opened -= closed
    return n


@kernel
def _fold(data: Bytes, start: int, end: int, table: Table, lower: Bytes, inside: Hashes, begins: Hashes) -> np.int64:
    """Write a document in lower case, and of each byte whether it is in a unit and whether it begins one; return how
    many bytes there are. What is in no unit may be other bytes."""
    i, filled, word = np.int64(start), np.int64(0), np.int64(0)
    mine = new = used = state = ZERO
    while i < end:
        left = end - i
        if data[i] < 0x80:
            if left >= 64:
                member, other = fold64(data, i, lower, filled)
                width = S64 if other == ZERO else trailing_zeros(other)
            else:
                member, width = _fold8(load8(data, i) if left >= 8 else _rest(data, i, end), lower, filled)
                width = min(width, np.uint64(left))
            member &= ALL >> (S64 - width)
            starts = member & ~(member << ONE | state & ONE)
            state = member >> (width - ONE)
            i += np.int64(width)
        else:
            raw = load8(data, i) if left >= 8 else _rest(data, i, end)
            code, width = _decode(raw, np.uint64(8 if left > 8 else left))
            i += np.int64(width)
            entry = np.uint64(table[np.int64(code)])
            step = STEPS >> (state << FOUR | _kind(entry) << TWO)
            state = step & THREE
            cased = entry & CODE
            if cased != code and state != ZERO:
                raw, width = _encode(cased)
            member = ((ONE << width) - ONE) & (ZERO - (step >> TWO & ONE))
            starts = step >> THREE & ONE
            store8(lower, filled, raw)
        filled += np.int64(width)
        mine |= member << used
        new |= starts << used
        if used + width >= S64:
            inside[word], begins[word] = mine, new
            word += 1
            # By less than 64 bits at a time, which is all that a shift is good for.
            mine, new = member >> ONE >> (S63 - used), starts >> ONE >> (S63 - used)
        used = (used + width) & S63
    inside[word], begins[word] = mine, new
    return filled


@kernel
def _fold8(raw: np.uint64, lower: Bytes, filled: int) -> tuple[np.uint64, np.uint64]:
    """(bits of the letters and digits, how many bytes before the first that is not ASCII) of eight, as `fold64`."""
    other, low = raw & HIGHS, raw & LOWS
    letters = within8(low | CASES, FROM_A, PAST_Z) & HIGHS & ~other
    digits = within8(low, FROM_0, PAST_9) & HIGHS & ~other
    store8(lower, filled, raw | letters >> TWO)
    width = EIGHT if other == ZERO else trailing_zeros(other) >> THREE
    return ((letters | digits) >> S7) * GATHER >> S56, width


@kernel
def _rest(data: Bytes, i: int, end: int) -> np.uint64:
    """data[i:end], fewer than eight bytes, the first lowest and zeros above."""
    word = ZERO
    for k in range(end - i):
        word |= np.uint64(data[i + k]) << np.uint64(8 * k)
    return word


@kernel
def _kind(entry: np.uint64) -> np.uint64:
    """Which column of STEPS a character has: no mark is a letter, and every letter that stands alone is one."""
    letter, mark = entry >> ALNUM_BIT & ONE, entry >> MARK_BIT & ONE
    return letter | mark << ONE | (entry >> SPACELESS_BIT & ONE) * THREE


@kernel
def _decode(raw: np.uint64, left: np.uint64) -> tuple[np.uint64, np.uint64]:
    """(code point, bytes) of the character that `raw` begins with, as `utf8.decode`: what cannot be one is U+FFFD, and
    none has more than the bytes that are `left`."""
    c = raw & BYTE
    if c < OF_3:
        code, width = (c & np.uint64(0x1F)) << S6 | raw >> S8 & SIX, TWO
    elif c < OF_4:
        code, width = (c & np.uint64(0x0F)) << S12 | (raw >> S8 & SIX) << S6 | raw >> S16 & SIX, THREE
    else:
        code = (c & np.uint64(0x07)) << S18 | (raw >> S8 & SIX) << S12 | (raw >> S16 & SIX) << S6 | raw >> S24 & SIX
        width = FOUR
        if code >= PAST:
            code = REPLACEMENT
    if width > left:
        code, width = REPLACEMENT, left
    return code, width


@kernel
def _encode(code: np.uint64) -> tuple[np.uint64, np.uint64]:
    """(UTF-8 of a code point, the first byte lowest; how many bytes)."""
    a, b, c = code & SIX | CONTINUES, code >> S6 & SIX | CONTINUES, code >> S12 & SIX | CONTINUES
    if code < FROM_2:
        return code, ONE
    if code < FROM_3:
        return OF_2 | code >> S6 | a << S8, TWO
    if code < FROM_4:
        return OF_3 | code >> S12 | b << S8 | a << S16, THREE
    return OF_4 | code >> S18 | c << S8 | b << S16 | a << S24, FOUR


@kernel
def places(bits: np.uint64, base: int, out: Ints, n: int) -> None:
    """Write base plus the place of each bit to out[n:]; a few places behind are overwritten."""
    while bits != ZERO:
        for _ in range(UNROLLED):
            out[n] = base + np.int64(trailing_zeros(bits))
            bits &= bits - ONE
            n += 1


@kernel
def count(x: np.uint64) -> np.int64:
    """How many bits are set, by halves (Warren, Hacker's Delight, 5-1): one instruction where there is one."""
    x = x - ((x >> ONE) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> TWO) & np.uint64(0x3333333333333333))
    x = (x + (x >> FOUR)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(x * np.uint64(0x0101010101010101) >> S56)


@kernel
def _hash(lower: Bytes, i: int, end: int) -> np.uint64:
    """The hash of the unit lower[i:end]; eight bytes behind are read too."""
    h = ZERO
    while end - i > 8:
        h = mix(h ^ load8(lower, i))
        i += 8
    return mix(h ^ (load8(lower, i) & (ALL >> (S64 - EIGHT * np.uint64(end - i)))))
