"""A version and what was built again from its records: equal, or what differs, down to the first document.

Looked for in the order in which a document travels, so that what comes first is nearest to the cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline import books, ingredients
from pipeline.books import BuildKeys
from pipeline.manifest import Version, content, version_digest
from pipeline.store import Store

Built = tuple[Store, Version, BuildKeys]


@dataclass(frozen=True)
class Difference:
    """What differs, where, and the first document that shows it, if one does."""

    what: str
    said: str
    doc_id: str | None = None
    place: dict[str, Any] = field(default_factory=dict)


@dataclass
class Comparison:
    """Both addresses and content digests; equal when there is no difference."""

    version: str
    rebuilt: str
    digests: list[str]
    splits: dict[str, list[str | None]]
    differences: list[Difference]
    folder: str | None = None

    @property
    def equal(self) -> bool:
        return not self.differences


def compare(a: Built, b: Built) -> Comparison:
    """Hold what stands (`a`) against what was built again (`b`)."""
    left, right = a[1].manifest, b[1].manifest
    splits = {
        name: [table["splits"][name]["digest"] if name in table["splits"] else None for table in (left, right)]
        for name in sorted(left["splits"].keys() | right["splits"].keys())
    }
    same = content(left) == content(right)
    found = [] if same else list(_differences(a, b))
    digests = [version_digest(left), version_digest(right)]
    return Comparison(a[1].address, b[1].address, digests, splits, found)


def _differences(a: Built, b: Built) -> Iterator[Difference]:
    looks = (_entered, _ledgers, _accounting, _tokenizer, _index, _shards)
    found = [difference for look in looks if (difference := look(a, b)) is not None]
    yield from found
    if not found:
        yield from _others(a, b)


def _frame(table: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def _entered(a: Built, b: Built) -> Difference | None:
    """What the sources yielded: ids and sizes."""
    left, right = (_frame(books.entered(s, keys)).with_columns(pl.lit("a row").alias("here")) for s, _, keys in (a, b))
    return _unlike(left, right, ["here", "text_bytes"], "sources", "the sources yield")


def _ledgers(a: Built, b: Built) -> Difference | None:
    """Who left, where and why."""
    left, right = (_frame(books.ledger(store, keys)) for store, _, keys in (a, b))
    order = {entry["stage"]: n for n, entry in enumerate(a[1].manifest["accounting"])}
    return _unlike(left, right, ["stage", "verdict", "reason", "detail"], "ledger", "the ledger says", order)


def _unlike(
    a: pl.DataFrame, b: pl.DataFrame, columns: list[str], what: str, said: str, order: dict[str, int] | None = None
) -> Difference | None:
    """The first document of which two tables say different things, by stage and id; None where they agree."""
    both = a.join(b, on="doc_id", how="full", suffix="_b", coalesce=True)
    other = both.filter(pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_b")) for name in columns))
    if other.is_empty():
        return None
    if order is not None:
        places = [
            pl.col(name).replace_strict(order, default=len(order), return_dtype=pl.Int64)
            for name in ("stage", "stage_b")
        ]
        other = other.with_columns(pl.min_horizontal(places).alias("place")).sort("place", "doc_id")
    row = other.row(0, named=True) if order is not None else other.sort("doc_id").row(0, named=True)
    values = [", ".join(str(row[name + end]) for name in columns if row[name + end] is not None) for end in ("", "_b")]
    words = " and now ".join(value or "nothing" for value in values)
    return Difference(
        what,
        f"{said} other things of {other.height:,} documents; of the first, {row['doc_id']}: {words}",
        row["doc_id"],
        {name: [row[name], row[f"{name}_b"]] for name in columns},
    )


def _accounting(a: Built, b: Built) -> Difference | None:
    """The first stage that counts differently."""
    left, right = ({entry["stage"]: entry for entry in each[1].manifest["accounting"]} for each in (a, b))
    for stage, entry in left.items():
        found = list(ingredients.values(stage, entry, right.get(stage)))
        if found:
            name, before, after = found[0]
            return Difference("accounting", f"stage {stage} counts otherwise: {name} {before}, and now {after}")
    return None


def _tokenizer(a: Built, b: Built) -> Difference | None:
    found = ingredients.tokenizer(a[1].manifest, b[1].manifest)
    if not found:
        return None
    said = "; ".join(f"{name} {before}, and now {after}" for name, before, after in found)
    return Difference("tokenizer", f"the tokenizer is another: {said}")


def _index(a: Built, b: Built) -> Difference | None:
    """The first row of the document index that differs."""
    left, right = (_frame(each[1].index()) for each in (a, b))
    rows = min(left.height, right.height)
    unlike = pl.any_horizontal(
        (left[name].head(rows).ne_missing(right[name].head(rows))).alias(name) for name in left.columns
    )
    places = pl.select(unlike.arg_true()).to_series()
    if places.is_empty() and left.height == right.height:
        return None
    row = int(places[0]) if len(places) else rows
    before, after = (side.row(row, named=True) if row < side.height else None for side in (left, right))
    if before and after:
        said = "; ".join(f"{k} {v}, and now {after[k]}" for k, v in before.items() if v != after[k])
    else:
        said = f"{left.height:,} rows, and now {right.height:,}"
    doc_id = (before or after or {})["doc_id"]
    return Difference("index", f"documents.parquet differs from row {row} on ({doc_id}): {said}", doc_id, {"row": row})


def _shards(a: Built, b: Built) -> Difference | None:
    """The first split, shard and row that differ, and the document behind the first other token."""
    for name, split in a[1].manifest["splits"].items():
        others = {shard["file"]: shard for shard in b[1].manifest["splits"].get(name, {"shards": []})["shards"]}
        for shard in split["shards"]:
            other = others.pop(shard["file"], None)
            if other is None:
                return Difference("shards", f"split {name}: {shard['file']} is not made", None, {"split": name})
            if shard["digest"] != other["digest"]:
                return _row(a[1], b[1], name, shard, other)
        if others:
            file = next(iter(others))
            return Difference("shards", f"split {name}: {file} is made besides", None, {"split": name})
    return None


def _row(a: Version, b: Version, split: str, shard: dict[str, Any], other: dict[str, Any]) -> Difference:
    digests = f"digest {shard['digest']}, and now {other['digest']}"
    left, right = (
        pa.ipc.open_file(pa.memory_map(str(v.folder / shard["file"]))).read_all().combine_chunks() for v in (a, b)
    )
    row = _first(left, right)
    place: dict[str, Any] = {"split": split, "file": shard["file"], "row": row}
    if row >= left.num_rows or row >= right.num_rows:
        said = f"{left.num_rows:,} rows, and now {right.num_rows:,}"
        version, table, entry = (a, left, shard) if row < left.num_rows else (b, right, other)
        local = _document(table, row, 0)
    else:
        before, after = (np.asarray(table["tokens"][row].as_py()) for table in (left, right))
        length = min(len(before), len(after))
        unlike = np.flatnonzero(before[:length] != after[:length])
        position = int(unlike[0]) if len(unlike) else length * (len(before) != len(after))
        said = f"position {position}"
        place["position"] = position
        version, entry, local = a, shard, _document(left, row, position)
    doc_id = version.index(["doc_id"])["doc_id"][entry["first_document"] + local].as_py()
    return Difference(
        "shards", f"split {split}: {shard['file']} ({digests}) from row {row}, {said} on, in {doc_id}", doc_id, place
    )


def _first(a: pa.Table, b: pa.Table) -> int:
    """Number of the first row that differs."""
    rows = min(a.num_rows, b.num_rows)
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if a.slice(low, middle - low + 1).equals(b.slice(low, middle - low + 1)):
            low = middle + 1
        else:
            high = middle
    return low


def _document(table: pa.Table, row: int, position: int) -> int:
    """Number, within the shard, of the document at a position of a row."""
    if "document" in table.column_names:
        return int(table["document"][row].as_py())
    starts = np.asarray(table["starts"][row].as_py())
    piece = max(int(np.searchsorted(starts, position, side="right")) - 1, 0)
    return int(table["documents"][row].as_py()[piece])


def _others(a: Built, b: Built) -> Iterator[Difference]:
    """Whatever else the manifests say differently."""
    for name, before, after in ingredients.values("manifest", content(a[1].manifest), content(b[1].manifest)):
        yield Difference("manifest", f"{name}: {before}, and now {after}")
