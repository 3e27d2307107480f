r"""Where pre-tokens of ASCII end, 64 bytes at a time: the expressions of `pretokens` as arithmetic on bits.

Bit k of a mask stands for byte k from the start of a pre-token. A class of characters is a mask; "after an X" is X << 1
and "before an X" is X >> 1. What lies behind the document, behind the 64 bytes or behind a byte that is not ASCII is
not known, so an end is given only where nothing there could move it; the next window begins at the last one.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, kernel, leading_zeros, trailing_zeros
from pipeline.kernels.pretokens import BLANK, LINE_FEED, QUOTE, RETURN, contraction
from pipeline.kernels.wide import ALL, ZERO, within64

WINDOW = 64
ONE, TWO, THREE, FULL = (np.uint64(n) for n in (1, 2, 3, 64))


@kernel
def ascii_ends(data: Bytes, i: int, end: int, digits: int) -> np.uint64:
    """Bit k is set where a pre-token ends before data[i + k]; one begins at data[i], in the document that ends at end.

    Zero where the end of that pre-token is not among what is known: then `next_end` tells.
    """
    if i + WINDOW > data.size:
        return ZERO
    known: int = min(np.int64(trailing_zeros(within64(data, i, 0, 0x80, 0xFF))), end - i)
    if known < 2:
        return ZERO
    inside = ALL >> (FULL - np.uint64(known))
    letters = within64(data, i, 0x20, ord("a"), ord("z")) & inside
    numbers = within64(data, i, 0, ord("0"), ord("9")) & inside
    blanks = within64(data, i, 0, BLANK, BLANK) & inside
    spaces = (within64(data, i, 0, 9, 13) & inside) | blanks
    if digits == 0:
        starts = _gpt2(letters, numbers, spaces, blanks, inside)
    else:
        lines = (within64(data, i, 0, LINE_FEED, LINE_FEED) | within64(data, i, 0, RETURN, RETURN)) & inside
        starts = _gpt4(letters, numbers, spaces, blanks, lines, inside, digits)
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
    sure: int = known - 1
    if digits != 0:
        other = ~spaces & inside
        sure = min(sure, WINDOW - np.int64(leading_zeros(other)) + 1)
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
    starts = others | (_heads(letters) & ~((gaps | others) << ONE)) | _heads(spaces) | (gaps & (solid >> ONE))
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
def _heads(mask: np.uint64) -> np.uint64:
    """The first bit of every run."""
    return mask & ~(mask << ONE)
