"""What is asked, as a version holds it: contexts, continuations, and which of them is right.

Its texts are those of the evaluation set to the byte, and the manifest vouches for them: they are a column of the
document index. A model reads them with its own tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from training.manifest import ManifestError, Version


@dataclass(frozen=True)
class Item:
    """One item; either one context and several continuations, several contexts and one, or (a cloze) one of each."""

    doc_id: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...]
    gold: int

    @property
    def choices(self) -> int:
        """How many there are to choose from; 1 of a cloze."""
        return max(len(self.contexts), len(self.continuations))

    def choice(self, number: int) -> tuple[str, str]:
        """The context and the continuation of a choice."""
        contexts, continuations = self.contexts, self.continuations
        return contexts[number % len(contexts)], continuations[number % len(continuations)]


def read(version: Version) -> list[Item]:
    """The items of a version, in the order of their ids. Raises ManifestError where it holds none, or no sound one."""
    if "item" not in version.documents.column_names:
        raise ManifestError(
            f"{version.folder}: holds no evaluation items; those are versions of sources of kind 'items' "
            "(catalogs/sources has some), and gristmill eval builds them by itself"
        )
    table = version.lookup_columns(["doc_id", "item"])
    return sorted(
        (_item(version, *row.values()) for row in table.to_pylist() if row["item"] is not None), key=lambda i: i.doc_id
    )


def _item(version: Version, doc_id: str, text: str) -> Item:
    try:
        table = json.loads(text)
        item = Item(doc_id, tuple(table["contexts"]), tuple(table["continuations"]), table["gold"])
        sizes = {len(item.contexts), len(item.continuations)} - {1}
        texts = all(isinstance(part, str) and part for part in (*item.contexts, *item.continuations))
        whole = texts and sizes <= {item.choices} and 0 not in sizes and 0 <= item.gold < item.choices
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{version.folder}: {doc_id}: no item ({error}); build the version again") from error
    if not whole:
        raise ManifestError(
            f"{version.folder}: {doc_id}: gold {item.gold} of {item.choices} choices, or an empty text; "
            "build the version again"
        )
    return item


def limited(items: list[Item], limit: int | None, seed: int) -> list[Item]:
    """At most so many of the items, drawn by the hash of their ids, in their order."""
    if limit is None or limit >= len(items):
        return items
    drawn = {item.doc_id for item in sorted(items, key=lambda item: rank(seed, item.doc_id))[:limit]}
    return [item for item in items if item.doc_id in drawn]


def rank(*parts: object) -> bytes:
    """A place in a random order that depends on nothing but these."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()
