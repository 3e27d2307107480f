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
from pipeline.kernels.bpe_merges import (
    AT_ONCE,
    LOW_32,
    MAX_IDS,
    MAX_MERGES,
    NONE,
    OWN,
    Ids,
    Merges,
    Shapes,
    entry,
    merged,
    piece_end,
    tables,
)
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.pretoken_masks import sure_ends
from pipeline.kernels.pretokens import classes, next_end
from pipeline.kernels.wide import ALL, FIRST, SECOND, ZERO, hashed, load8, store8, word8

__all__ = ["MAX_IDS", "MAX_MERGES", "Memory", "Merges", "encode", "tables"]

# A slot is a line of the processor's cache.
SLOTS, NEAR_BYTES, NEAR_IDS = 1 << 16, 15, 11
FAR, FAR_BYTES, FAR_WORDS, FAR_IDS = 1 << 13, 127, 16, 31
ONE, S8, S32, S56 = (np.uint64(n) for n in (1, 8, 32, 56))
PIECE = np.uint64(1 << 63)
# What of the first and the second eight bytes belongs to a key of 0 to 15.
_SIZES = [min(size, 8) for size in range(NEAR_BYTES + 1)], [max(size - 8, 0) for size in range(NEAR_BYTES + 1)]
FIRST_8, SECOND_8 = (np.array([(1 << 8 * size) - 1 for size in sizes], np.uint64) for sizes in _SIZES)


class Memory(NamedTuple):
    """Pre-tokens and pieces that were met before, 6.3 MB; a new one takes the place of the older of two.

    near       uint64 [SLOTS, 8], by lines of the cache: the key of up to NEAR_BYTES and their number in the high byte,
               NEAR_IDS ids of 32 bits and, in the highest, their number
    far        uint64 [FAR, 16]: the key of up to FAR_BYTES and their number in the last byte
    far_ids    uint32 [FAR, 32]: their number and up to FAR_IDS ids
    """

    near: Hashes
    far: Hashes
    far_ids: Ids

    @classmethod
    def empty(cls, slots: int = SLOTS, far: int = FAR) -> Memory:
        """With room for so many short and long ones, both powers of two."""
        room = np.zeros(8 * slots + 7, np.uint64)
        skip = -(room.ctypes.data >> 3) % 8
        near = room[skip : skip + 8 * slots].reshape(slots, 8)
        return cls(near, np.zeros((far, FAR_WORDS), np.uint64), np.zeros((far, 1 + FAR_IDS), np.uint32))


def encode(text: pa.Array, merges: Merges, digits: int, edge: int, memory: Memory) -> tuple[Ids, Ints]:
    """(ids uint32, offsets int64 [n + 1]): row i is ids[offsets[i]:offsets[i + 1]], with `edge` before and after it.

    `digits` names the pre-tokenizer (`pretokens.DIGITS`). A null row is empty. Not for two threads with one memory.
    """
    data, offsets = text_buffers(text)
    most = int(offsets[-1] - offsets[0]) + 2 * len(text)
    # What is recalled is written as a whole slot, whatever it has.
    ids, starts = np.empty(most + NEAR_IDS + 1, np.uint32), np.zeros(len(text) + 1, np.int64)
    fill(data, offsets, classes(), digits, edge, *merges, *memory, ids, starts)
    return ids[: starts[-1]], starts


@kernel
def fill(
    data: Bytes,
    offsets: Ints,
    table: Bytes,
    digits: int,
    edge: int,
    byte_ids: Ids,
    byte_ranks: Ids,
    pairs: Hashes,
    made: Ids,
    joins: Shapes,
    around: Hashes,
    whole: Hashes,
    spelt: Bytes,
    ignore_merges: bool,
    near: Hashes,
    far: Hashes,
    far_ids: Ids,
    ids: Ids,
    starts: Ints,
) -> None:
    """Write the ids of every document and where each ends."""
    symbols, ranks = np.empty(AT_ONCE, np.uint32), np.empty(AT_ONCE, np.uint32)
    n = 0
    for d in range(offsets.size - 1):
        i, end = offsets[d], offsets[d + 1]
        ids[n] = edge
        n += 1
        while i < end:
            begin, ends = i, sure_ends(data, i, end, digits)
            if ends == ZERO:
                begin, ends = next_end(data, i, end, table, digits), ONE
            while ends != ZERO:
                stop = begin + np.int64(trailing_zeros(ends))
                ends &= ends - ONE
                if stop - i <= NEAR_BYTES:
                    first, second = _key(data, i, stop)
                    count = _recall(near, first, second, ids, n)
                    if count == 0:
                        count = _made(
                            data,
                            i,
                            stop,
                            byte_ids,
                            byte_ranks,
                            pairs,
                            made,
                            joins,
                            around,
                            whole,
                            spelt,
                            ignore_merges,
                            near,
                            symbols,
                            ranks,
                            ids,
                            n,
                        )
                        _keep(near, first, second, ids, n, count)
                else:
                    slot = np.int64(hashed(data, i, stop) >> S8) & (far.shape[0] - 1)
                    count = _recall_far(data, i, stop, far, far_ids, slot, ids, n)
                    if count == 0:
                        count = _made(
                            data,
                            i,
                            stop,
                            byte_ids,
                            byte_ranks,
                            pairs,
                            made,
                            joins,
                            around,
                            whole,
                            spelt,
                            ignore_merges,
                            near,
                            symbols,
                            ranks,
                            ids,
                            n,
                        )
                        _keep_far(data, i, stop, far, far_ids, slot, ids, n, count)
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
def _home(near: Hashes, first: np.uint64, second: np.uint64) -> np.int64:
    """The first of two slots side by side."""
    h = (first ^ (second * SECOND)) * FIRST
    return np.int64((h ^ (h >> S32)) * SECOND >> S32) & (near.shape[0] - 2)


