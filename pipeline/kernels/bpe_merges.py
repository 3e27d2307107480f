"""The merges of byte-level BPE on one piece of text.

The bytes of a piece become symbols; while any two neighbours have a merge, the pair of lowest rank, of those the
leftmost, becomes one symbol. Up to 64 symbols stay where they began and every one is a bit of one integer; the lowest
rank is looked for in all of them at once. Above, a heap holds the pairs, so a piece of n bytes costs n log n.

    byte_ids   uint32 [256]: the id of every byte
    byte_ranks uint32 [65536]: the rank of the merge of two bytes, first * 256 + second; NO_MERGE where there is none
    pairs      uint64, a power of two: open addressing, left id << 44 | right id << 24 | rank + 1; 0 where free
    made       uint32 [merges]: the id that the merge of a rank makes
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, allocating_kernel, kernel, leading_zeros, trailing_zeros
from pipeline.kernels.random import GOLDEN
from pipeline.kernels.wide import ALL, ZERO

Ids = NDArray[np.uint32]

MAX_IDS, MAX_MERGES = 1 << 20, (1 << 24) - 1
AT_ONCE = 64
NO_MERGE = np.uint32(0xFFFFFFFF)
# A rank and, below it, the place of the pair among 64 symbols.
PLACE, PLACES = np.uint32(6), np.uint32(63)
FREE, SPREAD = ZERO, np.uint64(GOLDEN)
ONE, S20, S24, S32 = (np.uint64(n) for n in (1, 20, 24, 32))
LOW_24, LOW_32 = (np.uint64((1 << n) - 1) for n in (24, 32))


def scratch() -> tuple[Ids, Ids]:
    """`symbols` and `ranks` of `merged`."""
    return np.empty(AT_ONCE, np.uint32), np.empty(AT_ONCE, np.uint32)


@kernel
def merged(
    data: Bytes,
    i: int,
    stop: int,
    byte_ids: Ids,
    byte_ranks: Ids,
    pairs: Hashes,
    made: Ids,
    symbols: Ids,
    ranks: Ids,
    ids: Ids,
    n: int,
) -> int:
    """Write the ids of data[i:stop] at n; return how many. `symbols` and `ranks` have room for AT_ONCE."""
    size = stop - i
    if size > AT_ONCE:
        return _merged_long(data, i, stop, byte_ids, byte_ranks, pairs, made, ids, n)
    for k in range(size):
        symbols[k] = byte_ids[data[i + k]]
    for k in range(size - 1):
        ranks[k] = _placed(byte_ranks[np.int64(data[i + k]) << 8 | np.int64(data[i + k + 1])], k)
    ranks[size - 1] = NO_MERGE
    live = ALL >> np.uint64(AT_ONCE - size)
    while True:
        best = NO_MERGE
        for k in range(size):
            best = min(best, ranks[k])
        if best == NO_MERGE:
            break
        at = np.int64(best & PLACES)
        gone = _after(live, at)
        symbols[at] = made[best >> PLACE]
        live &= ~(ONE << np.uint64(gone))
        ranks[gone] = ranks[at] = NO_MERGE
        after = _after(live, at)
        if after < AT_ONCE:
            ranks[at] = _placed(_rank(symbols[at], symbols[after], pairs), at)
        if at > 0:
            before = 63 - np.int64(leading_zeros(live & ((ONE << np.uint64(at)) - ONE)))
            ranks[before] = _placed(_rank(symbols[before], symbols[at], pairs), before)
    count = 0
    while live != ZERO:
        ids[n + count] = symbols[np.int64(trailing_zeros(live))]
        count += 1
        live &= live - ONE
    return count


@kernel
def _placed(rank: np.uint32, place: int) -> np.uint32:
    return NO_MERGE if rank == NO_MERGE else rank << PLACE | np.uint32(place)


@kernel
def _after(live: np.uint64, at: int) -> np.int64:
    """The next bit above one, or AT_ONCE."""
    return np.int64(trailing_zeros(live & ~((ONE << np.uint64(at)) * np.uint64(2) - ONE)))


@kernel
def enter(pairs: Hashes, left: Hashes, right: Hashes) -> None:
    """Fill the table of pairs; rank is the position."""
    mask = pairs.size - 1
    for rank in range(left.size):
        key = left[rank] << S20 | right[rank]
        slot = _home(key, mask)
        while pairs[slot] != FREE and pairs[slot] >> S24 != key:
            slot = (slot + 1) & mask
        pairs[slot] = key << S24 | np.uint64(rank + 1)


@kernel
def _home(key: np.uint64, mask: int) -> np.int64:
    return np.int64((key * SPREAD) >> S32) & mask


@kernel
def _rank(left: np.uint32, right: np.uint32, pairs: Hashes) -> np.uint32:
    """The rank of the merge of two ids, or NO_MERGE."""
    key = np.uint64(left) << S20 | np.uint64(right)
    mask = pairs.size - 1
    slot = _home(key, mask)
    while pairs[slot] != FREE:
        if pairs[slot] >> S24 == key:
            return np.uint32((pairs[slot] & LOW_24) - ONE)
        slot = (slot + 1) & mask
    return NO_MERGE


@allocating_kernel
def _merged_long(
    data: Bytes, i: int, stop: int, byte_ids: Ids, byte_ranks: Ids, pairs: Hashes, made: Ids, ids: Ids, n: int
) -> int:
    """`merged` of any size: symbols in a linked list, pairs in a heap by (rank, position).

    An entry of the heap whose rank is no longer that of the pair at its position is stale.
    """
    size = stop - i
    symbols, ranks = np.empty(size, np.uint32), np.full(size, NO_MERGE, np.uint32)
    after, before = np.arange(1, size + 1), np.arange(-1, size - 1)
    heap, held = np.empty(2 * size, np.uint64), 0
    for k in range(size):
        symbols[k] = byte_ids[data[i + k]]
        if k + 1 < size:
            ranks[k] = byte_ranks[np.int64(data[i + k]) << 8 | np.int64(data[i + k + 1])]
            held = _push(heap, held, ranks[k], k)
    while held > 0:
        top = heap[0]
        held = _pop(heap, held)
        at = np.int64(top & LOW_32)
        if np.uint32(top >> S32) != ranks[at]:
            continue
        gone = after[at]
        symbols[at] = made[ranks[at]]
        after[at] = after[gone]
        ranks[gone] = ranks[at] = NO_MERGE
        if after[at] < size:
            before[after[at]] = at
            ranks[at] = _rank(symbols[at], symbols[after[at]], pairs)
            held = _push(heap, held, ranks[at], at)
        if at > 0:
            left = before[at]
            ranks[left] = _rank(symbols[left], symbols[at], pairs)
            held = _push(heap, held, ranks[left], left)
    count, k = 0, 0
    while k < size:
        ids[n + count] = symbols[k]
        count += 1
        k = after[k]
    return count


@kernel
def _push(heap: Hashes, held: int, rank: np.uint32, position: int) -> int:
    if rank == NO_MERGE:
        return held
    entry, k = np.uint64(rank) << S32 | np.uint64(position), held
    while k > 0 and heap[(k - 1) >> 1] > entry:
        heap[k] = heap[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap[k] = entry
    return held + 1


@kernel
def _pop(heap: Hashes, held: int) -> int:
    """Remove the lowest."""
    held -= 1
    entry, k = heap[held], 0
    while 2 * k + 1 < held:
        child = 2 * k + 1
        if child + 1 < held and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[k] = heap[child]
        k = child
    heap[k] = entry
    return held
