"""Questions to the books of a version, answered from the files alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import mixing
from pipeline.books import BRIDGES, FORGOTTEN, SegmentKeys
from pipeline.catalog import passages
from pipeline.catalog.lookup import column_row, position, row_of, text_of, word
from pipeline.catalog.losing import Lost, lost
from pipeline.catalog.passages import Cut
from pipeline.manifest import Version, check_shards
from pipeline.mixing import COPY
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet

EXCERPT = 400


@dataclass
class Why:
    """What happened to one document, and what was measured on its way.

    `path` are the stages that it came to, in order: stage, kind, segment, what was `measured` there, the `rules` over
    that, and `verdict`: passed, or how it left. `lost` says to whom it lost, with both texts side by side. `bridges`
    are the documents, itself or others through it, whose fate is another than in a build of all sources at once.
    """

    doc_id: str
    verdict: str
    stage: str | None = None
    reason: str | None = None
    detail: str | None = None
    parent_id: str | None = None
    children: list[str] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    path: list[dict[str, Any]] = field(default_factory=list)
    lost: Lost | None = None
    index: dict[str, Any] | None = None
    cuts: list[Cut] = field(default_factory=list)
    places: list[dict[str, Any]] = field(default_factory=list)
    bridges: list[dict[str, Any]] = field(default_factory=list)
    excerpt: str | None = None


def why(store: Store, version: Version, doc_id: str) -> Why:
    """The path of a document through a version. Raises ConfigError where the version never met it."""
    keys = version.build_keys()
    found = Why(doc_id, "kept")
    met = False
    for number, segment in enumerate(keys.segments):
        here = _measured(store, segment, number, found)
        met = here or met
        found.cuts += passages.of(store, segment, number, doc_id) if here else []
    for key in keys.ledgers:
        if left := row_of(store, key, "ledger.parquet", doc_id):
            found.verdict, found.stage = left["verdict"], left["stage"]
            found.reason, found.detail = left["reason"], left["detail"]
            met = True
    if not met and keys.forgotten and (listed := row_of(store, keys.forgotten, FORGOTTEN, doc_id)):
        # It was made here of a document that was forgotten, so no source has it.
        found.verdict, found.stage, found.reason, found.detail = "dropped", "forget", "forgotten", listed["by"]
    elif not met and keys.mix and COPY in doc_id and doc_id in set(mixing.born(store, keys.mix)):
        found.parent_id = doc_id.rpartition(COPY)[0]
    elif not met and not any(column_row(store, key, "entered.parquet", doc_id) >= 0 for key in keys.segments[0].parts):
        raise ConfigError(
            f"{version.address} never met a document {doc_id!r}; ids look like source:path:row, and "
            f"`gristmill show {version.address}` lists its sources"
        )
    found.path = list(_path(version, found))
    if keys.bridges:
        table = read_parquet(store.file(keys.bridges, BRIDGES))
        mine = pc.or_kleene(*(pc.equal(table[name], word(doc_id)) for name in ("doc_id", "by")))
        found.bridges = table.filter(mine).to_pylist()
    found.lost = lost(store, version, keys, doc_id, found.stage, found.signals)
    _placed(version, found)
    return found


def _measured(store: Store, segment: SegmentKeys, number: int, found: Why) -> bool:
    """Add what this segment knows of the document: its signals, relations, text, parent and children."""
    part, place = next(
        ((key, row) for key in segment.parts if (row := column_row(store, key, "signals.parquet", found.doc_id)) >= 0),
        (None, -1),
    )
    if part is not None:
        row = read_parquet(store.file(part, "signals.parquet")).slice(place, 1).to_pylist()[0]
        found.parent_id = found.parent_id or row["parent_id"]
        measured = {name: value for name, value in row.items() if "." in name and value is not None}
        found.signals.append({"segment": number, "text_bytes": row["text_bytes"], **measured})
        found.excerpt = text_of(store, part, place)[:EXCERPT]
    for relate in segment.relates:
        if related := row_of(store, relate["cluster"], "relation.parquet", found.doc_id):
            values = {name: value for name, value in related.items() if "." in name and value is not None}
            found.signals.append({"segment": number, **values})
    for key in segment.parts:
        if any(store.result(key)["added"].values()):
            born = read_parquet(store.file(key, "signals.parquet"), ["doc_id", "parent_id"])
            born = born.filter(pc.equal(born["parent_id"], word(found.doc_id)))
            found.children = sorted({*found.children, *born["doc_id"].to_pylist()})
    return part is not None


def _path(version: Version, found: Why) -> Iterator[dict[str, Any]]:
    """The stages that the document came to: the first is where it came from, the last where it left, if it did."""
    values = {name: value for measured in found.signals for name, value in measured.items()}
    said = iter(version.manifest["recipe"]["stages"])
    met = {measured["segment"] for measured in found.signals}
    for entry in version.manifest["accounting"]:
        name = entry["stage"]
        staged = entry["kind"] in KINDS
        rules = next(said)["rules"] if staged else []
        measured = {k.removeprefix(f"{name}."): v for k, v in values.items() if k.startswith(f"{name}.")}
        left = name == found.stage
        if left or measured or not staged or entry["segment"] in met:
            known = {"stage": name, "kind": entry["kind"], "segment": entry["segment"]}
            verdict = found.verdict if left else "passed"
            bounds = [{each: rule[each] for each in ("column", "operator", "bound")} for rule in rules]
            yield {**known, "measured": measured, "rules": bounds, "verdict": verdict}
        if left:
            return


KINDS = ("measure", "rewrite", "extend", "relate")


def _placed(version: Version, found: Why) -> None:
    """Where a kept document lies in the shards."""
    placed = place(version, found.doc_id)
    if placed:
        found.index, found.places = placed


def place(version: Version, doc_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """A document's row of the index; file, row, position, offset and number of tokens of each piece in the shards."""
    number = position(version.index(["doc_id"])["doc_id"], doc_id)
    if number < 0:
        return None
    entry = version.index().slice(number, 1).to_pylist()[0]
    for shard in version.manifest["splits"][entry["split"]]["shards"]:
        local = number - shard["first_document"]
        if 0 <= local < shard["documents"]:
            check_shards(version, [shard])
            table = pa.ipc.open_file(pa.memory_map(str(version.folder / shard["file"]))).read_all()
            return entry, _pieces(table, local, shard["file"])
    return entry, []


def _pieces(table: pa.Table, document: int, file: str) -> list[dict[str, Any]]:
    if "document" in table.column_names:
        row = int(np.flatnonzero(_plain(table["document"]) == document)[0])
        return [{"file": file, "row": row, "start": 0, "offset": 0, "tokens": len(table["tokens"][row])}]
    documents = table["documents"].combine_chunks()
    bounds = np.from_dlpack(documents.offsets)
    hits = np.flatnonzero(np.from_dlpack(documents.flatten()) == document)
    rows = np.searchsorted(bounds, hits, side="right") - 1
    starts, offsets = (np.from_dlpack(table[name].combine_chunks().flatten()) for name in ("starts", "offsets"))
    used = _plain(table["used"])
    found = []
    for row, hit in zip(rows.tolist(), hits.tolist(), strict=True):
        end = starts[hit + 1] if hit + 1 < bounds[row + 1] else used[row]
        known = {"file": file, "row": row, "start": int(starts[hit]), "offset": int(offsets[hit])}
        found.append({**known, "tokens": int(end - starts[hit])})
    return sorted(found, key=lambda piece: piece["offset"])


def _plain(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of numbers; unlike `to_numpy` this asks for no pandas (`catalog.lookup`)."""
    return np.from_dlpack(column.combine_chunks())
