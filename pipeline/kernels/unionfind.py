"""Connected components, and the way from each member back to the first.

Nodes are numbered in the order that decides: the lowest number of a component is its root, however the edges come.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels._jit import Floats, Ints, allocating_kernel, kernel
from pipeline.kernels.buffers import frozen

Numbers = NDArray[np.uint32]


def components(nodes: int, left: Ints, right: Ints) -> Ints:
    """int64 [nodes]: the lowest node of each node's component under the edges left[k] - right[k]."""
    parent = np.arange(nodes, dtype=np.int64)
    join(parent, frozen(left), frozen(right))
    return parent


def predecessors(roots: Ints, left: Ints, right: Ints, weight: Floats) -> tuple[Ints, Floats]:
    """(node before, weight of the edge from it) on a way from the root with the fewest edges.

    Among the nodes from which that is so the heaviest edge is taken, then the lowest node. A root has itself and NaN.
    """
    begins, edges = np.zeros(roots.size + 1, np.int64), np.empty(2 * left.size, np.uint32)
    group(frozen(left), frozen(right), begins, edges)
    before, by = np.full(roots.size, -1, np.int64), np.full(roots.size, np.nan)
    arrays: tuple[NDArray, ...] = (roots, begins, edges, left, right, weight)
    spread(*map(frozen, arrays), before, by)
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


@kernel
def group(left: Ints, right: Ints, begins: Ints, edges: Numbers) -> None:
    """Fill edges[begins[i]:begins[i + 1]] with the numbers of the edges that end at node i."""
    for k in range(left.size):
        begins[left[k] + 1] += 1
        begins[right[k] + 1] += 1
    for i in range(begins.size - 1):
        begins[i + 1] += begins[i]
    # Filled from behind: begins[i + 1] goes down from the end of i to its beginning, and is then moved to its place.
    for k in range(left.size):
        for node in (left[k], right[k]):
            begins[node + 1] -= 1
            edges[begins[node + 1]] = k
    for i in range(begins.size - 1):
        begins[i] = begins[i + 1]
    begins[begins.size - 1] = edges.size


@allocating_kernel
def spread(
    roots: Ints, begins: Ints, edges: Numbers, left: Ints, right: Ints, weights: Floats, before: Ints, by: Floats
) -> None:
    """Breadth first from all roots at once over edges grouped by end, edges[begins[i]:begins[i + 1]]."""
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
        for at in range(begins[u], begins[u + 1]):
            k = edges[at]
            v = right[k] if left[k] == u else left[k]
            if depth[v] < 0:
                depth[v] = depth[u] + 1
                before[v], by[v] = u, weights[k]
                queue[tail] = v
                tail += 1
            elif depth[v] == depth[u] + 1 and (weights[k] > by[v] or (weights[k] == by[v] and u < before[v])):
                before[v], by[v] = u, weights[k]
