"""Citations in a line: "[" digits "]", "[edit]" and "[citation needed]", as TFDS's clean_page takes them out."""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, Table, kernel
from pipeline.kernels.unicode import ALNUM, WORD_BREAK, WORD_BREAKS
from pipeline.kernels.utf8 import decode

OPEN, CLOSE = 0x5B, 0x5D
EDIT, NEEDED = np.frombuffer(b"[edit]", np.uint8), np.frombuffer(b"[citation needed]", np.uint8)
NUMERIC, NOT_DECIMAL = WORD_BREAKS.index("Numeric"), 0x19DA


@kernel
def without_citations(line: Bytes, length: int, table: Table, classes: Bytes) -> np.int64:
    """Take "[" digits "]", "[edit]" and "[citation needed]" out of the line; returns its length."""
    i = n = np.int64(0)
    while i < length:
        if line[i] == OPEN:
            past = _citation(line, i, length, table, classes)
            if past > i:
                i = past
                continue
        line[n] = line[i]
        n += 1
        i += 1
    return n


@kernel
def _citation(line: Bytes, i: int, length: int, table: Table, classes: Bytes) -> np.int64:
    """Where the citation that begins at line[i] ends, or i."""
    j = np.int64(i) + 1
    while j < length and line[j] != CLOSE:
        code, width = decode(line, j, length)
        if classes[code] & WORD_BREAK != NUMERIC or table[code] & ALNUM == 0 or code == NOT_DECIMAL:
            break
        j += width
    if j < length and line[j] == CLOSE:
        return j + 1
    if _begins(line, i, length, EDIT):
        return np.int64(i + EDIT.size)
    return np.int64(i + NEEDED.size if _begins(line, i, length, NEEDED) else i)


@kernel
def _begins(line: Bytes, i: int, length: int, with_: Bytes) -> bool:
    if i + with_.size > length:
        return False
    k = 0
    while k < with_.size and line[i + k] == with_[k]:
        k += 1
    return bool(k == with_.size)
