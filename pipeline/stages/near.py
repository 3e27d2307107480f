"""Near duplicates over the whole corpus: MinHash, bands, and an exact check of every candidate.

Documents are sets of word 5-grams (character 5-grams in scripts without spaces; `kernels.shingles`). Candidates share
one of `bands` bands of `rows` positions of their signatures; each candidate's Jaccard similarity is then computed
from the texts, and pairs of at least `threshold` are kept. So a pair that is kept is right, and a pair of similarity
J is found with probability 1 - (1 - J^rows)^bands, for 14 x 8: .356 at .6, .565 at .7, .772 at .75, .924 at .8,
.988 at .85, .9996 at .9.

Without parameters that is 14 x 8 and .75, what FineWeb (arXiv 2406.17557) uses and aims at. A `threshold` that is given
picks bands and rows of up to `permutations` positions by datasketch's optimiser (9 x 12 at .8), which counts a pair
too many and a pair missed alike. Here a pair too many costs its check and is gone, so `bands` and `rows` that find
more, like 14 x 8 at .8, are often the better choice: state both.

Where candidates are verified, the sets lie in the store, 8 bytes a shingle and so about as much as the texts: a version
is extended without reading its texts again.

Sketches of all documents that entered the segment are compared, before any rule: so clusters can be formed anew among
whichever documents pass. Documents with equal sets are one and need no pair.

A band shared by more than BUCKET distinct sets is not compared in full: each set is compared with NEIGHBOURS others of
that bucket, different ones in each band. Pairs are missed there, clusters hardly ever. The table of pairs says how
often that happened in its schema's metadata: `candidates`, `verified`, `large_buckets`.

    dup_rank      0 for the survivor of a cluster, then 1, 2, ... (`drop.dup_rank = {above = 0}`): by doc_id, or with
                  `survivor = "best"` by `quality`, length and doc_id (`_clusters`)
    dup_of        the doc_id of rank 0, null for itself
    cluster       the lowest doc_id of the cluster, for every member
    cluster_size  members of the cluster
    jaccard       verified similarity to `dup_of`, null where the two were not compared by their texts
    via           the document through which it came into the cluster, next on the shortest way to `dup_of`
    via_jaccard   verified similarity to `via`

With `verify = false` nothing is read again: candidates are taken for duplicates unless the sizes of their sets say that
they cannot be, and similarities are null. That is what FineWeb and most tools do; nearly a third of what it joins is
less alike than the threshold.

A document without a letter or digit has no shingles, resembles nothing and stands alone.

With `fold_chinese` a Traditional character counts as its Simplified counterpart (`kernels.chinese`) where documents are
compared, so a page and its copy in the other script are near duplicates; what is stored stays as it was written.

Every verified pair is right: its precision is 1. A cluster is a chain of such pairs, so its ends may be less alike: of
all pairs within the clusters of 27,126 pages of documentation in forty languages 95 % are alike by the threshold of .75
and none less than .5; of the English installation guide's, built for two processors, 100 %.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kernels import chinese
from pipeline.kernels._jit import Table
from pipeline.kernels.bands import optimal
from pipeline.kernels.minhash import permutations as permutations_of
from pipeline.kernels.minhash import sketches as sketches_of
from pipeline.kernels.shingles import packed
from pipeline.kernels.unicode import table_digest
from pipeline.limits import UNBOUNDED, Workspace
from pipeline.stage import relate
from pipeline.stages import _clusters
from pipeline.stages._clusters import PAIRS, Survivor, extended, preferred, reads
from pipeline.stages._distinct import PAIR, digests, gather, pairs
from pipeline.stages._verify import Read, Texts, of_stored, of_texts, verified

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

BUCKET, NEIGHBOURS = 512, 8
THRESHOLD, BANDS, ROWS = 0.75, 14, 8
MOST_PERMUTATIONS = 1024


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
    threshold: float | None = None,
    ngram: int = 5,
    bands: int | None = None,
    rows: int | None = None,
    permutations: int = 112,
    seed: int = 1,
    verify: bool = True,
    fold_chinese: bool = False,
    survivor: Survivor = "earliest",
    quality: str | None = None,
) -> dict[str, pa.Array]:
    """Sketch every document: `signature` (bands * rows uint32, little-endian), `digest` of its set, its `shingles`.

    Signature and digest are null where there are no shingles. Where candidates are verified, `set` is the set itself
    (uint64, little-endian, in no order): what a later document is held against when a version is extended.
    """
    scheme = Scheme.of(threshold, bands, rows, permutations)
    width = scheme.bands * scheme.rows
    sketched = sketches_of(batch["text"], ngram, width, seed, keep=verify, characters=_characters(fold_chinese))
    met = sketched.sizes > 0
    found = {
        "signature": packed(sketched.signatures, met, "<"),
        "digest": packed(sketched.digests, met),
        "shingles": pa.array(sketched.sizes, pa.int32()),
    }
    return {**found, "set": _stored(sketched.sets, sketched.sizes)} if verify else found


def _characters(fold_chinese: bool) -> Table | None:
    return chinese.folded() if fold_chinese else None


def _stored(values: NDArray[np.uint64], sizes: NDArray[np.int64]) -> pa.Array:
    """Sets side by side as large_binary."""
    ends = pa.py_buffer(np.concatenate([[0], np.cumsum(sizes * 8)]).astype(np.int64))
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(sizes), [None, ends, pa.py_buffer(values.astype("<u8", copy=False))]
    )


class Scheme(NamedTuple):
    """What is searched for, and with how many bands of how many rows."""

    threshold: float
    bands: int
    rows: int

    @classmethod
    def of(cls, threshold: float | None, bands: int | None, rows: int | None, permutations: int) -> Scheme:
        """What parameters mean: all stated, FineWeb's, or the optimum for a threshold."""
        if bands is not None and rows is not None:
            return cls(THRESHOLD if threshold is None else threshold, bands, rows)
        if threshold is None:
            return cls(THRESHOLD, BANDS, ROWS)
        return cls(threshold, *optimal(threshold, permutations))


