"""The merges of a byte-level BPE as tables, and their use on one piece of text.

The bytes of a piece become symbols; while any two neighbours have a merge, the pair of lowest rank, of those the
leftmost, becomes one symbol. Up to 64 symbols stay where they began and every one is a bit of one integer; the lowest
rank is looked for in all of them at once. Above, a heap holds the pairs, so a piece of n bytes costs n log n.

A text may be cut where no merge joins what ends there to what begins there: the first symbol to lie across would be
made by a merge of two that meet there, so what stands on either side has the merges that it has alone. What is known
of a merge is up to three bytes of both its halves, which is enough to cut Chinese into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel, leading_zeros, trailing_zeros
from pipeline.kernels.buffers import frozen
from pipeline.kernels.random import GOLDEN
from pipeline.kernels.wide import ALL, ZERO, hashed, load8, word8

Ids = NDArray[np.uint32]
Shapes = NDArray[np.uint16]

MAX_IDS, MAX_MERGES = 1 << 20, (1 << 24) - 1
LONGEST_ENTRY = (1 << 16) - 1
AT_ONCE = 64
NO_MERGE = np.uint32(0xFFFFFFFF)
# A rank and, below it, the place of the pair among 64 symbols.
PLACE, PLACES = np.uint32(6), np.uint32(63)
FREE, NONE, SPREAD = ZERO, ALL, np.uint64(GOLDEN)
ONE, S16, S20, S24, S32, S63 = (np.uint64(n) for n in (1, 16, 20, 24, 32, 63))
OWN = np.uint64(1 << 32)
INSIDE, AROUND, BITS, S6 = 1 << 15, 1 << 20, np.uint64(64 - 20), np.uint64(6)
# What of three bytes before a place and three behind belongs to a shape, by 3 * l + r.
SHAPES = np.array(
    [((1 << 8 * (3 + r)) - 1) >> 8 * (3 - l) << 8 * (3 - l) for l in (1, 2, 3) for r in (1, 2, 3)], np.uint64
)
LOW_16, LOW_24, LOW_32 = (np.uint64((1 << n) - 1) for n in (16, 24, 32))


class Merges(NamedTuple):
    """What a vocabulary is to the kernel; read-only.

    byte_ids   uint32 [256]: the id of every byte
    byte_ranks uint32 [65536]: the rank of the merge of two bytes, first * 256 + second; NO_MERGE where there is none
    pairs      uint64, a power of two: open addressing, left id << 44 | right id << 24 | rank + 1; 0 where free
    made       uint32 [merges]: the id that the merge of a rank makes
    joins      uint16 [65536]: of two bytes, what merges join a symbol that ends in the first to one that begins with
               the second: 0 none; 1 << 3 * l + r - 4 one whose halves are of l and r bytes, 3 standing for more;
               INSIDE that they are not looked at more closely
    around     uint64 [AROUND >> 6], bits: which hashes those l + r bytes have
    whole      uint64 [n, 2], a power of two: offset + 1 in `spelt` << 16 | bytes, then OWN | id; 0 where free. Entries
               that the merges of their bytes make (OWN) and, where merges are ignored for them, all others
    spelt      uint8: the bytes of the entries, one after another
    ignore_merges   whether a pre-token that is an entry is that entry whatever its merges
    """

    byte_ids: Ids
    byte_ranks: Ids
    pairs: Hashes
    made: Ids
    joins: Shapes
    around: Hashes
    whole: Hashes
    spelt: Bytes
    ignore_merges: bool


def tables(vocab: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]], ignore_merges: bool) -> Merges:
    """From the bytes of every entry and the merges in order of rank; of a pair that comes twice the last counts.

    Raises KeyError where a byte or a half or the whole of a merge has no id.
    """
    byte_ids = np.array([vocab[bytes([b])] for b in range(256)], np.uint32)
    left = np.array([vocab[a] for a, _ in merges], np.uint64)
    right = np.array([vocab[b] for _, b in merges], np.uint64)
    made = np.array([vocab[a + b] for a, b in merges], np.uint32)
    pairs = np.zeros(1 << (2 * len(merges) + 2).bit_length(), np.uint64)
    enter(pairs, frozen(left), frozen(right))
    byte_ranks = np.full(1 << 16, NO_MERGE, np.uint32)
    for rank, (a, b) in enumerate(merges):
        if len(a) == len(b) == 1:
            byte_ranks[a[0] << 8 | b[0]] = rank
    entries = [entry for entry in vocab if 0 < len(entry) <= LONGEST_ENTRY]
    spelt = np.frombuffer(b"".join(entries), np.uint8)
    starts = np.cumsum([0, *map(len, entries)], dtype=np.int64)
    ids = np.array([vocab[entry] for entry in entries], np.uint64)
    whole = np.zeros((1 << (2 * len(entries)).bit_length(), 2), np.uint64)
    byte_ids, byte_ranks, pairs, made = frozen(byte_ids), frozen(byte_ranks), frozen(pairs), frozen(made)
    merging = (byte_ids, byte_ranks, pairs, made)
    enter_whole(frozen(spelt), frozen(starts), frozen(ids), *merging, ignore_merges, whole)
    joins, around = cuts(merges)
    cutting = frozen(joins), frozen(around)
    return Merges(*merging, *cutting, frozen(whole), frozen(spelt), ignore_merges)


def cuts(merges: Sequence[tuple[bytes, bytes]]) -> tuple[Shapes, Hashes]:
    """`Merges.joins` and `Merges.around`. ASCII is only cut where no merge at all joins two bytes."""
    joins, around = np.zeros((256, 256), np.uint16), np.zeros(AROUND, bool)
    joins[:, 0x80:0xC0] = INSIDE
    seen = []
    for a, b in merges:
        left, right = a[-3:], b[:3]
        shape = 3 * len(left) + len(right) - 4
        joins[a[-1], b[0]] |= 1 << shape if b[0] >= 0xC0 else INSIDE
        seen.append(int.from_bytes(left.rjust(3, b"\0") + right, "little"))
    around[(np.array(seen, np.uint64) * SPREAD) >> BITS] = True
    return joins.reshape(-1), np.packbits(around, bitorder="little").view(np.uint64)


@kernel
def piece_end(data: Bytes, i: int, stop: int, joins: Shapes, around: Hashes) -> int:
    """Where the text from data[i] on may be cut for the first time, or stop."""
    b = i + 1
    while b < stop:
        shapes = np.int64(joins[np.int64(data[b - 1]) << 8 | np.int64(data[b])])
        if shapes == 0 or (shapes != INSIDE and not _joined(data, b, shapes, around)):
            return b
        b += 1
    return stop


@kernel
def _joined(data: Bytes, at: int, shapes: int, around: Hashes) -> bool:
    """Whether a merge may join what ends at data[at] to what begins there; what is read beyond can only say yes."""
    if at < 3 or at + 5 > data.size or shapes & INSIDE:
        return True
    word = load8(data, at - 3)
    while shapes != 0:
        h = ((word & SHAPES[np.int64(trailing_zeros(shapes))]) * SPREAD) >> BITS
        if around[np.int64(h >> S6)] >> (h & S63) & ONE:
            return True
        shapes &= shapes - 1
    return False


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


@kernel
def enter_whole(
    spelt: Bytes,
    starts: Ints,
    entry_ids: Hashes,
    byte_ids: Ids,
    byte_ranks: Ids,
    pairs: Hashes,
    made: Ids,
    ignore_merges: bool,
    whole: Hashes,
) -> None:
    """Fill the table of whole entries: those that the merges of their bytes make, or all."""
    symbols, ranks = np.empty(AT_ONCE, np.uint32), np.empty(AT_ONCE, np.uint32)
    ids = np.empty(LONGEST_ENTRY, np.uint32)
    mask = whole.shape[0] - 1
    for number in range(entry_ids.size):
        a, b = starts[number], starts[number + 1]
        count = merged(spelt, a, b, byte_ids, byte_ranks, pairs, made, symbols, ranks, ids, 0)
        is_own = count == 1 and np.uint64(ids[0]) == entry_ids[number]
        if is_own or ignore_merges:
            slot = np.int64(hashed(spelt, a, b)) & mask
            while whole[slot, 0] != FREE:
                slot = (slot + 1) & mask
            whole[slot, 0] = np.uint64(a + 1) << S16 | np.uint64(b - a)
            whole[slot, 1] = entry_ids[number] | (OWN if is_own else ZERO)


@kernel
def entry(data: Bytes, i: int, stop: int, whole: Hashes, spelt: Bytes) -> np.uint64:
    """The second word of `Merges.whole` of the entry that data[i:stop] is, or NONE."""
    size = stop - i
    if size > LONGEST_ENTRY:
        return NONE
    mask = whole.shape[0] - 1
    slot = np.int64(hashed(data, i, stop)) & mask
    while whole[slot, 0] != FREE:
        place = whole[slot, 0]
        if np.int64(place & LOW_16) == size:
            begin, k = np.int64((place >> S16) - ONE), 0
            while k < size and word8(data, i + k, stop) == word8(spelt, begin + k, begin + size):
                k += 8
            if k >= size:
                return whole[slot, 1]
        slot = (slot + 1) & mask
    return NONE


@kernel
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
