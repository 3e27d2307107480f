"""What pre-tokens have become before: ids by the bytes of short and of long ones, of fixed size.

The keys are the bytes themselves, so what is held never changes a result; a new key takes the place of an old one.

    near       uint64 [SLOTS, 8], by lines of the processor's cache: the key of up to NEAR_BYTES with their number in
               the high byte, then NEAR_IDS ids of 32 bits and, in the highest, their number; two slots for a key
    far        uint64 [FAR, 16]: the key of up to FAR_BYTES with their number in the last byte
    far_ids    uint32 [FAR, 32]: the number of ids and up to FAR_IDS ids
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels._jit import Bytes, Hashes, kernel
from pipeline.kernels.bpe_merges import LOW_32, Ids
from pipeline.kernels.wide import ALL, FIRST, SECOND, ZERO, hashed, load8, store8, word8

SLOTS, NEAR_BYTES, NEAR_IDS = 1 << 16, 15, 11
FAR, FAR_BYTES, FAR_WORDS, FAR_IDS = 1 << 13, 127, 16, 31
S8, S32, S56 = (np.uint64(n) for n in (8, 32, 56))
# What of the first and the second eight bytes belongs to a key of 0 to 15.
_SIZES = [min(size, 8) for size in range(NEAR_BYTES + 1)], [max(size - 8, 0) for size in range(NEAR_BYTES + 1)]
FIRST_8, SECOND_8 = (np.array([(1 << 8 * size) - 1 for size in sizes], np.uint64) for sizes in _SIZES)


class Memory(NamedTuple):
    """4.2 MB of short keys and 2.1 MB of long ones; as the module says."""

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


@kernel
def key_of(data: Bytes, i: int, stop: int) -> tuple[np.uint64, np.uint64]:
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
def recall(near: Hashes, first: np.uint64, second: np.uint64, ids: Ids, n: int) -> np.int64:
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
def keep(near: Hashes, first: np.uint64, second: np.uint64, ids: Ids, n: int, count: int) -> None:
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
def far_slot(data: Bytes, i: int, stop: int, far: Hashes) -> np.int64:
    """The one slot that a long key may have."""
    return np.int64(hashed(data, i, stop) >> S8) & (far.shape[0] - 1)


@kernel
def recall_far(data: Bytes, i: int, stop: int, far: Hashes, far_ids: Ids, slot: int, ids: Ids, n: int) -> np.int64:
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
def keep_far(
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
