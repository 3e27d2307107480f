"""Sixty-four bytes at once: what numba has no words for, as instructions of LLVM.

A mask is a uint64 with a bit for each byte, the first byte's lowest. Whoever calls sees to it that all bytes are there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipeline.kernels._jit import Bytes, kernel
from pipeline.kernels.wide import place

WIDTH = 64
VECTOR, MASK, NUMBER = ir.VectorType(ir.IntType(8), WIDTH), ir.IntType(WIDTH), ir.IntType(32)
SAME_LANE = ir.Constant(ir.VectorType(NUMBER, WIDTH), None)


def _within64(typing: Any, data: Any, at: Any, fold: Any, first: Any, last: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def everywhere(value: Any) -> Any:
            nothing = ir.Constant(VECTOR, ir.Undefined)
            one = builder.insert_element(nothing, builder.trunc(value, ir.IntType(8)), NUMBER(0))
            return builder.shuffle_vector(one, nothing, SAME_LANE)

        folded = builder.or_(_loaded(context, builder, signature, arguments), everywhere(arguments[2]))
        span = everywhere(builder.sub(arguments[4], arguments[3]))
        return builder.bitcast(builder.icmp_unsigned("<=", builder.sub(folded, everywhere(arguments[3])), span), MASK)

    return types.uint64(data, types.int64, types.int64, types.int64, types.int64), build


def _fold64(typing: Any, data: Any, at: Any, out: Any, to: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def every(byte: int) -> Any:
            return ir.Constant(VECTOR, [byte] * WIDTH)

        def among(found: Any, first: str, count: int) -> Any:
            return builder.icmp_unsigned("<", builder.sub(found, every(ord(first))), every(count))

        text = _loaded(context, builder, signature, arguments)
        letters = among(builder.or_(text, every(0x20)), "a", 26)
        lower = builder.or_(text, builder.select(letters, every(0x20), every(0)))
        there = place(context, builder, signature, arguments, 2)
        builder.store(lower, builder.bitcast(there, VECTOR.as_pointer()), align=1)
        masks = builder.or_(letters, among(text, "0", 10)), builder.icmp_signed("<", text, every(0))
        return context.make_tuple(builder, signature.return_type, [builder.bitcast(m, MASK) for m in masks])

    return types.UniTuple(types.uint64, 2)(data, types.int64, out, types.int64), build


def _count64(typing: Any, mask: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), build


def _prefetch(typing: Any, rows: Any, row: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(array.strides, 0)
        byte = ir.IntType(8).as_pointer()
        there = builder.gep(builder.bitcast(array.data, byte), [builder.mul(arguments[1], stride)])
        kind = ir.FunctionType(ir.VoidType(), [byte, NUMBER, NUMBER, NUMBER])
        wanted = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        builder.call(wanted, [there, NUMBER(0), NUMBER(3), NUMBER(1)])
        return context.get_dummy_value()

    return types.void(rows, types.int64), build


def _loaded(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    there = place(context, builder, signature, arguments)
    return builder.load(builder.bitcast(there, VECTOR.as_pointer()), align=1, typ=VECTOR)


# within64(data, at, fold, first, last): which of data[at:at + 64], with the bits of `fold` set, lie in first..last.
within64: Any = intrinsic(_within64)
# fold64(data, at, out, to): write data[at:at + 64] to out[to:to + 64], its ASCII letters in lower case; returns the
# masks of what is an ASCII letter or digit and of what is not ASCII.
fold64: Any = intrinsic(_fold64)
# count64(mask): how many bits are set.
count64: Any = intrinsic(_count64)
# prefetch(rows, row): have the first bytes of rows[row] brought to the processor, and do not wait for them.
prefetch: Any = intrinsic(_prefetch)


@kernel
def byte64(data: Bytes, at: int, byte: int) -> np.uint64:
    """Which of data[at:at + 64] are `byte`."""
    found: np.uint64 = within64(data, at, 0, byte, byte)
    return found


@kernel
def blank64(data: Bytes, at: int) -> np.uint64:
    """Which of data[at:at + 64] part fastText's tokens: NUL, a space, tab to carriage return."""
    found: np.uint64 = within64(data, at, 0, 9, 13) | byte64(data, at, 0) | byte64(data, at, 32)
    return found
