"""Near duplicates over the whole corpus: MinHash, bands, and an exact check of every candidate.

Documents are sets of word 5-grams (character 5-grams in scripts without spaces; `kernels.shingles`). Candidates share
one of `bands` bands of `rows` positions of their signatures; each candidate's Jaccard similarity is then computed
from the texts, and pairs of at least `threshold` are kept. So a pair that is kept is right, and a pair of similarity
J is found with probability 1 - (1 - J^rows)^bands, for 14 x 8: .356 at .6, .565 at .7, .772 at .75, .924 at .8,
.988 at .85, .9996 at .9. The default threshold .75 is what FineWeb (arXiv 2406.17557), with the same 14 x 8, aims at.

Sketches of all documents that entered the segment are compared, before any rule: so clusters can be formed anew among
whichever documents pass. Documents with equal sets are one and need no pair.

A band shared by more than BUCKET distinct sets is not compared in full: each set is compared with NEIGHBOURS others of
that bucket, different ones in each band. Pairs are missed there, clusters hardly ever. The table of pairs says how
often that happened in its schema's metadata: `candidates`, `verified`, `large_buckets`.

    dup_rank      0 for the lowest doc_id of a cluster, then 1, 2, ... by doc_id (`drop.dup_rank = {above = 0}`)
    dup_of        the doc_id of rank 0, null for itself
    cluster       the lowest doc_id of the cluster, for every member
    cluster_size  members of the cluster
    jaccard       verified similarity to `dup_of`, null where the two were not compared
    via           the document through which it came into the cluster, next on the shortest way to `dup_of`
    via_jaccard   verified similarity to `via`

A document without a letter or digit has no shingles, resembles nothing and stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline.kernels.minhash import sketches as sketches_of
from pipeline.kernels.shingles import packed
from pipeline.kernels.unicode import table_digest
from pipeline.limits import UNBOUNDED, Workspace
from pipeline.stage import relate
from pipeline.stages._clusters import PAIRS, clusters
from pipeline.stages._distinct import digests, gather, pairs
from pipeline.stages._verify import Texts, verify

BUCKET, NEIGHBOURS = 512, 8


@relate(
    dup_rank="int32",
    dup_of="string",
    cluster="string",
    cluster_size="int32",
    jaccard="float64",
    via="string",
    via_jaccard="float64",
)
def near(
    batch: pa.RecordBatch,
    *,
    threshold: float = 0.75,
    ngram: int = 5,
    bands: int = 14,
    rows: int = 8,
    seed: int = 1,
) -> dict[str, pa.Array]:
    """Sketch every document: `signature` (bands * rows uint32, little-endian), `digest` of its set, its `shingles`.

    Signature and digest are null where there are no shingles.
    """
    sketched = sketches_of(batch["text"], ngram, bands * rows, seed)
    met = sketched.sizes > 0
    return {
        "signature": packed(sketched.signatures, met, "<"),
        "digest": packed(sketched.digests, met),
        "shingles": pa.array(sketched.sizes, pa.int32()),
    }


def check(*, threshold: float, ngram: int, bands: int, rows: int, seed: int) -> None:
    """Raise ValueError for parameters that cannot be."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    if min(ngram, bands, rows) < 1:
        raise ValueError(f"ngram, bands and rows must be at least 1, not {ngram}, {bands}, {rows}")


def resources(**params: object) -> dict[str, str]:
    """The table of characters that decides what a unit is."""
    return {"unicode14": table_digest()}


def compare(
    sketches: Iterator[pa.Table],
    texts: Texts,
    *,
    threshold: float = 0.75,
    ngram: int = 5,
    bands: int = 14,
    rows: int = 8,
    seed: int = 1,
    workspace: Workspace = UNBOUNDED,
) -> pa.Table:
    """Verified pairs (a < b, jaccard) of distinct set digests, sorted.

    `sketches` are tables with the columns of the sketch, `part` and `row`; `texts(part, rows)` gives the texts that
    were sketched there. About 50 bytes a distinct set are held and 40 a pair that is found; the rest stays within
    `workspace.memory` and waits in files of its folder.
    """
    places, banded = gather(sketches, bands, rows, workspace)
    candidates, large = pairs(places, banded, bands, threshold, BUCKET, NEIGHBOURS, workspace)
    found, similarity, tried = verify(places, candidates, texts, ngram, threshold, workspace)
    said = {"candidates": str(tried), "verified": str(found.size), "large_buckets": str(large)}
    columns = [*(digests(places[found[end]]) for end in "ab"), pa.array(similarity)]
    return pa.table(columns, schema=PAIRS.with_metadata(said))


def cluster(
    documents: pa.Table,
    pairs: pa.Table,
    *,
    threshold: float = 0.75,
    ngram: int = 5,
    bands: int = 14,
    rows: int = 8,
    seed: int = 1,
) -> pa.Table:
    """Clusters among (doc_id ascending, digest): doc_id and the signals of every document, in the same order."""
    return clusters(documents, pairs)
