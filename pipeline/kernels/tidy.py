"""What is untidy about a text, found over its bytes, so that tidy text need not be touched.

A bit for each kind of flaw; the normaliser rewrites only documents that have one. About 1 GB/s on tidy text.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Ints, Table, kernel
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.unicode import ASSIGNED, CONTROL, SPACE, table
from pipeline.kernels.utf8 import decode

UNSETTLED, CONTROLS, SPACES, BLANK_LINES, UNKNOWN = 1, 2, 4, 8, 16
LF = 10
MOST_LINE_FEEDS = 3  # two blank lines


def flaws(text: pa.Array, inert: int) -> NDArray[np.uint8]:
    """uint8 [n], a sum of: UNSETTLED a character without the flag `inert`, which a normal form may change; CONTROLS;
    SPACES at the end of a line or at an end of the text; BLANK_LINES more than two; UNKNOWN to Unicode 14.0."""
    data, offsets = text_buffers(text)
    out = np.zeros(len(text), np.uint8)
    find(data, offsets, table(), inert, out)
    return out


@kernel
def find(data: Bytes, offsets: Ints, table: Table, inert: int, out: Bytes) -> None:
    """Fill out[document] with its flaws."""
    for d in range(offsets.size - 1):
        out[d] = _document(data, offsets[d], offsets[d + 1], table, inert)


@kernel
def _document(data: Bytes, start: int, end: int, table: Table, inert: int) -> int:
    found = feeds = 0
    after_space = True  # the beginning of the text is as the end of a line: no white space may stand there
    i = start
    while i < end:
        code, width = decode(data, i, end)
        if 0x20 < code < 0x7F:
            after_space, feeds = False, 0
            i += 1
            continue
        flags = int(table[code])
        space = flags & SPACE != 0
        if flags & inert == 0:
            found |= UNSETTLED
        if flags & CONTROL:
            found |= CONTROLS
        if flags & ASSIGNED == 0:
            found |= UNKNOWN
        if (code == LF and after_space and feeds == 0) or (space and i == start):
            found |= SPACES
        feeds = feeds + 1 if code == LF else 0
        if feeds > MOST_LINE_FEEDS:
            found |= BLANK_LINES
        after_space = space
        i += width
    return found | SPACES if after_space and end > start else found
