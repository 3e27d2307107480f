"""A byte-level BPE as tables: its merges, its entries, and where a text may be cut before it is merged.

A text may be cut where no merge joins what ends there to what begins there: the first symbol to lie across would be
made by a merge of two that meet there, so what stands on either side has the merges that it has alone. What is known
of a merge is up to three bytes of both its halves, which is enough to cut Chinese into words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel, trailing_zeros
from pipeline.kernels.bpe_merges import FREE, NO_MERGE, SPREAD, Ids, enter, merged, scratch
from pipeline.kernels.buffers import frozen
from pipeline.kernels.wide import ALL, ZERO, hashed, load8, word8

Shapes = NDArray[np.uint16]

LONGEST_ENTRY = (1 << 16) - 1
NONE, OWN = ALL, np.uint64(1 << 32)
INSIDE, AROUND, BITS = 1 << 15, 1 << 20, np.uint64(64 - 20)
ONE, S6, S16, S24, S63 = (np.uint64(n) for n in (1, 6, 16, 24, 63))
BYTE, LOW_16 = np.uint64(0xFF), np.uint64(0xFFFF)
# What of three bytes before a place and three behind belongs to a shape, by 3 * l + r - 4.
SHAPES = np.array(
    [((1 << 8 * (3 + r)) - 1) >> 8 * (3 - l) << 8 * (3 - l) for l in (1, 2, 3) for r in (1, 2, 3)], np.uint64
)


class Merges(NamedTuple):
    """What a vocabulary is to the kernel; read-only.

    byte_ids, byte_ranks, pairs, made   as in `bpe_merges`
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
    spent = np.empty(LONGEST_ENTRY, np.uint32)
    enter_whole(frozen(spelt), frozen(starts), frozen(ids), *merging, ignore_merges, *scratch(), spent, whole)
    joins, around = cuts(merges)
    cutting = frozen(joins), frozen(around)
    return Merges(*merging, *cutting, frozen(whole), frozen(spelt), ignore_merges)


def cuts(merges: Sequence[tuple[bytes, bytes]]) -> tuple[Shapes, Hashes]:
    """`Merges.joins` and `Merges.around`. ASCII is only cut where no merge at all joins two bytes."""
    joins, around = np.zeros((256, 256), np.uint16), np.zeros(AROUND, bool)
    joins[:, 0x80:0xC0] = INSIDE
    lefts, rights = [a[-3:] for a, _ in merges], [b[:3] for _, b in merges]
    sizes = [3 * len(a) + len(b) - 4 for a, b in zip(lefts, rights, strict=True)]
    rows = [a.rjust(3, b"\0") + b.ljust(5, b"\0") for a, b in zip(lefts, rights, strict=True)]
    words = np.frombuffer(b"".join(rows), "<u8")
    last, first = (words >> S16) & BYTE, (words >> S24) & BYTE
    shapes = np.where(first < 0xC0, INSIDE, 1 << np.array(sizes, np.int64)).astype(np.uint16)
    np.bitwise_or.at(joins, (last, first), shapes)
    around[(words * SPREAD) >> BITS] = True
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
def enter_whole(
    spelt: Bytes,
    starts: Ints,
    entry_ids: Hashes,
    byte_ids: Ids,
    byte_ranks: Ids,
    pairs: Hashes,
    made: Ids,
    ignore_merges: bool,
    symbols: Ids,
    ranks: Ids,
    ids: Ids,
    whole: Hashes,
) -> None:
    """Fill the table of whole entries: those that the merges of their bytes make, or all."""
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
