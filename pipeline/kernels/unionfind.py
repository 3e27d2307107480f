"""Connected components, and the way from each member back to the first.

Nodes are numbered in the order that decides: the lowest number of a component is its root, however the edges come.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Floats, Ints, allocating_kernel, kernel
from pipeline.kernels.buffers import frozen


def components(nodes: int, left: Ints, right: Ints) -> Ints:
    """int64 [nodes]: the lowest node of each node's component under the edges left[k] - right[k]."""
    parent = np.arange(nodes, dtype=np.int64)
    join(parent, frozen(left), frozen(right))
    return parent


def predecessors(roots: Ints, left: Ints, right: Ints, weight: Floats) -> tuple[Ints, Floats]:
    """(node before, weight of the edge from it) on a way from the root with the fewest edges.

    Among the nodes from which that is so the heaviest edge is taken, then the lowest node. A root has itself and NaN.
    """
    ends = np.concatenate([left, right])
    order = np.argsort(ends, kind="stable")
    begins = np.searchsorted(ends[order], np.arange(roots.size + 1))
    before, by = np.full(roots.size, -1, np.int64), np.full(roots.size, np.nan)
    others, weights = np.concatenate([right, left])[order], np.concatenate([weight, weight])[order]
    spread(*map(frozen, (roots, begins.astype(np.int64), others, weights)), before, by)
    return before, by


@kernel
def join(parent: Ints, left: Ints, right: Ints) -> None:
    """Union the ends of every edge, then point every node at its root."""
    for k in range(left.size):
        a, b = _find(parent, left[k]), _find(parent, right[k])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b
    for i in range(parent.size):
        parent[i] = _find(parent, i)


@kernel
def _find(parent: Ints, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@allocating_kernel
def spread(roots: Ints, begins: Ints, others: Ints, weights: Floats, before: Ints, by: Floats) -> None:
    """Breadth first from all roots at once over edges grouped by end: others[begins[i]:begins[i + 1]]."""
    depth = np.full(roots.size, -1, np.int64)
    queue = np.empty(roots.size, np.int64)
    head = tail = 0
    for i in range(roots.size):
        if roots[i] == i:
            depth[i] = 0
            before[i] = i
            queue[tail] = i
            tail += 1
    while head < tail:
        u = queue[head]
        head += 1
        for k in range(begins[u], begins[u + 1]):
            v = others[k]
            if depth[v] < 0:
                depth[v] = depth[u] + 1
                before[v], by[v] = u, weights[k]
                queue[tail] = v
                tail += 1
            elif depth[v] == depth[u] + 1 and (weights[k] > by[v] or (weights[k] == by[v] and u < before[v])):
                before[v], by[v] = u, weights[k]
