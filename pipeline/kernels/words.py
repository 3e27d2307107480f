"""Words as str.split cuts them: counted, and laid one behind another for what compares them (`ngrams`).

Where words begin and end is read from the planes of a text. With `by_script` each letter of a script without spaces is
a word of its own, with the marks and the punctuation that follow it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, Table, kernel, trailing_zeros
from pipeline.kernels.lanes import count64
from pipeline.kernels.planes import (
    CONTINUING,
    DIGITS,
    LETTERS,
    ONE,
    RANK,
    S1,
    S63,
    SPACES,
    WIDE,
    WIDTH,
    Planes,
    bits,
    characters_before,
    some,
)
from pipeline.kernels.scratch import Scratch, Shorts
from pipeline.kernels.unicode import ALNUM, ALPHA, MARK, PUNCT, SPACELESS
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ALL, SECOND, ZERO, load8, store8

S54 = np.uint64(54)
HAN_5, HAN_9 = 0xE5, 0xE9


class StopWords(NamedTuple):
    """Words to look for: their bytes, where each starts, its size, its first eight bytes with zeros behind; and at
    which hashes of those there is one."""

    data: Bytes
    starts: Ints
    sizes: Ints
    first: Hashes
    sieve: NDArray[np.bool_]


def stop_words(listed: list[bytes]) -> StopWords:
    """The words of a list, ready to be compared."""
    sizes = np.array([len(word) for word in listed], np.int64)
    first = np.array([int.from_bytes(word[:8], "little") for word in listed], np.uint64)
    sieve = np.zeros(1 << 10, bool)
    sieve[first * SECOND >> S54] = True
    return StopWords(np.array([*b"".join(listed)], np.uint8), np.cumsum(sizes) - sizes, sizes, first, sieve)


@kernel
def words(
    text: Bytes, size: int, table: Table, stop: StopWords, seen: Ints, by_script: bool, room: Scratch, out: Ints
) -> np.int64:
    """Pack the words of text[:size] and count them: out[0:5] as text.COUNTS begins. Returns how many there are.

    The planes of `room` are the text's. `seen` has a place for each stop word, and room for no more.
    """
    planes, cuts, packed, ends, sizes = room.planes, room.cuts, room.packed, room.ends, room.sizes
    n = _between_spaces(planes, size, cuts)
    filled = characters = worded = worded_characters = alphabetic = np.int64(0)
    wide = planes[(size + WIDTH - 1) >> 6, RANK] != 0
    if by_script and wide:
        n = _by_script(text, planes, n, table, cuts, room.whole)
    seen[:] = 0
    ends[0] = sizes[0] = 0
    for w in range(n):
        a, b = np.int64(cuts[2 * w]), np.int64(cuts[2 * w + 1])
        length = b - a
        # Most words have a letter among their first 64 bytes.
        inside = ALL >> np.uint64(WIDTH - length if length < WIDTH else 0)
        letter = bits(planes, LETTERS, a) & inside != ZERO
        other = letter or bits(planes, DIGITS, a) & inside != ZERO
        if not letter and (length > WIDTH or bits(planes, WIDE, a) & inside != ZERO):
            letter, other = _kinds(text, planes, a, b, table)
        points = length
        if wide and length <= WIDTH:
            points = count64(~bits(planes, CONTINUING, a) & inside)
        elif wide:
            points = characters_before(planes, b) - characters_before(planes, a)
        alphabetic += letter
        worded += other
        worded_characters += points * other
        word = load8(text, a) & (ALL >> np.uint64(64 - 8 * length if length < 8 else 0))
        if stop.sieve[word * SECOND >> S54]:
            _mark(text, a, word, length, stop, seen)
        store8(packed, filled, load8(text, a))
        for k in range(8, length, 8):
            store8(packed, filled + k, load8(text, a + k))
        filled += length
        characters += points
        ends[w + 1] = filled
        sizes[w + 1] = characters
    out[0], out[1], out[2], out[3], out[4] = n, worded, worded_characters, alphabetic, 0
    for k in range(seen.size):
        out[4] += seen[k] != 0
    return n


@kernel
def _between_spaces(planes: Planes, size: int, cuts: Shorts) -> np.int64:
    """Where words begin and end, one after the other, to `cuts`; returns how many words there are."""
    n, before = np.int64(0), ONE
    for b in range((size + WIDTH - 1) >> 6):
        here = planes[b, SPACES]
        turns = here ^ (here << S1 | before)
        before = here >> S63
        while turns != ZERO:
            cuts[n] = b * WIDTH + np.int64(trailing_zeros(turns))
            turns &= turns - ONE
            n += 1
    if n & 1:
        cuts[n] = size
        n += 1
    return n >> 1


@kernel
def _by_script(text: Bytes, planes: Planes, n: int, table: Table, cuts: Shorts, whole: Shorts) -> np.int64:
    """Cut the words between spaces further, where a character begins a new word inside; returns how many there are.

    `whole` is lent to hold what `cuts` held.
    """
    for k in range(2 * n):
        whole[k] = cuts[k]
    found = np.int64(0)
    for w in range(n):
        a, b = np.int64(whole[2 * w]), np.int64(whole[2 * w + 1])
        cuts[2 * found] = a
        if some(planes, WIDE, a, b):
            i, spaceless = a, False
            while i < b:
                # From U+5000 to U+9FFF all are Han letters, which is told by the first of three bytes.
                if HAN_5 <= text[i] <= HAN_9:
                    cut, letter, width = i > a, True, 3
                else:
                    code, width = decode(text, i, b)
                    entry = np.int64(table[code])
                    cut, letter = i > a and cuts_word(entry, spaceless), entry & SPACELESS != 0
                if cut:
                    cuts[2 * found + 1] = i
                    found += 1
                    cuts[2 * found] = i
                if cut or i == a:
                    spaceless = letter
                i += width
        cuts[2 * found + 1] = b
        found += 1
    return found


@kernel
def cuts_word(entry: int, spaceless: bool) -> bool:
    """Whether a character begins a new word inside a run without white space."""
    return entry & SPACELESS != 0 or (spaceless and entry & ALNUM != 0 and entry & MARK == 0)


@kernel
def _kinds(text: Bytes, planes: Planes, a: int, b: int, table: Table) -> tuple[bool, bool]:
    """Whether the word text[a:b] has a letter, and whether it has a character that is not punctuation."""
    letter = some(planes, LETTERS, a, b)
    other = letter or some(planes, DIGITS, a, b)
    i = a
    while i < b and not letter:
        code, width = decode(text, i, b)
        entry = np.int64(table[code])
        letter = entry & ALPHA != 0
        other |= entry & PUNCT == 0
        i += width
    return letter, other


@kernel
def _mark(text: Bytes, a: int, word: np.uint64, length: int, stop: StopWords, seen: Ints) -> None:
    """Count the word text[a:a + length], which begins as `word`, in `seen` where it is a stop word, byte for byte."""
    for k in range(seen.size):
        if stop.first[k] == word and stop.sizes[k] == length:
            j = 8
            while j < length and stop.data[stop.starts[k] + j] == text[a + j]:
                j += 1
            seen[k] += j >= length
