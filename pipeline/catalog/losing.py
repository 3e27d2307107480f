"""The cluster in which a document is a duplicate, the survivor that it lost to, and both texts side by side.

A similarity that a build verified is stored. Of two documents that hang together only by way of others none is, so it
is computed here from their texts as the stage would, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from pipeline import excerpts
from pipeline.books import BuildKeys
from pipeline.catalog.beside import Row, side_by_side
from pipeline.catalog.lookup import word
from pipeline.catalog.resemblance import jaccard
from pipeline.manifest import Version
from pipeline.store import Store, read_parquet

MEMBERS = 20
CLUSTER = ("dup_of", "cluster", "dup_rank", "cluster_size")


@dataclass
class Lost:
    """A document's cluster in a stage: its survivor, the document's rank, size and members (the first 20 by rank).

    `jaccard` is the verified similarity to the survivor; where the build did not compare the two, that of the stored
    texts, and `verified` is False. `rows` are the document (left) and its survivor (right) side by side.
    """

    stage: str
    survivor: str
    cluster: str
    rank: int
    size: int
    members: list[str]
    jaccard: float | None = None
    verified: bool = False
    via: str | None = None
    via_jaccard: float | None = None
    rows: list[Row] = field(default_factory=list)


def lost(
    store: Store,
    version: Version,
    keys: BuildKeys,
    doc_id: str,
    stage: str | None,
    signals: Sequence[Mapping[str, Any]],
) -> Lost | None:
    """Whom the document duplicates, first of all in the stage where it left; None where it resembles nobody."""
    values = {name: value for measured in signals for name, value in measured.items()}
    stages = [name.rpartition(".")[0] for name in values if name.endswith(".dup_of")]
    if not stages:
        return None
    name = stage if stage in stages else stages[-1]
    survivor, cluster, rank, size = (values[f"{name}.{column}"] for column in CLUSTER)
    found = Lost(name, survivor, cluster, rank, size, _members(store, keys, name, cluster))
    found.jaccard, found.via = values.get(f"{name}.jaccard"), values.get(f"{name}.via")
    found.via_jaccard, found.verified = values.get(f"{name}.via_jaccard"), found.jaccard is not None
    texts = excerpts.texts(store, keys, [doc_id, found.survivor])
    if len(texts) == 2:
        left, right = texts[doc_id], texts[found.survivor]
        found.rows = side_by_side(left, right)
        if found.jaccard is None:
            found.jaccard, found.verified = (
                (1.0, True) if left == right else (_similarity(version, name, left, right), False)
            )
    return found


def _members(store: Store, keys: BuildKeys, stage: str, cluster: str) -> list[str]:
    """The first members of a cluster, by rank."""
    key = next(r["cluster"] for segment in keys.segments for r in segment.relates if r["stage"] == stage)
    columns = ["doc_id", f"{stage}.cluster", f"{stage}.dup_rank"]
    table = read_parquet(store.file(key, "relation.parquet"), columns)
    table = table.filter(pc.equal(table[columns[1]], word(cluster))).sort_by(columns[2])
    members: list[str] = table["doc_id"].slice(0, MEMBERS).to_pylist()
    return members


def _similarity(version: Version, stage: str, a: str, b: str) -> float | None:
    """Jaccard similarity of two texts as sets of shingles; None where the stage has no shingles."""
    said = next(s for s in version.manifest["recipe"]["stages"] if s["use"].rpartition(".")[2] == stage)
    return round(jaccard(a, b, said["params"]["ngram"]), 6) if "ngram" in said["params"] else None
