"""What was cut from one document, and where else it stands: read from what the cutting stage found."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.books import SegmentKeys
from pipeline.catalog.lookup import numbers, row_of
from pipeline.schema import cuts_file
from pipeline.store import Store, read_parquet, read_tables

EXCERPT = 200


@dataclass
class Cut:
    """A passage that went: bytes [start, end) of the text as it entered the barrier.

    It begins with what `documents` of the documents that were compared hold, of which `first` has the lowest id.
    """

    segment: int
    stage: str
    start: int
    end: int
    excerpt: str
    documents: int
    first: str


def of(store: Store, segment: SegmentKeys, number: int, doc_id: str) -> list[Cut]:
    """The passages that were cut from a document behind a segment, in order."""
    if not segment.cuts:
        return []
    for part, key in enumerate(segment.parts):
        if row := row_of(store, segment.cuts["cuts"], cuts_file(part), doc_id):
            found = _where(store, segment, part=[part], row=[row["row"]]).sort_by("start")
            text = read_parquet(store.file(key, "documents.parquet"), ["text"])["text"][row["row"]].as_py().encode()
            spans = list(zip(row["start"], row["end"], strict=True))
            holders = _holders(store, segment, found, spans)
            stage = segment.cuts["stage"]
            said = [text[a:b].decode("utf-8", "replace").strip()[:EXCERPT] for a, b in spans]
            return [Cut(number, stage, a, b, s, *held) for (a, b), s, held in zip(spans, said, holders, strict=True)]
    return []


def _holders(
    store: Store, segment: SegmentKeys, found: pa.Table, spans: list[tuple[int, int]]
) -> list[tuple[int, str]]:
    """(documents, lowest doc_id) that hold what each span begins with."""
    starts = found["start"].to_pylist()
    groups = [found["group"][starts.index(start)].as_py() for start, _ in spans]
    places = _where(store, segment, group=groups)
    met = read_parquet(store.file(segment.cuts["cuts"], "relation.parquet"), ["doc_id"])["doc_id"].combine_chunks()
    ids: dict[int, set[str]] = {group: set() for group in groups}
    for part in places["part"].unique().to_pylist():
        mine = places.filter(pc.equal(places["part"], numbers([part])[0]))
        names = read_parquet(store.file(segment.parts[part], "documents.parquet"), ["doc_id"])["doc_id"]
        names = names.take(mine["row"])
        for group, doc_id, here in zip(
            mine["group"].to_pylist(), names.to_pylist(), pc.is_in(names, met).to_pylist(), strict=True
        ):
            if here:
                ids[group].add(doc_id)
    return [(len(ids[group]), min(ids[group])) for group in groups]


def _where(store: Store, segment: SegmentKeys, **columns: list[int]) -> pa.Table:
    """What was found to stand at several places, of those rows whose columns have one of these values."""
    key = segment.relates[-1]["pairs"]
    store.result(key)
    wanted = {name: numbers(values) for name, values in columns.items()}
    tables = []
    for table in read_tables(store.file(key, "pairs.parquet")):
        for name, values in wanted.items():
            table = table.filter(pc.is_in(table[name], value_set=values.cast(table.schema.field(name).type)))
        tables.append(table)
    return pa.concat_tables(tables)
