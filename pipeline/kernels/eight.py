"""Eight bytes of text as one integer: what a kernel reads at once where byte by byte is too slow.

The first byte is the lowest. A load may touch bytes behind a document, inside the same Arrow buffer; they are masked
away and never decide anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipeline.kernels._jit import Bytes, kernel

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
EIGHT, ZERO = np.uint64(8), np.uint64(0)
HIGH, CASE = np.uint64(0x8080808080808080), np.uint64(0x2020202020202020)
# What must be added to a byte below 128 for its high bit to say that it is at least "a", and more than "z".
FROM_A, BEHIND_Z = np.uint64(0x1F1F1F1F1F1F1F1F), np.uint64(0x0505050505050505)


def _typed_load(typing_context: Any, data: Any, i: Any) -> Any:
    """data[i:i + 8] of a contiguous uint8 array; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return types.uint64(data, types.int64), generate


def _typed_zeros(typing_context: Any, x: Any) -> Any:
    """How many of the low bits of a uint64 are zero: 64 of zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


load: Any = intrinsic(_typed_load)
trailing_zeros: Any = intrinsic(_typed_zeros)


@kernel
def word(data: Bytes, i: int, end: int) -> np.uint64:
    """data[i:min(i + 8, end)], the first byte lowest, zeros above; zero where i >= end."""
    size = end - i
    if size <= 0:
        return ZERO
    if i + 8 <= data.size:
        found: np.uint64 = load(data, i)
        return found if size >= 8 else found & (ALL >> (EIGHT * np.uint64(8 - size)))
    found = ZERO
    for k in range(min(size, 8)):
        found |= np.uint64(data[i + k]) << (EIGHT * np.uint64(k))
    return found


@kernel
def letters(x: np.uint64) -> np.int64:
    """How many of the eight bytes, from the first, are ASCII letters."""
    low = (x | CASE) & ~HIGH
    found = (low + FROM_A) & ~(low + BEHIND_Z) & ~x & HIGH
    return np.int64(trailing_zeros(~found & HIGH)) >> 3
