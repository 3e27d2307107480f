r"""Where pre-tokens end, 64 bytes at a time: the expressions of `pretokens` as arithmetic on bits.

Bit k of a mask stands for byte k from the start of a pre-token. A class of characters is a mask; "after an X" is X << 1
and "before an X" is X >> 1. Known are ASCII, most Han characters and the marks that are common beside them. What lies
behind the document, behind the 64 bytes or behind any other character is not, so an end is given only where nothing
there could move it; the next window begins at the last one.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, kernel, leading_zeros, trailing_zeros
from pipeline.kernels.lanes import within64
from pipeline.kernels.pretokens import BLANK, LINE_FEED, QUOTE, RETURN, contraction
from pipeline.kernels.wide import ALL, ZERO

WINDOW = 64
ONE, TWO, THREE, FULL = (np.uint64(n) for n in (1, 2, 3, 64))


@kernel
def sure_ends(data: Bytes, i: int, end: int, digits: int) -> np.uint64:
    """Bit k is set where a pre-token ends before data[i + k]; one begins at data[i], in the document that ends at end.

    Zero where the end of that pre-token is not among what is known: then `next_end` tells.
    """
    known = min(WINDOW, end - i)
    if known < 2 or i + WINDOW > data.size:
        return ZERO
    inside = ALL >> (FULL - np.uint64(known))
    high = within64(data, i, 0, 0x80, 0xFF) & inside
    han = marks = ZERO
    if high != ZERO:
        follow = within64(data, i, 0, 0x80, 0xBF) & inside
        whole = (follow >> ONE) & (follow >> TWO)
        han, marks = _han(data, i) & whole, _marks(data, i) & whole
        known = min(known, int(np.int64(trailing_zeros(high & ~_bytes(han | marks)))))
        if known < 2:
            return ZERO
        inside = ALL >> (FULL - np.uint64(known))
        han, marks = han & inside, marks & inside
    letters = (within64(data, i, 0x20, ord("a"), ord("z")) & inside) | _bytes(han)
    numbers = within64(data, i, 0, ord("0"), ord("9")) & inside
    blanks = within64(data, i, 0, BLANK, BLANK) & inside
    spaces = (within64(data, i, 0, 9, 13) & inside) | blanks
    if digits == 0:
        starts = _gpt2(letters, numbers, spaces, blanks, inside)
    else:
        lines = (within64(data, i, 0, LINE_FEED, LINE_FEED) | within64(data, i, 0, RETURN, RETURN)) & inside
        starts = _gpt4(letters, numbers, spaces, blanks, lines, marks, inside, digits)
    quotes = starts & within64(data, i, 0, QUOTE, QUOTE) & (letters >> ONE)
    while quotes != ZERO:
        at = trailing_zeros(quotes)
        size = contraction(data, i + np.int64(at), i + known, digits != 0)
        if size > 0:
            starts = (starts & ~(TWO << at)) | ONE << at << np.uint64(size)
        quotes &= quotes - ONE
    if known == end - i:
        return (starts & inside & ~ONE) | (ONE << np.uint64(known) if known < WINDOW else ZERO)
    # A start hangs on the character behind it, and one amid white space on where that ends.
    sure = known - 1
    if digits != 0:
        other = ~spaces & inside
        sure = min(sure, WINDOW - int(np.int64(leading_zeros(other))) + 1)
    return starts & ~ONE & (ALL >> (FULL - np.uint64(sure)))


@kernel
def _gpt2(letters: np.uint64, numbers: np.uint64, spaces: np.uint64, blanks: np.uint64, inside: np.uint64) -> np.uint64:
    """Where pre-tokens begin: runs of one class, each with the blank before it; the last of several spaces alone."""
    solid = ~spaces & inside
    other = solid & ~letters & ~numbers
    runs = _heads(letters) | _heads(numbers) | _heads(other)
    return (runs & ~(blanks << ONE)) | _heads(spaces) | (spaces & (solid >> ONE))


@kernel
def _gpt4(
    letters: np.uint64,
    numbers: np.uint64,
    spaces: np.uint64,
    blanks: np.uint64,
    lines: np.uint64,
    marks: np.uint64,
    inside: np.uint64,
    digits: int,
) -> np.uint64:
    """The same where letters take any one character before them, but no number and no end of a line."""
    solid = ~spaces & inside
    other = solid & ~letters & ~numbers
    # Ends of lines right behind other characters go with them: a carry runs through them.
    spaces &= ~(lines & ~(lines + (lines & (other << ONE))))
    gaps = spaces & ~lines
    others = _heads(other) & ~(blanks << ONE)
    before = (gaps << ONE) | ((others & ~marks) << ONE) | ((others & marks) << THREE)
    starts = others | (_heads(letters) & ~before) | _heads(spaces) | (gaps & (solid >> ONE))
    # White space goes with the last end of a line in it; what is behind that is apart.
    behind = _heads(gaps) & ((spaces & lines) << ONE)
    while behind != ZERO:
        head = behind & (~behind + ONE)
        if (gaps + head) & ~gaps & lines == ZERO:
            starts |= head
        behind &= behind - ONE
    if digits == 1:
        return starts | numbers
    group = _heads(numbers)
    inner = numbers & (numbers << ONE) & (numbers << TWO)
    while group != ZERO:
        starts |= group
        group = (group << THREE) & inner
    return starts


@kernel
def _han(data: Bytes, i: int) -> np.uint64:
    """Where the three bytes of a Han character of U+4E00 to U+9FBF begin."""
    inner = within64(data, i, 0, 0xE5, 0xE8)
    first = within64(data, i, 0, 0xE4, 0xE4) & (within64(data, i, 0, 0xB8, 0xBF) >> ONE)
    return inner | first | (within64(data, i, 0, 0xE9, 0xE9) & (within64(data, i, 0, 0x80, 0xBE) >> ONE))


@kernel
def _marks(data: Bytes, i: int) -> np.uint64:
    """Where the three bytes of a common mark begin: U+2010-2027, 3001-3002, 3008-3011, FF01-FF0F and FF1A-FF1F."""
    general = within64(data, i, 0, 0xE2, 0xE2) & (within64(data, i, 0, 0x90, 0xA7) >> TWO)
    third = within64(data, i, 0, 0x81, 0x82) | within64(data, i, 0, 0x88, 0x91)
    cjk = within64(data, i, 0, 0xE3, 0xE3) & (third >> TWO)
    third = within64(data, i, 0, 0x81, 0x8F) | within64(data, i, 0, 0x9A, 0x9F)
    wide = within64(data, i, 0, 0xEF, 0xEF) & (within64(data, i, 0, 0xBC, 0xBC) >> ONE) & (third >> TWO)
    return ((general | cjk) & (within64(data, i, 0, 0x80, 0x80) >> ONE)) | wide


@kernel
def _bytes(heads: np.uint64) -> np.uint64:
    """All three bytes of characters."""
    return heads | (heads << ONE) | (heads << TWO)


@kernel
def _heads(mask: np.uint64) -> np.uint64:
    """The first bit of every run."""
    return mask & ~(mask << ONE)
