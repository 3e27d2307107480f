"""Forgetting: only what is touched changes, no text is left, the books balance, and it can be done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipeline import addresses, books, excerpts, manifest, whatif
from pipeline.audit import audit
from pipeline.build import Mill
from pipeline.catalog import queries
from pipeline.forgetting import operation, statement
from pipeline.forgetting.selecting import Request
from pipeline.manifest import Version
from pipeline.rebuild import rebuild
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError
from tests import builds
from tests.conftest import ROOT

SCHEMA = json.loads((ROOT / "catalogs" / "schemas" / "manifest.schema.json").read_text("utf-8"))
CUT = [*builds.STAGES[:3], {"use": "paragraphs", "min_characters": 5, "unit": "line"}]
FAMILIES = {
    "plain": {},
    "cut": {"stages": CUT},
    "later": {"stages": [*builds.STAGES, {"use": "c4"}]},
    "born": {
        "stages": [*builds.STAGES, {"use": "eda", "children": 1}],
        "pack": {"length": 64, "split": {"val": 0.1}, "layout": "examples"},
    },
}


def nobody(ids: Sequence[str]) -> list[dict[str, Any]]:
    return []


def forget(store: Store, address: str, keep_parent: bool = False, **asked: Any) -> Version:
    version, keys = addresses.find(store, address)
    made = operation.plan(store, version, keys, Request(**asked))
    return operation.forget(Mill(store), version, keys, made, nobody, keep_parent)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return builds.write_corpus(tmp_path_factory.mktemp("forgetting"), documents=320)


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, corpus, tmp_path_factory) -> tuple[Path, Version]:
    root = tmp_path_factory.mktemp(f"forget-{request.param}")
    recipe = builds.make_recipe(corpus, **FAMILIES[request.param])
    return root, builds.build(recipe, root, partition_bytes=30_000)


@pytest.fixture
def copied(made, tmp_path) -> tuple[Store, Version]:
    root, version = made
    shutil.copytree(root, tmp_path / "store")
    return Store(tmp_path / "store"), version


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory) -> tuple[Path, Version]:
    root = tmp_path_factory.mktemp("forget-plain")
    return root, builds.build(builds.make_recipe(corpus), root, partition_bytes=30_000)


@pytest.fixture
def one(plain, tmp_path) -> tuple[Store, Version]:
    root, version = plain
    shutil.copytree(root, tmp_path / "store")
    return Store(tmp_path / "store"), version


def ledger(store: Store, version: Version) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in books.ledger(store, version.build_keys()).to_pylist()}


def everything(store: Store) -> str:
    """All that a store holds, as text: every table's values, the words of every token, every other file as it is."""
    found: list[str] = []
    tokenizer = None
    for path in sorted((store.root / "versions").glob("*/*/tokenizer.json")):
        tokenizer = Tokenizer.from_file(str(path))
    assert tokenizer is not None
    for path in sorted(p for p in store.root.rglob("*") if p.is_file()):
        if path.suffix == ".parquet":
            found += map(str, pq.read_table(path).to_pylist())
        elif path.suffix == ".arrow":
            table = pa.ipc.open_file(path).read_all()
            for name in {"tokens", "target"} & set(table.column_names):
                found += (tokenizer.decode(row or []) for row in table[name].to_pylist())
        else:
            found.append(path.read_text("utf-8"))
    return "\n".join(found)


def pieces(text: str) -> list[str]:
    """Runs of eight words of a text: enough to be its own, and few enough to stand within a row."""
    words = text.split()
    return [" ".join(words[i : i + 8]) for i in range(0, max(1, len(words) - 8), 5)]


def test_no_text_is_left_and_all_else_is_as_it_was(copied):
    store, version = copied
    before, index = ledger(store, version), {row["doc_id"]: row for row in version.index().to_pylist()}
    keys = version.build_keys()
    victims = [
        *list(index)[3:9:3],
        next(i for i, row in before.items() if row["stage"] == "near" or row["stage"] == "exact"),
    ]
    made = operation.plan(store, *addresses.find(store, "test"), Request(doc=tuple(victims)))
    gone = set(made.chosen["doc_id"].to_pylist())
    assert set(victims) <= gone and len(gone) > len(victims) == made.asked_for
    texts = excerpts.texts(store, keys, sorted(gone))
    unwanted = {piece for text in texts.values() for piece in pieces(text)}
    others = "\n".join(excerpts.texts(store, keys, [i for i in [*index, *before] if i not in gone]).values())
    unwanted = {piece for piece in unwanted if piece not in others}
    held = everything(store)
    assert unwanted and sum(piece in held for piece in unwanted) > len(unwanted) * 0.9
    shards = {s["digest"] for split in version.manifest["splits"].values() for s in split["shards"]}

    new = forget(store, "test", doc=tuple(victims), reason="asked by the author")
    held = everything(store)
    assert not [piece for piece in unwanted if piece in held]
    jsonschema.validate(new.manifest, SCHEMA)
    report = audit(new, store)
    assert report.problems == [] and list(manifest.verify(new)) == []
    # Who was not meant has the very end that it had, and the very row of the index.
    after = ledger(store, new)
    assert {i: row for i, row in after.items() if i not in gone} == {i: r for i, r in before.items() if i not in gone}
    kept = {row["doc_id"]: row for row in new.index().to_pylist()}
    assert kept == {i: row for i, row in index.items() if i not in gone}
    came = set(books.entered(store, new.build_keys())["doc_id"].to_pylist())
    assert {i: (after[i]["stage"], after[i]["verdict"]) for i in gone & came} == dict.fromkeys(
        gone & came, ("forget", "dropped")
    )
    assert after[victims[0]]["detail"] == "doc; asked by the author"
    assert queries.why(store, new, victims[0]).stage == "forget"
    assert new.manifest["parents"] == [version.address]
    assert manifest.versions(store, "test") == [new.manifest["version"]]
    left = {s["digest"] for split in new.manifest["splits"].values() for s in split["shards"]}
    said = statement.read(new.folder)["statement"]
    assert said["shards_rewritten"] == len(left - shards) and said["purged"]["still_held"] == []
    assert said["documents"] == len(gone) and said["asked_for"] == len(victims)
    # What-if goes on from it: nothing moves when nothing is asked.
    assert whatif.ask(store, new, []).moves.num_rows == 0


def test_it_can_be_built_again_and_forgotten_in_twice(copied):
    store, version = copied
    ids = version.index(["doc_id"])["doc_id"].to_pylist()
    first = forget(store, "test", doc=(ids[2], ids[11]))
    second = forget(store, "test", doc=(ids[5],), reason="later")
    assert second.manifest["parents"] == [version.address, first.address]
    assert audit(second, store).problems == []

    def build(scratch: Store, recipe: Any, inputs: Sequence[Any]) -> Version:
        return Mill(scratch, batch_rows=7, partition_bytes=9000).build(recipe, inputs)

    found = rebuild(store, *addresses.find(store, "test"), build)
    assert found.equal and found.version == found.rebuilt == second.address, found.differences
    with pytest.raises(ConfigError, match="never met a document|forgotten already"):
        forget(store, "test", doc=(ids[2],))
    (second.folder / "forgotten.parquet").unlink()
    with pytest.raises((ConfigError, StoreError), match=r"forgotten\.parquet is missing"):
        rebuild(store, *addresses.find(store, "test"), build)
