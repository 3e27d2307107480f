"""Build a version again from what it recorded, elsewhere in its store, and hold both against each other.

A version that was extended, or in which documents were forgotten, is its parent, built again, and the same operation
done to that. The law: a source that is no longer what the manifest says is an error before any work. The number that
matters: 0, the characters in which two content digests may differ.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import compare
from pipeline import manifest as manifests
from pipeline.books import BuildKeys
from pipeline.build import Mill
from pipeline.extending.checking import Plan
from pipeline.extending.operation import extend, inputs_of
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
        again = _again(scratch, version, recipe, inputs, build)
        found = compare.compare((store, version, keys), (scratch, again, again.build_keys()))
        found.folder = str(scratch.root.absolute()) if keep else None
        return found


def _again(scratch: Store, version: Version, recipe: Recipe, inputs: Sequence[Input], build: Build) -> Version:
    """The first of a version's parents built again, and the operations by which it came from that, one after the other.

    Raises ConfigError where the list of who was forgotten is not there, or not the one of the manifest; StoreError
    where a parent does not come out as it was.
    """
    manifest = version.manifest
    extended = manifest.get("extended", {"operations": []})["operations"]
    added = [name for done in extended for name in done["sources"]]
    names = [address.partition("@")[0] for address in [*manifest["parents"], version.address]]
    forgets = _forgets(version)
    built = build(
        scratch, *_of(recipe, inputs, [card.name for card in recipe.sources if card.name not in added], names[0])
    )
    for parent, name in zip(manifest["parents"], names[1:], strict=True):
        if built.address != parent:
            raise StoreError(
                f"the parent of {version.address} was {parent}, and built again it is {built.address}: the "
                "code or a model behind a stage differs"
            )
        if parent in forgets:
            built = operation.make(Mill(scratch), built, built.build_keys(), *forgets[parent])
            continue
        come = next(done["sources"] for done in extended if done["parent"] == parent)
        whole, _ = _of(recipe, inputs, [*built.manifest["recipe"]["sources"], *come], name)
        planned = Plan(built, built.build_keys(), whole, whole.sources[-len(come) :])
        built = extend(Mill(scratch), planned, inputs_of(inputs, come))
    return built


def _of(recipe: Recipe, inputs: Sequence[Input], names: Sequence[str], name: str) -> tuple[Recipe, list[Input]]:
    """The recipe and the input of some sources, under a name."""
    given = inputs_of(inputs, names)
    return replace(recipe, name=name, sources=tuple(each.card for each in given)), given


def _forgets(version: Version) -> dict[str, tuple[pa.Table, dict[str, Any]]]:
    """Of each parent in which documents were forgotten: who, and what was asked for."""
    said = version.manifest.get("forgotten")
    if said is None:
        return {}
    path = version.folder / said["file"]
    if not path.is_file() or table_digest(listed := read_parquet(path)) != said["digest"]:
        raise ConfigError(f"{path} is missing or was changed, so who was forgotten is not known; restore it")
    found = {}
    for number, done in enumerate(said["operations"]):
        mine = listed.filter(pc.equal(listed["operation"], number)).select(["doc_id", "by"])
        found[done["parent"]] = mine, operation.request_of(done)
    return found


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
