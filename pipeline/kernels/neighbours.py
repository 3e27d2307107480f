"""Whether two characters of certain kinds stand side by side in a text: a reason to look closer, or none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Flags, Ints, kernel
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.utf8 import decode

# A character that counts beside another, one that makes such a pair odd, and one that is odd whatever is beside it.
MEMBER, RARE, ALONE = 1, 2, 4


def suspected(text: pa.Array, kinds: NDArray[np.uint8]) -> Flags:
    """bool [n]: whether a text has an ALONE character, or two MEMBERs side by side of which one is RARE.

    `kinds` has a sum of these for each code point up to its size; none is for those beyond.
    """
    data, offsets = text_buffers(text)
    out = np.zeros(len(text), np.bool_)
    look(data, offsets, kinds, out)
    return out


@kernel
def look(data: Bytes, offsets: Ints, kinds: Bytes, out: Flags) -> None:
    for d in range(offsets.size - 1):
        out[d] = _document(data, offsets[d], offsets[d + 1], kinds)


@kernel
def _document(data: Bytes, start: int, end: int, kinds: Bytes) -> bool:
    before = 0
    i = start
    while i < end:
        # Of ASCII nothing counts but the escape that a terminal reads.
        if data[i] >= 0x20 and data[i] < 0x80:
            before = 0
            i += 1
            continue
        code, width = decode(data, i, end)
        kind = int(kinds[code]) if code < kinds.size else 0
        if kind & ALONE or (before & kind & MEMBER and (before | kind) & RARE):
            return True
        before = kind
        i += width
    return False
