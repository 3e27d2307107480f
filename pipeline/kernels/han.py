"""What a text without spaces is judged by: its characters, counted by kind in one pass.

Units are code points. White space counts for nothing but the lines and sentences that it ends.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels import chinese
from pipeline.kernels._jit import Bytes, Floats, Ints, Table, allocating_kernel, kernel
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.sentences import sentences
from pipeline.kernels.unicode import ALNUM, ALPHA, CODE_POINTS, MARKED, SPACE, classes, table
from pipeline.kernels.utf8 import decode

COUNTS = (
    "characters",
    "han",  # Han characters
    "simplified",  # those that only Simplified Chinese has
    "traditional",  # those that only Traditional Chinese has
    "alphanumeric",  # letters, digits and numbers of any script
    "digits",  # those that are no letter
    "punctuation",
    "bracketed",  # between 【 and the next 】 of the same line
    "distinct",  # different characters
    "sentences",
    "lines",  # between line feeds, that hold more than white space
)
(CHARACTERS, HAN, SIMPLIFIED, TRADITIONAL, ALPHANUMERIC, DIGITS, PUNCTUATION, BRACKETED, DISTINCT, SENTENCES, LINES) = (
    range(len(COUNTS))
)
LF, OPENING, CLOSING = 10, 0x3010, 0x3011


def counts(text: pa.Array) -> tuple[dict[str, Ints], Floats]:
    """(COUNTS of every document, int64 [n] each; entropy of its characters in nats, float64 [n], 0 where none is)."""
    data, offsets = text_buffers(text)
    out, entropy = np.zeros((len(text), len(COUNTS)), np.int64), np.zeros(len(text), np.float64)
    tally = np.zeros(CODE_POINTS, np.int32)
    longest = int(np.diff(offsets).max(initial=0))
    met = np.empty(min(longest, CODE_POINTS), np.int32)
    measure(data, offsets, table(), classes(), chinese.scripts(), tally, met, out, entropy)
    return dict(zip(COUNTS, out.T, strict=True)), entropy


@allocating_kernel
def measure(
    data: Bytes,
    offsets: Ints,
    table: Table,
    classes: Bytes,
    scripts: Bytes,
    tally: NDArray[np.int32],
    met: NDArray[np.int32],
    out: Ints,
    entropy: Floats,
) -> None:
    """Fill a row of `out` and of `entropy` for every document; `tally` is zero before and after."""
    for d in range(offsets.size - 1):
        start, end, row = offsets[d], offsets[d + 1], out[d]
        _count(data, start, end, table, classes, scripts, tally, met, row)
        row[SENTENCES] = sentences(data[start:end], end - start, table, classes)
        entropy[d] = _entropy(row[CHARACTERS], row[DISTINCT], tally, met)


@kernel
def is_han(code: int) -> bool:
    """Whether a code point is a Han character: the blocks of unified and compatibility ideographs, 々 and 〇."""
    return (
        0x4E00 <= code <= 0x9FFF
        or 0x3400 <= code <= 0x4DBF
        or 0x20000 <= code <= 0x323AF
        or 0xF900 <= code <= 0xFAFF
        or code == 0x3005
        or code == 0x3007
    )


@kernel
def _count(
    data: Bytes,
    start: int,
    end: int,
    table: Table,
    classes: Bytes,
    scripts: Bytes,
    tally: NDArray[np.int32],
    met: NDArray[np.int32],
    row: Ints,
) -> None:
    """All but sentences of one document; met[:distinct] are its characters."""
    inside, filled = np.int64(-1), False
    i = start
    while i < end:
        code, width = decode(data, i, end)
        i += width
        entry = table[code]
        if entry & SPACE != 0:
            if code == LF:
                row[LINES] += filled
                inside, filled = np.int64(-1), False
            continue
        filled = True
        row[CHARACTERS] += 1
        if tally[code] == 0:
            met[row[DISTINCT]] = code
            row[DISTINCT] += 1
        tally[code] += 1
        if entry & ALNUM != 0:
            row[ALPHANUMERIC] += 1
            row[DIGITS] += entry & ALPHA == 0
            row[HAN] += is_han(code)
            row[SIMPLIFIED] += scripts[code] == chinese.SIMPLIFIED
            row[TRADITIONAL] += scripts[code] == chinese.TRADITIONAL
        else:
            row[PUNCTUATION] += classes[code] & MARKED != 0
            if code == OPENING:
                inside = row[CHARACTERS] if inside < 0 else inside
            elif code == CLOSING and inside >= 0:
                row[BRACKETED] += row[CHARACTERS] - 1 - inside
                inside = np.int64(-1)
    row[LINES] += filled


@kernel
def _entropy(total: int, distinct: int, tally: NDArray[np.int32], met: NDArray[np.int32]) -> np.float64:
    """Of the characters that were tallied, in nats; leaves the tally zero."""
    found = np.float64(0.0)
    for k in range(distinct):
        share = tally[met[k]] / total
        found -= share * np.log(share)
        tally[met[k]] = 0
    return found