def check(
    *,
    threshold: float | None,
    ngram: int,
    bands: int | None,
    rows: int | None,
    permutations: int,
    seed: int,
    verify: bool,
    fold_chinese: bool,
    survivor: Survivor,
    quality: str | None,
) -> None:
    """Raise ValueError for parameters that cannot be."""
    _clusters.check(survivor, quality)
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, not {threshold}")
    if (bands is None) != (rows is None):
        raise ValueError("bands and rows belong together: state both, or neither and a threshold")
    if min(ngram, bands or 1, rows or 1, permutations) < 1 or bands == 0 or rows == 0:
        raise ValueError(
            f"ngram, bands, rows and permutations must be at least 1, not {ngram, bands, rows, permutations}"
        )
    if permutations > MOST_PERMUTATIONS:
        raise ValueError(f"permutations must be at most {MOST_PERMUTATIONS}, not {permutations}")


def minhashes(sketches: pa.Table, seed: int = 1) -> Iterator[Any]:
    """A `datasketch.MinHash` for each row of a stored sketch table (`sketch-near.parquet`); None for one without
    shingles. Two of them give the Jaccard estimate that their signatures give here.

    They are for comparing and for datasketch's own indexes. What is added with `update` would be hashed by datasketch,
    not as a shingle is here.
    """
    from datasketch import MinHash

    width = sketches.schema.field("signature").type.byte_width // 4
    parameters = permutations_of(width, seed)
    for raw in sketches["signature"]:
        values = raw.as_py()
        yield values and MinHash(
            hashvalues=np.frombuffer(values, "<u4"), permutations=parameters, seed=seed, scheme="affine32"
        )


def resources(*, fold_chinese: bool = False, **params: object) -> dict[str, str]:
    """The table of characters that decides what a unit is, and what is held for one."""
    return {"unicode14": table_digest(), **({"chinese": chinese.digest()} if fold_chinese else {})}


def compare(
    sketches: Iterator[pa.Table],
    texts: Texts,
    *,
    threshold: float | None = None,
    ngram: int = 5,
    bands: int | None = None,
    rows: int | None = None,
    permutations: int = 112,
    seed: int = 1,
    verify: bool = True,
    fold_chinese: bool = False,
    workspace: Workspace = UNBOUNDED,
    **others: Any,
) -> pa.Table:
    """Verified pairs (a < b, jaccard) of distinct set digests, sorted; without `verify` all candidates, jaccard null.

    `sketches` are tables with the columns of the sketch, `part` and `row`; `texts(part, rows)` gives the texts that
    were sketched there. About 50 bytes a distinct set are held and 40 a pair that is found; the rest stays within
    `workspace.memory` and waits in files of its folder.
    """
    scheme = Scheme.of(threshold, bands, rows, permutations)
    read = of_texts(texts, ngram, _characters(fold_chinese)) if verify else None
    return _compared(sketches, scheme, read, workspace)


