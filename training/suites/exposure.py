"""Which items of an evaluation set a run was trained on, by the step of its checkpoint.

The data half lists for a version which items stand in which documents (contamination.parquet); the order of a run says
when a document was read. An item is contaminated from the first step on that read any part of a document that held it
and kept it, and clean before; one from whose documents it was cut, or that were dropped, was never read. An item that
has too few words to be looked for is neither.

Items are found by `text_digest`, that of their letters and digits alone: so whatever a set is called there, and
however it is cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from training import journal
from training.manifest import ManifestError, Version, table_digest
from training.suites import items
from training.suites.items import Item
from training.where import where

CLEAN, CONTAMINATED, UNKNOWN = "clean", "contaminated", "unknown"


@dataclass
class Lists:
    """What the versions of a run say: documents that hold an item, items too short to be met, names of the sets."""

    holders: dict[str, set[str]] = field(default_factory=dict)
    short: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)


def of_run(folder: Path, step: int, sets: Mapping[str, Version]) -> dict[str, dict[str, str]]:
    """The group of every item, by id, of each set that a list of the run's versions looked for.

    Raises ManifestError where a list is missing or altered.
    """
    _, _, version = journal.read(folder, verify=False)
    lists = listed((version, *version.beside))
    found = {}
    for name, each in sets.items():
        asked = {item.doc_id: text_digest(item) for item in items.read(each)}
        known = _plain(name) in lists.sets or any(one in lists.holders or one in lists.short for one in asked.values())
        if known:
            found[name] = asked
    holders = {doc_id for asked in found.values() for one in asked.values() for doc_id in lists.holders.get(one, ())}
    read = _read(folder, step, sorted(holders))

    def group(one: str) -> str:
        if lists.holders.get(one, set()) & read:
            return CONTAMINATED
        return UNKNOWN if one in lists.short else CLEAN

    return {name: {doc_id: group(one) for doc_id, one in asked.items()} for name, asked in found.items()}


def listed(versions: tuple[Version, ...]) -> Lists:
    """The lists of some versions as one."""
    lists = Lists()
    for version in versions:
        said = version.manifest.contamination
        if said is None:
            continue
        path = version.folder / said.file
        if not path.is_file():
            raise ManifestError(f"{path}: missing, though the manifest lists it; copy the version again, whole")
        table = pq.ParquetFile(path).read()
        if table_digest(table) != said.digest:
            raise ManifestError(f"{path}: the digest of its values is not the manifest's; copy the version again")
        lists.sets |= {_plain(str(one["name"])) for one in said.sets}
        for row in table.select(["text_digest", "doc_id", "fate"]).to_pylist():
            if row["fate"] == "kept":
                lists.holders.setdefault(row["text_digest"], set()).add(row["doc_id"])
            elif row["doc_id"] is None:
                lists.short.add(row["text_digest"])
    return lists


def text_digest(item: Item) -> str:
    """32 hexadecimal characters: blake2b-128 of the letters and digits of its texts, in lower case."""
    whole = "\n".join([*item.contexts, *item.continuations])
    letters = "".join(char for char in whole.lower() if char.isalnum())
    return hashlib.blake2b(letters.encode(), digest_size=16).hexdigest()


def _read(folder: Path, step: int, documents: list[str]) -> set[str]:
    """Those of the documents of which the run had read any part by a step."""
    if not documents:
        return set()
    found = where(folder, documents)["documents"]
    return {one["doc_id"] for one in found if one["steps"] and one["steps"][0]["step"] <= step}


def _plain(name: str) -> str:
    """A set's name as it is compared: arc_easy.jsonl and arc-easy are one."""
    return Path(name.partition("@")[0]).stem.lower().replace("_", "-")
