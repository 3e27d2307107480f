"""Best-fit decreasing: items into rows of one capacity, longest first, each into the fullest row that still has room.

The waste is small because short items fill what long ones leave: at most 11/9 of the fewest rows, plus 4 (Johnson
1973), and for text with many short documents a fraction of a percent. Rows are found by the room they have left, in
a tree over all amounts of room: O(log capacity) an item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Bytes, Ints, kernel
from pipeline.kernels.buffers import frozen

NONE = np.int64(-1)


def best_fit(lengths: NDArray[np.integer], capacity: int) -> Ints:
    """int64 [n]: the row of each item; rows are numbered 0, 1, ... by the first item that each holds.

    Equal lengths are placed in their order, so the result is a function of the lengths alone.
    Raises ValueError for an item that no row can hold: cut it before.
    """
    lengths = np.ascontiguousarray(lengths, np.int64)
    if lengths.size == 0:
        return np.zeros(0, np.int64)
    if lengths.min() < 1 or lengths.max() > capacity:
        wrong = int(np.flatnonzero((lengths < 1) | (lengths > capacity))[0])
        raise ValueError(f"item {wrong} has length {lengths[wrong]}: items must have length 1 to {capacity} (cut them)")
    rows = np.empty(lengths.size, np.int64)
    place(frozen(lengths), frozen(np.argsort(-lengths, kind="stable")), capacity, rows)
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[inverse]


def lay(flat: NDArray[Any], begins: Ints, sizes: Ints, out: NDArray[Any], places: Ints) -> None:
    """Copy flat[begins[i]:begins[i] + sizes[i]] to out[places[i]:places[i] + sizes[i]] for every piece i.

    Both arrays are contiguous and of one type; raises ValueError for a piece that does not lie within them.
    """
    width = flat.dtype.itemsize
    pieces = [np.ascontiguousarray(numbers, np.int64) for numbers in (begins, sizes, places)]
    for array, starts in ((flat, pieces[0]), (out, pieces[2])):
        if starts.size and (starts.min() < 0 or int((starts + pieces[1]).max()) > array.size):
            raise ValueError(f"a piece lies outside of the {array.size} numbers that there are")
    copy(frozen(flat.view(np.uint8)), *(frozen(numbers * width) for numbers in pieces), out.view(np.uint8))


@kernel
def copy(data: Bytes, begins: Ints, sizes: Ints, places: Ints, out: Bytes) -> None:
    """`lay`, in bytes."""
    for i in range(begins.size):
        begin, place = begins[i], places[i]
        for k in range(sizes[i]):
            out[place + k] = data[begin + k]


@kernel
def place(lengths: Ints, order: Ints, capacity: int, rows: Ints) -> None:
    """Fill rows[item]. newest[r] is the last row that came to have room r, under[row] the one before it."""
    size = 1
    while size <= capacity:
        size *= 2
    open_rows = np.zeros(2 * size, np.int64)  # a tree of counts: leaf size + r holds the rows with room r
    newest = np.full(capacity + 1, NONE)
    under = np.empty(order.size, np.int64)
    used = 0
    for item in order:
        length = lengths[item]
        room = _least_at(open_rows, size, length)
        if room < 0:
            row, room = used, capacity
            used += 1
        else:
            row = newest[room]
            newest[room] = under[row]
            _count(open_rows, size + room, -1)
        rows[item] = row
        left = room - length
        if left > 0:
            under[row] = newest[left]
            newest[left] = row
            _count(open_rows, size + left, 1)


@kernel
def _count(tree: Ints, node: int, change: int) -> None:
    while node > 0:
        tree[node] += change
        node //= 2


@kernel
def _least_at(tree: Ints, size: int, least: int) -> int | np.int64:
    """The smallest leaf number >= least with a count, or -1."""
    node = size + least
    if tree[node] > 0:
        return least
    while node > 1 and (node % 2 == 1 or tree[node + 1] == 0):
        node //= 2
    if node <= 1:
        return NONE
    node += 1
    while node < size:
        node = 2 * node if tree[2 * node] > 0 else 2 * node + 1
    return node - size