def compare_new(
    sketches: Iterator[pa.Table],
    since: int,
    sets: Texts,
    *,
    threshold: float | None = None,
    bands: int | None = None,
    rows: int | None = None,
    permutations: int = 112,
    verify: bool = True,
    workspace: Workspace = UNBOUNDED,
    **others: Any,
) -> pa.Table:
    """The pairs of `compare` of which at least one set stands in no partition before `since`.

    No text is read: `sets(part, rows)` gives the column `set` of those rows of a partition's sketch.
    """
    scheme = Scheme.of(threshold, bands, rows, permutations)
    return _compared(sketches, scheme, of_stored(sets) if verify else None, workspace, since)


def _compared(
    sketches: Iterator[pa.Table], scheme: Scheme, read: Read | None, workspace: Workspace, since: int = 0
) -> pa.Table:
    """Candidates, verified by their sets where `read` gives them."""
    places, banded = gather(sketches, scheme.bands, scheme.rows, workspace)
    candidates, large = pairs(places, banded, scheme.bands, scheme.threshold, BUCKET, NEIGHBOURS, workspace, since)
    tried = int(candidates.sizes.sum())
    if read:
        found, similarity = verified(places, candidates, read, scheme.threshold, workspace)
        alike = pa.array(similarity)
    else:
        found = np.concatenate([np.empty(0, PAIR), *candidates.runs(workspace.memory)])
        alike = pa.nulls(found.size, pa.float64())
    said = {"candidates": str(tried), "verified": str(found.size if read else 0), "large_buckets": str(large)}
    columns = [*(digests(places[found[end]]) for end in "ab"), alike]
    return pa.table(columns, schema=PAIRS.with_metadata(said))


def cluster(documents: pa.Table, pairs: pa.Table, **params: Any) -> pa.Table:
    """Clusters among (doc_id ascending, digest): doc_id and the signals of every document, in the same order."""
    return preferred(documents, pairs, reads(**params))


def cluster_new(documents: pa.Table, pairs: pa.Table, before: pa.Table, **params: Any) -> tuple[pa.Table, pa.Array]:
    """What `cluster` gives where the documents of `before` were there first (`_clusters.extended`)."""
    return extended(documents, pairs, before)


def examples(
    rule: Rule,
    limit: Any,
    *,
    threshold: float | None,
    ngram: int,
    bands: int | None,
    rows: int | None,
    permutations: int,
    quality: str | None,
    verify: bool,
    **others: Any,
) -> Examples:
    """Clusters of a text and one whose last word is another; pairs that share ever more of their words."""
    from pipeline.examples import Examples, duplicates, fresh, ladder

    size = 300

    def again(n: int) -> str:
        # Whoever is preferred by what another stage measures has the same of that.
        return " ".join(fresh(0, size) + fresh(size + (n > 0 and not quality))) + "."

    def pair(seed: int, k: int) -> tuple[str, str]:
        """Of 2 * size - k shingles k are shared."""
        mine = fresh(seed * 10_000, size + ngram - 1)
        return " ".join(mine), " ".join(mine[: k + ngram - 1] + fresh(seed * 10_000 + 5_000, size - k))

    def alike(k: int) -> float:
        return k / (2 * size - k)

    if not rule.column.endswith("jaccard"):
        return duplicates(rule, limit, again)
    if not verify:
        raise ValueError("verify is false, so no similarity is measured")
    least = Scheme.of(threshold, bands, rows, permutations).threshold
    first = next(k for k in range(size + 1) if alike(k) >= least)
    # Below 1 a pair is found with a probability: several are tried.
    several = [ladder(rule, limit, functools.partial(pair, n), alike, least=first, most=size) for n in range(1, 9)]
    return Examples(*(list(itertools.chain(*items)) for items in zip(*several, strict=True)))
