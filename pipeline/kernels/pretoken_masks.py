r"""Where pre-tokens end, 64 bytes at a time: the expressions of `pretokens` as arithmetic on bits.

Bit k of a mask stands for byte k from the start of a pre-token. A class of characters is a mask; "after an X" is X << 1
and "before an X" is X >> 1. Known are ASCII, most Han characters and the marks that are common beside them. What lies
behind the document, behind the 64 bytes or behind any other character is not, so an end is given only where nothing
there could move it; the next window begins at the last one.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, kernel, leading_zeros, trailing_zeros
from pipeline.kernels.pretokens import BLANK, LINE_FEED, QUOTE, RETURN, contraction
from pipeline.kernels.wide import ALL, ZERO, within64

WINDOW = 64
ONE, TWO, THREE, FULL = (np.uint64(n) for n in (1, 2, 3, 64))

# Inside kernels: masks of data[i:i + 64].
_letters, _numbers, _controls = within64(ord("a"), ord("z"), 0x20), within64(ord("0"), ord("9")), within64(9, 13)
_high, _follow = within64(0x80, 0xFF), within64(0x80, 0xBF)
_blanks, _quotes, _feeds, _returns = (within64(byte) for byte in (BLANK, QUOTE, LINE_FEED, RETURN))
_80, _bc, _e2, _e3, _e4, _e9, _ef = (within64(byte) for byte in (0x80, 0xBC, 0xE2, 0xE3, 0xE4, 0xE9, 0xEF))
_80_be, _b8_bf, _e5_e8, _90_a7 = (within64(*e) for e in ((0x80, 0xBE), (0xB8, 0xBF), (0xE5, 0xE8), (0x90, 0xA7)))
_81_82, _88_91, _81_8f, _9a_9f = (within64(*e) for e in ((0x81, 0x82), (0x88, 0x91), (0x81, 0x8F), (0x9A, 0x9F)))


@kernel
def sure_ends(data: Bytes, i: int, end: int, digits: int) -> np.uint64:
    """Bit k is set where a pre-token ends before data[i + k]; one begins at data[i], in the document that ends at end.

    Zero where the end of that pre-token is not among what is known: then `next_end` tells.
    """
    known = min(WINDOW, end - i)
    if known < 2 or i + WINDOW > data.size:
        return ZERO
    inside = ALL >> (FULL - np.uint64(known))
    high = _high(data, i) & inside
    han = marks = ZERO
    if high != ZERO:
        follow = _follow(data, i) & inside
        whole = (follow >> ONE) & (follow >> TWO)
        han, marks = _han(data, i) & whole, _marks(data, i) & whole
        known = min(known, int(np.int64(trailing_zeros(high & ~_bytes(han | marks)))))
        if known < 2:
            return ZERO
        inside = ALL >> (FULL - np.uint64(known))
        han, marks = han & inside, marks & inside
    letters = (_letters(data, i) & inside) | _bytes(han)
    numbers = _numbers(data, i) & inside
    blanks = _blanks(data, i) & inside
    spaces = (_controls(data, i) & inside) | blanks
    if digits == 0:
        starts = _gpt2(letters, numbers, spaces, blanks, inside)
    else:
        lines = (_feeds(data, i) | _returns(data, i)) & inside
        starts = _gpt4(letters, numbers, spaces, blanks, lines, marks, inside, digits)
    quotes = starts & _quotes(data, i) & (letters >> ONE)
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
    inner = _e5_e8(data, i)
    first = _e4(data, i) & (_b8_bf(data, i) >> ONE)
    return inner | first | (_e9(data, i) & (_80_be(data, i) >> ONE))


@kernel
def _marks(data: Bytes, i: int) -> np.uint64:
    """Where the three bytes of a common mark begin: U+2010-2027, 3001-3002, 3008-3011, FF01-FF0F and FF1A-FF1F."""
    general = _e2(data, i) & (_90_a7(data, i) >> TWO)
    third = _81_82(data, i) | _88_91(data, i)
    cjk = _e3(data, i) & (third >> TWO)
    third = _81_8f(data, i) | _9a_9f(data, i)
    wide = _ef(data, i) & (_bc(data, i) >> ONE) & (third >> TWO)
    return ((general | cjk) & (_80(data, i) >> ONE)) | wide


@kernel
def _bytes(heads: np.uint64) -> np.uint64:
    """All three bytes of characters."""
    return heads | (heads << ONE) | (heads << TWO)


@kernel
def _heads(mask: np.uint64) -> np.uint64:
    """The first bit of every run."""
    return mask & ~(mask << ONE)
