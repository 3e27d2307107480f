"""Eight bytes at a time: loads and stores, masks of bytes, hashes and comparison of byte ranges. And 64 as bits.

`load8` may stand at any address. Its byte order is the machine's, so nothing that is stored may depend on it: hashes
here only find what is then compared byte for byte. A mask has the top bit of a byte set where something holds of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipeline.kernels._jit import Bytes, kernel, trailing_zeros
from pipeline.kernels.random import GOLDEN, MIX_1, MIX_2

SEED, FIRST, SECOND = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)
S6, S7, S29, S32, S56 = (np.uint64(bits) for bits in (6, 7, 29, 32, 56))
ZERO, ALL = np.uint64(0), np.uint64(0xFFFFFFFFFFFFFFFF)
HIGHS, LOWS = np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F)
ONES = np.uint64(0x0101010101010101)
CASES = np.uint64(0x2020202020202020)


def _load8(typing: Any, data: Any, at: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        return builder.load(place, align=1, typ=ir.IntType(64))

    return types.uint64(data, types.int64), build


def _store8(typing: Any, data: Any, at: Any, word: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), build


def _within64(typing: Any, data: Any, at: Any, fold: Any, first: Any, last: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, lanes = ir.IntType(8), ir.VectorType(ir.IntType(8), 64)
        place = _place(context, builder, signature, arguments)
        read = builder.load(builder.bitcast(place, lanes.as_pointer()), align=1, typ=lanes)

        def everywhere(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(lanes, ir.Undefined), builder.trunc(value, byte), _LANE)
            return builder.shuffle_vector(one, ir.Constant(lanes, ir.Undefined), ir.Constant(_LANES, None))

        folded = builder.or_(read, everywhere(arguments[2]))
        shifted = builder.sub(folded, everywhere(arguments[3]))
        span = everywhere(builder.sub(arguments[4], arguments[3]))
        return builder.bitcast(builder.icmp_unsigned("<=", shifted, span), ir.IntType(64))

    return types.uint64(data, types.int64, types.int64, types.int64, types.int64), build


_LANE, _LANES = ir.Constant(ir.IntType(32), 0), ir.VectorType(ir.IntType(32), 64)


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())


# load8(data, at): the uint64 at data[at:at + 8]; the caller sees to it that all eight bytes are there.
load8: Any = intrinsic(_load8)
# store8(data, at, word): write a uint64 to data[at:at + 8]; the caller sees to it that there is room.
store8: Any = intrinsic(_store8)
# within64(data, at, fold, first, last): bit k says whether data[at + k] | fold lies in first..last; 64 bytes are there.
within64: Any = intrinsic(_within64)


@kernel
def equal8(word: np.uint64, pattern: np.uint64) -> np.uint64:
    """Mask of the bytes that are those of `pattern`."""
    x = word ^ pattern
    return ~(((x & LOWS) + LOWS) | x) & HIGHS


@kernel
def within8(low: np.uint64, from_: np.uint64, past: np.uint64) -> np.uint64:
    """Where bytes below 128 lie in a range; `from_` and `past` are its `span8`. Other bits hold nothing."""
    return (low + from_) & ~(low + past)


def span8(first: int, last: int) -> tuple[np.uint64, np.uint64]:
    """The constants of `within8` for the bytes first..last."""
    return ONES * np.uint64(0x80 - first), ONES * np.uint64(0x7F - last)


FROM_A, PAST_Z = span8(ord("a"), ord("z"))


@kernel
def letters8(word: np.uint64) -> np.int64:
    """How many of the eight bytes, from the first, are ASCII letters."""
    found = within8((word | CASES) & LOWS, FROM_A, PAST_Z) & ~word & HIGHS
    return np.int64(trailing_zeros(~found & HIGHS) >> np.uint64(3))


@kernel
def count8(mask: np.uint64) -> np.int64:
    """How many bytes a mask has."""
    return np.int64(((mask >> S7) * ONES) >> S56)


@kernel
def step(h: np.uint64, word: np.uint64) -> np.uint64:
    h = (h ^ word) * FIRST
    return h ^ (h >> S29)


@kernel
def word8(data: Bytes, a: int, b: int) -> np.uint64:
    """data[a:min(a + 8, b)], the first byte lowest, zeros above; zero where a >= b. May read behind b."""
    size = b - a
    if size <= 0:
        return ZERO
    if a + 8 <= data.size:
        return load8(data, a) & (ALL >> np.uint64(64 - 8 * min(size, 8)))
    word = ZERO
    for k in range(min(size, 8)):
        word |= np.uint64(data[a + k]) << np.uint64(8 * k)
    return word


@kernel
def hashed(data: Bytes, a: int, b: int) -> np.uint64:
    """64-bit hash of data[a:b]."""
    h = SEED ^ np.uint64(b - a)
    while a + 8 <= b:
        h = step(h, load8(data, a))
        a += 8
    if a < b:
        h = step(h, word8(data, a, b))
    h *= SECOND
    return h ^ (h >> S32)


@kernel
def hashed_padded(data: Bytes, a: int, b: int) -> np.uint64:
    """64-bit hash of data[a:b], not empty, where eight bytes behind b may be read too; they do not count."""
    h = SEED ^ np.uint64(b - a)
    while a + 8 < b:
        h = step(h, load8(data, a))
        a += 8
    h = step(h, load8(data, a) & (ALL >> np.uint64(64 - 8 * (b - a)))) * SECOND
    return h ^ (h >> S32)


@kernel
def same(data: Bytes, a: int, b: int, size: int) -> bool:
    """Whether data[a:a + size] and data[b:b + size] hold the same bytes; reads nothing else."""
    k = 0
    while k + 8 <= size:
        if load8(data, a + k) != load8(data, b + k):
            return False
        k += 8
    while k < size:
        if data[a + k] != data[b + k]:
            return False
        k += 1
    return True


@kernel
def same_padded(data: Bytes, a: int, b: int, size: int) -> bool:
    """As `same` of ranges that are not empty, where eight bytes behind each may be read too."""
    k = 0
    while k + 8 < size:
        if load8(data, a + k) != load8(data, b + k):
            return False
        k += 8
    return (load8(data, a + k) ^ load8(data, b + k)) & (ALL >> np.uint64(64 - 8 * (size - k))) == ZERO


@kernel
def characters(data: Bytes, a: int, b: int) -> int:
    """Code points in data[a:b] of UTF-8: the bytes that do not continue one."""
    n = b - a
    while a + 8 <= b:
        word = load8(data, a)
        if word & HIGHS != ZERO:
            n -= count8(word & ~(word << np.uint64(1)) & HIGHS)
        a += 8
    while a < b:
        n -= (data[a] & 0xC0) == 0x80
        a += 1
    return n
