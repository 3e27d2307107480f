"""Tokens of fastText as 64-bit keys, and what is remembered under them: the cut of the text into tokens is
`fasttext_rows`'s.

A memory is lines of the processor's cache: four keys each and four values, neither of them 0. Of two tokens with more
than eight bytes one is taken for the other with probability 2^-64; shorter ones have their own keys.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.buffers import aligned
from pipeline.kernels.units import ONE, mix
from pipeline.kernels.wide import ALL, ZERO, load8

SPREAD = np.uint64(116049371)
S20 = np.uint64(20)


def lines_for(count: int) -> Hashes:
    """An empty memory, uint64 [lines, 8], of which `count` keys take half at the most."""
    lines = aligned((1 << max(0, (2 * count - 1).bit_length() - 2), 8), np.uint64)
    lines[:] = 0
    return lines


@kernel
def keep_all(arena: Bytes, starts: Ints, lines: Hashes) -> None:
    """Put every word arena[starts[k]:starts[k + 1]] into a memory, with the value k + 1."""
    for k in range(starts.size - 1):
        key = key_of(arena, starts[k], starts[k + 1])
        if find(lines, key) == 0:
            keep(lines, key, k + 1)


@kernel
def key_of(data: Bytes, begin: int, end: int) -> np.uint64:
    """64 bits of hash of a token, not 0: a bijection of its bytes where they are up to eight, of which none is 0."""
    size = end - begin
    if begin + 8 > data.size:
        return mix(short(data, begin, end))
    # Where there are more than eight bytes the last eight follow, of which some may be among the first.
    head = load8(data, begin) & (ALL >> np.uint64(64 - 8 * min(size, 8)))
    tail = load8(data, max(begin, end - 8)) + np.uint64(size) * SPREAD if size > 8 else ZERO
    h = mix(head)
    at = begin + 8
    while at < end - 8:
        h = mix(h ^ load8(data, at))
        at += 8
    return max(mix(h ^ tail), ONE) if size > 8 else h


@kernel
def short(data: Bytes, begin: int, end: int) -> np.uint64:
    """data[begin:end], one to eight bytes, the first lowest and zeros above."""
    word = ZERO
    for k in range(end - begin):
        word |= np.uint64(data[begin + k]) << np.uint64(8 * k)
    return word


@kernel
def line_of(lines: Hashes, key: np.uint64) -> np.int64:
    """The line in which a key is looked for first; their number is a power of two."""
    return np.int64(key >> S20) & (lines.shape[0] - 1)


@kernel
def find(lines: Hashes, key: np.uint64) -> np.int64:
    """The value of a key in the memory, 0 where it is not there."""
    line = line_of(lines, key)
    while True:
        value = ZERO
        for k in range(4):
            value |= lines[line, k + 4] & (ZERO - np.uint64(lines[line, k] == key))
        if value != ZERO or lines[line, 3] == ZERO:
            return np.int64(value)
        line = (line + 1) & (lines.shape[0] - 1)


@kernel
def keep(lines: Hashes, key: np.uint64, value: int) -> None:
    """Put a key that is not there into the memory, with a value that is not 0."""
    line = line_of(lines, key)
    while True:
        for k in range(4):
            if lines[line, k] == ZERO:
                lines[line, k], lines[line, k + 4] = key, np.uint64(value)
                return
        line = (line + 1) & (lines.shape[0] - 1)
