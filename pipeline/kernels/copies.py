"""Lines and paragraphs that stand at several places of a text, counted with all their copies.

datatrove counts what stood before (`lines`); dolma and DCLM count every copy, the first one, too. Pieces are compared
byte for byte; a hash only finds what is compared.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.lines import DASH, LF, three
from pipeline.kernels.planes import Planes, after_space, before_space, characters_before, next_feed
from pipeline.kernels.scratch import ABSENT, Shorts, mask_for, next_stamp, put, slot_of, value_at
from pipeline.kernels.wide import hashed_padded, same_padded

DOT, BLANK, STAR = 0x2E, 0x20, 0x2A


@kernel
def pieces(text: Bytes, size: int, planes: Planes, apart: int, stripped: bool, cuts: Shorts) -> np.int64:
    """Where what `apart` line feeds (1 or 2) part begins and ends, to `cuts`; returns how many pieces there are.

    With `stripped` white space at both ends of a piece does not count. Empty pieces are left out.
    """
    n, a = np.int64(0), np.int64(0)
    while a < size:
        b = next_feed(planes, a, size)
        if apart == 2:
            while b + 1 < size and text[b + 1] != LF:
                b = next_feed(planes, b + 1, size)
            if b + 1 == size:
                b = np.int64(size)
        start, end = a, b
        if stripped:
            start = after_space(planes, a, b)
            end = before_space(planes, start, b)
        if start < end:
            cuts[2 * n] = start
            cuts[2 * n + 1] = end
            n += 1
        a = b + apart
    return n


@kernel
def copies(
    text: Bytes, planes: Planes, cuts: Shorts, n: int, tally: Shorts, table: Hashes, stamps: Ints, out: Ints
) -> None:
    """Count n pieces: out[0:4] = pieces, their characters, those that stand at several places, their characters."""
    stamp, mask = next_stamp(table, stamps), mask_for(n)
    out[0], out[1], out[2], out[3] = n, 0, 0, 0
    for k in range(n):
        a, b = np.int64(cuts[2 * k]), np.int64(cuts[2 * k + 1])
        tally[k] = 1
        points = characters_before(planes, b) - characters_before(planes, a)
        out[1] += points
        key = hashed_padded(text, a, b)
        slot = slot_of(key, mask)
        while True:
            first = value_at(table, slot, stamp)
            if first == ABSENT:
                put(table, slot, stamp, key, k)
                break
            c = np.int64(cuts[2 * first])
            if table[slot, 0] == key and cuts[2 * first + 1] - c == b - a and same_padded(text, a, c, b - a):
                tally[first] += 1
                # The second copy brings the first one with it.
                brought = 2 if tally[first] == 2 else 1
                out[2] += brought
                out[3] += brought * points
                break
            slot = (slot + 1) & mask


@kernel
def marked(text: Bytes, cuts: Shorts, n: int, more: bool, out: Ints) -> None:
    """out[0:2] = how many of n pieces begin with a bullet, "*" or "-", and how many end in an ellipsis, "…".

    With `more` "•" and "●" are bullets, "..." and ". . ." ellipses, too.
    """
    out[0] = out[1] = 0
    for k in range(n):
        a, b = np.int64(cuts[2 * k]), np.int64(cuts[2 * k + 1])
        bullet = text[a] == DASH or text[a] == STAR
        dots = b - a >= 3 and three(text, b - 3, 0xE2, 0x80, 0xA6)
        if more:
            bullet = bullet or three(text, a, 0xE2, 0x80, 0xA2) or three(text, a, 0xE2, 0x97, 0x8F)
            dots = dots or (b - a >= 3 and three(text, b - 3, DOT, DOT, DOT))
            dots = dots or (b - a >= 5 and three(text, b - 5, DOT, BLANK, DOT) and three(text, b - 3, DOT, BLANK, DOT))
        out[0] += bullet
        out[1] += dots
