"""What stands between line feeds, a row for each line: where it is, its words and its characters by kind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Ints, Table, kernel
from pipeline.kernels.buffers import text_buffers
from pipeline.kernels.unicode import ALNUM, ALPHA, LOWER, SPACE, SPACELESS, table
from pipeline.kernels.utf8 import decode
from pipeline.kernels.words import cuts_word

# Of characters those that are no white space; capitals have another lower case; digits are numbers that are no letters.
COLUMNS = ("document", "start", "end", "words", "characters", "capitals", "digits")
DOCUMENT, START, END, WORDS, CHARACTERS, CAPITALS, DIGITS = range(len(COLUMNS))
LF = 10


def lines(text: pa.Array, by_script: bool) -> dict[str, Ints]:
    """COLUMNS of every line of every document, int64 [lines] each, in their order; bounds in bytes of the document.

    A text has a line more than line feeds. Words stand between white space; with `by_script` each letter of a script
    without spaces is one, too.
    """
    data, offsets = text_buffers(text)
    count = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == LF)) + len(text) if len(text) else 0
    out = np.zeros((count, len(COLUMNS)), np.int64)
    look(data, offsets, table(), by_script, out)
    return dict(zip(COLUMNS, out.T, strict=True))


@kernel
def look(data: Bytes, offsets: Ints, table: Table, by_script: bool, out: Ints) -> None:
    row = 0
    for d in range(offsets.size - 1):
        first, end = offsets[d], offsets[d + 1]
        i = first
        while i <= end:
            stop = i
            while stop < end and data[stop] != LF:
                stop += 1
            out[row, DOCUMENT], out[row, START], out[row, END] = d, i - first, stop - first
            inside, spaceless = False, False
            while i < stop:
                code, width = decode(data, i, stop)
                i += width
                entry = np.int64(table[code])
                if entry & SPACE != 0:
                    inside = False
                    continue
                if not inside or (by_script and cuts_word(entry, spaceless)):
                    out[row, WORDS] += 1
                    inside, spaceless = True, entry & SPACELESS != 0
                out[row, CHARACTERS] += 1
                out[row, CAPITALS] += entry & LOWER != code
                out[row, DIGITS] += entry & ALNUM != 0 and entry & ALPHA == 0
            row += 1
            i = stop + 1
