"""The rows of one token: its own where the model knows it, and those of its subwords (Bojanowski et al. 2017)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.fasttext_buckets import FNV_START, NONE, Rows, add, add_all, ranked, step
from pipeline.kernels.fasttext_memory import find
from pipeline.kernels.units import ONE, S6, S63

Ids = NDArray[np.int32]

BEGIN, END = np.uint8(60), np.uint8(62)
CONTINUES, CONTINUED = np.uint8(0x80), np.uint8(0xC0)


class Layout(NamedTuple):
    """A model as the kernels have it. `settings`: loss, labels, words, buckets, min_n, max_n, word n-grams, the row of
    "</s>" or -1, whether buckets were pruned. `word_lines` is a memory of the words, which is only read."""

    settings: Ints
    rows: Rows
    output: Rows
    word_lines: Hashes
    arena: Bytes
    word_starts: Ints
    directory: Hashes
    filled: Hashes
    left: Ids
    right: Ids


@kernel
def add_token(
    data: Bytes, begin: int, end: int, key: np.uint64, model: Layout, padded: Bytes, buckets: Ints, out: Rows
) -> np.int64:
    """Add the rows of one token to `out`: its own where it is known, then those of its subwords; return how many.

    `padded` has room for the token and three bytes more, and `buckets` for some of its subwords at a time.
    """
    n = np.int64(0)
    found = known_word(data, begin, end, key, model)
    if found >= 0:
        n += 1
        add(out, model.rows, found)
    min_n, max_n = model.settings[4], model.settings[5]
    if max_n == 0:
        # Without n-grams at all there is no bucket either.
        return n
    # The token between "<" and ">", and behind them what continues no character.
    size = end - begin + 2
    padded[0], padded[size - 1], padded[size] = BEGIN, END, 0
    for q in range(end - begin):
        padded[q + 1] = data[begin + q]
    waiting = 0
    modulus = np.uint32(model.settings[3])
    share = 1.0 / np.float64(modulus)
    for a in range(size):
        if padded[a] & CONTINUED == CONTINUES:
            continue
        h, j = FNV_START, a
        for length in range(1, max_n + 1):
            if j >= size:
                break
            h = step(h, padded[j])
            j += 1
            while padded[j] & CONTINUED == CONTINUES:
                h = step(h, padded[j])
                j += 1
            if length < min_n or (length == 1 and (a == 0 or j == size)):
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
                n += _subwords(buckets, waiting, model, out)
                waiting = 0
    return n + _subwords(buckets, waiting, model, out)


@kernel
def _subwords(buckets: Ints, n: int, model: Layout, out: Rows) -> np.int64:
    """Add the rows of these buckets to `out`; return how many have one."""
    kept = np.int64(n)
    if model.settings[8] == 0:
        for k in range(n):
            buckets[k] += model.settings[2]
    else:
        kept = np.int64(0)
        for k in range(n):
            bucket = np.uint64(buckets[k])
            buckets[kept] = buckets[k]
            kept += np.int64(model.directory[0, np.int64(bucket >> S6)] >> (bucket & S63) & ONE)
        for k in range(kept):
            buckets[k] = ranked(np.uint64(buckets[k]), model.directory)
    add_all(out, model.rows, buckets, 0, kept)
    return kept


@kernel
def known_word(data: Bytes, begin: int, end: int, key: np.uint64, model: Layout) -> np.int64:
    """The number of a known word, or -1."""
    number = find(model.word_lines, key) - 1
    if number >= 0:
        first = model.word_starts[number]
        if model.word_starts[number + 1] - first != end - begin:
            return NONE
        for q in range(end - begin):
            if model.arena[first + q] != data[begin + q]:
                return NONE
    return number
