"""A document as a set of shingles: 64-bit hashes of every run of n units.

A unit is a maximal run of letters and digits, lower-cased, with the combining marks inside it; each letter of a
script written without spaces is a unit of its own. So shingles are word n-grams in English and character n-grams in
Chinese, and punctuation, case and layout do not count. A document of fewer than n units has one shingle of all of
them, one of no units has none. Two shingles that differ share a hash with probability 2^-64.

Runs of ASCII are read eight bytes at a time by arithmetic on all of them at once (`_ascii`); whatever touches another
character goes one code point at a time (`_characters`), to the same hashes.

A set's digest is two sums mod 2^64 over its distinct hashes, of each hash and of a second mix of it: it needs no
order, and two sets that differ share it with probability 2^-128. That holds against chance. None of these hashes is
keyed, so someone who wants two texts to collide can make them.

Sets are kept as sorted arrays of distinct hashes, many documents one after another: set i is
values[starts[i]:starts[i + 1]].
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels import random
from pipeline.kernels._jit import Bytes, Floats, Hashes, Ints, Table, kernel, trailing_zeros
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.unicode import ALNUM, LOWER, MARK, SPACELESS, table
from pipeline.kernels.utf8 import decode

Sets = tuple[Hashes, Ints]

GOLDEN, MIX_1, MIX_2 = np.uint64(random.GOLDEN), np.uint64(random.MIX_1), np.uint64(random.MIX_2)
S3, S8, S27, S30, S31, S64 = (np.uint64(bits) for bits in (3, 8, 27, 30, 31, 64))
ZERO, ONE = np.uint64(0), np.uint64(1)
# Eight bytes in one word: the top bit of each, bit 5 of each, and what carries into the top bit from a character on.
HIGH, LOW, CASE = np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x2020202020202020)
EACH = np.uint64(0x0101010101010101)
FROM_A, PAST_Z = EACH * np.uint64(0x80 - ord("a")), EACH * np.uint64(0x7F - ord("z"))
FROM_0, PAST_9 = EACH * np.uint64(0x80 - ord("0")), EACH * np.uint64(0x7F - ord("9"))


def shingle_sets(text: pa.Array, ngram: int) -> Sets:
    """(values uint64, starts int64 [n + 1]) of every document's set."""
    data, offsets = text_buffers(text)
    starts = np.zeros(len(text) + 1, np.int64)
    sizes = np.diff(offsets)
    values = np.empty(int(most_units(sizes).sum()), np.uint64)
    longest = int(most_units(sizes).max(initial=0))
    units, scratch = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    counts = np.empty(longest + 1, np.int32)
    fill(data, offsets, table(), ngram, values, starts, units, scratch, counts)
    return values[: starts[-1]].copy(), starts


def most_units(sizes: Ints) -> Ints:
    """What texts of so many bytes can have at most: a unit takes a byte and a separator, or the bytes of a letter."""
    return sizes // 2 + 1


def set_digests(sets: Sets) -> pa.Array:
    """The digest of each set, binary(16); null for an empty set."""
    values, starts = sets
    sums = np.zeros((starts.size - 1, 2), np.uint64)
    digest_sets(frozen(values), frozen(starts), sums)
    return packed(sums, np.diff(starts) > 0)


def packed(words: NDArray, valid: NDArray[np.bool_], order: Literal["<", ">"] = ">") -> pa.Array:
    """Rows of unsigned integers as a fixed_size_binary array, in this byte order, null where not `valid`."""
    raw = np.ascontiguousarray(words, words.dtype.newbyteorder(order))
    bitmap = None if valid.all() else pa.array(valid).buffers()[1]
    width = pa.binary(raw.itemsize * raw.shape[1])
    return pa.FixedSizeBinaryArray.from_buffers(width, len(raw), [bitmap, pa.py_buffer(raw.tobytes())])


