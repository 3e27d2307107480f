"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) over the bytes of a column of text.

Pre-tokens come again: their ids are kept in a `Memory` of fixed size. Its keys are the bytes themselves, so what it
holds never changes a result. A pre-token that is not there is cut where no merge can reach across (`bpe_merges`), and
its pieces, short ones, are looked for in the same memory before they are merged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel, trailing_zeros
from pipeline.kernels.bpe_merges import AT_ONCE, MAX_IDS, MAX_MERGES, Ids, Merges, Scratch, entry, merged, tables
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.pretoken_masks import ascii_ends
from pipeline.kernels.pretokens import classes, next_end
from pipeline.kernels.wide import ALL, FIRST, SECOND, ZERO, hashed, load8, word8

__all__ = ["MAX_IDS", "MAX_MERGES", "Memory", "Merges", "encode", "tables"]

# A line of the processor's cache holds two slots of four words.
LINES, NEAR_BYTES, NEAR_IDS = 1 << 16, 15, 3
FAR, FAR_BYTES, FAR_WORDS, FAR_IDS = 1 << 13, 127, 16, 31
ONE, S8, S32, S56 = (np.uint64(n) for n in (1, 8, 32, 56))
LOW_32, PIECE = np.uint64(0xFFFFFFFF), np.uint64(1 << 63)
# What of the first and the second eight bytes belongs to a key of 0 to 15.
_SIZES = [min(size, 8) for size in range(NEAR_BYTES + 1)], [max(size - 8, 0) for size in range(NEAR_BYTES + 1)]
FIRST_8, SECOND_8 = (np.array([(1 << 8 * size) - 1 for size in sizes], np.uint64) for sizes in _SIZES)


class Memory(NamedTuple):
    """Pre-tokens and pieces that were met before, 6.3 MB; a new one takes the place of the older of two.

    near       uint64 [LINES, 8], by lines of the cache: twice the key of up to NEAR_BYTES and their number in the high
               byte, then NEAR_IDS ids of 32 bits and their number
    far        uint64 [FAR, 16]: the key of up to FAR_BYTES and their number in the last byte
    far_ids    uint32 [FAR, 32]: their number and up to FAR_IDS ids
    """

    near: Hashes
    far: Hashes
    far_ids: Ids

    @classmethod
    def empty(cls, lines: int = LINES, far: int = FAR) -> Memory:
        """With room for 2 * `lines` short and `far` long ones, both powers of two."""
        room = np.zeros(8 * lines + 7, np.uint64)
        skip = -(room.ctypes.data >> 3) % 8
        near = room[skip : skip + 8 * lines].reshape(lines, 8)
        return cls(near, np.zeros((far, FAR_WORDS), np.uint64), np.zeros((far, 1 + FAR_IDS), np.uint32))


def encode(text: pa.Array, merges: Merges, digits: int, edge: int, memory: Memory) -> tuple[Ids, Ints]:
    """(ids uint32, offsets int64 [n + 1]): row i is ids[offsets[i]:offsets[i + 1]], with `edge` before and after it.

    `digits` names the pre-tokenizer (`pretokens.DIGITS`). A null row is empty. Not for two threads with one memory.
    """
    data, offsets = text_buffers(text)
    most = int(offsets[-1] - offsets[0]) + 2 * len(text)
    # What is recalled is written with NEAR_IDS ids whatever it has.
    ids, starts = np.empty(most + NEAR_IDS, np.uint32), np.zeros(len(text) + 1, np.int64)
    fill(data, offsets, classes(), digits, edge, merges, memory, ids, starts)
    return ids[: starts[-1]], starts


@kernel
def fill(
    data: Bytes,
    offsets: Ints,
    table: Bytes,
    digits: int,
    edge: int,
    merges: Merges,
    memory: Memory,
    ids: Ids,
    starts: Ints,
) -> None:
    """Write the ids of every document and where each ends."""
    scratch = Scratch(np.empty(AT_ONCE, np.uint32), np.empty(AT_ONCE, np.uint32))
    n = 0
    for d in range(offsets.size - 1):
        i, end = offsets[d], offsets[d + 1]
        ids[n] = edge
        n += 1
        while i < end:
            begin, ends = i, ascii_ends(data, i, end, digits)
            if ends == ZERO:
                begin, ends = next_end(data, i, end, table, digits), ONE
            while ends != ZERO:
                stop = begin + np.int64(trailing_zeros(ends))
                ends &= ends - ONE
                count = 0
                if stop - i <= NEAR_BYTES:
                    first, second = _key(data, i, stop)
                    count = _recall(memory.near, first, second, ids, n)
                if count == 0:
                    count = _work(data, i, stop, merges, memory, scratch, ids, n)
                n += count
                i = stop
        ids[n] = edge
        n += 1
        starts[d + 1] = n


@kernel
def _key(data: Bytes, i: int, stop: int) -> tuple[np.uint64, np.uint64]:
    """Up to NEAR_BYTES bytes, at least one, and their number in the high byte."""
    size = stop - i
    if i + 16 <= data.size:
        first, second = load8(data, i) & FIRST_8[size], load8(data, i + 8) & SECOND_8[size]
    else:
        first, second = word8(data, i, stop), word8(data, i + 8, stop)
    return first, second | np.uint64(size) << S56


