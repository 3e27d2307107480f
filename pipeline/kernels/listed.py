"""Which words and phrases of a list stand in a text: a trie of code points, walked from where one may begin.

Text and list are compared in simple lower case (Unicode 14.0), any run of white space as one space. An entry that
begins (ends) with a letter or digit of a script with spaces between words must begin (end) a word; the letters of other
scripts, Han or Thai, may stand beside any other. Of entries that begin at one place the longest counts, and the next is
looked for behind it. Nearly every walk ends at its first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Ints, Table, allocating_kernel, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.unicode import ALNUM, CODE_POINTS, LOWER, MARK, SPACE, SPACELESS, code_points, table
from pipeline.kernels.utf8 import decode

MOST_CELLS = 1 << 27
Small = NDArray[np.int32]


class Trie(NamedTuple):
    """`symbols` [code points]: the column of a lower-case character, 0 for one that no entry has. `steps` [nodes,
    columns]: the node behind, 0 for none. `units` [nodes]: how many units an entry has that ends here, 0 for none."""

    symbols: Small
    steps: Small
    units: Small


def trie(entries: Sequence[str], units: Sequence[int]) -> Trie:
    """The trie of some entries, none empty. Raises ValueError where it would be too large."""
    rows = [_folded(entry) for entry in entries]
    used = sorted({code for row in rows for code in row})
    symbols = np.zeros(CODE_POINTS, np.int32)
    symbols[used] = np.arange(1, len(used) + 1)
    nodes: list[dict[int, int]] = [{}]
    ends: dict[int, int] = {}
    for row, count in zip(rows, units, strict=True):
        node = 0
        for code in row:
            if code not in nodes[node]:
                nodes.append({})
                nodes[node][code] = len(nodes) - 1
            node = nodes[node][code]
        ends[node] = count
    if len(nodes) * (len(used) + 1) > MOST_CELLS:
        raise ValueError(f"the list is too long: {len(entries):,} entries of {len(used):,} different characters")
    steps = np.zeros((len(nodes), len(used) + 1), np.int32)
    for node, after in enumerate(nodes):
        for code, then in after.items():
            steps[node, symbols[code]] = then
    counts = np.zeros(len(nodes), np.int32)
    counts[list(ends)] = list(ends.values())
    return Trie(frozen(symbols), frozen(steps), frozen(counts))


def _folded(entry: str) -> list[int]:
    """The code points of an entry as they are looked for."""
    codes = code_points(" ".join(entry.split()))
    return (table()[codes] & LOWER).tolist()


def matches(text: pa.Array, listed: Trie) -> tuple[Ints, Ints]:
    """(entries, units) int64 [n]: how many entries stand in each text, and how many units they have together."""
    data, offsets = text_buffers(text)
    entries, units = (np.zeros(len(text), np.int64) for _ in range(2))
    _match(data, offsets, listed, table(), entries, units)
    return entries, units


@allocating_kernel
def _match(data: Bytes, offsets: Ints, listed: Trie, known: Table, entries: Ints, units: Ints) -> None:
    for d in range(offsets.size - 1):
        at, end = offsets[d], offsets[d + 1]
        joined = False
        while at < end:
            code, width = decode(data, at, end)
            flags = known[code]
            if not (joined and _joins(flags)) and listed.steps[0, listed.symbols[flags & LOWER]] > 0:
                behind, count = _longest(data, at, end, listed, known)
                if count > 0:
                    entries[d] += 1
                    units[d] += count
                    # The last character says whether the next one may begin a word.
                    at, joined = behind, False
                    continue
            joined = _joins(flags) or (joined and flags & MARK != 0)
            at += width


@kernel
def _longest(data: Bytes, at: int, end: int, listed: Trie, known: Table) -> tuple[int, int]:
    """(where it ends, its units) of the longest entry that begins here; (at, 0) for none."""
    node, behind, count = 0, at, 0
    here = at
    while here < end:
        code, width = decode(data, here, end)
        flags = known[code]
        if flags & SPACE != 0:
            node = listed.steps[node, listed.symbols[32]]
            here += width
            while here < end:
                code, width = decode(data, here, end)
                if known[code] & SPACE == 0:
                    break
                here += width
        else:
            node = listed.steps[node, listed.symbols[flags & LOWER]]
            here += width
        if node == 0:
            break
        if listed.units[node] > 0 and not _goes_on(data, here, end, known, flags):
            behind, count = here, listed.units[node]
    return behind, count


@kernel
def _goes_on(data: Bytes, here: int, end: int, known: Table, last: int) -> bool:
    """Whether the word whose last character has these flags goes on."""
    if here >= end:
        return False
    flags = known[decode(data, here, end)[0]]
    return flags & MARK != 0 or (_joins(last) and _joins(flags))


@kernel
def _joins(flags: int) -> bool:
    """Whether a character is a letter or digit that others may stand beside in a word."""
    return flags & ALNUM != 0 and flags & SPACELESS == 0
