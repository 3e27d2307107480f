"""The papers of a version: what others ask of a data set, in the forms that they read.

    ATTRIBUTION.md    whose texts these are, under which licences, what was done to them       (`attribution`)
    README.md         a data set card: `datasets.load_dataset(FOLDER)` reads the splits by it   (`card`)
    croissant.json    Croissant 1.1, with the document index as records                         (`croissant`)
    statement.md, .json   the content that a model was trained on, for the public               (`statement`)

They lie beside the manifest and in no digest: who publishes a version may edit them. The law: the same version gives
the same bytes, whatever a stranger put into a licence, an address or a title.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.manifest import Version, table_digest, unedited
from pipeline.papers import attribution, card, croissant, facts, statement
from pipeline.papers.facts import COLUMNS, Facts
from pipeline.stage import ConfigError
from pipeline.store import room, write_text

__all__ = ["COLUMNS", "PAPERS", "Facts", "again", "write"]
PAPERS = {
    "ATTRIBUTION.md": attribution.written,
    "README.md": card.written,
    "croissant.json": croissant.written,
    "statement.json": statement.written,
    "statement.md": statement.told,
}


def write(folder: Path, manifest: Mapping[str, Any], index: pa.Table) -> Facts:
    """Write the papers of the version in `folder`, whose manifest and document index (COLUMNS of it) these are."""
    found = facts.of(manifest, index)
    texts = {name: paper(found) for name, paper in PAPERS.items()}
    for name, text in texts.items():
        write_text(folder / name, text)
    return found


def again(version: Version) -> Facts:
    """Write the papers of a sealed version, over those that it has.

    Raises ConfigError where its manifest was edited or the document index is not the manifest's, StoreError where there
    is no room: then nothing is written.
    """
    unedited(version)
    index = version.index()
    if table_digest(index) != version.manifest["documents"]["digest"]:
        raise ConfigError(
            f"{version.folder / version.manifest['documents']['file']} is not the document index that the manifest "
            "vouches for; restore it, or build the version again"
        )
    with room(version.folder):
        return write(version.folder, version.manifest, index)
