"""From the bytes of a document to the sum of its rows: the first half of what fastText does for a line.

A row belongs to a known word, or to the bucket that a subword's or word n-gram's hash falls in. `settings` are those
that `kernels.fasttext` lays out: loss, labels, words, buckets, min_n, max_n, word n-grams, the row of "</s>" or -1, and
whether buckets were pruned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.fasttext_model import END_OF_SENTENCE
from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.buffers import frozen
from pipeline.kernels.shingles import mix

Rows = NDArray[np.float32]
Ids = NDArray[np.int32]

FNV_START, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
NGRAM_PRIME = np.uint64(116049371)
BEGIN, END = np.uint8(60), np.uint8(62)
EOS_KEY = np.uint64(int.from_bytes(END_OF_SENTENCE, "little"))
LABEL = frozen(np.frombuffer(b"__label__", np.uint8))
SEPARATOR = frozen(np.isin(np.arange(256), [0, 9, 10, 11, 12, 13, 32]))
FALL = np.uint64(0x9E3779B97F4A7C15)
NONE = np.int64(-1)
LOW_HALF = np.uint64(0xFFFFFFFF)


def fnv(word: bytes) -> int:
    """32-bit FNV-1a as fastText has it: bytes are signed."""
    code = int(FNV_START)
    for byte in word:
        code = ((code ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * int(FNV_PRIME)) & 0xFFFFFFFF
    return code


EOS_HASH = np.uint32(fnv(END_OF_SENTENCE))


@kernel
def sum_rows(
    data: Bytes,
    start: int,
    end: int,
    settings: Ints,
    rows: Rows,
    word_keys: Hashes,
    word_ids: Ids,
    arena: Bytes,
    word_starts: Ints,
    directory: Hashes,
    places: Hashes,
    sums: Rows,
    used: Ints,
    hashes: NDArray[np.uint32],
    token: Rows,
    hidden: Rows,
    exact: bool,
) -> int:
    """Sum the rows of all tokens into `hidden`; return how many. `exact` adds row by row, as fastText does."""
    dim = hidden.size
    for q in range(dim):
        hidden[q] = 0
    total: Any = 0
    n_hashes = 0
    mask = places.shape[0] - 1
    n_grams = settings[6]
    i = start
    while i < end:
        if SEPARATOR[data[i]]:
            i += 1
            continue
        begin = i
        h, word, shift = FALL, np.uint64(0), np.uint64(0)
        while i < end and not SEPARATOR[data[i]]:
            word |= np.uint64(data[i]) << shift
            shift += np.uint64(8)
            if shift == np.uint64(64):
                h = (h ^ word) * FALL
                h ^= h >> np.uint64(29)
                if i - begin >= 8:
                    word = np.uint64(0)
                    shift = np.uint64(0)
                else:
                    # The first eight bytes are kept as they are until it is known whether more follow.
                    if i + 1 < end and not SEPARATOR[data[i + 1]]:
                        word = np.uint64(0)
                        shift = np.uint64(0)
            i += 1
        size = i - begin
        key = word
        if size > 8:
            # The rest is folded in like the chunks before it, and the size is spread before it joins: a size or a last
            # byte that were only added could cancel each other.
            h = (h ^ word) * FALL
            key = mix((h ^ (h >> np.uint64(29))) + np.uint64(size) * NGRAM_PRIME) | np.uint64(1)
        if size == 4 and key == EOS_KEY:
            break
        if data[begin] == LABEL[0] and _is_label(data, begin, i):
            continue
        if n_grams > 1:
            hashes[n_hashes] = _hash(data, begin, i)
            n_hashes += 1
        if exact:
            total += _token(data, begin, i, settings, rows, word_keys, word_ids, arena, word_starts, directory, hidden)
            continue
        slot = np.int64(mix(key) >> np.uint64(20)) & mask
        while places[slot, 0] != np.uint64(0) and places[slot, 0] != key:
            slot = (slot + 1) & mask
        if places[slot, 0] == key:
            at = np.int64(places[slot, 1] & LOW_HALF)
            n = np.int64(places[slot, 1] >> np.uint64(32))
            if n > 0:
                _add(hidden, sums, at)
        else:
            for q in range(dim):
                token[q] = 0
            n = _token(data, begin, i, settings, rows, word_keys, word_ids, arena, word_starts, directory, token)
            for q in range(dim):
                hidden[q] += token[q]
            if used[0] < sums.shape[0] and size <= 64:
                at = used[0]
                used[0] += 1
                places[slot, 0], places[slot, 1] = key, np.uint64(n) << np.uint64(32) | np.uint64(at)
                for q in range(dim):
                    sums[at, q] = token[q]
        total += n
    if settings[7] >= 0:
        total += 1
        _add(hidden, rows, settings[7])
    if n_grams > 1:
        hashes[n_hashes] = EOS_HASH
        total += _word_ngrams(hashes, n_hashes + 1, settings, rows, directory, hidden)
    return total


@kernel
def _token(
    data: Bytes,
    begin: int,
    end: int,
    settings: Ints,
    rows: Rows,
    word_keys: Hashes,
    word_ids: Ids,
    arena: Bytes,
    word_starts: Ints,
    directory: Hashes,
    out: Rows,
) -> int:
    """Add the rows of one token to `out`: its own where it is known, then those of its subwords."""
    n = 0
    found = _word(data, begin, end, word_keys, word_ids, arena, word_starts)
    if found >= 0:
        n += 1
        _add(out, rows, found)
    min_n, max_n, pruned = settings[4], settings[5], settings[8] != 0
    size = end - begin
    buckets = np.uint32(settings[3])
    share = 1.0 / np.float64(buckets)
    # Position 0 is "<", 1 to size the token, size + 1 ">".
    for a in range(size + 2):
        if 0 < a <= size and data[begin + a - 1] & 0xC0 == 0x80:
            continue
        h, j = FNV_START, a
        for length in range(1, max_n + 1):
            if j >= size + 2:
                break
            h = _step(h, BEGIN if j == 0 else (END if j > size else data[begin + j - 1]))
            j += 1
            while j <= size and data[begin + j - 1] & 0xC0 == 0x80:
                h = _step(h, data[begin + j - 1])
                j += 1
            if length < min_n or (length == 1 and (a == 0 or j == size + 2)):
                continue
            # The remainder by a product: a quotient that is one too large or too small is set right.
            bucket = np.int64(h) - np.int64(np.float64(h) * share) * np.int64(buckets)
            if bucket < 0:
                bucket += np.int64(buckets)
            elif bucket >= np.int64(buckets):
                bucket -= np.int64(buckets)
            row = _ranked(np.uint64(bucket), directory) if pruned else settings[2] + bucket
            if row >= 0:
                n += 1
                _add(out, rows, row)
    return n


@kernel
def _word(
    data: Bytes, begin: int, end: int, word_keys: Hashes, word_ids: Ids, arena: Bytes, word_starts: Ints
) -> np.int64:
    """The number of a known word, or -1."""
    mask = word_keys.size - 1
    code = np.uint64(_hash(data, begin, end))
    slot = np.int64(code) & mask
    while word_keys[slot] != np.uint64(0):
        if word_keys[slot] == code + np.uint64(1):
            number = np.int64(word_ids[slot])
            first = word_starts[number]
            if word_starts[number + 1] - first == end - begin:
                q = 0
                while q < end - begin and arena[first + q] == data[begin + q]:
                    q += 1
                if q == end - begin:
                    return number
        slot = (slot + 1) & mask
    return NONE


@kernel
def _word_ngrams(
    hashes: NDArray[np.uint32],
    n: int,
    settings: Ints,
    rows: Rows,
    directory: Hashes,
    out: Rows,
) -> int:
    """Add the rows of every run of 2 to `word_ngrams` tokens."""
    added = 0
    for i in range(n):
        h = np.uint64(np.int64(np.int32(hashes[i])))
        for j in range(i + 1, min(n, i + settings[6])):
            h = h * NGRAM_PRIME + np.uint64(np.int64(np.int32(hashes[j])))
            row = _row(h, settings, directory)
            if row >= 0:
                added += 1
                _add(out, rows, row)
    return added


@kernel
def _row(h: np.uint64, settings: Ints, directory: Hashes) -> np.int64:
    """The row of a subword's or n-gram's bucket, or -1 where the model was pruned of it."""
    bucket = h % np.uint64(settings[3])
    if settings[8] == 0:
        return settings[2] + np.int64(bucket)
    return _ranked(bucket, directory)


@kernel
def _ranked(bucket: np.uint64, directory: Hashes) -> np.int64:
    at = np.int64(bucket >> np.uint64(6))
    bits = directory[at, 0]
    place = np.uint64(1) << (bucket & np.uint64(63))
    if bits & place == np.uint64(0):
        return NONE
    x = bits & (place - np.uint64(1))
    # How many bits are set, by halves (Warren, Hacker's Delight, 5-1).
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(directory[at, 1] + ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)))


@kernel
def _add(out: Rows, rows: Rows, row: np.int64) -> None:
    """out += rows[row]; sixteen dimensions, which lid.176 has, without a loop."""
    if out.size == 16:
        for q in range(16):
            out[q] += rows[row, q]
    else:
        for q in range(out.size):
            out[q] += rows[row, q]


@kernel
def _is_label(data: Bytes, begin: int, end: int) -> bool:
    if end - begin < LABEL.size:
        return False
    q = 0
    while q < LABEL.size and data[begin + q] == LABEL[q]:
        q += 1
    return q == LABEL.size


@kernel
def _step(h: np.uint32, byte: np.uint8) -> np.uint32:
    """One byte of FNV-1a as fastText has it: the byte is signed."""
    return np.uint32((h ^ np.uint32(np.int32(np.int8(byte)))) * FNV_PRIME)


@kernel
def _hash(data: Bytes, begin: int, end: int) -> np.uint32:
    h = FNV_START
    for q in range(begin, end):
        h = _step(h, data[q])
    return h
