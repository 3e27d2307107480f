"""From the bytes of a document to the sum of its rows: the first half of what fastText does for a line.

A row belongs to a known word, or to the bucket that a subword's or word n-gram's hash falls in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.fasttext_model import END_OF_SENTENCE
from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.buffers import frozen
from pipeline.kernels.fasttext_buckets import Rows, add, add_all, fnv, fnv_of, row_of
from pipeline.kernels.fasttext_memory import find, keep, key_of, line_of, short
from pipeline.kernels.fasttext_token import BEGIN, Layout, add_token, known_word
from pipeline.kernels.lanes import blank64, prefetch
from pipeline.kernels.units import BLOCK, ONE, S6, S63, count, places
from pipeline.kernels.wide import ZERO

NGRAM_PRIME = np.uint64(116049371)
EOS, EOS_SIZE = np.uint64(int.from_bytes(END_OF_SENTENCE, "little")), len(END_OF_SENTENCE)
LABEL = frozen(np.frombuffer(b"__label__", np.uint8))
SEPARATOR = frozen(np.isin(np.arange(256), [0, 9, 10, 11, 12, 13, 32]))
LOW_HALF = np.int64(0xFFFFFFFF)
# Tokens that a block can hold at most, and some more; tokens that are longer are not remembered.
TOKENS, LONGEST = 64 * BLOCK // 2 + 8, 64
# Rows of n-grams that are fetched before they are added.
WAITING = 64


class Memory(NamedTuple):
    """Sums of tokens that were met before, under their keys; a value is the number of a sum and one, with the number of
    its rows above."""

    lines: Hashes
    sums: Rows
    used: Ints


class Scratch(NamedTuple):
    """For one document: hashes of its tokens, where those of a block begin and end, their values and keys, buckets of a
    token, its bytes, its sum."""

    hashes: NDArray[np.uint32]
    first: Ints
    last: Ints
    known: Ints
    keys: Hashes
    buckets: Ints
    padded: Bytes
    token: Rows

    @classmethod
    def of(cls, dim: int, most_bytes: int, most_hashes: int) -> Scratch:
        first, last, known, buckets = (np.empty(TOKENS, np.int64) for _ in range(4))
        padded = np.empty(most_bytes + 3, np.uint8)
        hashes, keys = np.empty(most_hashes, np.uint32), np.empty(TOKENS, np.uint64)
        return cls(hashes, first, last, known, keys, buckets, padded, np.empty(dim, np.float32))


EOS_HASH = np.uint32(fnv(END_OF_SENTENCE))


@kernel
def sum_rows(
    data: Bytes, start: int, end: int, model: Layout, memory: Memory, scratch: Scratch, hidden: Rows, exact: bool
) -> int:
    """Sum the rows of all tokens into `hidden`; return how many. `exact` adds row by row, as fastText does.

    Tokens are taken a block of text at a time: all are cut, all are looked up, then their sums are added. So the
    processor waits for many of them at once.
    """
    hidden[:] = 0
    settings, first, last, known, keys = model.settings, scratch.first, scratch.last, scratch.known, scratch.keys
    total: Any = 0
    n_hashes = opened = 0
    before = ZERO
    words = ((end - start) >> 6) + 1
    for block in range(0, words, BLOCK):
        closed = 0
        for word in range(block, min(block + BLOCK, words)):
            at = start + (word << 6)
            inside = ~blank64(data, at) if at + 64 <= end else _rest(data, at, end)
            shifted = inside << ONE | before
            before = inside >> S63
            places(inside & ~shifted, at, first, opened)
            places(~inside & shifted, at, last, closed)
            opened += count(inside & ~shifted)
            closed += count(~inside & shifted)
        n = _keys(data, first, last, closed, memory.lines, keys)
        if settings[6] > 1:
            for k in range(n):
                scratch.hashes[n_hashes] = fnv_of(data, first[k], last[k])
                n_hashes += keys[k] != ZERO
        if settings[5] == 0:
            total += _add_words(data, n, model, scratch, hidden)
        else:
            for k in range(n):
                known[k] = 0 if exact else find(memory.lines, keys[k])
                prefetch(memory.sums, max(known[k] & LOW_HALF, 1) - 1)
            total += _add_tokens(data, n, model, memory, scratch, hidden, exact)
        if n < closed:
            break
        # One may go on in the next block.
        first[0] = first[closed]
        opened -= closed
    if settings[7] >= 0:
        total += 1
        add(hidden, model.rows, settings[7])
    if settings[6] > 1:
        scratch.hashes[n_hashes] = EOS_HASH
        total += _word_ngrams(scratch.hashes, n_hashes + 1, model, known, hidden)
    return total


@kernel
def _add_words(data: Bytes, n: int, model: Layout, scratch: Scratch, hidden: Rows) -> int:
    """Add the rows of the known words among the first n tokens, where words have no subwords; return how many."""
    first, last, known, keys = scratch.first, scratch.last, scratch.known, scratch.keys
    met = 0
    for k in range(n):
        if keys[k] != ZERO:
            row = known_word(data, first[k], last[k], keys[k], model)
            if row >= 0:
                prefetch(model.rows, row)
                known[met] = row
                met += 1
    add_all(hidden, model.rows, known, 0, met)
    return met


@kernel
def _add_tokens(
    data: Bytes, n: int, model: Layout, memory: Memory, scratch: Scratch, hidden: Rows, exact: bool
) -> np.int64:
    """Add the first n tokens of a block in turn; return how many rows they have."""
    first, last, known, keys = scratch.first, scratch.last, scratch.known, scratch.keys
    total = np.int64(0)
    k = 0
    while k < n:
        begin = k
        while k < n and known[k] != 0:
            total += known[k] >> 32
            known[k] = (known[k] & LOW_HALF) - 1
            k += 1
        add_all(hidden, memory.sums, known, begin, k)
        while k < n and known[k] == 0:
            if keys[k] != ZERO:
                if exact:
                    total += add_token(data, first[k], last[k], keys[k], model, scratch.padded, scratch.buckets, hidden)
                else:
                    total += _meet(data, first[k], last[k], keys[k], model, memory, scratch, hidden)
            k += 1
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
        if data[begin] == BEGIN and end - begin == EOS_SIZE and short(data, begin, end) == EOS:
            return k
        if data[begin] == LABEL[0] and _is_label(data, begin, end):
            keys[k] = ZERO
        else:
            keys[k] = key_of(data, begin, end)
            prefetch(lines, line_of(lines, keys[k]))
    return n


@kernel
def _meet(
    data: Bytes, begin: int, end: int, key: np.uint64, model: Layout, memory: Memory, scratch: Scratch, hidden: Rows
) -> np.int64:
    """Add the sum of a token's rows, and remember it if it was not met before in this very block; return how many."""
    value = find(memory.lines, key)
    if value != 0:
        add(hidden, memory.sums, (value & LOW_HALF) - 1)
        return value >> 32
    token, used = scratch.token, memory.used
    token[:] = 0
    n = add_token(data, begin, end, key, model, scratch.padded, scratch.buckets, token)
    for q in range(hidden.size):
        hidden[q] += token[q]
    if used[0] < memory.sums.shape[0] and end - begin <= LONGEST:
        for q in range(hidden.size):
            memory.sums[used[0], q] = token[q]
        used[0] += 1
        keep(memory.lines, key, n << 32 | used[0])
    return n