@kernel
def _recall(near: Hashes, first: np.uint64, second: np.uint64, ids: Ids, n: int) -> np.int64:
    """Write the ids of a key at n; return how many, 0 where it is not kept."""
    slot = _home(near, first, second)
    # By arithmetic: which of the two it is cannot be foreseen.
    slot += np.int64((near[slot, 0] ^ first) | (near[slot, 1] ^ second) != ZERO)
    if (near[slot, 0] ^ first) | (near[slot, 1] ^ second) != ZERO:
        return np.int64(0)
    for k in range(6):
        store8(ids, n + 2 * k, near[slot, 2 + k])
    return np.int64(near[slot, 7] >> S32)


@kernel
def _keep(near: Hashes, first: np.uint64, second: np.uint64, ids: Ids, n: int, count: int) -> None:
    """Keep up to NEAR_IDS ids for a key, in place of the older of its two."""
    if count > NEAR_IDS:
        return
    slot = _home(near, first, second)
    for k in range(8):
        near[slot + 1, k] = near[slot, k]
    near[slot, 0], near[slot, 1] = first, second
    for k in range(6):
        near[slot, 2 + k] = load8(ids, n + 2 * k)
    near[slot, 7] = (near[slot, 7] & LOW_32) | np.uint64(count) << S32


@kernel
def _made(
    data: Bytes,
    i: int,
    stop: int,
    byte_ids: Ids,
    byte_ranks: Ids,
    pairs: Hashes,
    made: Ids,
    joins: Shapes,
    around: Hashes,
    whole: Hashes,
    spelt: Bytes,
    ignore_merges: bool,
    near: Hashes,
    symbols: Ids,
    ranks: Ids,
    ids: Ids,
    n: int,
) -> np.int64:
    """Write the ids of a pre-token that is not kept; return how many."""
    if ignore_merges:
        found = entry(data, i, stop, whole, spelt)
        if found != NONE:
            ids[n] = np.uint32(found & LOW_32)
            return np.int64(1)
    begin, a = n, i
    while a < stop:
        b = piece_end(data, a, stop, joins, around)
        first, second, count = ZERO, ZERO, np.int64(0)
        near_piece = b - a <= NEAR_BYTES and b - a < stop - i
        if near_piece:
            first, second = _key(data, a, b)
            # A pre-token that is an entry whatever its merges has another answer than a piece of the same bytes.
            second |= PIECE if ignore_merges else ZERO
            count = _recall(near, first, second, ids, n)
        if count == 0:
            found = entry(data, a, b, whole, spelt)
            if found & ~LOW_32 == OWN:
                ids[n], count = np.uint32(found & LOW_32), np.int64(1)
            else:
                count = np.int64(merged(data, a, b, byte_ids, byte_ranks, pairs, made, symbols, ranks, ids, n))
            if near_piece:
                _keep(near, first, second, ids, n, count)
        n += int(count)
        a = b
    return np.int64(n - begin)


@kernel
def _recall_far(data: Bytes, i: int, stop: int, far: Hashes, far_ids: Ids, slot: int, ids: Ids, n: int) -> np.int64:
    """Write the ids of a pre-token of up to FAR_BYTES bytes at n; return how many, 0 where it is not in its slot."""
    size = np.uint64(stop - i) << S56
    if stop - i > FAR_BYTES or far[slot, FAR_WORDS - 1] & ~(ALL >> S8) != size:
        return np.int64(0)
    for k in range((stop - i + 7) >> 3):
        held = far[slot, k]
        if k == FAR_WORDS - 1:
            held ^= size
        if held != word8(data, i + 8 * k, stop):
            return np.int64(0)
    count = np.int64(far_ids[slot, 0])
    for k in range(count):
        ids[n + k] = far_ids[slot, 1 + k]
    return count


@kernel
def _keep_far(
    data: Bytes, i: int, stop: int, far: Hashes, far_ids: Ids, slot: int, ids: Ids, n: int, count: int
) -> None:
    """Keep up to FAR_IDS ids for a pre-token, in place of what its slot holds."""
    if stop - i > FAR_BYTES or count > FAR_IDS:
        return
    far[slot, FAR_WORDS - 1] = ZERO
    for k in range((stop - i + 7) >> 3):
        far[slot, k] = word8(data, i + 8 * k, stop)
    far[slot, FAR_WORDS - 1] |= np.uint64(stop - i) << S56
    far_ids[slot, 0] = count
    for k in range(count):
        far_ids[slot, 1 + k] = ids[n + k]
