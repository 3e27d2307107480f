"""Documents with the same bytes of text, over the whole corpus.

The sketch is blake2b-128 of the text: a fast non-cryptographic hash would do against chance, but crawled text comes
from strangers, and one who can make two texts collide can have somebody's page dropped. Nothing is normalised here:
put `normalise` before it if white space and Unicode forms shall not count.

    dup_rank      0 for the survivor of a group, then 1, 2, ... (`drop.dup_rank = {above = 0}`): by doc_id, or with
                  `survivor = "best"` by `quality`, length and doc_id (`_clusters`)
    dup_of        the doc_id of rank 0, null for itself
    cluster       the lowest doc_id of the group, for every member
    cluster_size  members of the group, 1 for a text that stands once
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.kernels.buffers import text_buffers
from pipeline.stage import relate
from pipeline.stages._clusters import PAIRS, Survivor, check, extended, preferred, reads

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

__all__ = ["check", "cluster", "cluster_new", "compare", "compare_new", "exact", "reads"]
SIGNALS = ("dup_rank", "dup_of", "cluster", "cluster_size")


@relate(dup_rank="int32", dup_of="string", cluster="string", cluster_size="int32")
def exact(batch: pa.RecordBatch, *, survivor: Survivor = "earliest", quality: str | None = None) -> dict[str, pa.Array]:
    """Sketch every document: `digest`, 16 bytes."""
    data, offsets = text_buffers(batch["text"])
    raw, bounds = data.data, offsets.tolist()
    digests = [hashlib.blake2b(raw[a:b], digest_size=16).digest() for a, b in pairwise(bounds)]
    return {"digest": pa.array(digests, pa.binary(16))}


def compare(sketches: Iterator[pa.Table], texts: Callable[[int, list[int]], pa.Array], **params: Any) -> pa.Table:
    """No pairs: equal digests say all."""
    return PAIRS.empty_table()


def cluster(
    documents: pa.Table, pairs: pa.Table, *, survivor: Survivor = "earliest", quality: str | None = None
) -> pa.Table:
    """Groups of equal digests among (doc_id ascending, digest): doc_id and the signals, in the same order."""
    return preferred(documents, pairs, reads(survivor=survivor, quality=quality)).select(["doc_id", *SIGNALS])


def compare_new(
    sketches: Iterator[pa.Table], since: int, sets: Callable[[int, list[int]], pa.Array], **params: Any
) -> pa.Table:
    """No pairs: equal digests say all."""
    return PAIRS.empty_table()


def cluster_new(documents: pa.Table, pairs: pa.Table, before: pa.Table, **params: Any) -> tuple[pa.Table, pa.Array]:
    """What `cluster` gives where the documents of `before` were there first (`_clusters.extended`)."""
    relation, bridging = extended(documents, pairs, before)
    return relation.select(["doc_id", *SIGNALS]), bridging


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Groups of one text."""
    from pipeline.examples import cycled, duplicates, lines

    return duplicates(rule, limit, lambda n: lines(cycled(60)))
