"""Passages of at least `length` tokens that stand twice in the corpus are cut, but where they stand first.

Exact-substring deduplication (Lee et al. 2022, arXiv 2107.06499, section 4.1, with 50 tokens): whatever window of
`length` tokens is equal, byte for byte, to one that stands before it is cut; windows that overlap make one passage, so
what goes is the repeated passage at its full length. Before is: in a document of lower doc_id, or further up in the
same one, where the two may not overlap (of a word said a thousand times one window stays). So every token that is cut
stands, among equal neighbours, at an earlier place that is kept, or is cut in favour of one yet earlier: nothing is
lost, and one who measures again finds less. A token is a word, or a letter of a script without spaces, with what
follows it up to the next (`kernels.windows`): more than a token of a byte-level vocabulary in English, about one in
Chinese.

    [[stage]]
    use = "substring"
    drop.cut_share = {above = 0.8}

Why no suffix array: it takes five to nine bytes of memory for each byte of the corpus, whatever library builds it, and
memory is a contract here. Instead anchors are compared first (winnowing: equal windows have equal anchors, so no pair
is missed), and only of windows whose anchor stands elsewhere too are hashes of 128 bits grouped on disk. Two windows
that differ agree in it with probability 2^-128.

    cut_bytes   bytes that go
    cut_spans   passages that go
    cut_share   cut_bytes over the bytes of the text, 0 for an empty one
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.cuts import SPANS, Places
from pipeline.kernels.unicode import table_digest
from pipeline.kernels.windows import MOST_TOKENS, anchors, windows
from pipeline.limits import Workspace
from pipeline.spill import Spill
from pipeline.stage import cut
from pipeline.stages._repeats import BUCKETS, FOUND, RECORD, TOP, in_order, repeats, whole_groups

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

__all__ = ["FOUND", "compare", "spans", "substring"]

ANCHOR = np.dtype([("hash", "u8"), ("part", "i4"), ("row", "i4"), ("at", "i8")], align=True)
MARK = np.dtype([("row", "i4"), ("at", "i8")], align=True)
SLICE_BYTES = 2_000_000


@cut
def substring(batch: pa.RecordBatch, *, length: int = 50) -> dict[str, pa.Array]:
    """Sketch every document: lists of the `hash` of each anchor and of the number `at` of its first token."""
    found = anchors(batch["text"], length)
    offsets = pa.array(found.bounds, pa.int32())
    columns = {"hash": found.hashes, "at": found.at}
    return {name: pa.ListArray.from_arrays(offsets, pa.array(values)) for name, values in columns.items()}


def check(*, length: int) -> None:
    """Raise ValueError for parameters that cannot be."""
    if not 2 <= length <= MOST_TOKENS:
        raise ValueError(f"length must be from 2 to {MOST_TOKENS} tokens, not {length}")


def resources(**params: object) -> dict[str, str]:
    """The table of characters that decides what a token is."""
    return {"unicode14": table_digest()}


def compare(
    sketches: Iterator[pa.Table],
    texts: Callable[[int, list[int]], pa.Array],
    *,
    length: int = 50,
    workspace: Workspace,
) -> Iterator[pa.Table]:
    """The places of every window that stands twice among all documents that entered."""
    return repeats(_windows(_marks(sketches, workspace), texts, length), workspace, across=False)


def _marks(sketches: Iterator[pa.Table], workspace: Workspace) -> Iterator[tuple[int, NDArray]]:
    """(part, records of MARK in order) of the anchors that stand twice."""
    spill = Spill(workspace, "anchors", ANCHOR, BUCKETS)
    parts = 0
    for sketch in sketches:
        records = _records(sketch)
        parts = max(parts, int(records["part"].max(initial=-1)) + 1)
        spill.add((records["hash"] >> TOP).astype(np.int64), records)
    marks = Spill(workspace, "marks", MARK, parts)
    for bucket in range(BUCKETS):
        found = spill.take(bucket)
        found = found[np.argsort(found["hash"], kind="stable")]
        same = found["hash"][1:] == found["hash"][:-1]
        found = found[np.append(same, False) | np.insert(same, 0, False)] if found.size else found
        records = np.empty(found.size, MARK)
        records["row"], records["at"] = found["row"], found["at"]
        marks.add(found["part"], records)
    for part in range(parts):
        mine = marks.take(part)
        yield part, mine[np.lexsort((mine["at"], mine["row"]))]


def _records(sketch: pa.Table) -> NDArray:
    hashes, at = (sketch[name].combine_chunks() for name in ("hash", "at"))
    counts = hashes.value_lengths().to_numpy(zero_copy_only=False)
    records = np.empty(int(counts.sum()), ANCHOR)
    for name in ("part", "row"):
        records[name] = np.repeat(sketch[name].to_numpy(), counts)
    records["hash"], records["at"] = hashes.flatten().to_numpy(), at.flatten().to_numpy()
    return records


def _windows(
    marks: Iterable[tuple[int, NDArray]], texts: Callable[[int, list[int]], pa.Array], length: int
) -> Iterator[NDArray]:
    """Records of the windows of the marked anchors, about SLICE_BYTES of text at a time."""
    for part, mine in marks:
        rows, begins = np.unique(mine["row"], return_index=True)
        if not rows.size:
            continue
        bounds = np.append(begins, mine.size).astype(np.int64)
        text = texts(part, rows.tolist())
        filled = np.cumsum(pc.binary_length(text).to_numpy(zero_copy_only=False)) // SLICE_BYTES
        for first, last in pairwise([0, *(np.flatnonzero(np.diff(filled)) + 1).tolist(), rows.size]):
            edges = bounds[first : last + 1]
            wanted = np.ascontiguousarray(mine["at"][edges[0] : edges[-1]])
            found = windows(text.slice(first, last - first), length, wanted, edges - edges[0])
            records = np.empty(found.starts.size, RECORD)
            records["high"], records["low"] = found.hashes.T
            records["part"], records["row"] = part, np.repeat(rows[first:last], np.diff(found.bounds))
            records["start"], records["end"] = found.starts, found.ends
            yield records
        del text  # before those of the next partition are read


def spans(documents: pa.Table, found: Iterable[pa.Table], *, length: int = 50) -> Iterator[pa.Table]:
    """The places of windows that stand before in these documents, without an overlap."""
    places = Places.of(documents)
    for table in whole_groups(found):
        part, row, start, end = (table[name].to_numpy() for name in SPANS.names)
        rank = places.find(part, row)
        here = np.flatnonzero(rank >= 0)
        group = table["group"].to_numpy()[here]
        order = in_order(group, rank[here])
        here, group = here[order], group[order]
        begins = np.diff(group, prepend=-1) != 0
        first = here[begins][np.cumsum(begins) - 1]
        again = (rank[here] != rank[first]) | (start[here] >= end[first])
        yield table.take(pa.array(here[again])).select(SPANS.names)


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """Documents that share passages of at least `length` tokens."""
    from pipeline.examples import cut_examples, cycled, fresh

    def passage(n: int) -> str:
        # Two neighbours of these tokens stand in no other passage.
        own = fresh(n)
        return " ".join(word for other in cycled(params["length"] // 2 + 1) for word in (*own, other)) + "."

    return cut_examples(rule, limit, "substring", params, passage)
