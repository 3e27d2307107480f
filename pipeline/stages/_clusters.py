"""Duplicate clusters from equal digests and verified pairs: what `exact` and `near` share.

Documents come sorted by doc_id; documents with one digest are one node, and a pair of digests that are both present
is an edge. So the clusters depend on which documents are present and on nothing else. Rank 0, the survivor, is the
"earliest" of its cluster, the lowest doc_id, or the "best": the highest `quality` (a column that another stage measures
in the same segment; who was not measured comes last), then the longest text, then the lowest doc_id. A cluster bears
its lowest doc_id whoever survives, so nobody changes splits with the survivor.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.kernels.unionfind import components, predecessors

Survivor = Literal["earliest", "best"]
PAIRS = pa.schema(
    [
        pa.field("a", pa.binary(16), nullable=False),
        pa.field("b", pa.binary(16), nullable=False),
        pa.field("jaccard", pa.float64()),
    ]
)

# The weight of a pair whose similarity nobody knows: a verified one has more.
UNVERIFIED = 0.0
EDGES = 1 << 20


def check(survivor: Survivor, quality: str | None) -> None:
    """Raise ValueError for a survivor that cannot be told."""
    if quality is not None and survivor != "best":
        raise ValueError('quality is for survivor = "best"; the earliest is the lowest doc_id')


def reads(*, survivor: Survivor, quality: str | None, **others: Any) -> list[str]:
    """Signals by which documents are preferred, the one that counts most first."""
    return [*([quality] if quality else []), "text_bytes"] if survivor == "best" else []


def preferred(documents: pa.Table, pairs: pa.Table, by: list[str]) -> pa.Table:
    """What `clusters` gives where the survivor has the highest of the columns `by`, one after the other."""
    if not by:
        return clusters(documents, pairs)
    order = pc.sort_indices(documents, [*((name, "descending") for name in by), ("doc_id", "ascending")])
    found = clusters(documents.take(order).combine_chunks(), pairs).take(pc.sort_indices(order)).combine_chunks()
    survivor = whole(found["cluster"]).dictionary_encode().indices
    _, first = np.unique(survivor.to_numpy(), return_index=True)
    lowest = whole(found["doc_id"]).take(pa.array(first)).take(survivor)
    return found.set_column(found.schema.get_field_index("cluster"), "cluster", lowest)


def clusters(documents: pa.Table, pairs: pa.Table) -> pa.Table:
    """doc_id, dup_rank, dup_of, cluster, cluster_size, jaccard, via, via_jaccard of every document, in its order.

    The first document of a cluster is its survivor, and here its name.
    `jaccard` is the verified similarity to the survivor, null where the two were not compared. `via` is the next
    document on a shortest way of pairs to the survivor (the survivor itself where they are a pair) and `via_jaccard`
    the similarity of that step, null where the pair was not verified. Documents without a digest stand alone.
    """
    ids = whole(documents["doc_id"])
    node, first, known = _nodes(whole(documents["digest"]))
    left, right, weight = _edges(known, pairs)
    roots = components(first.size, left, right)
    before, by = predecessors(roots, left, right, weight)
    root = roots[node]
    size = np.bincount(root, minlength=first.size)[root]
    rank = _ranks(root)
    duplicate = rank > 0
    # A document that shares the survivor's digest has an equal set: nothing lies between them.
    same = node == root
    via, via_jaccard = first[before[node]], np.where(same, 1.0, by[node])
    direct = before[node] == root
    compared = via_jaccard > UNVERIFIED
    columns = {
        "doc_id": ids,
        "dup_rank": pa.array(rank, pa.int32()),
        "dup_of": _ids(ids, first[root], duplicate),
        "cluster": _ids(ids, first[root], np.ones(len(ids), bool)),
        "cluster_size": pa.array(size, pa.int32()),
        "jaccard": pa.array(via_jaccard, pa.float64(), mask=~(duplicate & direct & compared)),
        "via": _ids(ids, via, duplicate),
        "via_jaccard": pa.array(via_jaccard, pa.float64(), mask=~(duplicate & compared)),
    }
    return pa.table(columns)


def extended(documents: pa.Table, pairs: pa.Table, before: pa.Table) -> tuple[pa.Table, pa.Array]:
    """What `clusters` gives where the documents of `before` were clustered first, and the ids of those who bridge.

    `before` are those clusters: the signals of every document of `documents` that was there. Their members stay what
    they are and only their sizes grow; a new document joins behind them, whatever its id. One that hangs together with
    several of them bridges: it joins the one whose survivor has the lowest id, and the others stay apart.
    """
    ids = whole(documents["doc_id"])
    place = pc.index_in(ids, whole(before["doc_id"]))
    new = pc.is_null(place).to_numpy(zero_copy_only=False)
    at = place.filter(pc.is_valid(place))
    was = before.take(at)
    if len(at) != before.num_rows:
        raise ValueError(f"{before.num_rows - len(at)} documents of the clusters before are not there any more")
    rank = np.full(len(ids), -1, np.int64)
    rank[~new] = was["dup_rank"].to_numpy()
    # Survivors first, then who lost to them, then whoever came later: a component is named by its first.
    order = np.lexsort((np.arange(len(ids)), rank, new))
    found = clusters(documents.take(pa.array(order)).combine_chunks(), pairs)
    found = found.take(pa.array(np.argsort(order, kind="stable"))).combine_chunks()
    root = pc.index_in(found["cluster"], ids).combine_chunks().to_numpy().astype(np.int64)
    own = root.copy()
    own[~new] = pc.index_in(was["cluster"], ids).combine_chunks().to_numpy()
    size = np.bincount(own, minlength=len(ids))
    held = np.bincount(own[~new], minlength=len(ids))
    rank[new] = held[root[new]] + _ranks(root[new])
    apart = np.zeros(len(ids), bool)
    apart[root[~new][own[~new] != root[~new]]] = True
    columns = {"doc_id": ids}
    for name in found.column_names[1:]:
        values = whole(found[name])
        kept = whole(was[name]) if name in was.column_names else pa.nulls(len(at), values.type)
        columns[name] = pc.replace_with_mask(values, pa.array(~new), kept)
    columns["dup_rank"], columns["cluster_size"] = pa.array(rank, pa.int32()), pa.array(size[own], pa.int32())
    columns["dup_of"] = pc.if_else(pa.array(rank == 0), None, columns["cluster"])
    return pa.table(columns), ids.filter(pa.array(new & apart[root]))


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _nodes(digests: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]:
    """(node of each document, first document of each node, digests of the nodes that have one).

    Nodes with a digest come first, in the order of their first documents; the others have a node each.
    """
    coded = digests.dictionary_encode()
    node = pc.fill_null(coded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False).copy()
    alone = node < 0
    node[alone] = len(coded.dictionary) + np.arange(np.count_nonzero(alone))
    _, first = np.unique(node, return_index=True)
    return node, first.astype(np.int64), coded.dictionary


def _edges(known: pa.Array, pairs: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The pairs of which both digests are present, as node numbers."""
    found: tuple[list[NDArray], ...] = [], [], []
    # Some at a time: of a corpus with many duplicates the table of pairs is the largest thing that is held.
    for batch in pairs.to_batches(max_chunksize=EDGES):
        ends = [pc.index_in(batch[name], known) for name in ("a", "b")]
        both = pc.and_(pc.is_valid(ends[0]), pc.is_valid(ends[1]))
        weight = pc.fill_null(batch["jaccard"], UNVERIFIED)
        for kept, values in zip(found, (*ends, weight), strict=True):
            kept.append(values.filter(both).to_numpy(zero_copy_only=False))
    left, right = (np.concatenate([np.empty(0, np.int64), *part], dtype=np.int64) for part in found[:2])
    weights = np.concatenate([np.empty(0, np.float64), *found[2]])
    return left, right, weights


def _ranks(root: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each document among those of its root, in the documents' order."""
    order = np.argsort(root, kind="stable")
    begins = np.flatnonzero(np.diff(root[order], prepend=-1))
    rank = np.empty(root.size, np.int64)
    rank[order] = np.arange(root.size) - np.repeat(begins, np.diff(np.append(begins, root.size)))
    return rank


def _ids(ids: pa.Array, rows: NDArray[np.int64], where: NDArray[np.bool_]) -> pa.Array:
    return ids.take(pa.array(rows, pa.int64(), mask=~where)).cast(pa.string())
