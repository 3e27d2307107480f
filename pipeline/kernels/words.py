"""Up to eight bytes of text as one integer, in one load where the buffer allows it.

The load may touch bytes behind `end`, inside the same Arrow buffer; they are masked away and never decide anything.
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


def _typed(typing_context: Any, data: Any, i: Any) -> Any:
    """data[i:i + 8] of a contiguous uint8 array as a little-endian uint64; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(place, align=1)

    return types.uint64(data, types.int64), generate


_load: Any = intrinsic(_typed)


@kernel
def word(data: Bytes, i: int, end: int) -> np.uint64:
    """data[i:min(i + 8, end)], the first byte lowest, zeros above; zero where i >= end."""
    size = end - i
    if size <= 0:
        return ZERO
    if i + 8 <= data.size:
        found: np.uint64 = _load(data, i)
        return found if size >= 8 else found & (ALL >> (EIGHT * np.uint64(8 - size)))
    found = ZERO
    for k in range(min(size, 8)):
        found |= np.uint64(data[i + k]) << (EIGHT * np.uint64(k))
    return found
