"""Which items of an evaluation set a model was trained on, by the step of its checkpoint.

The data half lists for a version which items stand in which documents (contamination.parquet); the order of a run says
when a document was read. An item is contaminated from the first step on that read any part of a document that held it
and kept it, and clean before; one from whose documents it was cut, or that were dropped, was never read. What the
weights had read that a run began with counts too (`lineage`). An item that has too few words to be looked for is
neither, nor is one that was not met where not all that the model has read was looked through for its set.

Items are found by `text_digest`, that of their letters and digits alone: so whatever a set is called there, and
however it is cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple

from training import journal, lineage
from training.lineage import Items
from training.manifest import Version
from training.suites import items
from training.suites.items import Item

CLEAN, CONTAMINATED, UNKNOWN = "clean", "contaminated", "unknown"


class Exposure(NamedTuple):
    """The group of every item of a set, by id, and what was read without being looked through for the set."""

    groups: Mapping[str, str]
    unsearched: list[str]


def of_run(folder: Path, step: int, sets: Mapping[str, Version]) -> dict[str, Exposure]:
    """What a run had read of each set that any list of what it read looked for.

    Raises ManifestError where a list is missing or altered, and TrainingError where `before.json` is.
    """
    books, _, version = journal.read(folder, verify=False)
    before = lineage.before(books) or lineage.Before(runs=[], unknown=None)
    versions = (version, *version.beside)
    read = [(one.address, met) for one, met in zip(versions, lineage.items(folder, step, version), strict=True)]
    read += [(one.address, one.items) for each in before.runs for one in each.texts]
    if before.unknown:
        read.append((f"what the weights {before.unknown} learnt from", None))
    asked = {name: {item.doc_id: text_digest(item) for item in items.read(each)} for name, each in sets.items()}
    found = {name: _exposure(lineage.plain(name), digests, read) for name, digests in asked.items()}
    return {name: each for name, each in found.items() if each is not None}


def _exposure(name: str, digests: Mapping[str, str], read: list[tuple[str, Items | None]]) -> Exposure | None:
    asked = set(digests.values())
    known, unsearched, held, short = False, set[str](), set[str](), set[str]()
    for what, met in read:
        if met is None or not _looked_for(name, asked, met):
            unsearched.add(what)
            continue
        known = True
        held.update(met.read)
        short.update(met.short)
    if not known:
        return None
    missed = UNKNOWN if unsearched else CLEAN
    groups = {
        doc_id: CONTAMINATED if one in held else UNKNOWN if one in short else missed for doc_id, one in digests.items()
    }
    return Exposure(groups, sorted(unsearched))


def _looked_for(name: str, digests: Set[str], met: Items) -> bool:
    """Whether a set was looked for, under its name or another."""
    return name in met.sets or not digests.isdisjoint([*met.read, *met.unread, *met.short])


def text_digest(item: Item) -> str:
    """32 hexadecimal characters: blake2b-128 of the letters and digits of its texts, in lower case."""
    whole = "\n".join([*item.contexts, *item.continuations])
    letters = "".join(char for char in whole.lower() if char.isalnum())
    return hashlib.blake2b(letters.encode(), digest_size=16).hexdigest()
