"""Seal a version: what a build made becomes a folder that is whole or not there.

The manifest is canonical JSON and written last: its existence means that the build
completed. Same name and version with other content is a hard error.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import books, canaries, contamination, mixing, papers
from pipeline.books import BRIDGES, FORGOTTEN, BuildKeys
from pipeline.digests import canonical, digest
from pipeline.manifest import FORMAT, Version, content, table_digest, verify, version_digest
from pipeline.plan import Input
from pipeline.recipe import Recipe
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError, file_digest, link, read_parquet, room, sync_folder, write_text
from pipeline.tokens.vocabulary import token_type


def seal(
    store: Store,
    recipe: Recipe,
    inputs: Sequence[Input],
    keys: BuildKeys,
    lineage: Mapping[str, Any] | None = None,
    beside: Mapping[str, str] | None = None,
) -> Version:
    """Write the version folder, whole or not at all.

    `lineage` are the manifest's entries of a version that comes from another, `beside` the names and texts of files
    that stand in the folder from its first moment.

    Raises StoreError if the version stands with other content, or the disk has no room.
    """
    temporary = store.root / "versions" / recipe.name / f".{uuid.uuid4().hex[:8]}"
    try:
        with room(store.root):
            final = _write(store, recipe, inputs, keys, temporary, lineage or {}, beside or {})
            write_text(final.parent / "latest", final.name + "\n")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Version(final, json.loads((final / "manifest.json").read_text("utf-8")))


def _write(
    store: Store,
    recipe: Recipe,
    inputs: Sequence[Input],
    keys: BuildKeys,
    temporary: Path,
    lineage: Mapping[str, Any],
    beside: Mapping[str, str],
) -> Path:
    """Fill the temporary folder and publish it; returns where the version lies."""
    (temporary / "shards").mkdir(parents=True)
    link(store.file(keys.packed, "documents.parquet"), temporary / "documents.parquet")
    index = read_parquet(temporary / "documents.parquet")
    manifest = {**_manifest(store, recipe, inputs, keys, temporary, index), **lineage}
    for name, text in beside.items():
        write_text(temporary / name, text)
    manifest["version"] = version_digest(manifest)
    write_text(temporary / "build.json", canonical({"format": "gristmill.build/1", "keys": asdict(keys)}) + "\n")
    papers.write(temporary, manifest, index)
    write_text(temporary / "manifest.json", canonical(manifest) + "\n")
    sync_folder(temporary)
    return _publish(temporary, manifest, beside)


def _publish(temporary: Path, manifest: Mapping[str, Any], beside: Iterable[str]) -> Path:
    """Rename into place. A sealed version stands as it is, but the books of this build are now its books.

    What this build was allowed is written down there, if it is not yet.
    """
    final = temporary.parent / manifest["version"]
    if not final.exists():
        temporary.rename(final)
        return final
    standing = Version(final, json.loads((final / "manifest.json").read_text("utf-8")))
    if content(standing.manifest) != content(manifest):
        raise StoreError(
            f"{standing.address} stands already with other content; `gristmill verify` tells which is damaged"
        )
    if problems := list(verify(standing)):
        raise StoreError(
            f"{standing.address} stands already and is damaged: {problems[0]}; remove {final} and build again"
        )
    said = manifest["summaries"].get("canaries", {})
    if standing.manifest["summaries"].get("canaries", {}).get("allowed", []) != said.get("allowed", []):
        standing.manifest["summaries"]["canaries"] = said
        write_text(final / "manifest.json", canonical(standing.manifest) + "\n")
    for name in ("build.json", *beside):
        (temporary / name).replace(final / name)
    return final


def _manifest(
    store: Store, recipe: Recipe, inputs: Sequence[Input], keys: BuildKeys, folder: Path, index: pa.Table
) -> dict[str, Any]:
    packed = store.result(keys.packed)
    vocabulary = store.result(keys.vocabulary)
    link(store.file(keys.vocabulary, "tokenizer.json"), folder / "tokenizer.json")
    for shard in packed["shards"]:
        link(store.file(keys.packed, shard["file"]), folder / "shards" / shard["file"])
    if keys.forgotten:
        link(store.file(keys.forgotten, FORGOTTEN), folder / FORGOTTEN)
    if keys.bridges:
        link(store.file(keys.bridges, BRIDGES), folder / BRIDGES)
    entries = books.accounting(recipe, store, keys)
    tried = {"canaries": canaries.summary(recipe, store.result(keys.canaries)["rules"])} if keys.canaries else {}
    return {
        "format": FORMAT,
        "name": recipe.name,
        "layout": recipe.pack.layout,
        "length": recipe.pack.length,
        "dtype": str(token_type(vocabulary["vocab_size"])),
        "recipe": recipe.resolved(),
        "sources": _sources(store, inputs, keys),
        "tokenizer": {
            "file": "tokenizer.json",
            "sha256": file_digest(folder / "tokenizer.json", "sha256"),
            **{name: vocabulary[name] for name in ("vocab_size", "eot", "bos", "trained_on") if name in vocabulary},
        },
        "accounting": entries,
        "summaries": books.summaries(entries, store, keys, index) | tried,
        "labels": packed["labels"],
        "splits": _splits(recipe, packed["shards"]),
        "documents": {
            "file": "documents.parquet",
            "rows": index.num_rows,
            "digest": table_digest(index),
            "sha256": file_digest(folder / "documents.parquet", "sha256"),
        },
        "parents": [],
        # Only where a card maps them: a version without targets is what it was before there were any.
        **({"targets": packed["targets"]} if packed["targets"] else {}),
        # Only where evaluation items were looked for.
        **contamination.write(store, keys, index, folder),
        **({"mix": mixing.described(store, keys.mix, index)} if keys.mix else {}),
    }


def _sources(store: Store, inputs: Sequence[Input], keys: BuildKeys) -> list[dict[str, Any]]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for key in keys.segments[0].parts:
        name = store.spec(key)["source"]["card"]["name"]
        done = store.result(key)
        counts[name][0] += done["entered"]
        counts[name][1] += done["text_bytes"]
    found = []
    for given in inputs:
        card, files = given.card, given.files()
        known = {"name": card.name, "kind": card.kind, "title": card.title, "licence": card.licence}
        documents, text_bytes = counts[card.name]
        found.append(
            {
                **known,
                "homepage": card.homepage,
                "revision": digest([[f["path"], f["sha256"]] for f in files]),
                "documents": documents,
                "text_bytes": text_bytes,
                "files": files,
                # Only where a card states it: a version whose cards do not is what it was.
                **({"collected": card.collected} if card.collected else {}),
            }
        )
    return found


def _splits(recipe: Recipe, shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for name in sorted({"train", *recipe.pack.split}):
        entries = []
        mine = [shard for shard in shards if shard["split"] == name]
        for shard in mine:
            known = ("source", "rows", "tokens", "first_document", "documents", "bytes", "sha256", "digest")
            entries.append({"file": f"shards/{shard['file']}", **{name: shard[name] for name in known}})
        totals = {
            n: sum(shard[n] for shard in mine) for n in ("rows", "tokens", "documents", "text_bytes", "truncated")
        }
        splits[name] = {**totals, "digest": digest([entry["digest"] for entry in entries]), "shards": entries}
        if not mine:
            raise ConfigError(
                f"split {name!r} came out empty: {sum(s['documents'] for s in shards)} documents are kept in all; "
                "give the split a larger share in [pack] split, loosen the rules, or add a source"
            )
    return splits