@kernel
def _line(near: Hashes, first: np.uint64, second: np.uint64) -> np.int64:
    h = (first ^ (second * SECOND)) * FIRST
    return np.int64((h ^ (h >> S32)) * SECOND >> S32) & (near.shape[0] - 1)


@kernel
def _recall(near: Hashes, first: np.uint64, second: np.uint64, ids: Ids, n: int) -> np.int64:
    """Write the ids of a key at n; return how many, 0 where it is not kept."""
    line = _line(near, first, second)
    at = 0 if near[line, 0] == first and near[line, 1] == second else 4
    if near[line, at] != first or near[line, at + 1] != second:
        return np.int64(0)
    low, high = near[line, at + 2], near[line, at + 3]
    ids[n] = np.uint32(low & LOW_32)
    ids[n + 1] = np.uint32(low >> S32)
    ids[n + 2] = np.uint32(high & LOW_32)
    return np.int64(high >> S32)


@kernel
def _keep(near: Hashes, first: np.uint64, second: np.uint64, ids: Ids, n: int, count: int) -> None:
    """Keep up to NEAR_IDS ids for a key, in place of the older of the two in its line."""
    line = _line(near, first, second)
    for k in range(4):
        near[line, 4 + k] = near[line, k]
    near[line, 0], near[line, 1] = first, second
    near[line, 2] = np.uint64(ids[n]) | (np.uint64(ids[n + 1]) << S32 if count > 1 else ZERO)
    near[line, 3] = np.uint64(count) << S32 | (np.uint64(ids[n + 2]) if count > 2 else ZERO)


@kernel
def _work(
    data: Bytes, i: int, stop: int, merges: Merges, memory: Memory, scratch: Scratch, ids: Ids, n: int
) -> np.int64:
    """Write the ids of a pre-token that is not near, and keep it; return how many."""
    size, slot = stop - i, np.int64(0)
    if size <= FAR_BYTES:
        slot = np.int64(hashed(data, i, stop) >> S8) & (memory.far.shape[0] - 1)
        count = _recall_far(data, i, stop, memory, slot, ids, n)
        if count > 0:
            return count
    count = np.int64(entry(data, i, stop, merges, ids, n) if merges.whole.shape[0] > 0 else 0)
    if count == 0:
        count = _pieces(data, i, stop, merges, memory, scratch, ids, n)
    if size <= NEAR_BYTES and count <= NEAR_IDS:
        first, second = _key(data, i, stop)
        _keep(memory.near, first, second, ids, n, count)
    elif size <= FAR_BYTES and count <= FAR_IDS:
        _keep_far(data, i, stop, memory, slot, ids, n, count)
    return count


@kernel
def _pieces(
    data: Bytes, i: int, stop: int, merges: Merges, memory: Memory, scratch: Scratch, ids: Ids, n: int
) -> np.int64:
    """Write the ids of a pre-token piece by piece; return how many."""
    # A pre-token that is an entry as a whole has another answer than the piece of the same bytes.
    mark = PIECE if merges.whole.shape[0] > 0 else ZERO
    first, second = ZERO, ZERO
    begin, a = n, i
    while a < stop:
        b = a + 1
        while b < stop and merges.cuts[np.int64(data[b - 1]) << 8 | np.int64(data[b])] == 0:
            b += 1
        count, near = np.int64(0), b - a <= NEAR_BYTES and b - a < stop - i
        if near:
            first, second = _key(data, a, b)
            second |= mark
            count = _recall(memory.near, first, second, ids, n)
        if count == 0:
            count = np.int64(merged(data, a, b, merges, scratch, ids, n))
            if near and count <= NEAR_IDS:
                _keep(memory.near, first, second, ids, n, count)
        n += int(count)
        a = b
    return np.int64(n - begin)


@kernel
def _recall_far(data: Bytes, i: int, stop: int, memory: Memory, slot: int, ids: Ids, n: int) -> np.int64:
    """Write the ids of a pre-token of up to FAR_BYTES bytes at n; return how many, 0 where it is not in its slot."""
    size = np.uint64(stop - i) << S56
    if memory.far[slot, FAR_WORDS - 1] & ~(ALL >> S8) != size:
        return np.int64(0)
    for k in range((stop - i + 7) >> 3):
        held = memory.far[slot, k]
        if k == FAR_WORDS - 1:
            held ^= size
        if held != word8(data, i + 8 * k, stop):
            return np.int64(0)
    count = np.int64(memory.far_ids[slot, 0])
    for k in range(count):
        ids[n + k] = memory.far_ids[slot, 1 + k]
    return count


@kernel
def _keep_far(data: Bytes, i: int, stop: int, memory: Memory, slot: int, ids: Ids, n: int, count: int) -> None:
    """Keep up to FAR_IDS ids for a pre-token, in place of what its slot holds."""
    memory.far[slot, FAR_WORDS - 1] = ZERO
    for k in range((stop - i + 7) >> 3):
        memory.far[slot, k] = word8(data, i + 8 * k, stop)
    memory.far[slot, FAR_WORDS - 1] |= np.uint64(stop - i) << S56
    memory.far_ids[slot, 0] = count
    for k in range(count):
        memory.far_ids[slot, 1 + k] = ids[n + k]
