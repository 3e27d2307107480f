"""Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) over the bytes of a column of text.

The bytes of a pre-token become symbols; while any two neighbours have a merge, the pair of lowest rank, of those the
leftmost, becomes one symbol. Up to SHORT symbols the lowest rank is looked for from end to end; above, a heap holds the
pairs, so a pre-token of n bytes costs n log n.

Pre-tokens come again: their ids are kept in a `Memory` of bounded size. Its keys are the bytes themselves, so what it
holds never changes a result: up to 15 bytes and their number are the key, longer ones are compared byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, allocating_kernel, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.eight import word
from pipeline.kernels.pretokens import classes, next_end
from pipeline.kernels.shingles import GOLDEN, mix

Ids = NDArray[np.uint32]
Ranks = NDArray[np.int32]

MAX_IDS, MAX_MERGES = 1 << 20, (1 << 24) - 1
SHORT = 96
LONGEST_KEPT = 128
SLOTS, KEPT_IDS, KEPT_BYTES = 1 << 17, 1 << 19, 1 << 21
INLINE = 3
PROBES = 4
NO_MERGE = np.int32(0x7FFFFFFF)
ONE, S16, S20, S24, S32, S48, S56 = (np.uint64(n) for n in (1, 16, 20, 24, 32, 48, 56))
LOW_16, LOW_24, LOW_32, LOW_48 = (np.uint64((1 << n) - 1) for n in (16, 24, 32, 48))
ZERO = FREE = np.uint64(0)
LONG = np.uint64(0xFF)
MIX = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Merges:
    """What a vocabulary is to the kernel.

    byte_ids   uint32 [256]: the id of every byte
    byte_ranks int32 [65536]: the rank of the merge of two bytes, first * 256 + second; NO_MERGE where there is none
    pairs      uint64, a power of two: open addressing, left id << 44 | right id << 24 | rank + 1; 0 where free
    made       uint32 [merges]: the id that the merge of a rank makes
    whole      uint64 [n, 2], a power of two or empty: offset + 1 in `spelt` << 16 | bytes, id; for `ignore_merges`
    spelt      uint8: the bytes of the entries, one after another
    """

    byte_ids: Ids
    byte_ranks: Ranks
    pairs: Hashes
    made: Ids
    whole: Hashes
    spelt: Bytes

    @classmethod
    def of(cls, vocab: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]], ignore_merges: bool) -> Merges:
        """From the bytes of every entry and the merges in order of rank; of a pair that comes twice the last counts.

        Raises KeyError where a byte or a half or the whole of a merge has no id.
        """
        byte_ids = np.array([vocab[bytes([b])] for b in range(256)], np.uint32)
        left = np.array([vocab[a] for a, _ in merges], np.uint64)
        right = np.array([vocab[b] for _, b in merges], np.uint64)
        made = np.array([vocab[a + b] for a, b in merges], np.uint32)
        pairs = np.zeros(1 << (2 * len(merges) + 2).bit_length(), np.uint64)
        enter(pairs, frozen(left), frozen(right))
        byte_ranks = np.full(1 << 16, NO_MERGE, np.int32)
        for rank, (a, b) in enumerate(merges):
            if len(a) == len(b) == 1:
                byte_ranks[a[0] << 8 | b[0]] = rank
        spelt, whole = b"", np.zeros((0, 2), np.uint64)
        if ignore_merges:
            entries = [entry for entry in vocab if 0 < len(entry) <= LONGEST_ENTRY]
            spelt = b"".join(entries)
            starts = np.cumsum([0, *map(len, entries)], dtype=np.int64)
            whole = np.zeros((1 << (2 * len(entries)).bit_length(), 2), np.uint64)
            ids = np.array([vocab[entry] for entry in entries], np.uint64)
            enter_whole(frozen(np.frombuffer(spelt, np.uint8)), frozen(starts), frozen(ids), whole)
        kept: tuple[NDArray, ...] = (byte_ids, byte_ranks, pairs, made, whole, np.frombuffer(spelt, np.uint8))
        return cls(*map(frozen, kept))


LONGEST_ENTRY = (1 << 16) - 1


@dataclass(frozen=True)
class Memory:
    """Pre-tokens that were met before, 7.6 MB.

    slots      uint64 [SLOTS, 4]: the key in two words, number of ids | first id << 32, second | third id << 32 (or, of
               more than INLINE ids, where they begin in `ids`)
    ids        uint32: ids of pre-tokens of more than INLINE
    spelt      uint8: bytes of pre-tokens of more than 15
    used       int64 [2]: how much of `ids` and `spelt` is taken
    """

    slots: Hashes
    ids: Ids
    spelt: Bytes
    used: Ints

    @classmethod
    def empty(cls) -> Memory:
        slots = np.zeros((SLOTS, 4), np.uint64)
        return cls(slots, np.zeros(KEPT_IDS, np.uint32), np.zeros(KEPT_BYTES, np.uint8), np.zeros(2, np.int64))


def encode(text: pa.Array, merges: Merges, digits: int, edge: int, memory: Memory) -> tuple[Ids, Ints]:
    """(ids uint32, offsets int64 [n + 1]): row i is ids[offsets[i]:offsets[i + 1]], with `edge` before and after it.

    `digits` names the pre-tokenizer (`pretokens.DIGITS`). A null row is empty. Not for two threads with one memory.
    """
    data, offsets = text_buffers(text)
    most = int(offsets[-1] - offsets[0]) + 2 * len(text)
    # A kept pre-token is written with INLINE ids whatever it has.
    ids, starts = np.empty(most + INLINE, np.uint32), np.zeros(len(text) + 1, np.int64)
    tables = (merges.byte_ids, merges.byte_ranks, merges.pairs, merges.made, merges.whole, merges.spelt)
    kept = (memory.slots, memory.ids, memory.spelt, memory.used)
    fill(data, offsets, classes(), digits, edge, *tables, *kept, ids, starts)
    return ids[: starts[-1]], starts


@allocating_kernel
def fill(
    data: Bytes,
    offsets: Ints,
    table: Bytes,
    digits: int,
    edge: int,
    byte_ids: Ids,
    byte_ranks: Ranks,
    pairs: Hashes,
    made: Ids,
    whole: Hashes,
    entries: Bytes,
    slots: Hashes,
    kept: Ids,
    spelt: Bytes,
    used: Ints,
    ids: Ids,
    starts: Ints,
) -> None:
    """Write the ids of every document and where each ends."""
    symbols, ranks = np.empty(SHORT, np.uint32), np.empty(SHORT, np.int32)
    n = 0
    for d in range(offsets.size - 1):
        i, end = offsets[d], offsets[d + 1]
        ids[n] = edge
        n += 1
        while i < end:
            stop = next_end(data, i, end, table, digits)
            first, second, slot, hit = ZERO, ZERO, np.int64(0), False
            keep = stop - i <= LONGEST_KEPT
            if keep:
                first, second = _key(data, i, stop)
                slot, hit = _find(data, i, stop, first, second, slots, spelt)
            if hit:
                n = _recall(slots, slot, kept, ids, n)
            else:
                m = _entry(data, i, stop, whole, entries, ids, n) if whole.shape[0] > 0 else 0
                if m == 0:
                    m = _merge(data, i, stop, byte_ids, byte_ranks, pairs, made, symbols, ranks, ids, n)
                if keep:
                    _keep(data, i, stop, first, second, slot, slots, kept, spelt, used, ids, n, m)
                n += m
            i = stop
        ids[n] = edge
        n += 1
        starts[d + 1] = n


@kernel
def _key(data: Bytes, i: int, stop: int) -> tuple[np.uint64, np.uint64]:
    """Of up to 15 bytes themselves and their number; of more a hash, and LONG and their number in the high 16 bits."""
    size = stop - i
    if size <= 15:
        return word(data, i, stop), word(data, i + 8, stop) | np.uint64(size) << S56
    h = np.uint64(size)
    while i < stop:
        h = mix((h + GOLDEN) ^ word(data, i, stop))
        i += 8
    return h, (LONG << S56) | np.uint64(size) << S48


@kernel
def _find(
    data: Bytes, i: int, stop: int, first: np.uint64, second: np.uint64, slots: Hashes, spelt: Bytes
) -> tuple[np.int64, bool]:
    """(slot, True) where the pre-token is kept; else (the slot to keep it in, False)."""
    h = (first ^ (second * MIX)) * GOLDEN
    slot = np.int64((h ^ (h >> S32)) & np.uint64(SLOTS - 1))
    home = slot
    for _ in range(PROBES):
        held = slots[slot, 1]
        if held == FREE:
            return slot, False
        if slots[slot, 0] == first:
            if held == second:
                return slot, True
            if stop - i > 15 and held >> S48 == second >> S48 and _same(data, i, stop, spelt, (held & LOW_48) - ONE):
                return slot, True
        slot = (slot + 1) & (SLOTS - 1)
    return home, False


@kernel
def _same(data: Bytes, i: int, stop: int, spelt: Bytes, place: np.uint64) -> bool:
    begin = np.int64(place)
    k = 0
    while i + k < stop and spelt[begin + k] == data[i + k]:
        k += 1
    return i + k == stop


@kernel
def _recall(slots: Hashes, slot: np.int64, kept: Ids, ids: Ids, n: int) -> np.int64:
    """Write the ids of a kept pre-token at n; return where the next go."""
    low, high = slots[slot, 2], slots[slot, 3]
    count = np.int64(low & LOW_32)
    if count <= INLINE:
        ids[n] = np.uint32(low >> S32)
        ids[n + 1] = np.uint32(high & LOW_32)
        ids[n + 2] = np.uint32(high >> S32)
    else:
        begin = np.int64(high)
        for k in range(count):
            ids[n + k] = kept[begin + k]
    return n + count


@kernel
def _keep(
    data: Bytes,
    i: int,
    stop: int,
    first: np.uint64,
    second: np.uint64,
    slot: np.int64,
    slots: Hashes,
    kept: Ids,
    spelt: Bytes,
    used: Ints,
    ids: Ids,
    n: int,
    count: int,
) -> None:
    """Keep the ids at n for the pre-token, in place of what the slot holds; a full memory is emptied first."""
    size = stop - i
    if used[0] + count > kept.size or used[1] + size > spelt.size:
        slots[:] = ZERO
        used[:] = 0
    low, high = np.uint64(count) | np.uint64(ids[n]) << S32, ZERO
    if count > INLINE:
        high = np.uint64(used[0])
        for k in range(count):
            kept[used[0] + k] = ids[n + k]
        used[0] += count
    else:
        if count > 1:
            high = np.uint64(ids[n + 1])
        if count > 2:
            high |= np.uint64(ids[n + 2]) << S32
    if size > 15:
        # One more than the place, so that it is never equal to the key alone.
        second |= np.uint64(used[1] + 1)
        for k in range(size):
            spelt[used[1] + k] = data[i + k]
        used[1] += size
    slots[slot, 0], slots[slot, 1], slots[slot, 2], slots[slot, 3] = first, second, low, high


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
    h = key * GOLDEN
    return np.int64(h >> S32) & mask


@kernel
def _rank(left: np.uint32, right: np.uint32, pairs: Hashes) -> np.int32:
    """The rank of the merge of two ids, or NO_MERGE."""
    key = np.uint64(left) << S20 | np.uint64(right)
    mask = pairs.size - 1
    slot = _home(key, mask)
    while pairs[slot] != FREE:
        if pairs[slot] >> S24 == key:
            return np.int32(np.int64(pairs[slot] & LOW_24) - 1)
        slot = (slot + 1) & mask
    return NO_MERGE


@kernel
def enter_whole(spelt: Bytes, starts: Ints, entry_ids: Hashes, whole: Hashes) -> None:
    """Fill the table of whole entries."""
    mask = whole.shape[0] - 1
    for entry in range(entry_ids.size):
        slot = _entry_home(spelt, starts[entry], starts[entry + 1], mask)
        while whole[slot, 0] != FREE:
            slot = (slot + 1) & mask
        whole[slot, 0] = np.uint64(starts[entry] + 1) << S16 | np.uint64(starts[entry + 1] - starts[entry])
        whole[slot, 1] = entry_ids[entry]


@kernel
def _entry_home(data: Bytes, i: int, stop: int, mask: int) -> np.int64:
    first, second = _key(data, i, stop)
    return np.int64(mix(first ^ mix(second))) & mask


@kernel
def _entry(data: Bytes, i: int, stop: int, whole: Hashes, entries: Bytes, ids: Ids, n: int) -> int:
    """Write the id of the vocabulary's entry that is the pre-token; return 1, or 0 where there is none."""
    size = stop - i
    if size > LONGEST_ENTRY:
        return 0
    mask = whole.shape[0] - 1
    slot = _entry_home(data, i, stop, mask)
    while whole[slot, 0] != FREE:
        place = whole[slot, 0]
        if np.int64(place & LOW_16) == size and _same(data, i, stop, entries, (place >> S16) - ONE):
            ids[n] = np.uint32(whole[slot, 1])
            return 1
        slot = (slot + 1) & mask
    return 0


