"""Near duplicates, from a Parquet file to one of the documents that are kept: the stage `near`, candidates verified.

Peers drop whom they find without looking at the texts again, so what differs is held against exact Jaccard
similarities: a document is rightly gone if another one is as similar as the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison
from tests.bench.works import dedup_peers as peers

TITLE, THRESHOLD = "MinHash dedup, Parquet to kept documents, verified", peers.THRESHOLD
UNVERIFIED = "the same, not verified"
COMPARISONS = [
    Comparison(TITLE, "gristmill", "datatrove", "sample", 100, 200, "as it comes: spaCy's words"),
    Comparison(TITLE, "gristmill", "datatrove_whitespace", "sample", 20, 40, "words by str.split"),
    Comparison(TITLE, "gristmill", "text_dedup", "sample", 30, 60, "hash xxh3"),
    Comparison(TITLE, "gristmill", "datasketch", "sample", how="hash xxh32, in Python around it"),
    Comparison(TITLE, "gristmill", "rensa", "corpus", how="in Python around it"),
    Comparison(TITLE, "gristmill", "polars_textproc", "corpus", 5, 9),
    Comparison(UNVERIFIED, "gristmill_unverified", "datatrove_whitespace", "sample", how="words by str.split"),
    Comparison(UNVERIFIED, "gristmill_unverified", "polars_textproc", "corpus"),
]


def gristmill_unverified(data: Path, folder: Path) -> Callable[[], dict[str, list[Any]]]:
    """The same where every candidate is a duplicate, as with the peers."""
    return gristmill(data, folder, verify=False)


def gristmill(data: Path, folder: Path, verify: bool = True) -> Callable[[], dict[str, list[Any]]]:
    """Sketches, pairs, clusters, and the documents of rank 0."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from pipeline.limits import Workspace
    from tests.bench.works.ours import batches, stages, warm

    (near,) = stages("near", threshold=THRESHOLD, bands=peers.BANDS, rows=peers.ROWS, verify=verify)
    warm(data, near)

    def kept(source: Path, out: Path) -> dict[str, list[Any]]:
        read = list(batches(source))
        sketches = [pa.table({"doc_id": batch["doc_id"], **near(batch)}) for batch in read]
        placed = [
            sketch.append_column("part", pa.array([part] * sketch.num_rows, pa.int32())).append_column(
                "row", pa.array(range(sketch.num_rows), pa.int32())
            )
            for part, sketch in enumerate(sketches)
        ]
        texts = [batch["text"] for batch in read]
        found: Any = near.compare(
            iter(placed), lambda part, rows: texts[part].take(pa.array(rows)), Workspace(folder / "spill")
        )
        pairs = found if isinstance(found, pa.Table) else pa.concat_tables(found)
        met = pa.concat_tables(sketches).select(["doc_id", *near.clustered]).sort_by("doc_id").combine_chunks()
        relation = near.cluster(met, pairs)
        first = relation.filter(pc.equal(relation["dup_rank"], 0))["doc_id"].combine_chunks()
        left = pa.Table.from_batches(read).select(["doc_id", "text"]).rename_columns(["id", "text"])
        left = left.filter(pc.is_in(left["id"], first))
        pq.write_table(left, out, compression="zstd")
        return {"kept": left["id"].to_pylist()}

    # Each document twice, the second time with a word more: so candidates are checked too.
    few = pq.read_table(data, columns=["id", "text"]).slice(0, 64)
    again = {name: pc.binary_join_element_wise(few[name], "again", " ") for name in few.column_names}
    pq.write_table(pa.concat_tables([few, pa.table(again, few.schema)]), folder / "few.parquet")
    kept(folder / "few.parquet", folder / "few-kept.parquet")
    return lambda: kept(data, folder / "kept.parquet")


def differences(ours: dict[str, list[Any]], theirs: dict[str, list[Any]], data: Path) -> str:
    """Whom only one side keeps, and how similar those are to the nearest document that both keep."""
    mine, other = set(ours["kept"]), set(theirs["kept"])
    apart = sorted(mine ^ other)
    said = f"kept {len(mine):,} and {len(other):,}"
    if not apart:
        return f"{said}, the same"
    nearest = similarity(data, apart)
    spared, lost = ([nearest[name] for name in sorted(side)] for side in (mine - other, other - mine))
    unlike = [sum(j < THRESHOLD for j in side) for side in (spared, lost)]
    return (
        f"{said}; only the peer drops {len(spared)}, of which {unlike[0]} have no document of Jaccard {THRESHOLD} or "
        f"more; only we drop {len(lost)}, of which {unlike[1]} have none"
    )


def similarity(data: Path, names: list[str]) -> dict[str, float]:
    """Exact Jaccard similarity, over sets of word 5-grams, of each document to the one most like it."""
    from collections import Counter, defaultdict

    import pyarrow.parquet as pq

    from pipeline.kernels.shingles import shingle_sets

    table = pq.read_table(data, columns=["id", "text"]).combine_chunks()
    values, offsets = shingle_sets(table["text"].chunk(0), peers.WORDS)
    sets = [values[a:b] for a, b in pairwise(offsets.tolist())]
    ids = table["id"].to_pylist()
    place = {name: number for number, name in enumerate(ids)}
    wanted: dict[int, list[int]] = defaultdict(list)
    for name in names:
        for value in sets[place[name]].tolist():
            wanted[value].append(place[name])
    shared: dict[int, Counter[int]] = defaultdict(Counter)
    for number, found in enumerate(sets):
        for value in found.tolist():
            for here in wanted.get(value, ()):
                shared[here][number] += 1
    best = {}
    for name in names:
        here = place[name]
        size = sets[here].size
        others = shared[here].items()
        best[name] = max((n / (size + sets[o].size - n) for o, n in others if o != here), default=0.0)
    return best


SIDES = {
    "gristmill": gristmill,
    "gristmill_unverified": gristmill_unverified,
    **{
        side.__name__: side
        for side in (
            peers.datatrove,
            peers.datatrove_whitespace,
            peers.text_dedup,
            peers.datasketch,
            peers.rensa,
            peers.polars_textproc,
        )
    },
}
