"""A document as a set of shingles: 64-bit hashes of every run of n units.

A unit is a word, or one letter of a script written without spaces (`kernels.units`). So shingles are word n-grams in
English and character n-grams in Chinese, and punctuation, case and layout do not count. A document of fewer than n
units has one shingle of all of them, one of no units has none. Two shingles that differ share a hash with probability
2^-64.

A set's digest is two sums mod 2^64 over its distinct hashes, of each hash and of a second mix of it: it needs no
order, and two sets that differ share it with probability 2^-128. That holds against chance. None of these hashes is
keyed, so someone who wants two texts to collide can make them.

Sets are kept as sorted arrays of distinct hashes, many documents one after another: set i is
values[starts[i]:starts[i + 1]].
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels import random
from pipeline.kernels._jit import Bytes, Floats, Hashes, Ints, Table, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.unicode import table
from pipeline.kernels.units import ONE, ZERO, Room, mix, room, units

Sets = tuple[Hashes, Ints]

GOLDEN = np.uint64(random.GOLDEN)


def shingle_sets(text: pa.Array, ngram: int, characters: Table | None = None) -> Sets:
    """(values uint64, starts int64 [n + 1]) of every document's set; `characters` in the place of `unicode.table()`."""
    data, offsets = text_buffers(text)
    starts = np.zeros(len(text) + 1, np.int64)
    sizes = np.diff(offsets)
    values = np.empty(int(most_units(sizes).sum()), np.uint64)
    longest = int(sizes.max(initial=0))
    hashes, scratch = np.empty((2, most_units(longest)), np.uint64)
    counts = np.empty(most_units(longest) + 1, np.int32)
    known = table() if characters is None else characters
    fill(data, offsets, known, ngram, values, starts, room(longest), hashes, scratch, counts)
    # Pages that are not written take no memory.
    return values[: starts[-1]], starts


def most_units(size: Any) -> Any:
    """What texts of so many bytes can have at most: a unit takes a byte and a separator, or the bytes of a letter."""
    return size // 2 + 1


def in_order(values: Hashes, starts: Ints) -> Sets:
    """Sets whose hashes are distinct and in no order, sorted."""
    out, widest = np.empty(values.size, np.uint64), int(np.diff(starts).max(initial=0))
    order(frozen(values), frozen(starts), np.empty(widest, np.uint64), np.empty(widest + 1, np.int32), out)
    return out, starts


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
def fill(
    data: Bytes,
    offsets: Ints,
    table: Table,
    ngram: int,
    values: Hashes,
    starts: Ints,
    room: Room,
    hashes: Hashes,
    scratch: Hashes,
    counts: NDArray[np.int32],
) -> None:
    """Write every document's sorted set to `values` and its bounds to `starts`."""
    used = 0
    for d in range(offsets.size - 1):
        n = shingles(data, offsets[d], offsets[d + 1], table, ngram, room, hashes, scratch)
        used += _sort_unique(scratch, n, counts, values[used:])
        starts[d + 1] = used


@kernel
def order(values: Hashes, starts: Ints, scratch: Hashes, counts: NDArray[np.int32], out: Hashes) -> None:
    """Sort every set of `values` into `out`."""
    for d in range(starts.size - 1):
        n = starts[d + 1] - starts[d]
        for k in range(n):
            scratch[k] = values[starts[d] + k]
        _sort_unique(scratch, n, counts, out[starts[d] : starts[d + 1]])


@kernel
def overlap(
    left: Hashes, left_starts: Ints, right: Hashes, right_starts: Ints, left_rows: Ints, right_rows: Ints, out: Floats
) -> None:
    """out[k] = Jaccard of two sorted sets, by one merge from both ends: a step waits for the one before it, and so two
    go on at once."""
    for k in range(out.size):
        i, i_end = np.uint64(left_starts[left_rows[k]]), np.uint64(left_starts[left_rows[k] + 1])
        j, j_end = np.uint64(right_starts[right_rows[k]]), np.uint64(right_starts[right_rows[k] + 1])
        total = np.float64((i_end - i) + (j_end - j))
        both = ZERO
        while i + ONE < i_end and j + ONE < j_end:
            a, b = left[i], right[j]
            c, d = left[i_end - ONE], right[j_end - ONE]
            both += np.uint64(a == b) + np.uint64(c == d)
            i += np.uint64(a <= b)
            j += np.uint64(b <= a)
            i_end -= np.uint64(c >= d)
            j_end -= np.uint64(d >= c)
        while i < i_end and j < j_end:
            a, b = left[i], right[j]
            both += np.uint64(a == b)
            i += np.uint64(a <= b)
            j += np.uint64(b <= a)
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
def shingles(
    data: Bytes, start: int, end: int, table: Table, ngram: int, room: Room, hashes: Hashes, out: Hashes
) -> int:
    """Write the shingles of one document, in order and with repeats, none of them 0; return how many."""
    count = units(data, start, end, table, room, hashes)
    if count == 0:
        return 0
    size = min(count, ngram)
    n = count - size + 1
    for k in range(n):
        out[k] = np.uint64(size)
    for place in range(size):
        for k in range(n):
            out[k] = out[k] * GOLDEN + hashes[k + place]
    for k in range(n):
        out[k] = max(mix(out[k]), ONE)
    return n


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
