"""A document as a set of shingles: 64-bit hashes of every run of n units.

A unit is a maximal run of letters and digits, lower-cased, with the combining marks inside it; each letter of a
script written without spaces is a unit of its own. So shingles are word n-grams in English and character n-grams in
Chinese, and punctuation, case and layout do not count. A document of fewer than n units has one shingle of all of
them, one of no units has none. Two shingles that differ share a hash with probability 2^-64.

Sets are kept as sorted arrays of distinct hashes, many documents one after another: set i is
values[starts[i]:starts[i + 1]].
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels import random
from pipeline.kernels._jit import Bytes, Floats, Hashes, Ints, Table, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.unicode import ALNUM, LOWER, MARK, SPACE, SPACELESS, table
from pipeline.kernels.utf8 import decode

Sets = tuple[Hashes, Ints]

GOLDEN, MIX_1, MIX_2 = np.uint64(random.GOLDEN), np.uint64(random.MIX_1), np.uint64(random.MIX_2)
S27, S30, S31 = np.uint64(27), np.uint64(30), np.uint64(31)
ZERO = np.uint64(0)


def shingle_sets(text: pa.Array, ngram: int) -> Sets:
    """(values uint64, starts int64 [n + 1]) of every document's set."""
    data, offsets = text_buffers(text)
    starts = np.zeros(len(text) + 1, np.int64)
    sizes = np.diff(offsets)
    # A unit takes a byte and a separator, or the three bytes of a letter: so no more than half the bytes, and one.
    values = np.empty(int((sizes // 2 + 1).sum()), np.uint64)
    scratch = np.empty(int(sizes.max(initial=0)) // 2 + 1, np.uint64)
    counts = np.empty(scratch.size + 1, np.int32)
    fill(data, offsets, table(), ngram, values, starts, scratch, counts)
    return values[: starts[-1]].copy(), starts


def set_digests(sets: Sets) -> list[bytes | None]:
    """blake2b-16 over each set's sorted little-endian hashes; None for an empty set.

    Equal sets, and for all that can happen only those, have equal digests.
    """
    values, starts = sets
    raw = values.astype("<u8", copy=False).data.cast("B")
    bounds = (starts * 8).tolist()
    return [hashlib.blake2b(raw[a:b], digest_size=16).digest() if b > a else None for a, b in pairwise(bounds)]


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
    scratch: Hashes,
    counts: NDArray[np.int32],
) -> None:
    """Write every document's sorted set to `values` and its bounds to `starts`."""
    ring = np.zeros(ngram, np.uint64)
    used = 0
    for d in range(offsets.size - 1):
        n = _shingles(data, offsets[d], offsets[d + 1], table, ring, scratch)
        n = _sort_unique(scratch, n, counts, values[used:])
        used += n
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
def _shingles(data: Bytes, start: int, end: int, table: Table, ring: Hashes, out: Hashes) -> int:
    """Write the shingles of one document, in order and with repeats; return how many."""
    ngram = ring.size
    units = n = 0
    h = ZERO
    inside = spaceless = False
    i = start
    while i <= end:
        if i < end:
            code, width = decode(data, i, end)
            entry = int(table[code])
        else:
            width, entry = 1, SPACE
        mark = entry & MARK != 0
        alone = entry & SPACELESS != 0 and not mark
        wordly = entry & ALNUM != 0 or alone
        if inside and not mark and (alone or spaceless or not wordly):
            ring[units % ngram] = mix(h)
            units += 1
            inside = False
            if units >= ngram:
                out[n] = _gram(ring, units, ngram)
                n += 1
        if wordly and not inside:
            inside, spaceless, h = True, alone, GOLDEN
        if inside:
            h = (h ^ np.uint64(entry & LOWER)) * MIX_1
            h ^= h >> S31
        i += width
    if 0 < units < ngram:
        out[0] = _gram(ring, units, units)
        n = 1
    return n


@kernel
def _gram(ring: Hashes, units: int, size: int) -> np.uint64:
    """Hash of the last `size` units, in order; the size is part of it."""
    h = np.uint64(size)
    for k in range(units - size, units):
        h = h * GOLDEN + ring[k % ring.size]
    return mix(h)


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
