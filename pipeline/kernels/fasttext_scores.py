"""From the average of a document's rows to its labels: the second half of what fastText does for a line.

A label's score is the logarithm of its probability. Where more than k labels are asked for than there are, fewer come;
one more than k is always looked for, so that the caller sees by how much the last of them leads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Ints, kernel

Rows = NDArray[np.float32]
Ids = NDArray[np.int32]

# By how much, as a difference of logarithms, a label must lead where rows were not summed in fastText's own order.
MARGIN = np.float32(2e-3)
LOWEST = np.float32(-3.0e38)
HALF = np.float32(-0.69)


@kernel
def descend(
    hidden: Rows,
    output: Rows,
    left: Ids,
    right: Ids,
    n_labels: int,
    stack: Ints,
    path: Rows,
    shares: Rows,
    best: Ints,
    best_score: Rows,
) -> int:
    """The best leaves of the Huffman tree and one more, likelier branches first; return how many.

    The likelier branch at a node has a share of half or more. The other one's logarithm, at most HALF, is not taken
    where even that is too little.
    """
    found = 0
    stack[0], path[0], shares[0] = 2 * n_labels - 2, np.float32(0), np.float32(-1)
    depth = 1
    while depth > 0:
        depth -= 1
        node, score = stack[depth], path[depth]
        if shares[depth] >= 0:
            if found >= best.size - 1 and score + HALF < best_score[best.size - 2] - MARGIN:
                continue
            score += _log(np.float64(shares[depth]))
        # A label that is further behind than MARGIN puts none of the first k in doubt.
        if found >= best.size - 1 and score < best_score[best.size - 2] - MARGIN:
            continue
        if left[node] < 0:
            found = _insert(best, best_score, found, node, score)
            continue
        f = np.float32(1.0 / (1.0 + np.exp(-_dot(hidden, output, node - n_labels))))
        likely, other = (right[node], left[node]) if f > np.float32(0.5) else (left[node], right[node])
        more, less = (np.float64(f), 1.0 - f) if f > np.float32(0.5) else (1.0 - f, np.float64(f))
        # What lies on top of the stack is looked at first.
        stack[depth], path[depth], shares[depth] = other, score, np.float32(less)
        stack[depth + 1], path[depth + 1], shares[depth + 1] = likely, score + _log(more), np.float32(-1)
        depth += 2
    return found


@kernel
def scan(hidden: Rows, output: Rows, n_labels: int, softmax: bool, values: Rows, best: Ints, best_score: Rows) -> int:
    """The best labels and one more by softmax, or by a sigmoid of each label alone; return how many."""
    most = LOWEST
    for r in range(n_labels):
        values[r] = _dot(hidden, output, r)
        most = max(most, values[r])
    total = np.float32(0)
    for r in range(n_labels):
        if softmax:
            values[r] = np.float32(np.exp(np.float64(values[r] - most)))
            total += values[r]
        else:
            values[r] = _sigmoid(values[r])
    found = 0
    for r in range(n_labels):
        found = _insert(best, best_score, found, r, _log(np.float64(values[r] / total if softmax else values[r])))
    return found


@kernel
def _insert(best: Ints, best_score: Rows, found: int, label: int, score: np.float32) -> int:
    """Put a label in its place among the best; return how many there are."""
    j = found if found < best.size else best.size - 1
    if found == best.size and score <= best_score[j]:
        return found
    while j > 0 and best_score[j - 1] < score:
        best[j], best_score[j] = best[j - 1], best_score[j - 1]
        j -= 1
    best[j], best_score[j] = label, score
    return min(found + 1, best.size)


@kernel
def _dot(hidden: Rows, output: Rows, row: int) -> np.float32:
    total = np.float32(0)
    for q in range(hidden.size):
        total += output[row, q] * hidden[q]
    return total


@kernel
def _log(x: float) -> np.float32:
    """fastText's logarithm, which has no minus infinity."""
    return np.float32(np.log(x + 1e-5))


@kernel
def _sigmoid(x: np.float32) -> np.float32:
    """fastText's sigmoid: a table of 512 steps between -8 and 8."""
    if x < -8:
        return np.float32(0.0)
    if x > 8:
        return np.float32(1.0)
    step = np.int64((x + np.float32(8.0)) * np.float32(512) / np.float32(8.0) / np.float32(2.0))
    at = np.float32(np.float32(step * 16) / np.float32(512) - np.float32(8.0))
    return np.float32(1.0 / (1.0 + np.exp(np.float64(-at))))