@kernel
def _word_ngrams(hashes: NDArray[np.uint32], n: int, model: Layout, waiting: Ints, out: Rows) -> int:
    """Add the rows of every run of 2 to `word_ngrams` tokens, many at a time: each is on its way when it is asked for.

    Rows of zeros count, and are not read where it is known which they are.
    """
    settings, rows, filled = model.settings, model.rows, model.filled
    added = met = 0
    for i in range(n):
        h = np.uint64(np.int64(np.int32(hashes[i])))
        for j in range(i + 1, min(n, i + settings[6])):
            h = h * NGRAM_PRIME + np.uint64(np.int64(np.int32(hashes[j])))
            row = row_of(h, settings, model.directory)
            if row < 0:
                continue
            added += 1
            if filled.size > 0:
                bucket = np.uint64(row - settings[2])
                if filled[bucket >> S6] >> (bucket & S63) & ONE == ZERO:
                    continue
            prefetch(rows, row)
            waiting[met] = row
            met += 1
            if met == WAITING:
                add_all(out, rows, waiting, 0, met)
                met = 0
    add_all(out, rows, waiting, 0, met)
    return added


@kernel
def _is_label(data: Bytes, begin: int, end: int) -> bool:
    if end - begin < LABEL.size:
        return False
    q = 0
    while q < LABEL.size and data[begin + q] == LABEL[q]:
        q += 1
    return q == LABEL.size