@kernel
def _merge(
    data: Bytes,
    i: int,
    stop: int,
    byte_ids: Ids,
    byte_ranks: Ranks,
    pairs: Hashes,
    made: Ids,
    symbols: Ids,
    ranks: Ranks,
    ids: Ids,
    n: int,
) -> int:
    """Write the ids of one pre-token at n; return how many. `symbols` and `ranks` hold SHORT."""
    size = stop - i
    if size > SHORT:
        return _merge_long(data, i, stop, byte_ids, byte_ranks, pairs, made, ids, n)
    for k in range(size):
        symbols[k] = byte_ids[data[i + k]]
    for k in range(size - 1):
        ranks[k] = byte_ranks[np.int64(data[i + k]) << 8 | np.int64(data[i + k + 1])]
    while size > 1:
        best, at = NO_MERGE, 0
        for k in range(size - 1):
            if ranks[k] < best:
                best, at = ranks[k], k
        if best == NO_MERGE:
            break
        size -= 1
        symbols[at] = made[best]
        for k in range(at + 1, size):
            symbols[k] = symbols[k + 1]
            ranks[k - 1] = ranks[k]
        if at > 0:
            ranks[at - 1] = _rank(symbols[at - 1], symbols[at], pairs)
        if at < size - 1:
            ranks[at] = _rank(symbols[at], symbols[at + 1], pairs)
    for k in range(size):
        ids[n + k] = symbols[k]
    return size


@allocating_kernel
def _merge_long(
    data: Bytes, i: int, stop: int, byte_ids: Ids, byte_ranks: Ranks, pairs: Hashes, made: Ids, ids: Ids, n: int
) -> int:
    """`_merge` of any size: symbols in a linked list, pairs in a heap by (rank, position).

    An entry of the heap whose rank is no longer that of the pair at its position is stale.
    """
    size = stop - i
    symbols, ranks = np.empty(size, np.uint32), np.full(size, NO_MERGE, np.int32)
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
        if np.int64(top >> S32) != ranks[at]:
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
def _push(heap: Hashes, held: int, rank: np.int32, position: int) -> int:
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
