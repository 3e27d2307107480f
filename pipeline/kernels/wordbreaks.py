"""Words as Unicode Standard Annex 29 bounds them (revision 39, of Unicode 14.0): those that begin like a word.

The rules are WB1 to WB999 without tailoring; what a character is, is read from the shipped classes. A boundary is found
from the left: where a rule looks ahead (WB6, WB7b, WB12), both sides of the mark between are joined at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels._jit import Bytes, Table, kernel, trailing_zeros
from pipeline.kernels.planes import LETTERS, WIDE, Planes, bits, characters_before
from pipeline.kernels.scratch import Shorts
from pipeline.kernels.unicode import ALNUM, PICTOGRAPH, WORD_BREAK, WORD_BREAKS
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ZERO, load8, store8

(_, CR, LF, NEWLINE, EXTEND, ZWJ, REGIONAL, FORMAT, KATAKANA, HEBREW, LETTER, SINGLE, DOUBLE, MIDNUMLET) = range(14)
MIDLETTER, MIDNUM, NUMERIC, EXTENDNUMLET, WSEGSPACE = map(
    WORD_BREAKS.index, ("MidLetter", "MidNum", "Numeric", "ExtendNumLet", "WSegSpace")
)
IGNORED = (EXTEND, FORMAT, ZWJ)
UNDERSCORE, LF_BYTE = 0x5F, 10


@kernel
def unicode_words(
    text: Bytes, size: int, table: Table, classes: Bytes, planes: Planes, packed: Bytes, ends: Shorts, sizes: Shorts
) -> np.int64:
    """Pack the words of text[:size] that begin with a letter or a digit (str.isalnum); returns how many there are."""
    n = filled = characters = i = np.int64(0)
    ends[0] = sizes[0] = 0
    while i < size:
        code, _ = decode(text, i, size)
        kept = table[code] & ALNUM != 0
        if not kept and code < 0x80 and code != UNDERSCORE and text[i + 1] < 0x80:
            # Alone, or before more of what is left out.
            i += 1
            continue
        end = word_end(text, i, size, classes, planes)
        if kept:
            for k in range(0, end - i, 8):
                store8(packed, filled + k, load8(text, i + k))
            filled += end - i
            characters += characters_before(planes, end) - characters_before(planes, i)
            n += 1
            ends[n] = filled
            sizes[n] = characters
        i = end
    return n


@kernel
def word_end(text: Bytes, i: Any, size: int, classes: Bytes, planes: Planes) -> np.int64:
    """Where the word that begins at text[i] ends. A boundary stands before it."""
    code, width = decode(text, i, size)
    left = np.int64(classes[code] & WORD_BREAK)
    i = np.int64(i) + width
    if left in (CR, LF, NEWLINE):
        return np.int64(i + (left == CR and text[i] == LF_BYTE and i < size))
    before, flags = left, np.int64(1)
    while i < size:
        if left == LETTER:
            run = ~(bits(planes, LETTERS, i) & ~bits(planes, WIDE, i))
            letters = np.int64(trailing_zeros(run)) if run != ZERO else np.int64(64)
            if letters > 0:
                i += letters
                before = left
                continue
        code, width = decode(text, i, size)
        here = np.int64(classes[code])
        kind = here & WORD_BREAK
        if kind in IGNORED:  # WB4
            before = kind
        elif (before == ZWJ and here & PICTOGRAPH != 0) or joins(left, kind):  # WB3c
            before = left = kind
        elif kind == WSEGSPACE and before == WSEGSPACE:  # WB3d
            pass
        elif kind == REGIONAL and left == REGIONAL and flags == 1:  # WB15, WB16
            flags = np.int64(2)
            before = kind
        else:
            past = past_middle(text, i + width, size, left, kind, classes)
            if past == 0:
                return np.int64(i)
            if past > 0:
                i = past
                code, width = decode(text, i, size)
                kind = np.int64(classes[code] & WORD_BREAK)
            before = left = kind
        i += width
    return np.int64(i)


@kernel
def joins(left: int, kind: int) -> bool:
    """Whether two classes that stand side by side are not parted: WB5, WB8 to WB10, WB13 to WB13b."""
    word = left in (LETTER, HEBREW, NUMERIC)
    if kind in (LETTER, HEBREW, NUMERIC):
        return word or left == EXTENDNUMLET
    if kind == EXTENDNUMLET:
        return word or left in (KATAKANA, EXTENDNUMLET)
    return kind == KATAKANA and left in (KATAKANA, EXTENDNUMLET)


@kernel
def past_middle(text: Bytes, i: int, size: int, left: int, kind: int, classes: Bytes) -> np.int64:
    """Where the letter or digit stands that a mark (`kind`, which ends before text[i]) ties to what is left of it.

    0 where there is none and a boundary stands before the mark; -1 where the mark alone belongs to the left (WB7a).
    """
    both = kind in (MIDNUMLET, SINGLE)
    letter = left in (LETTER, HEBREW) and (both or kind == MIDLETTER)
    digit = left == NUMERIC and (both or kind == MIDNUM)
    quoted = left == HEBREW and kind == DOUBLE
    if letter or digit or quoted:
        while i < size:
            code, width = decode(text, i, size)
            right = np.int64(classes[code] & WORD_BREAK)
            if right not in IGNORED:
                if letter and right in (LETTER, HEBREW):  # WB6, WB7
                    return np.int64(i)
                if (digit and right == NUMERIC) or (quoted and right == HEBREW):  # WB12, WB11; WB7b, WB7c
                    return np.int64(i)
                break
            i += width
    return np.int64(-1 if left == HEBREW and kind == SINGLE else 0)
