"""How some documents of a version read: their texts from the store, and the beginnings that fit on a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import pyarrow.compute as pc

from pipeline.books import BuildKeys
from pipeline.catalog.lookup import words
from pipeline.store import Store, read_parquet

CHARACTERS = 160
LEAD = 40


def texts(store: Store, keys: BuildKeys, ids: Sequence[str]) -> dict[str, str]:
    """Text of each document as it entered the rules of the last segment that read it; others are left out."""
    found: dict[str, str] = {}
    for segment in reversed(keys.segments):
        wanted = words([doc_id for doc_id in ids if doc_id not in found])
        for key in segment.parts if len(wanted) else ():
            file = store.file(key, "documents.parquet")
            rows = pc.index_in(wanted, value_set=read_parquet(file, ["doc_id"])["doc_id"].combine_chunks())
            if rows.null_count < len(rows):
                here, rows = wanted.filter(rows.is_valid()), rows.drop_null()
                text = read_parquet(file, ["text"])["text"].take(rows)
                found.update(zip(here.to_pylist(), text.to_pylist(), strict=True))
    return found


def pair(a: str | None, b: str | None) -> tuple[str | None, str | None]:
    """Excerpts of both sides: their beginnings, or what is around the first character in which they differ."""
    start = 0
    if a is not None and b is not None and a != b:
        start = max(0, sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False))) - LEAD)
    return excerpt(a, start), excerpt(b, start)


def excerpt(text: str | None, start: int = 0) -> str | None:
    """At most 160 characters of a text, from `start` on, on one line; an ellipsis says that there is more."""
    if text is None:
        return None
    cut = " ".join(text[start : start + 4 * CHARACTERS].split())
    more = "…" if len(cut) > CHARACTERS or start + 4 * CHARACTERS < len(text) else ""
    return ("…" if start else "") + cut[:CHARACTERS] + more
