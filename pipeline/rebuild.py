"""Build a version again from what it recorded, elsewhere in its store, and hold both against each other.

A version in which documents were forgotten is its parent, built again, and the same operation done to that. The law: a
source that is no longer what the manifest says is an error before any work. The number that matters: 0, the characters
in which two content digests may differ.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow.compute as pc

from pipeline import compare
from pipeline import manifest as manifests
from pipeline.books import BuildKeys
from pipeline.build import Mill
from pipeline.forgetting import operation
from pipeline.manifest import Version, table_digest
from pipeline.plan import Input
from pipeline.recipe import Recipe
from pipeline.recorded import recorded
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError, read_parquet

Build = Callable[[Store, Recipe, Sequence[Input]], Version]


def rebuild(
    store: Store, version: Version, keys: BuildKeys, build: Build, data: Path | None = None, keep: bool = False
) -> compare.Comparison:
    """Build again in a scratch store below `store`, and compare.

    The scratch store is removed, unless `keep`. Raises what `recorded` and the build raise, and ConfigError where the
    version as it stands is damaged, so that there is nothing to compare with.
    """
    recipe, inputs = recorded(store, version, keys, data)
    if problems := list(manifests.verify(version)):
        raise ConfigError(
            f"{version.address} is damaged, so there is nothing to compare with: {problems[0]}; restore it, or build "
            "its recipe again"
        )
    with _scratch(store, version, keep) as scratch:
        again = _forgotten(scratch, version, build(scratch, recipe, inputs))
        found = compare.compare((store, version, keys), (scratch, again, again.build_keys()))
        found.folder = str(scratch.root.absolute()) if keep else None
        return found


def _forgotten(scratch: Store, version: Version, built: Version) -> Version:
    """What was built again, and the operations by which the version came from that done to it, one after the other.

    Raises ConfigError where the list of who was forgotten is not there, or not the one of the manifest; StoreError
    where a parent does not come out as it was.
    """
    said = version.manifest.get("forgotten")
    if said is None:
        return built
    path = version.folder / said["file"]
    if not path.is_file() or table_digest(listed := read_parquet(path)) != said["digest"]:
        raise ConfigError(f"{path} is missing or was changed, so who was forgotten is not known; restore it")
    for number, done in enumerate(said["operations"]):
        if built.address != done["parent"]:
            raise StoreError(
                f"the parent of {version.address} was {done['parent']}, and built again it is {built.address}: the "
                "code or a model behind a stage differs"
            )
        mine = listed.filter(pc.equal(listed["operation"], number)).select(["doc_id", "by"])
        built = operation.make(Mill(scratch), built, built.build_keys(), mine, operation.request_of(done))
    return built


@contextlib.contextmanager
def _scratch(store: Store, version: Version, keep: bool) -> Iterator[Store]:
    manifest = version.manifest
    folder = store.root / "rebuild" / f"{manifest['name']}-{manifest['version']}-{uuid.uuid4().hex[:8]}"
    try:
        yield Store(folder)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
