"""Split groups: what must never be torn apart between train and validation.

A split group is the lowest doc_id of a document's duplicate cluster; train or validation
hangs on the hash of that id alone, never on file, position, seed or worker. Two documents
of a verified pair share a cluster, so they share a split (law 4), whether or not the recipe
drops one of them. A split may also be given as sources, as with a published test set: it is
theirs and that of every group that has a document of theirs, and of nobody else.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kernels.unionfind import components

SPACE = 1 << 64


Shares = Mapping[str, float | list[str]]  # of each split but train: of the groups, or the sources that are it


def assign(documents: pa.Table, relations: Sequence[pa.Table], shares: Shares) -> pa.Table:
    """Fill `split` and `split_group` of a table with doc_id and text_digest.

    `relations` hold (doc_id, cluster) of every relating stage; a cluster is named by its lowest doc_id, whether or not
    that document is still here. Documents with equal text belong together in any case.
    """
    ids = documents["doc_id"].combine_chunks()
    order = pc.sort_indices(ids)
    ranked = ids.take(order)
    links = [_links(ranked, documents["text_digest"].combine_chunks().take(order))]
    earliest = ranked
    for relation in relations:
        of = pc.index_in(ranked, relation["doc_id"].combine_chunks())
        clusters = relation["cluster"].combine_chunks().take(of)
        links.append(_links(ranked, clusters))
        earliest = pc.min_element_wise(earliest, clusters)
    edges = np.concatenate(links)
    roots = components(len(ranked), edges[:, 0], edges[:, 1])
    by_name = pc.sort_indices(earliest).to_numpy()
    _, first, member = np.unique(roots[by_name], return_index=True, return_inverse=True)
    lowest = np.empty(len(ranked), np.int64)
    lowest[by_name] = by_name[first[member]]
    groups = earliest.take(pa.array(lowest))
    names = {group: choose(group, shares) for group in groups.unique().to_pylist()}
    for name, given in sorted(shares.items(), reverse=True):
        if isinstance(given, list):
            theirs = functools.reduce(pc.or_, (pc.starts_with(ranked, f"{source}:") for source in given))
            names |= dict.fromkeys(groups.filter(theirs).unique().to_pylist(), name)
    back = pc.sort_indices(order)
    groups = groups.take(back)
    splits = pa.array([names[group] for group in groups.to_pylist()], pa.string())
    for name, values in (("split", splits), ("split_group", groups)):
        documents = documents.set_column(documents.schema.get_field_index(name), name, values)
    return documents


def choose(group: str, shares: Shares) -> str:
    """The split of a group: its hash on the line from 0 to 1, the shares laid out in sorted order of their names."""
    point = int.from_bytes(hashlib.blake2b(f"split:{group}".encode(), digest_size=8).digest(), "big") / SPACE
    edge = 0.0
    for name, share in sorted(shares.items()):
        if isinstance(share, list):
            continue
        edge += share
        if point < edge:
            return name
    return "train"


def _links(ids: pa.Array, groups: pa.Array) -> np.ndarray:
    """Pairs (first member, member) of rows with an equal, non-null group value, as an (n, 2) array."""
    codes = groups.dictionary_encode().indices
    known = np.flatnonzero(pc.is_valid(codes).to_numpy(zero_copy_only=False))
    values = codes.drop_null().to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.stack([known[first[inverse]], known], axis=1).astype(np.int64)
