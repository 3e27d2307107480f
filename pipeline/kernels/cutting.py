"""Text without some of its passages, over the bytes of a column: one copy of what is kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.kernels._jit import Bytes, Ints, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.wide import copy

NOWHERE = -1


def union(rows: Ints, starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """(row, start, end) of the passages that some spans cover, sorted; spans that touch or overlap become one.

    Rows times the bytes of the longest text stay below 2^63.
    """
    order = np.argsort(rows * (ends.max(initial=0) + 1) + starts)
    out = np.empty((3, order.size), np.int64)
    count = unite(*map(frozen, (rows[order], starts[order], ends[order])), out)
    return out[0, :count], out[1, :count], out[2, :count]


def misplaced(text: pa.Array, bounds: Ints, starts: Ints, ends: Ints) -> int:
    """The first row one of whose spans is empty, outside its text, not behind the one before or inside a character.

    Spans bounds[i]:bounds[i + 1] are those of row i, in bytes from the beginning of its text. -1 where all are right.
    """
    return int(check(*text_buffers(text), *map(frozen, (bounds, starts, ends))))


def without(text: pa.Array, bounds: Ints, starts: Ints, ends: Ints) -> pa.Array:
    """large_string: each text without its spans, which must be as `misplaced` wants them."""
    data, offsets = text_buffers(text)
    lengths = np.concatenate([[0], np.cumsum(ends - starts)])
    kept = np.diff(offsets) - np.diff(lengths[bounds])
    new = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    out = np.empty(int(new[-1]), np.uint8)
    keep(data, offsets, *map(frozen, (bounds, starts, ends)), out)
    return pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(new), pa.py_buffer(out))


@kernel
def unite(rows: Ints, starts: Ints, ends: Ints, out: Ints) -> int:
    """Write the united spans of sorted ones to out[row | start | end, k]; return how many."""
    n = 0
    for k in range(rows.size):
        if n > 0 and out[0, n - 1] == rows[k] and starts[k] <= out[2, n - 1]:
            out[2, n - 1] = max(out[2, n - 1], ends[k])
        else:
            out[0, n], out[1, n], out[2, n] = rows[k], starts[k], ends[k]
            n += 1
    return n


@kernel
def check(data: Bytes, offsets: Ints, bounds: Ints, starts: Ints, ends: Ints) -> int:
    for row in range(bounds.size - 1):
        first, size = offsets[row], offsets[row + 1] - offsets[row]
        before = np.int64(0)
        for k in range(bounds[row], bounds[row + 1]):
            if starts[k] < before or starts[k] >= ends[k] or ends[k] > size:
                return int(row)
            if _inside(data, first + starts[k]) or (ends[k] < size and _inside(data, first + ends[k])):
                return int(row)
            before = ends[k]
    return NOWHERE


@kernel
def _inside(data: Bytes, i: int) -> bool:
    """Whether a byte is not the first of its character."""
    return data[i] & np.uint8(0xC0) == np.uint8(0x80)


@kernel
def keep(data: Bytes, offsets: Ints, bounds: Ints, starts: Ints, ends: Ints, out: Bytes) -> None:
    n = 0
    for row in range(bounds.size - 1):
        first = i = offsets[row]
        for k in range(bounds[row], bounds[row + 1]):
            size = first + starts[k] - i
            copy(data, i, out, n, size)
            n += size
            i = first + ends[k]
        size = offsets[row + 1] - i
        copy(data, i, out, n, size)
        n += size
