"""Questions to the books of a version, answered from the files alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.books import BuildKeys, SegmentKeys
from pipeline.catalog import passages
from pipeline.catalog.passages import Cut
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import Store


@dataclass
class Why:
    """What happened to one document, and what was measured on its way."""

    doc_id: str
    verdict: str
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    parent_id: str | None = None
    children: list[str] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    index: dict[str, Any] | None = None
    cuts: list[Cut] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    excerpt: str | None = None


def why(store: Store, version: Version, doc_id: str) -> Why:
    """The path of a document through a version. Raises ConfigError where the version never met it."""
    keys = version.build_keys()
    found = Why(doc_id, "kept")
    met = _ingested(store, keys, doc_id)
    for number, segment in enumerate(keys.segments):
        met = _measured(store, segment, number, found) or met
        found.cuts += passages.of(store, segment, number, doc_id)
    for key in keys.ledgers:
        for row in _rows(store, [key], "ledger.parquet", doc_id):
            found.verdict, found.stage = row["verdict"], row["stage"]
            found.reason, found.detail = row["reason"], row["detail"]
            met = True
    if not met:
        raise ConfigError(
            f"{version.address} never met a document {doc_id!r}; ids look like source:path:row, and "
            f"`gristmill show {version.address}` lists its sources"
        )
    _placed(version, found)
    return found


def _ingested(store: Store, keys: BuildKeys, doc_id: str) -> bool:
    return bool(_rows(store, keys.segments[0].parts, "entered.parquet", doc_id))


def _measured(store: Store, segment: SegmentKeys, number: int, found: Why) -> bool:
    """Add what this segment knows of the document: its signals, relations, text, parent and children."""
    rows = _rows(store, segment.parts, "signals.parquet", found.doc_id)
    for row in rows:
        found.parent_id = found.parent_id or row["parent_id"]
        measured = {name: value for name, value in row.items() if "." in name and value is not None}
        found.signals.append({"segment": number, "text_bytes": row["text_bytes"], **measured})
        text = _rows(store, segment.parts, "documents.parquet", found.doc_id, ["text"])
        found.excerpt = text[0]["text"][:400] if text else found.excerpt
    for relate in segment.relates:
        for row in _rows(store, [relate["cluster"]], "relation.parquet", found.doc_id):
            values = {name: value for name, value in row.items() if "." in name and value is not None}
            found.signals.append({"segment": number, **values})
    born = _dataset(store, segment.parts, "signals.parquet").to_table(
        columns=["doc_id"], filter=ds.field("parent_id") == found.doc_id
    )
    found.children = sorted({*found.children, *born["doc_id"].to_pylist()})
    return bool(rows)


def _rows(
    store: Store, keys: list[str], name: str, doc_id: str, columns: list[str] | None = None
) -> list[dict[str, Any]]:
    table = _dataset(store, keys, name).to_table(columns=columns, filter=ds.field("doc_id") == doc_id)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _dataset(store: Store, keys: list[str], name: str) -> ds.Dataset:
    for key in keys:
        store.result(key)
    return ds.dataset([str(store.file(key, name)) for key in keys], format="parquet")


def _placed(version: Version, found: Why) -> None:
    """Where a kept document lies in the shards: file, row, position and number of tokens of each piece."""
    index = version.index()
    position = pc.index(index["doc_id"], found.doc_id).as_py()
    if position < 0:
        return
    found.index = index.slice(position, 1).to_pylist()[0]
    for shard in version.manifest["splits"][found.index["split"]]["shards"]:
        local = position - shard["first_document"]
        if 0 <= local < shard["documents"]:
            table = pa.ipc.open_file(pa.memory_map(str(version.folder / shard["file"]))).read_all()
            found.places += _pieces(table, local, shard["file"])


def _pieces(table: pa.Table, document: int, file: str) -> list[dict[str, Any]]:
    if "document" in table.column_names:
        return [{"file": file, "row": int(np.flatnonzero(table["document"].to_numpy() == document)[0]), "start": 0}]
    documents = table["documents"].combine_chunks()
    bounds = documents.offsets.to_numpy()
    hits = np.flatnonzero(documents.flatten().to_numpy() == document)
    rows = np.searchsorted(bounds, hits, side="right") - 1
    starts, offsets = (table[name].combine_chunks().flatten().to_numpy() for name in ("starts", "offsets"))
    return sorted(
        (
            {"file": file, "row": int(row), "start": int(starts[hit]), "offset": int(offsets[hit])}
            for row, hit in zip(rows, hits, strict=True)
        ),
        key=lambda place: place["offset"],
    )
