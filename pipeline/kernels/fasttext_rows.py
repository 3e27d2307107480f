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
from pipeline.kernels.lanes import byte64, prefetch, within64
from pipeline.kernels.units import BLOCK, ONE, S6, S63, count, mix, places
from pipeline.kernels.wide import ALL, ZERO, load8

Rows = NDArray[np.float32]
Ids = NDArray[np.int32]

FNV_START, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
NGRAM_PRIME = np.uint64(116049371)
BEGIN, END = np.uint8(60), np.uint8(62)
EOS, EOS_SIZE = np.uint64(int.from_bytes(END_OF_SENTENCE, "little")), len(END_OF_SENTENCE)
LABEL = frozen(np.frombuffer(b"__label__", np.uint8))
SEPARATOR = frozen(np.isin(np.arange(256), [0, 9, 10, 11, 12, 13, 32]))
NONE = np.int64(-1)
LOW_HALF = np.int64(0xFFFFFFFF)
S20 = np.uint64(20)
# Tokens that a block can hold at most, and one more; tokens that are longer are not remembered.
TOKENS, LONGEST = 64 * BLOCK // 2 + 8, 64


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
    lines: Hashes,
    sums: Rows,
    used: Ints,
    hashes: NDArray[np.uint32],
    spans: Ints,
    keys: Hashes,
    token: Rows,
    hidden: Rows,
    exact: bool,
) -> int:
    """Sum the rows of all tokens into `hidden`; return how many. `exact` adds row by row, as fastText does.

    Tokens are taken a block of text at a time: all are cut, all are looked up, then their sums are added. So the
    processor waits for many of them at once.
    """
    hidden[:] = 0
    total: Any = 0
    n_hashes = opened = 0
    before = ZERO
    words = ((end - start) >> 6) + 1
    first, last, known, buckets = spans[0], spans[1], spans[2], spans[3]
    for block in range(0, words, BLOCK):
        closed = 0
        for word in range(block, min(block + BLOCK, words)):
            at = start + (word << 6)
            inside = ~_blank(data, at) if at + 64 <= end else _rest(data, at, end)
            shifted = inside << ONE | before
            before = inside >> S63
            places(inside & ~shifted, at, first, opened)
            places(~inside & shifted, at, last, closed)
            opened += count(inside & ~shifted)
            closed += count(~inside & shifted)
        n = _keys(data, first, last, closed, lines, keys)
        if settings[6] > 1:
            for k in range(n):
                hashes[n_hashes] = _hash(data, first[k], last[k])
                n_hashes += keys[k] != ZERO
        for k in range(n):
            known[k] = 0 if exact else find(lines, keys[k])
            prefetch(sums, max(known[k] & LOW_HALF, 1) - 1)
        k = 0
        while k < n:
            begin = k
            while k < n and known[k] != 0:
                total += known[k] >> 32
                known[k] = (known[k] & LOW_HALF) - 1
                k += 1
            _add_all(hidden, sums, known, begin, k)
            while k < n and known[k] == 0:
                if keys[k] != ZERO:
                    span = first[k], last[k]
                    if exact:
                        total += _token(
                            data,
                            *span,
                            settings,
                            rows,
                            word_keys,
                            word_ids,
                            arena,
                            word_starts,
                            directory,
                            buckets,
                            hidden,
                        )
                    else:
                        total += _meet(
                            *(data, *span, settings, rows, word_keys, word_ids, arena, word_starts, directory, buckets),
                            *(keys[k], lines, sums, used, token, hidden),
                        )
                k += 1
        if n < closed:
            break
        # One may go on in the next block.
        first[0] = first[closed]
        opened -= closed
    if settings[7] >= 0:
        total += 1
        _add(hidden, rows, settings[7])
    if settings[6] > 1:
        hashes[n_hashes] = EOS_HASH
        total += _word_ngrams(hashes, n_hashes + 1, settings, rows, directory, hidden)
    return total


@kernel
def _rest(data: Bytes, at: int, end: int) -> np.uint64:
    """A bit for each byte of data[at:end], fewer than 64, that does not separate tokens."""
    inside = ZERO
    for k in range(end - at):
        inside |= np.uint64(not SEPARATOR[data[at + k]]) << np.uint64(k)
    return inside


@kernel
def _keys(data: Bytes, first: Ints, last: Ints, n: int, lines: Hashes, keys: Hashes) -> int:
    """Write what each token is known by, 0 for one that does not count; return how many stand before "</s>"."""
    for k in range(n):
        begin, end = first[k], last[k]
        if data[begin] == BEGIN and end - begin == EOS_SIZE and _short(data, begin, end) == EOS:
            return k
        if data[begin] == LABEL[0] and _is_label(data, begin, end):
            keys[k] = ZERO
        else:
            keys[k] = _key(data, begin, end)
            prefetch(lines, _line(lines, keys[k]))
    return n


@kernel
def _key(data: Bytes, begin: int, end: int) -> np.uint64:
    """64 bits of hash of a token, not 0: a bijection of its bytes where they are up to eight, of which none is 0."""
    size = end - begin
    if begin + 8 > data.size:
        return mix(_short(data, begin, end))
    # Where there are more than eight bytes the last eight follow, of which some may be among the first.
    head = load8(data, begin) & (ALL >> np.uint64(64 - 8 * min(size, 8)))
    tail = load8(data, max(begin, end - 8)) + np.uint64(size) * NGRAM_PRIME if size > 8 else ZERO
    h = mix(head)
    at = begin + 8
    while at < end - 8:
        h = mix(h ^ load8(data, at))
        at += 8
    return max(mix(h ^ tail), ONE) if size > 8 else h


