"""Eight bytes at a time: loads and stores, masks of bytes, hashes and comparison of byte ranges.

`load8` and `store8` may stand at any address; the first byte is the lowest on every machine. Hashes here only find what
is then compared byte for byte. A mask has the top bit of a byte set where something holds of it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
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
        there = builder.bitcast(place(context, builder, signature, arguments), ir.IntType(64).as_pointer())
        return _ordered(builder, builder.load(there, align=1, typ=ir.IntType(64)))

    return types.uint64(data, types.int64), build


def _store8(typing: Any, data: Any, at: Any, word: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        there = builder.bitcast(place(context, builder, signature, arguments), ir.IntType(64).as_pointer())
        builder.store(_ordered(builder, arguments[2]), there, align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), build


def _copy(typing: Any, data: Any, at: Any, out: Any, to: Any, size: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (place(context, builder, signature, arguments, array) for array in (0, 2))
        cgutils.raw_memcpy(builder, target, source, arguments[4], 1)
        return context.get_dummy_value()

    return types.void(data, types.int64, out, types.int64, types.int64), build


def place(context: Any, builder: Any, signature: Any, arguments: Any, array: int = 0) -> Any:
    """In an intrinsic with arguments (..., data, at, ...), data the one of number `array`: where data[at] lies."""
    values = context.make_array(signature.args[array])(context, builder, arguments[array])
    return builder.gep(values.data, [arguments[array + 1]])


def _ordered(builder: Any, word: Any) -> Any:
    return builder.bswap(word) if sys.byteorder == "big" else word


# load8(data, at): the uint64 at data[at:at + 8]; the caller sees to it that all eight bytes are there.
load8: Any = intrinsic(_load8)
# store8(data, at, word): write a uint64 to data[at:at + 8]; the caller sees to it that there is room.
store8: Any = intrinsic(_store8)
# copy(data, at, out, to, size): out[to:to + size] = data[at:at + size]; the two do not overlap.
copy: Any = intrinsic(_copy)


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
    """64-bit hash of data[a:b], not empty, where sixteen bytes from a on may be read; those behind b do not count."""
    size = b - a
    one, two = SEED ^ np.uint64(size), FIRST
    if size <= 16:
        low, high = load8(data, a), load8(data, a + 8)
        one = step(one, low & first8(size))
        two = high & (first8(size - 8) if size > 8 else ZERO)
    else:
        while a + 16 < b:
            one, two = step(one, load8(data, a)), step(two, load8(data, a + 8))
            a += 16
        one, two = step(one, load8(data, b - 16)), step(two, load8(data, b - 8))
    h = step(one, two) * SECOND
    return h ^ (h >> S32)


@kernel
def first8(count: int) -> np.uint64:
    """Mask of the first `count` of eight bytes, at least one; of all, where it is more."""
    return ALL >> np.uint64(64 - 8 * count if count < 8 else 0)


@kernel
def same_padded(data: Bytes, a: int, b: int, size: int) -> bool:
    """Whether data[a:a + size] and data[b:b + size], not empty, are the same; eight bytes from each start are read."""
    if size <= 8:
        return (load8(data, a) ^ load8(data, b)) & first8(size) == ZERO
    k = 0
    while k + 8 < size:
        if load8(data, a + k) != load8(data, b + k):
            return False
        k += 8
    return load8(data, a + size - 8) == load8(data, b + size - 8)


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


@kernel
def after(data: Bytes, a: int, b: int, count: int) -> int:
    """Where data[a:b] of UTF-8 has had so many code points; b where it has no more."""
    if b - a <= count:
        return b
    while a + 8 <= b and count >= 8:
        # A word has eight at the most.
        count -= characters(data, a, a + 8)
        a += 8
    while a < b:
        if (data[a] & 0xC0) != 0x80:
            if count == 0:
                break
            count -= 1
        a += 1
    return a
