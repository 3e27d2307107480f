"""fastText's hashes, the rows that they stand for, and how rows are added.

A hash falls in a bucket. Of a pruned model few buckets have a row: `directory` has a bit for each, 64 in a word, and
the row of the first of each word.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.units import ONE, S6, S63, count
from pipeline.kernels.wide import ZERO

Rows = NDArray[np.float32]

FNV_START, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
NONE = np.int64(-1)


def fnv(word: bytes) -> int:
    """32-bit FNV-1a as fastText has it: bytes are signed."""
    code = int(FNV_START)
    for byte in word:
        code = ((code ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * int(FNV_PRIME)) & 0xFFFFFFFF
    return code


@kernel
def step(h: np.uint32, byte: np.uint8) -> np.uint32:
    """One byte of FNV-1a as fastText has it: the byte is signed."""
    return np.uint32((h ^ np.uint32(np.int32(np.int8(byte)))) * FNV_PRIME)


@kernel
def fnv_of(data: Bytes, begin: int, end: int) -> np.uint32:
    h = FNV_START
    for q in range(begin, end):
        h = step(h, data[q])
    return h


@kernel
def row_of(h: np.uint64, settings: Ints, directory: Hashes) -> np.int64:
    """The row of a subword's or n-gram's bucket, or -1 where the model was pruned of it."""
    bucket = h % np.uint64(settings[3])
    if settings[8] == 0:
        return settings[2] + np.int64(bucket)
    return ranked(bucket, directory)


@kernel
def ranked(bucket: np.uint64, directory: Hashes) -> np.int64:
    at = np.int64(bucket >> S6)
    bits = directory[0, at]
    place = ONE << (bucket & S63)
    row = np.int64(directory[1, at]) + count(bits & (place - ONE))
    return row if bits & place != ZERO else NONE


@kernel
def add(out: Rows, rows: Rows, row: np.int64) -> None:
    """out += rows[row]; sixteen dimensions, which lid.176 has, without a loop."""
    if out.size == 16:
        for q in range(16):
            out[q] += rows[row, q]
    else:
        for q in range(out.size):
            out[q] += rows[row, q]


@kernel
def add_all(out: Rows, rows: Rows, which: Ints, begin: int, end: int) -> None:
    """out += rows[which[k]] for each k from `begin` on, in turn; sixteen dimensions at a time stay in registers."""
    whole = out.size - out.size % 16
    for q in range(0, whole, 16):
        _add_16(out, rows, which, begin, end, q)
    if whole < out.size:
        for k in range(begin, end):
            row = np.uint64(which[k])
            for q in range(whole, out.size):
                out[q] += rows[row, q]


@kernel
def _add_16(out: Rows, rows: Rows, which: Ints, begin: int, end: int, q: int) -> None:
    """The same for sixteen dimensions from q on."""
    a0 = out[q + 0]
    a1 = out[q + 1]
    a2 = out[q + 2]
    a3 = out[q + 3]
    a4 = out[q + 4]
    a5 = out[q + 5]
    a6 = out[q + 6]
    a7 = out[q + 7]
    b0 = out[q + 8]
    b1 = out[q + 9]
    b2 = out[q + 10]
    b3 = out[q + 11]
    b4 = out[q + 12]
    b5 = out[q + 13]
    b6 = out[q + 14]
    b7 = out[q + 15]
    for k in range(begin, end):
        r = np.uint64(which[k])
        a0 += rows[r, q + 0]
        a1 += rows[r, q + 1]
        a2 += rows[r, q + 2]
        a3 += rows[r, q + 3]
        a4 += rows[r, q + 4]
        a5 += rows[r, q + 5]
        a6 += rows[r, q + 6]
        a7 += rows[r, q + 7]
        b0 += rows[r, q + 8]
        b1 += rows[r, q + 9]
        b2 += rows[r, q + 10]
        b3 += rows[r, q + 11]
        b4 += rows[r, q + 12]
        b5 += rows[r, q + 13]
        b6 += rows[r, q + 14]
        b7 += rows[r, q + 15]
    out[q + 0] = a0
    out[q + 1] = a1
    out[q + 2] = a2
    out[q + 3] = a3
    out[q + 4] = a4
    out[q + 5] = a5
    out[q + 6] = a6
    out[q + 7] = a7
    out[q + 8] = b0
    out[q + 9] = b1
    out[q + 10] = b2
    out[q + 11] = b3
    out[q + 12] = b4
    out[q + 13] = b5
    out[q + 14] = b6
    out[q + 15] = b7
