"""What goes from a store when documents are forgotten, and what still holds them.

The parent version goes, unless it is to be kept; then every output that no version is made of and that holds a row of
them; then what stopped or kept builds have left. Outputs that another version is made of stay: whoever has to erase
must forget there too, so those versions are named. Ids and digests may stay, text and tokens may not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import manifest as manifests
from pipeline.books import FORGOTTEN, BuildKeys
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import DONE, Store, StoreError, read_parquet

# Who entered and who left: ids, sizes and reasons, no text.
BOOKS = ("entered.parquet", "ledger.parquet", FORGOTTEN)


@dataclass
class Purged:
    """What went, and who still holds text of the forgotten."""

    versions: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    still_held: list[str] = field(default_factory=list)


def purge(store: Store, parent: str, gone: pa.Array, keep_parent: bool) -> Purged:
    """Take the text of `gone` out of a store; done again, it does what is left to do.

    Raises StoreError where the books of another version are damaged, so that it cannot be said what it holds.
    """
    found = Purged()
    if not keep_parent:
        _remove_version(store, parent, found)
    used: set[str] = set()
    for version, keys in versions(store):
        used.update(keys.every())
        places = [version.folder, *(store.folder(key) for key in keys.every() if key)]
        if any(_holds(place, gone) for place in places):
            found.still_held.append(version.address)
    for folder in sorted((store.root / "store").glob("*/*")):
        if folder.name.startswith("."):
            _remove(folder)
            found.leftovers.append(str(folder.relative_to(store.root)))
        elif folder.name not in used and _holds(folder, gone):
            _remove(folder)
            found.outputs.append(folder.name)
    for folder in [*(store.root / "rebuild").glob("*"), *(store.root / "versions").glob("*/.*")]:
        if folder.is_dir():
            shutil.rmtree(folder)
            found.leftovers.append(str(folder.relative_to(store.root)))
    return found


def _remove_version(store: Store, address: str, found: Purged) -> None:
    """The folder is hidden by a rename first, so the version is whole or not there."""
    name, _, number = address.partition("@")
    folder = store.root / "versions" / name / number
    if folder.exists():
        folder.rename(folder.with_name(f".{number}"))
    shutil.rmtree(folder.with_name(f".{number}"), ignore_errors=True)
    found.versions.append(address)


def _remove(folder: Path) -> None:
    """Without its done marker an output does not exist, so that goes first."""
    (folder / DONE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def versions(store: Store) -> Iterator[tuple[Version, BuildKeys]]:
    """Every version of a store, and where its books lie; of a copy without books that is nowhere."""
    for name in manifests.names(store):
        for number in manifests.versions(store, name):
            try:
                version = manifests.read(store.root / "versions" / name / number)
            except StoreError as error:
                raise ConfigError(
                    f"{error}; restore it, or remove that version, and run the same command again"
                ) from error
            if not (version.folder / "build.json").exists():
                yield version, BuildKeys([])
                continue
            try:
                yield version, version.build_keys()
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{version.folder / 'build.json'} is damaged ({error}), so what {version.address} holds cannot "
                    "be said; build it again, or remove it, and run the same command again"
                ) from error


def _holds(folder: Path, gone: pa.Array) -> bool:
    """Whether a table of an output, other than the books, has a row of somebody who is gone."""
    for path in sorted(folder.glob("*.parquet")):
        if path.name in BOOKS or "doc_id" not in pq.read_schema(path).names:
            continue
        if pc.any(pc.is_in(read_parquet(path, ["doc_id"])["doc_id"], gone)).as_py():
            return True
    return False
