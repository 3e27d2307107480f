"""That a version only adds to another: from both folders alone, whatever made them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import ingredients
from pipeline.manifest import Version

SAME = ("format", "layout", "length", "dtype", "labels")


def differences(new: Version, old: Version) -> Iterator[str]:
    """A sentence for each thing of `old` that is not in `new` as it was, nearest to the cause first.

    Neither is hashed here: `manifest.verify` says whether a folder holds what its manifest states.
    """
    a, b = old.manifest, new.manifest
    for name in SAME:
        if a[name] != b[name]:
            yield f"{name} was {a[name]}, and is {b[name]}"
    if a["tokenizer"]["sha256"] != b["tokenizer"]["sha256"]:
        yield f"the tokenizer is another: its sha256 was {a['tokenizer']['sha256']}, and is {b['tokenizer']['sha256']}"
    same = {**b, "recipe": {**b["recipe"], **{name: a["recipe"][name] for name in ("name", "sources")}}}
    for what, before, after in ingredients.recipe(a, same):
        yield f"{what} was {before}, and is {after}"
    yield from _sources(a, b)
    yield from _shards(a, b)
    yield from _documents(old.index(), new.index())


def _sources(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    after = {source["name"]: source for source in b["sources"]}
    for source in a["sources"]:
        if source["name"] not in after:
            yield f"source {source['name']} is not there any more"
        for what, before, now in ingredients.values(
            f"source {source['name']}", source, after.get(source["name"], source)
        ):
            yield f"{what} was {before}, and is {now}"


def _shards(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """Every shard with its file's name and digests; its place in the longer index may be another."""
    for name, split in a["splits"].items():
        after = {shard["file"]: shard for shard in b["splits"].get(name, {"shards": []})["shards"]}
        for shard in split["shards"]:
            other = after.get(shard["file"])
            if other is None:
                yield f"split {name}: {shard['file']} is not there any more"
                continue
            for key in (key for key in shard if key != "first_document" and shard[key] != other[key]):
                yield f"split {name}: {shard['file']}: {key} was {shard[key]}, and is {other[key]}"


def _documents(a: pa.Table, b: pa.Table) -> Iterator[str]:
    """Every document that was kept is kept, in its split, with the very row of the index that it had."""
    place = pc.index_in(a["doc_id"], b["doc_id"].combine_chunks())
    lost = a["doc_id"].filter(pc.is_null(place))
    if len(lost):
        yield f"{len(lost):,} documents are not kept any more, first {lost[0]}"
        a = a.filter(pc.is_valid(place))
        place = place.drop_null()
    now = b.take(place)
    for name in a.column_names:
        left, right = a[name].combine_chunks(), now[name].combine_chunks().cast(a[name].type)
        same = pc.or_(pc.fill_null(pc.equal(left, right), False), pc.and_(pc.is_null(left), pc.is_null(right)))
        rows = np.flatnonzero(~same.to_numpy(zero_copy_only=False))
        if rows.size:
            row = int(rows[0])
            said = f"of {a['doc_id'][row]} it was {left[row]}, and is {right[row]}"
            yield f"{name} of {rows.size:,} documents is another; {said}"