@kernel
def _short(data: Bytes, begin: int, end: int) -> np.uint64:
    """data[begin:end], one to eight bytes, the first lowest and zeros above."""
    word = ZERO
    for k in range(end - begin):
        word |= np.uint64(data[begin + k]) << np.uint64(8 * k)
    return word


@kernel
def _line(lines: Hashes, key: np.uint64) -> np.int64:
    """The line in which a key is looked for first; their number is a power of two."""
    return np.int64(key >> S20) & (lines.shape[0] - 1)


@kernel
def find(lines: Hashes, key: np.uint64) -> np.int64:
    """The value of a key in the memory, 0 where it is not there."""
    line = _line(lines, key)
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
    line = _line(lines, key)
    while True:
        for k in range(4):
            if lines[line, k] == ZERO:
                lines[line, k], lines[line, k + 4] = key, np.uint64(value)
                return
        line = (line + 1) & (lines.shape[0] - 1)


@kernel
def _meet(
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
    buckets: Ints,
    key: np.uint64,
    lines: Hashes,
    sums: Rows,
    used: Ints,
    token: Rows,
    hidden: Rows,
) -> np.int64:
    """Add the sum of a token's rows, and remember it if it was not met before in this very block; return how many."""
    value = find(lines, key)
    if value != 0:
        _add(hidden, sums, (value & LOW_HALF) - 1)
        return value >> 32
    token[:] = 0
    n = _token(data, begin, end, settings, rows, word_keys, word_ids, arena, word_starts, directory, buckets, token)
    for q in range(hidden.size):
        hidden[q] += token[q]
    if used[0] < sums.shape[0] and end - begin <= LONGEST:
        for q in range(hidden.size):
            sums[used[0], q] = token[q]
        used[0] += 1
        keep(lines, key, n << 32 | used[0])
    return n


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
    buckets: Ints,
    out: Rows,
) -> np.int64:
    """Add the rows of one token to `out`: its own where it is known, then those of its subwords."""
    n = np.int64(0)
    found = _known(data, begin, end, word_keys, word_ids, arena, word_starts)
    if found >= 0:
        n += 1
        _add(out, rows, found)
    min_n, max_n = settings[4], settings[5]
    size = end - begin
    modulus = np.uint32(settings[3])
    share = 1.0 / np.float64(modulus)
    waiting = 0
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
            bucket = np.int64(h) - np.int64(np.float64(h) * share) * np.int64(modulus)
            if bucket < 0:
                bucket += np.int64(modulus)
            elif bucket >= np.int64(modulus):
                bucket -= np.int64(modulus)
            buckets[waiting] = bucket
            waiting += 1
            if waiting == buckets.size:
                n += _subwords(buckets, waiting, settings, rows, directory, out)
                waiting = 0
    return n + _subwords(buckets, waiting, settings, rows, directory, out)


@kernel
def _subwords(buckets: Ints, n: int, settings: Ints, rows: Rows, directory: Hashes, out: Rows) -> np.int64:
    """Add the rows of these buckets to `out`; return how many have one."""
    kept = np.int64(n)
    if settings[8] == 0:
        for k in range(n):
            buckets[k] += settings[2]
    else:
        kept = np.int64(0)
        for k in range(n):
            bucket = np.uint64(buckets[k])
            buckets[kept] = buckets[k]
            kept += np.int64(directory[0, np.int64(bucket >> S6)] >> (bucket & S63) & ONE)
        for k in range(kept):
            buckets[k] = _ranked(np.uint64(buckets[k]), directory)
    _add_all(out, rows, buckets, 0, kept)
    return kept


@kernel
def _known(
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
    at = np.int64(bucket >> S6)
    bits = directory[0, at]
    place = ONE << (bucket & S63)
    row = np.int64(directory[1, at]) + count(bits & (place - ONE))
    return row if bits & place != ZERO else NONE


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
def _add_all(out: Rows, rows: Rows, which: Ints, begin: int, end: int) -> None:
    """out += rows[which[k]] for each k from `begin` on, in turn; sixteen dimensions stay in registers."""
    if out.size != 16:
        for k in range(begin, end):
            _add(out, rows, which[k])
        return
    a0, a1, a2, a3, a4, a5, a6, a7 = out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7]
    b0, b1, b2, b3, b4, b5, b6, b7 = out[8], out[9], out[10], out[11], out[12], out[13], out[14], out[15]
    for k in range(begin, end):
        r = which[k]
        a0 += rows[r, 0]
        a1 += rows[r, 1]
        a2 += rows[r, 2]
        a3 += rows[r, 3]
        a4 += rows[r, 4]
        a5 += rows[r, 5]
        a6 += rows[r, 6]
        a7 += rows[r, 7]
        b0 += rows[r, 8]
        b1 += rows[r, 9]
        b2 += rows[r, 10]
        b3 += rows[r, 11]
        b4 += rows[r, 12]
        b5 += rows[r, 13]
        b6 += rows[r, 14]
        b7 += rows[r, 15]
    out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a0, a1, a2, a3, a4, a5, a6, a7
    out[8], out[9], out[10], out[11], out[12], out[13], out[14], out[15] = b0, b1, b2, b3, b4, b5, b6, b7


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


@kernel
def _blank(data: Bytes, at: int) -> np.uint64:
    """Which of data[at:at + 64] end a token: NUL, a space, tab to carriage return."""
    found: np.uint64 = within64(data, at, 0, 9, 13) | byte64(data, at, 0) | byte64(data, at, 32)
    return found
