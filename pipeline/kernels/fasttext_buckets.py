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
    """out += rows[which[k]] for each k from `begin` on, in turn; sixteen dimensions stay in registers."""
    if out.size != 16:
        for k in range(begin, end):
            add(out, rows, which[k])
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