def jaccards(left: Sets, right: Sets, left_rows: Ints, right_rows: Ints) -> Floats:
    """Exact Jaccard similarity of set left_rows[k] of `left` and set right_rows[k] of `right`, float64 [k].

    |A and B| / |A or B| over distinct hashes; two empty sets are equal (1.0).
    """
    out = np.empty(left_rows.size, np.float64)
    overlap(*map(frozen, (*left, *right, left_rows, right_rows)), out)
    return out


@kernel
def mix(x: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection in which every bit moves every other."""
    x = (x ^ (x >> S30)) * MIX_1
    x = (x ^ (x >> S27)) * MIX_2
    return x ^ (x >> S31)


@kernel
def fill(
    data: Bytes,
    offsets: Ints,
    table: Table,
    ngram: int,
    values: Hashes,
    starts: Ints,
    units: Hashes,
    scratch: Hashes,
    counts: NDArray[np.int32],
) -> None:
    """Write every document's sorted set to `values` and its bounds to `starts`."""
    used = 0
    for d in range(offsets.size - 1):
        n = shingles(data, offsets[d], offsets[d + 1], table, ngram, units, scratch)
        used += _sort_unique(scratch, n, counts, values[used:])
        starts[d + 1] = used


@kernel
def overlap(
    left: Hashes, left_starts: Ints, right: Hashes, right_starts: Ints, left_rows: Ints, right_rows: Ints, out: Floats
) -> None:
    """out[k] = Jaccard of two sorted sets, by one merge."""
    for k in range(out.size):
        i, i_end = left_starts[left_rows[k]], left_starts[left_rows[k] + 1]
        j, j_end = right_starts[right_rows[k]], right_starts[right_rows[k] + 1]
        total = (i_end - i) + (j_end - j)
        both = 0
        while i < i_end and j < j_end:
            a, b = left[i], right[j]
            both += a == b
            i += a <= b
            j += b <= a
        out[k] = 1.0 if total == 0 else both / (total - both)


@kernel
def digest_sets(values: Hashes, starts: Ints, out: Hashes) -> None:
    for d in range(starts.size - 1):
        add_up(values, starts[d], starts[d + 1], out[d])


@kernel
def add_up(values: Hashes, start: int, end: int, out: Hashes) -> None:
    """The two sums of the distinct hashes values[start:end]: a set's digest."""
    first = second = ZERO
    for k in range(start, end):
        first += values[k]
        second += mix(values[k] ^ GOLDEN)
    out[0], out[1] = first, second


@kernel
def shingles(data: Bytes, start: int, end: int, table: Table, ngram: int, units: Hashes, out: Hashes) -> int:
    """Write the shingles of one document, in order and with repeats, none of them 0; return how many."""
    count = _units(data, start, end, table, units)
    if count == 0:
        return 0
    size = min(count, ngram)
    n = count - size + 1
    for k in range(n):
        out[k] = np.uint64(size)
    for place in range(size):
        for k in range(n):
            out[k] = out[k] * GOLDEN + units[k + place]
    for k in range(n):
        out[k] = max(mix(out[k]), ONE)
    return n


@kernel
def _units(data: Bytes, start: int, end: int, table: Table, out: Hashes) -> int:
    """Write the hash of every unit of one document; return how many.

    The lower-cased code points of a unit are laid into words of eight bytes, one byte for ASCII and three for others,
    none of them 0 and none torn: a unit is a sequence of words, and its hash is theirs, mixed one after another.
    """
    n = 0
    i = start
    while i < end:
        if i + 8 <= end:
            i, n, done = _ascii(data, i, end, out, n)
            if done:
                continue
        i, n = _characters(data, i, end, table, out, n)
    return n


@kernel
def _ascii(data: Bytes, i: int, end: int, out: Hashes, n: int) -> tuple[int, int, bool]:
    """Units from data[i] on while they and what bounds them are ASCII, with eight bytes to read at each step.

    Returns where the next unit begins (or what lies before it), the number of units, and whether `i` got on.
    """
    begin = i
    while i + 8 <= end:
        word, member, other = _eight(data, i)
        stop = ~member & HIGH
        if member & np.uint64(0x80) == ZERO:
            if other & np.uint64(0x80) != ZERO:
                return i, n, i > begin
            i += int(trailing_zeros(member | other) >> S3)
            continue
        at, h = i, ZERO
        while stop == ZERO:
            h = mix(h ^ word)
            at += 8
            if at + 8 > end:
                return i, n, i > begin
            word, member, other = _eight(data, at)
            stop = ~member & HIGH
        length = trailing_zeros(stop) & np.uint64(0x78)
        if other & (stop & (ZERO - stop)) != ZERO:
            return i, n, i > begin
        word &= (ONE << length) - ONE
        if word != ZERO:
            h = mix(h ^ word)
        out[n] = h
        n += 1
        # On to the next character of a unit, or that is not ASCII, among these eight bytes.
        rest = (member | other) >> length >> S8
        i = at + int(min(trailing_zeros(rest) + length + S8, S64) >> S3)
    return i, n, i > begin


@kernel
def _eight(data: Bytes, i: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Eight bytes in lower case; the top bits of ASCII letters and digits; the top bits of what is not ASCII."""
    word = ZERO
    for k in range(8):
        word |= np.uint64(data[i + k]) << np.uint64(8 * k)
    other = word & HIGH
    low = word & LOW
    cased = low | CASE
    letter = (cased + FROM_A) & ~(cased + PAST_Z)
    digit = (low + FROM_0) & ~(low + PAST_9)
    letter &= HIGH & ~other
    return word | (letter >> np.uint64(2)), letter | (digit & HIGH & ~other), other


@kernel
def _characters(data: Bytes, i: int, end: int, table: Table, out: Hashes, n: int) -> tuple[int, int]:
    """Units from data[i] on, one code point at a time, until ASCII stands outside a unit with eight bytes to read.

    Returns where it stopped and the number of units.
    """
    begin = i
    inside = spaceless = False
    h = word = ZERO
    filled = 0
    while i < end:
        code, width = decode(data, i, end)
        entry = int(table[code])
        mark = entry & MARK != 0
        alone = entry & SPACELESS != 0 and not mark
        wordly = entry & ALNUM != 0 or alone
        if inside and not mark and (alone or spaceless or not wordly):
            out[n] = mix(h ^ word)
            n += 1
            inside = False
        if not inside:
            if code < 0x80 and i > begin and i + 8 <= end:
                return i, n
            h = word = ZERO
            filled = 0
            inside, spaceless = wordly, alone
        if inside:
            lower = np.uint64(entry & LOWER)
            size = 1
            if lower >= np.uint64(0x80):
                size = 3
                lower = (
                    np.uint64(0x808080)
                    | (lower & np.uint64(0x7F))
                    | (lower << ONE & np.uint64(0x7F00))
                    | (lower << np.uint64(2) & np.uint64(0x7F0000))
                )
            if filled + size > 8:
                h = mix(h ^ word)
                word = ZERO
                filled = 0
            word |= lower << np.uint64(8 * filled)
            filled += size
        i += width
    if inside:
        out[n] = mix(h ^ word)
        n += 1
    return i, n


@kernel
def _sort_unique(raw: Hashes, n: int, counts: NDArray[np.int32], out: Hashes) -> int:
    """Sort raw[:n] into `out` without repeats; return how many. Hashes are uniform, so n buckets hold one each."""
    for k in range(n + 1):
        counts[k] = 0
    for k in range(n):
        counts[_bucket(raw[k], n) + 1] += 1
    for k in range(n):
        counts[k + 1] += counts[k]
    for k in range(n):
        b = _bucket(raw[k], n)
        out[counts[b]] = raw[k]
        counts[b] += 1
    kept = 0
    for k in range(n):
        x = out[k]
        j = kept
        while j > 0 and out[j - 1] > x:
            j -= 1
        if j > 0 and out[j - 1] == x:
            continue
        for m in range(kept, j, -1):
            out[m] = out[m - 1]
        out[j] = x
        kept += 1
    return kept


@kernel
def _bucket(x: np.uint64, n: int) -> np.int64:
    """Which of n buckets of equal width holds x: its top 32 bits times n, over 2^32."""
    return np.int64(((x >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
