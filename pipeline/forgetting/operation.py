"""Forget, as one act: plan it, make the version without the documents, purge the store, and state what was done.

What is under way is written down in the new version from its first moment (`forgetting.json`) and goes when the
statement stands. So whatever kills it, the old version is there, whole, or the new one is; `finish` does what is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import recorded
from pipeline.books import FORGOTTEN, BuildKeys
from pipeline.build import Mill
from pipeline.digests import canonical
from pipeline.extending.operation import entry
from pipeline.forgetting import statement
from pipeline.forgetting.chain import chain
from pipeline.forgetting.purging import purge, versions
from pipeline.forgetting.selecting import Request, everyone
from pipeline.manifest import Version, check_shards, table_digest
from pipeline.seal import seal
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet

UNDER_WAY = "forgetting.json"
LISTED = 20
# What the runs of a store have read of some documents, as the trainer tells it.
Readers = Callable[[Sequence[str]], list[dict[str, Any]]]


@dataclass(frozen=True)
class Plan:
    """What would be forgotten: `chosen` (doc_id, by), and what that touches."""

    parent: str
    request: Request
    chosen: pa.Table
    was_kept: int
    tokens: int
    shards: list[str]
    of_shards: int
    asked_for: int

    def described(self) -> dict[str, Any]:
        """The plan as plain data."""
        known = {"parent": self.parent, "request": self.request.described(), "documents": self.chosen.num_rows}
        counts = {name: getattr(self, name) for name in ("asked_for", "was_kept", "tokens")}
        first = self.chosen.slice(0, LISTED).to_pylist()
        return {**known, **counts, "shards": self.of_shards, "shards_touched": self.shards, "first": first}


def plan(store: Store, version: Version, keys: BuildKeys, request: Request) -> Plan:
    """Who would go, and which shards that touches; nothing is written.

    Raises ConfigError where nobody is meant, a split would be left empty, or a shard is not the manifest's.
    """
    if request.only and keys.bridges:
        raise ConfigError(
            f"{version.address} was extended, so who takes a place in it is not the best of a cluster alone; forget "
            "the whole cluster (without --only)"
        )
    chosen = everyone(store, keys, request)
    index = version.index(["doc_id", "split", "tokens"])
    hit = pc.is_in(index["doc_id"], chosen["doc_id"].combine_chunks())
    shards = [shard for split in version.manifest["splits"].values() for shard in split["shards"]]
    touched = _touched(version, hit.to_numpy())
    check_shards(version, [shard for shard in shards if shard["file"] in touched])
    gone = index.filter(hit)
    for name, split in version.manifest["splits"].items():
        if pc.sum(pc.equal(gone["split"], name)).as_py() == split["documents"] and not request.only:
            raise ConfigError(
                f"all {split['documents']:,} documents of the split {name!r} would go, and a version has none that is "
                "empty; remove the version, and build one from other sources"
            )
    named = pc.sum(pc.invert(pc.is_in(chosen["by"], pa.array(["duplicate", "made from it"])))).as_py()
    tokens = pc.sum(gone["tokens"]).as_py() or 0
    return Plan(version.address, request, chosen, gone.num_rows, tokens, touched, len(shards), named)


def _touched(version: Version, gone: NDArray[np.bool_]) -> list[str]:
    """Shards that hold one of those who go (by row of the index), or that another then runs into: the last document of
    a block ends it."""
    found = []
    for split in version.manifest["splits"].values():
        source, runs_on = None, False
        for shard in split["shards"]:
            mine = gone[shard["first_document"] : shard["first_document"] + shard["documents"]]
            runs_on = runs_on and shard["source"] == source
            if mine.any() or runs_on:
                found.append(shard["file"])
            source, runs_on = shard["source"], bool(mine[-1]) and (runs_on or not mine.all())
    return found


def forget(mill: Mill, version: Version, keys: BuildKeys, made: Plan, readers: Readers, keep_parent: bool) -> Version:
    """Make the version, purge the store of what it leaves out, and write the statement; returns the new version.

    Raises ConfigError, StoreError; until the new version is sealed nothing that stood has changed.
    """
    ids = made.chosen["doc_id"].to_pylist()
    read = [_reading(run, set(ids)) for run in readers(ids)]
    new = make(mill, version, keys, made.chosen, made.request.described(), {"keep_parent": keep_parent, "runs": read})
    finish(mill.store, new)
    return new


def make(
    mill: Mill,
    version: Version,
    keys: BuildKeys,
    chosen: pa.Table,
    request: Mapping[str, Any],
    under_way: Mapping[str, Any] | None = None,
) -> Version:
    """Seal the version without `chosen`, and nothing else; `under_way` is written down in it from its first moment."""
    store, manifest = mill.store, version.manifest
    recipe = recorded.recipe_of(store, version, keys)
    made = chain(mill, recipe, keys, chosen, request["reason"], request["only"])
    listed = read_parquet(store.file(made.forgotten, FORGOTTEN))
    operation = {"parent": version.address, "documents": chosen.num_rows, **request}
    lineage: dict[str, Any] = {
        "parents": [*manifest["parents"], version.address],
        "forgotten": {
            "file": FORGOTTEN,
            "digest": table_digest(listed),
            "documents": listed.num_rows,
            "operations": [*manifest.get("forgotten", {"operations": []})["operations"], operation],
        },
    }
    if made.bridges:
        lineage["extended"] = entry(store, made, manifest["extended"]["operations"])
    noted = {**under_way, "was": _counts(version, chosen)} if under_way is not None else None
    beside = {UNDER_WAY: canonical(noted) + "\n"} if noted is not None else {}
    return seal(store, recipe, recorded.planned(store, recipe, made), made, lineage, beside)


def request_of(operation: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, as `Request.described` said it, of an operation in a manifest."""
    return {name: value for name, value in operation.items() if name not in ("parent", "documents")}


