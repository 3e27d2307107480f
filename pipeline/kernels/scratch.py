"""What the kernels of text signals write down about one document, and use again for the next.

A document is copied to where zeros stand behind it. Its words lie packed one behind another, without what stood between
them: word w is packed[ends[w]:ends[w + 1]], of sizes[w + 1] - sizes[w] characters. Offsets are 32 bits wide, so a
document of 2 GB or more is refused. Memory is reserved for the largest document of a batch and taken as it is written:
about 70 bytes for each word of a document.

The table is open addressing over slots of a key and, in one word, a stamp above a value. A stamp is used once, so the
table is emptied by taking the next one. It holds at most half as many keys as it has slots.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.planes import PAD, Planes, planes
from pipeline.kernels.wide import SEED, copy

Shorts = NDArray[np.int32]
MOST_BYTES = 2**31 - 64
LAST_STAMP = np.int64(0xFFFFFFF0)
S32, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
ABSENT = np.int64(-1)


class Scratch(NamedTuple):
    """Arrays for one document at a time; `stamp` holds the last one used."""

    text: Bytes
    planes: Planes
    cuts: Shorts
    whole: Shorts
    packed: Bytes
    ends: Shorts
    sizes: Shorts
    word: Shorts
    gram: Shorts
    tally: Shorts
    chosen: Shorts
    begins: Hashes
    sieve: Bytes
    table: Hashes
    stamp: Ints


def scratch(most_bytes: int) -> Scratch:
    """Room for documents of so many bytes. Raises ValueError where a document is too large to measure."""
    if most_bytes > MOST_BYTES:
        raise ValueError(f"a document of {most_bytes} bytes cannot be measured: the most is {MOST_BYTES}")
    # A word takes a byte and a separator, or the bytes of a letter; a line likewise.
    most = most_bytes // 2 + 2
    slots = 1 << max(6, (2 * most).bit_length())
    ends, sizes, word, gram, tally, chosen = (np.empty(most + 1, np.int32) for _ in range(6))
    return Scratch(
        np.empty(most_bytes + PAD, np.uint8),
        planes(most_bytes),
        np.empty(2 * most, np.int32),
        np.empty(2 * most, np.int32),
        np.empty(most_bytes + PAD, np.uint8),
        ends,
        sizes,
        word,
        gram,
        tally,
        chosen,
        np.empty(most + 1, np.uint64),
        np.empty(4 * slots, np.uint8),
        np.zeros((slots, 2), np.uint64),
        np.zeros(1, np.int64),
    )


@kernel
def take(data: Bytes, start: int, end: int, text: Bytes) -> np.int64:
    """Copy data[start:end] to the front of `text` with zeros behind; returns its size."""
    size = np.int64(end) - start
    copy(data, start, text, 0, size)
    text[size : size + PAD] = 0
    return size


@kernel
def next_stamp(table: Hashes, stamp: Ints) -> np.int64:
    """A stamp under which the table is empty. They are 32 bits wide; when they run out, it is cleared."""
    if stamp[0] >= LAST_STAMP:
        table[:] = 0
        stamp[0] = 0
    stamp[0] += 1
    return stamp[0]


@kernel
def mask_for(count: int) -> np.int64:
    """A power of two less one, at least twice `count`."""
    size = np.int64(64)
    while size < 2 * count:
        size *= 2
    return size - 1


@kernel
def slot_of(key: np.uint64, mask: int) -> np.int64:
    """Where the search for a key begins, in a table of mask + 1 slots."""
    return np.int64((key * SEED) >> S32) & mask


@kernel
def value_at(table: Hashes, slot: int, stamp: int) -> np.int64:
    """The value in a slot, or ABSENT where it was not filled under this stamp."""
    word = table[slot, 1]
    return np.int64(word & LOW) if np.int64(word >> S32) == stamp else ABSENT


@kernel
def put(table: Hashes, slot: int, stamp: int, key: np.uint64, value: int) -> None:
    table[slot, 0] = key
    table[slot, 1] = np.uint64(stamp) << S32 | np.uint64(value)
