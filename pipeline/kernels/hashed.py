"""Hashed words and pairs of words: how often each bucket is met, or what its weights add up to.

A token is a run of letters, digits and marks, or one of other visible characters, lower-cased (nltk's wordpunct, with
which DSIR counts); each letter of a script written without spaces is a token of its own. A bucket is a hash of a token,
or of two neighbours, modulo the number of buckets. Weights are added one after another, so a sum has the same bits
everywhere.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Floats, Ints, Table, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.shingles import GOLDEN
from pipeline.kernels.unicode import ALNUM, LOWER, MARK, SPACE, SPACELESS, table
from pipeline.kernels.units import MIX_1, MIX_2, mix
from pipeline.kernels.utf8 import decode

NONE, WORD, OTHER, SINGLE = range(4)
NO_WEIGHTS = frozen(np.zeros(0, np.float64))


def counted(text: pa.Array, buckets: int) -> Ints:
    """int64 [buckets]: how many tokens and pairs of neighbours of all texts fall into each."""
    data, offsets = text_buffers(text)
    counts = np.zeros(buckets, np.int64)
    run(data, offsets, table(), buckets, NO_WEIGHTS, counts, np.zeros(len(text)), np.zeros(len(text), np.int64))
    return counts


def weighed(text: pa.Array, weights: Floats) -> tuple[Floats, Ints]:
    """(sum of the weights of each text's tokens and pairs float64 [n], how many these are int64 [n])."""
    data, offsets = text_buffers(text)
    sums, features = np.zeros(len(text)), np.zeros(len(text), np.int64)
    run(data, offsets, table(), weights.size, frozen(weights), np.zeros(weights.size, np.int64), sums, features)
    return sums, features


@kernel
def run(
    data: Bytes,
    offsets: Ints,
    table: Table,
    buckets: int,
    weights: Floats,
    counts: Ints,
    sums: Floats,
    features: Ints,
) -> None:
    """Add to counts[bucket] where there are no weights, else to sums[document]; count features[document]."""
    for d in range(offsets.size - 1):
        i, end = offsets[d], offsets[d + 1]
        state, h, before, tokens = NONE, GOLDEN, GOLDEN, 0
        while i <= end:
            width, kind, code = 1, NONE, np.int64(0)
            if i < end:
                point, width = decode(data, i, end)
                entry = np.int64(table[point])
                code = entry & LOWER
                if entry & SPACELESS:
                    kind = SINGLE
                elif entry & ALNUM:
                    kind = WORD
                elif entry & MARK:
                    kind = state if state != NONE else WORD
                elif not entry & SPACE:
                    kind = OTHER
            goes_on = kind == state and kind != NONE and (kind != SINGLE or bool(np.int64(table[code]) & MARK))
            if not goes_on:
                if state != NONE:
                    token = mix(h)
                    pairs = 1 if tokens else 0
                    for part in range(1 + pairs):
                        key = token if part == 0 else mix((before * MIX_1) ^ token)
                        bucket = np.int64(key % np.uint64(buckets))
                        if weights.size:
                            sums[d] += weights[bucket]
                        else:
                            counts[bucket] += 1
                    features[d] += 1 + pairs
                    tokens += 1
                    before = token
                state, h = kind, GOLDEN
            if kind != NONE:
                h = (h ^ np.uint64(code)) * MIX_2
            i += width
