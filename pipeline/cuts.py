"""Cuts: the passages of documents that a relating stage takes out, from who finds them to the text without them.

A stage marked by `@cut` has three functions in its module, and the schema FOUND of what its `compare` finds:

    sketch   the stage function: batch -> {column: array}, one row a document
    compare  (sketches, texts, **params) -> tables of FOUND: what stands at several places, among all documents that
             entered the segment; they are stored as they come, one after another. It may ask for a `workspace`
    spans    (documents, found, **params) -> tables of SPANS, in any order: what to cut among the documents that are
             still here; `documents` has doc_id (ascending), part, row and text_bytes, `found` is what was stored

It may have a fourth, `report(documents, found, **params) -> (table, description)`, with doc_ids in a column `doc_id`: a
version's manifest states the description, and the table lies beside it (`contamination`).

The mill does the rest, once for whoever cuts. Spans that touch or overlap become one. Every document gets the signals
`cut_bytes`, `cut_spans` and `cut_share` (of its bytes), so a rule can drop one of which too much would go; the text
itself stays as it was in its segment, where it can be looked at, and is cut where the survivors enter the next. A
document that then holds nothing but white space leaves by the reason `nothing left`.

The law: what enters the next segment is, document by document, what was there less `cut_bytes`; the audit counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.contract import ContractError
from pipeline.kernels.cutting import misplaced, union, without
from pipeline.limits import Workspace
from pipeline.schema import ledger
from pipeline.spill import Spill

SPANS = pa.schema([("part", pa.int32()), ("row", pa.int64()), ("start", pa.int64()), ("end", pa.int64())])
LISTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("row", pa.int64()),
        ("start", pa.list_(pa.int64())),
        ("end", pa.list_(pa.int64())),
    ]
)
RECORD = np.dtype([(name, np.int64) for name in ("row", "start", "end")])
REASON = "nothing left"
# Runs of rows of a partition, of which one at a time is sorted.
SLICES = 16


@dataclass
class Places:
    """Where each document lies: its rank in order of doc_id by part and row."""

    ranks: list[NDArray[np.int64]]

    @classmethod
    def of(cls, documents: pa.Table, parts: int = 0) -> Places:
        """Of a table with part and row; of at least `parts` partitions."""
        part, row = (documents[name].to_numpy() for name in ("part", "row"))
        ranks = []
        for number in range(max(parts, int(part.max(initial=-1)) + 1)):
            mine = np.flatnonzero(part == number)
            known = np.full(int(row[mine].max(initial=-1)) + 1, -1, np.int64)
            known[row[mine]] = mine
            ranks.append(known)
        return cls(ranks)

    def find(self, part: NDArray[np.int32], row: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [n]: the rank of the document at each place, -1 where none of these lies there."""
        found = np.full(len(part), -1, np.int64)
        for number in np.unique(part).tolist():
            known = self.ranks[number] if number < len(self.ranks) else np.empty(0, np.int64)
            mine = np.flatnonzero((part == number) & (row < len(known)))
            found[mine] = known[row[mine]]
        return found


def gather(
    documents: pa.Table, parts: int, spans: Iterable[pa.Table], workspace: Workspace
) -> Iterator[tuple[int, pa.Table]]:
    """(part, table of LISTS sorted by row) of each of `parts` partitions, from spans in any order.

    Raises ContractError for a span of a document that is not here.
    """
    places = Places.of(documents, parts)
    most = max((len(ranks) for ranks in places.ranks), default=0) // SLICES + 1
    spill = Spill(workspace, "spans", RECORD, parts * SLICES)
    for table in spans:
        part, row, start, end = (table[name].to_numpy() for name in SPANS.names)
        if (places.find(part, row) < 0).any():
            raise ContractError("a span lies in a document that is not here")
        records = np.empty(len(part), RECORD)
        records["row"], records["start"], records["end"] = row, start, end
        spill.add(part.astype(np.int64) * SLICES + row // most, records)
    for number, ranks in enumerate(places.ranks):
        slices = [_united(spill.take(number * SLICES + one)) for one in range(SLICES)]
        row, start, end = (np.concatenate(columns) for columns in zip(*slices, strict=True))
        rows, bounds = np.unique(row, return_index=True)
        offsets = pa.array(np.append(bounds, len(row)), pa.int32())
        lists = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (start, end)]
        ids = documents["doc_id"].take(pa.array(ranks[rows])).combine_chunks()
        yield number, pa.table([ids, pa.array(rows), *lists], schema=LISTS)


def _united(spans: NDArray[Any]) -> tuple[NDArray[np.int64], ...]:
    return union(*(np.ascontiguousarray(spans[name]) for name in RECORD.names or ()))


def signals(documents: pa.Table, lists: Iterable[tuple[int, pa.Table]]) -> pa.Table:
    """doc_id and CUT_SIGNALS of every document, in their order."""
    places = Places.of(documents)
    cut_bytes, cut_spans = np.zeros(documents.num_rows, np.int64), np.zeros(documents.num_rows, np.int32)
    for part, table in lists:
        rank = places.find(np.full(table.num_rows, part, np.int32), table["row"].to_numpy())
        bounds, starts, ends = _flat(table)
        lengths = np.concatenate([[0], np.cumsum(ends - starts)])
        cut_bytes[rank], cut_spans[rank] = np.diff(lengths[bounds]), np.diff(bounds)
    size = np.maximum(documents["text_bytes"].to_numpy(), 1)
    share = pc.round(pa.array(cut_bytes / size), ndigits=6)
    columns = [documents["doc_id"], pa.array(cut_bytes), pa.array(cut_spans), share]
    return pa.table(columns, names=["doc_id", "cut_bytes", "cut_spans", "cut_share"])


def apply(documents: pa.Table, rows: NDArray[np.int64], lists: pa.Table, stage: str) -> tuple[pa.Table, pa.RecordBatch]:
    """(documents without their cuts, ledger of those of which nothing is left).

    `rows` (ascending) are the documents' rows in their partition, by which `lists` knows them. Raises ContractError
    where a span cannot be.
    """
    known, at = lists["row"].to_numpy(), np.searchsorted(rows, lists["row"].to_numpy())
    here = at < len(rows)
    here[here] = rows[at[here]] == known[here]
    lists, at = lists.filter(pa.array(here)), at[here]
    bounds, starts, ends = _flat(lists)
    counts = np.zeros(len(rows) + 1, np.int64)
    counts[at + 1] = np.diff(bounds)
    bounds = np.cumsum(counts)
    text = documents["text"].combine_chunks()
    wrong = misplaced(text, bounds, starts, ends)
    if wrong >= 0:
        raise ContractError(
            f"stage {stage}: the cuts of {documents['doc_id'][wrong]} lie outside its text, overlap, or begin or end "
            "inside a character"
        )
    left = without(text, bounds, starts, ends)
    blank = np.zeros(len(rows), bool)
    blank[at] = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(left.take(pa.array(at)))), 0)
    documents = documents.set_column(documents.schema.get_field_index("text"), "text", left)
    gone = documents.filter(pa.array(blank))["doc_id"].to_pylist()
    said = {"stage": stage, "verdict": "dropped", "reason": REASON}
    return documents.filter(pa.array(~blank)), ledger([{"doc_id": doc_id, **said} for doc_id in gone])


def _flat(lists: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(bounds, starts, ends): spans bounds[i]:bounds[i + 1] are those of row i of a table of LISTS."""
    start, end = (lists[name].combine_chunks() for name in ("start", "end"))
    counts = pc.list_value_length(start).to_numpy(zero_copy_only=False)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return bounds, start.flatten().to_numpy(), end.flatten().to_numpy()
