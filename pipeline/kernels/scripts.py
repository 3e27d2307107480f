"""How many letters of each script a text has, by the blocks of Unicode 14.0 in which a script's letters lie.

A block is nearly a script: of the letters of each at least 94 in 100 lie in its blocks, and the few that lie elsewhere
count as other. Marks, digits and punctuation are of no script here.
"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Ints, allocating_kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.unicode import ALPHA, CODE_POINTS, table
from pipeline.kernels.utf8 import decode

BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "latin": (
        (0x41, 0x2B8),
        (0x2E0, 0x2E4),
        (0x2071, 0x209C),
        (0x10780, 0x107BA),
        (0x1DF00, 0x1DF1E),
        (0x1D00, 0x1DBF),
        (0x1E00, 0x1EFF),
        (0x2C60, 0x2C7F),
        (0xA722, 0xA7FF),
        (0xAB30, 0xAB6F),
        (0xFB00, 0xFB06),
        (0xFF21, 0xFF5A),
    ),
    "greek": ((0x370, 0x3E1), (0x3F0, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0xA640, 0xA69F)),
    "hebrew": ((0x590, 0x5FF), (0xFB1D, 0xFB4F)),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x870, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFF), (0x1EE00, 0x1EEFF)),
    "devanagari": ((0x900, 0x97F), (0xA8E0, 0xA8FF)),
    "thai": ((0xE00, 0xE7F),),
    "hangul": ((0x1100, 0x11FF), (0x3131, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xFFA0, 0xFFDC)),
    "kana": ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F)),
    "han": ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F)),
}
NAMES = (*BLOCKS, "other")


@functools.cache
def script_table() -> NDArray[np.uint8]:
    """uint8 [code points], read-only: the number of a letter's script in NAMES; what is no letter has the next."""
    found = np.full(CODE_POINTS, NAMES.index("other"), np.uint8)
    for number, blocks in enumerate(BLOCKS.values()):
        for first, last in blocks:
            found[first : last + 1] = number
    found[(table() & ALPHA) == 0] = len(NAMES)
    return frozen(found)


def letters(text: pa.Array) -> Ints:
    """int64 [n, scripts]: letters of each script of NAMES."""
    data, offsets = text_buffers(text)
    out = np.zeros((len(text), len(NAMES) + 1), np.int64)
    _count(data, offsets, script_table(), out)
    return out[:, : len(NAMES)]


@allocating_kernel
def _count(data: Bytes, offsets: Ints, known: Bytes, out: NDArray[np.int64]) -> None:
    for d in range(offsets.size - 1):
        at, end = offsets[d], offsets[d + 1]
        while at < end:
            code, width = decode(data, at, end)
            out[d, known[code]] += 1
            at += width
