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
from numba.extending import intrinsic

from pipeline.kernels._jit import Bytes, kernel
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
        return _ordered(builder, builder.load(place, align=1, typ=ir.IntType(64)))

    return types.uint64(data, types.int64), build


def _store8(typing: Any, data: Any, at: Any, word: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(_ordered(builder, arguments[2]), _place(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), build


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())


def _ordered(builder: Any, word: Any) -> Any:
    return builder.bswap(word) if sys.byteorder == "big" else word


# load8(data, at): the uint64 at data[at:at + 8]; the caller sees to it that all eight bytes are there.
load8: Any = intrinsic(_load8)
# store8(data, at, word): write a uint64 to data[at:at + 8]; the caller sees to it that there is room.
store8: Any = intrinsic(_store8)


VECTOR = ir.VectorType(ir.IntType(8), 64)


def _place64(context: Any, builder: Any, signature: Any, arguments: Any, array: int) -> Any:
    values = context.make_array(signature.args[array])(context, builder, arguments[array])
    return builder.bitcast(builder.gep(values.data, [arguments[array + 1]]), VECTOR.as_pointer())


def _every(byte: int) -> Any:
    return ir.Constant(VECTOR, [byte] * 64)


def _among(builder: Any, text: Any, first: int, count: int) -> Any:
    return builder.icmp_unsigned("<", builder.sub(text, _every(first)), _every(count))


def _fold64(typing: Any, data: Any, at: Any, out: Any, to: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        text = builder.load(_place64(context, builder, signature, arguments, 0), align=1, typ=VECTOR)
        letters = _among(builder, builder.or_(text, _every(0x20)), ord("a"), 26)
        lower = builder.or_(text, builder.select(letters, _every(0x20), _every(0)))
        builder.store(lower, _place64(context, builder, signature, arguments, 2), align=1)
        inside = builder.or_(letters, _among(builder, text, ord("0"), 10))
        masks = [builder.bitcast(m, ir.IntType(64)) for m in (inside, builder.icmp_signed("<", text, _every(0)))]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 2)(data, types.int64, out, types.int64), build


def _blank64(typing: Any, data: Any, at: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        text = builder.load(_place64(context, builder, signature, arguments, 0), align=1, typ=VECTOR)
        blank = _among(builder, text, ord("\t"), 5)
        for byte in (0, ord(" ")):
            blank = builder.or_(blank, builder.icmp_unsigned("==", text, _every(byte)))
        return builder.bitcast(blank, ir.IntType(64))

    return types.uint64(data, types.int64), build


def _prefetch(typing: Any, rows: Any, row: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(array.strides, 0)
        byte = ir.IntType(8).as_pointer()
        place = builder.gep(builder.bitcast(array.data, byte), [builder.mul(arguments[1], stride)])
        number = ir.IntType(32)
        wanted = builder.module.declare_intrinsic(
            "llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        )
        builder.call(wanted, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(rows, types.int64), build


# prefetch(rows, row): have the first bytes of rows[row] brought to the processor, and do not wait for them.
prefetch: Any = intrinsic(_prefetch)
# fold64(data, at, out, to): write data[at:at + 64] to out[to:to + 64], its ASCII letters in lower case; returns a bit
# for each byte that is an ASCII letter or digit, and one for each that is not ASCII, the first byte's lowest. The
# caller sees to it that there is room.
fold64: Any = intrinsic(_fold64)
# blank64(data, at): a bit for each byte of data[at:at + 64] that is NUL, a space, or one from tab to carriage return.
blank64: Any = intrinsic(_blank64)


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


@kernel
def count8(mask: np.uint64) -> np.int64:
    """How many bytes a mask has."""
    return np.int64(((mask >> S7) * ONES) >> S56)


@kernel
def step(h: np.uint64, word: np.uint64) -> np.uint64:
    h = (h ^ word) * FIRST
    return h ^ (h >> S29)


@kernel
def hashed(data: Bytes, a: int, b: int) -> np.uint64:
    """64-bit hash of data[a:b]; reads nothing else."""
    h = SEED ^ np.uint64(b - a)
    while a + 8 <= b:
        h = step(h, load8(data, a))
        a += 8
    if a < b:
        word = ZERO
        for k in range(b - a):
            word |= np.uint64(data[a + k]) << np.uint64(8 * k)
        h = step(h, word)
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