def _counts(version: Version, chosen: pa.Table) -> dict[str, Any]:
    index = version.index(["doc_id"])["doc_id"]
    digests = [s["digest"] for split in version.manifest["splits"].values() for s in split["shards"]]
    was_kept = pc.sum(pc.is_in(index, chosen["doc_id"].combine_chunks())).as_py() or 0
    named = pc.sum(pc.invert(pc.is_in(chosen["by"], pa.array(["duplicate", "made from it"])))).as_py()
    return {"kept": was_kept, "named": named, "shards": digests}


def unfinished(store: Store) -> list[Version]:
    """New versions behind which the store was not purged to the end."""
    return [version for version, _ in versions(store) if (version.folder / UNDER_WAY).exists()]


def finish(store: Store, version: Version) -> dict[str, Any]:
    """Purge what a sealed version leaves out and state it; returns the statement. Done again, it goes on."""
    noted = json.loads((version.folder / UNDER_WAY).read_text("utf-8"))
    operations = version.manifest["forgotten"]["operations"]
    listed = read_parquet(version.folder / FORGOTTEN)
    mine = listed.filter(pc.equal(listed["operation"], len(operations) - 1))
    operation = operations[-1]
    gone = mine["doc_id"].combine_chunks()
    purged = purge(store, operation["parent"], gone, noted["keep_parent"])
    digests = [s["digest"] for split in version.manifest["splits"].values() for s in split["shards"]]
    said = {
        "version": version.address,
        "parent": operation["parent"],
        "request": request_of(operation),
        "documents": mine.num_rows,
        "asked_for": noted["was"]["named"],
        "was_kept": noted["was"]["kept"],
        "shards": len(digests),
        "shards_rewritten": len(set(digests) - set(noted["was"]["shards"])),
        "forgotten": version.manifest["forgotten"]["digest"],
        "tokenizer": version.manifest["tokenizer"]["sha256"],
        "purged": asdict(purged),
        "sources": _files(store, version, gone.to_pylist()),
        "runs": noted["runs"],
    }
    whole = statement.write(version.folder, said)
    (version.folder / UNDER_WAY).unlink()
    return whole


def _files(store: Store, version: Version, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Where the forgotten were read from: of each source the files that their ids name, as the plans know them."""
    named = {doc_id.rpartition(":")[0] for doc_id in ids}
    found: dict[str, dict[str, None]] = {}
    for key in version.build_keys().segments[0].parts:
        source = store.spec(key)["source"]
        name = source["card"]["name"]
        for item in source["items"]:
            if f"{name}:{item['path']}" in named:
                found.setdefault(name, {})[item["location"]] = None
    return [{"name": name, "files": list(files)} for name, files in found.items()]


def _reading(run: Mapping[str, Any], ids: set[str]) -> dict[str, Any]:
    """One run's answer, with its steps as ranges, and the reports of it that may quote one of the documents."""
    quoted = [str(path) for path in sorted(Path(run["folder"]).glob("report.json")) if _quotes(path, ids)]
    known = {name: run.get(name) for name in ("run", "folder", "version", "steps_done", "problem")}
    if run["problem"]:
        return {**known, "documents": 0, "steps": [], "checkpoints": [], "quoted_in": quoted, "before": []}
    steps = sorted({step["step"] for each in run["documents"] for step in each["steps"]})
    read = sum(bool(each["steps"]) for each in run["documents"])
    found = {"documents": read, "steps": _ranges(steps), "checkpoints": run["checkpoints"], "quoted_in": quoted}
    counted = [
        {**each, "documents": None if each["documents"] is None else len(set(each["documents"]))}
        for each in run["before"]
    ]
    return {**known, **found, "before": counted}


def _ranges(steps: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for step in steps:
        if found and found[-1][1] == step - 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    return found


def _quotes(path: Path, ids: set[str]) -> bool:
    try:
        samples = (json.loads(path.read_text("utf-8")).get("samples") or {}).get("prompts", [])
        return any(prompt.get("doc_id") in ids for prompt in samples)
    except (OSError, ValueError, AttributeError):
        return False
