"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) over the bytes of a column of text.

Pre-tokens come again: their ids are kept in a `Memory` of fixed size, which never changes a result. A pre-token that is
not there is cut where no merge can reach across (`bpe_tables`). Its pieces, short ones, are looked for in the same
memory, then among the entries of the vocabulary; what is left is merged (`bpe_merges`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel, trailing_zeros
from pipeline.kernels.bpe_memory import (
    NEAR_BYTES,
    NEAR_IDS,
    Memory,
    far_slot,
    keep,
    keep_far,
    key_of,
    recall,
    recall_far,
)
from pipeline.kernels.bpe_merges import LOW_32, Ids, merged, scratch
from pipeline.kernels.bpe_tables import NONE, OWN, Merges, Shapes, entry, piece_end
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.pretoken_masks import sure_ends
from pipeline.kernels.pretokens import classes, next_end
from pipeline.kernels.wide import ZERO

ONE, PIECE = np.uint64(1), np.uint64(1 << 63)


def encode(text: pa.Array, merges: Merges, digits: int, edge: int, memory: Memory) -> tuple[Ids, Ints]:
    """(ids uint32, offsets int64 [n + 1]): row i is ids[offsets[i]:offsets[i + 1]], with `edge` before and after it.

    `digits` names the pre-tokenizer (`pretokens.DIGITS`). A null row is empty. Not for two threads with one memory.
    """
    data, offsets = text_buffers(text)
    most = int(offsets[-1] - offsets[0]) + 2 * len(text)
    # What is recalled is written as a whole slot, whatever it has.
    ids, starts = np.empty(most + NEAR_IDS + 1, np.uint32), np.zeros(len(text) + 1, np.int64)
    fill(data, offsets, classes(), digits, edge, *merges, *memory, *scratch(), ids, starts)
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
    symbols: Ids,
    ranks: Ids,
    ids: Ids,
    starts: Ints,
) -> None:
    """Write the ids of every document and where each ends."""
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
                short, slot, first, second = stop - i <= NEAR_BYTES, np.int64(0), ZERO, ZERO
                if short:
                    first, second = key_of(data, i, stop)
                    count = recall(near, first, second, ids, n)
                else:
                    slot = far_slot(data, i, stop, far)
                    count = recall_far(data, i, stop, far, far_ids, slot, ids, n)
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
                    if short:
                        keep(near, first, second, ids, n, count)
                    else:
                        keep_far(data, i, stop, far, far_ids, slot, ids, n, count)
                n += count
                i = stop
        ids[n] = edge
        n += 1
        starts[d + 1] = n


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
            first, second = key_of(data, a, b)
            # A pre-token that is an entry whatever its merges has another answer than a piece of the same bytes.
            second |= PIECE if ignore_merges else ZERO
            count = recall(near, first, second, ids, n)
        if count == 0:
            found = entry(data, a, b, whole, spelt)
            if found & ~LOW_32 == OWN:
                ids[n], count = np.uint32(found & LOW_32), np.int64(1)
            else:
                count = np.int64(merged(data, a, b, byte_ids, byte_ranks, pairs, made, symbols, ranks, ids, n))
            if near_piece:
                keep(near, first, second, ids, n, count)
        n += int(count)
        a = b
    return np.int64(n - begin)
