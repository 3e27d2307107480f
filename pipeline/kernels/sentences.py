"""How many sentences a line has, by rule: what C4 and its kin ask of a splitter that was trained or configured.

A sentence ends with terminal punctuation (`TERMINAL` of kernels.unicode) and the closing punctuation behind it, where
white space or the end of the line follows; behind the full-width marks of Chinese and Japanese nothing need follow.
What is left at the end is a sentence if it is more than white space.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, Table, kernel
from pipeline.kernels.unicode import MARKED, SPACE, TERMINAL
from pipeline.kernels.utf8 import decode

IDEOGRAPHIC = 0x3000


@kernel
def sentences(line: Bytes, length: int, table: Table, classes: Bytes) -> np.int64:
    """Sentences of line[:length]."""
    n, open_, ended, wide = np.int64(0), False, False, False
    i = 0
    while i < length:
        code, width = decode(line, i, length)
        i += width
        if table[code] & SPACE != 0:
            n += open_ and ended
            open_ = open_ and not ended
            ended = False
            continue
        kind = classes[code]
        if ended and kind & (MARKED | TERMINAL) == 0:
            if wide and open_:
                n += 1
            ended = False
        if kind & TERMINAL != 0:
            wide = code >= IDEOGRAPHIC if not ended else wide or code >= IDEOGRAPHIC
            ended = True
        open_ = True
    return n + open_
