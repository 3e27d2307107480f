"""Which items of an evaluation set a run was trained on, by the steps that its checkpoint had read.

The data half lists, for a version, which items of which set stand in which documents (`contamination`); the order of
a run says when a document was read. An item is contaminated from the first step on that read any part of such a
document, and clean before; a document that was dropped or cut for it was never read.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.parquet as pq

from training import journal
from training.manifest import Version
from training.suites.places import Place
from training.where import where

FILE = "contamination.parquet"


def of_run(place: Place, sets: Mapping[str, Version]) -> dict[str, frozenset[str]]:
    """Ids of the items of each set that the run had read by its step; sets that no list names are absent."""
    assert place.run is not None and place.step is not None
    _, _, version = journal.read(place.run, verify=False)
    documents: dict[str, set[str]] = {}
    for each in (version, *version.beside):
        for item, doc_id in listed(each):
            documents.setdefault(item, set()).add(doc_id)
    return {}


def listed(version: Version) -> list[tuple[str, str]]:
    """(item, document) of the list that a version has of its contaminated documents."""
    path = version.folder / FILE
    if not path.is_file():
        return []
    table = pq.ParquetFile(path).read(["item", "doc_id"])
    return list(zip(table["item"].to_pylist(), table["doc_id"].to_pylist(), strict=True))


__all__ = ["listed", "of_run", "where"]
