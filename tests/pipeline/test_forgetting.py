"""Forgetting: only what is touched changes, no text is left, the books balance, and it can be done again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
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
from pipeline.schema import cuts_file
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
    sourced = [doc_id for doc_id in victims if doc_id in came]
    assert sourced and all(after[doc_id]["detail"] == "doc; asked by the author" for doc_id in sourced)
    assert all(queries.why(store, new, doc_id).stage == "forget" for doc_id in victims)
    assert new.manifest["parents"] == [version.address]
    assert manifest.versions(store, "test") == [new.manifest["version"]]
    left = {s["digest"] for split in new.manifest["splits"].values() for s in split["shards"]}
    said = statement.read(new.folder)["statement"]
    assert said["shards_rewritten"] == len(left - shards) and said["purged"]["still_held"] == []
    assert said["documents"] == len(gone) and said["asked_for"] == len(victims)
    check_places(store, new)
    # What-if goes on from it: nothing moves when nothing is asked.
    assert whatif.ask(store, new, []).moves.num_rows == 0


def check_places(store: Store, version: Version) -> None:
    """Whatever names a document by part and row names the one that lies there."""
    for segment in version.build_keys().segments:
        ids = [pq.read_table(store.file(key, "documents.parquet"))["doc_id"].to_pylist() for key in segment.parts]
        left = pq.read_table(store.file(segment.survivors, "survivors.parquet")).to_pylist()
        assert left and all(ids[row["part"]][row["row"]] == row["doc_id"] for row in left)
        if segment.cuts:
            for number, here in enumerate(ids):
                for row in pq.read_table(store.file(segment.cuts["cuts"], cuts_file(number))).to_pylist():
                    assert here[row["row"]] == row["doc_id"]
            texts = [pq.read_table(store.file(key, "documents.parquet"))["text"].to_pylist() for key in segment.parts]
            groups: dict[int, set[str]] = {}
            for row in pq.read_table(store.file(segment.relates[-1]["pairs"], "pairs.parquet")).to_pylist():
                passage = texts[row["part"]][row["row"]].encode()[row["start"] : row["end"]]
                groups.setdefault(row["group"], set()).add(" ".join(passage.decode().split()).lower())
            assert groups and all(len(passages) == 1 for passages in groups.values())


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
    with pytest.raises(ConfigError, match="was forgotten already"):
        forget(store, "test", doc=(ids[2],))
    (second.folder / "forgotten.parquet").unlink()
    with pytest.raises((ConfigError, StoreError), match=r"forgotten\.parquet is missing"):
        rebuild(store, *addresses.find(store, "test"), build)


def test_only_its_shards_are_written_anew(corpus, tmp_path, monkeypatch):
    """With blocks of about 16 documents; the documents of one block go, and of a few that lie apart."""
    monkeypatch.setattr("pipeline.tokens.pack.BLOCK_DOCUMENTS", 16)
    store = Store(tmp_path / "store")
    version = builds.build(builds.make_recipe(corpus), store.root)
    ids = version.index(["doc_id"])["doc_id"].to_pylist()
    shards = [s for split in version.manifest["splits"].values() for s in split["shards"]]
    assert len(shards) > 12
    inodes = {s["digest"]: (version.folder / s["file"]).stat().st_ino for s in shards}
    # Where the last document of a block goes, its block runs on into the next one.
    victims = [ids[shards[3]["first_document"]], ids[shards[6]["first_document"] + shards[6]["documents"] - 1]]
    made = operation.plan(store, *addresses.find(store, "test"), Request(doc=tuple(victims)))
    new = forget(store, "test", doc=tuple(victims))
    after = [s for split in new.manifest["splits"].values() for s in split["shards"]]
    same = {s["digest"]: (new.folder / s["file"]).stat().st_ino for s in after if s["digest"] in inodes}
    assert same.items() <= inodes.items()
    touched = {s["digest"] for s in shards if s["file"] in made.shards}
    assert inodes.keys() - same.keys() == touched and 3 <= len(touched) < len(shards) / 2
    assert audit(new, store).problems == []


@pytest.mark.parametrize("family", ["plain", "cut", "later", "born"])
def test_only_lets_the_best_duplicate_take_its_place(family, corpus, tmp_path):
    """As a build without the document would choose, in the split that its cluster had."""
    store = Store(tmp_path / "store")
    recipe = builds.make_recipe(corpus, **FAMILIES[family])
    version = builds.build(recipe, store.root, partition_bytes=30_000)
    index = {row["doc_id"]: row for row in version.index().to_pylist()}
    fates = ledger(store, version)
    lost: dict[str, list[str]] = {}
    for doc_id, row in fates.items():
        if row["stage"] in ("exact", "near") and row["detail"]:
            survivor = row["detail"].split("dup_of=")[1].split()[0]
            lost.setdefault(survivor, []).append(doc_id)
    victims = [i for i in sorted(index) if i in lost][:4] + [i for i in sorted(index) if i not in lost][:2]
    assert len(victims) == 6
    new = forget(store, "test", doc=tuple(victims), only=True)
    assert audit(new, store).problems == []
    jsonschema.validate(new.manifest, SCHEMA)
    after = {row["doc_id"]: row for row in new.index().to_pylist()}
    assert not set(victims) & set(after)
    came = {i for i in after.keys() - index.keys() if after[i]["parent_id"] is None}
    assert came and came <= {i for survivor in victims for i in lost.get(survivor, [])}
    assert all(
        {after[i]["split"], after[i]["split_group"]} == {index[v]["split"], index[v]["split_group"]}
        for v in victims
        for i in lost.get(v, [])
        if i in came
    )
    assert all(after[i]["split"] == row["split"] for i, row in index.items() if i in after)
    gone = set(victims)
    texts = excerpts.texts(store, new.build_keys(), victims)
    assert texts == {}, gone

    def build(scratch: Store, recipe: Any, inputs: Sequence[Any]) -> Version:
        return Mill(scratch, partition_bytes=9000).build(recipe, inputs)

    found = rebuild(store, *addresses.find(store, "test"), build)
    assert found.equal, found.differences


def test_a_place_that_is_taken_is_written_anew(one):
    """One goes and one comes: as many documents as before, and not the same shard."""
    store, version = one
    index = version.index(["doc_id"])["doc_id"].to_pylist()
    near = [row["detail"] for row in ledger(store, version).values() if row["stage"] == "near"]
    victim = next(i for i in index[1:] if any(f"dup_of={i} " in detail for detail in near))
    texts = excerpts.texts(store, version.build_keys(), [*index, *ledger(store, version)])
    own = [p for p in pieces(texts.pop(victim)) if not any(p in text for text in texts.values())]
    new = forget(store, "test", doc=(victim,), only=True)
    assert new.index().num_rows == len(index) and own and audit(new, store).problems == []
    check_places(store, new)
    held = everything(store)
    assert not [piece for piece in own if piece in held]


def test_what_other_versions_hold_is_said_and_stays(one, corpus):
    store, version = one
    other = builds.build(builds.make_recipe(corpus, name="other", seed=9), store.root, partition_bytes=30_000)
    victim = version.index(["doc_id"])["doc_id"][4].as_py()
    new = forget(store, "test", doc=(victim,))
    assert statement.read(new.folder)["statement"]["purged"]["still_held"] == [other.address]
    assert audit(other, store).problems == [] == audit(new, store).problems
    assert "STILL HELD" in (new.folder / "forgotten.txt").read_text("utf-8")
    newer = forget(store, "other", doc=(victim,))
    assert statement.read(newer.folder)["statement"]["purged"]["still_held"] == []


def test_a_parent_that_is_kept_stays_whole_and_is_said_to_hold_them(one):
    store, version = one
    new = forget(store, "test", keep_parent=True, url=("https://example.org/1?",), reason="terms")
    assert manifest.versions(store, "test") == [version.manifest["version"], new.manifest["version"]]
    assert list(manifest.verify(version)) == [] and audit(version, store).problems == []
    said = statement.read(new.folder)["statement"]
    assert said["purged"]["still_held"] == [version.address] and said["purged"]["versions"] == []
    assert audit(new, store).problems == []
    assert said["request"] == {"url": ["https://example.org/1?"], "only": False, "reason": "terms"}
    again = forget(store, version.address, keep_parent=True, url=("https://example.org/1?",), reason="terms")
    assert again.address == new.address and statement.read(again.folder)["statement"] == said
    assert operation.unfinished(store) == [] and list(manifest.verify(again)) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "say what to forget: --doc"),
        ({"doc": ("grain:a.jsonl:99999",)}, "never met a document 'grain:a.jsonl:99999'"),
        ({"url": ("https://elsewhere.org/*",)}, "--url 'https://elsewhere.org/*' meets no document"),
        ({"domain": ("elsewhere.org",)}, "--domain 'elsewhere.org' meets no document"),
        ({"domain": ("ample.org",)}, "--domain 'ample.org' meets no document"),
        ({"licence": ("MIT",)}, "--licence 'MIT' meets no document"),
        ({"licence": ("CC0-*",)}, "all .* documents of the split"),
        ({"domain": ("EXAMPLE.org",)}, "all .* documents of the split"),
    ],
)
def test_what_cannot_be_forgotten_is_refused_and_nothing_is_written(one, asked, words):
    store, _ = one
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    with pytest.raises(ConfigError, match=words if ".*" in words else re.escape(words)):
        forget(store, "test", **asked)
    assert before == {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}


def test_a_file_of_strings_names_texts_that_hold_one_and_is_not_written_down(one, tmp_path):
    store, version = one
    keys = version.build_keys()
    text = excerpts.texts(store, keys, version.index(["doc_id"])["doc_id"].to_pylist())
    doc_id, words = next((i, pieces(t)[2]) for i, t in text.items() if len(t.split()) > 60)
    (tmp_path / "strings").write_text(f"\n{words}\nno.such(string\n", "utf-8")
    new = forget(store, "test", match_file=tmp_path / "strings")
    assert ledger(store, new)[doc_id]["detail"] == "match"
    assert words not in everything(store)
    with pytest.raises(ConfigError, match="no document holds any of its 2 strings"):
        forget(store, "test", match_file=tmp_path / "strings")
    (tmp_path / "strings").write_text("\n \n", "utf-8")
    with pytest.raises(ConfigError, match="holds no string"):
        forget(store, "test", match_file=tmp_path / "strings")


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline import addresses, store as stores
from pipeline.build import Mill
from pipeline.forgetting import operation
from pipeline.forgetting.selecting import Request
left = int(sys.argv[2])
def counting(function):
    def counted(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return counted
for module, names in ((os, ("fsync", "unlink", "rmdir", "link")), (Path, ("rename", "replace", "unlink"))):
    for name in names:
        setattr(module, name, counting(getattr(module, name)))
store = stores.Store(Path(sys.argv[1]))
for version in operation.unfinished(store):
    operation.finish(store, version)
    sys.exit(0)
version, keys = addresses.find(store, "test")
made = operation.plan(store, version, keys, Request(doc=(sys.argv[3],)))
finish = operation.finish
def noted(*given):
    print("sealed", left)
    return finish(*given)
operation.finish = noted
operation.forget(Mill(store), version, keys, made, lambda ids: [], False)
print("calls", sys.argv[2], left)
"""


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_anywhere_there_is_the_old_version_or_the_new_one(plain, tmp_path, every):
    """By SIGKILL at changes of the disk, from the first to the last; the same command goes on to the same end."""
    root, version = plain
    victim = version.index(["doc_id"])["doc_id"][7].as_py()
    place = {"capture_output": True, "text": True, "cwd": ROOT, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}

    def run(store: Path, after: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", KILLED, str(store), str(after), victim], **place)

    shutil.copytree(root, tmp_path / "whole")
    done = run(tmp_path / "whole", 10**6)
    assert done.returncode == 0, done.stderr
    sealed, calls = (10**6 - int(line.split()[-1]) for line in done.stdout.splitlines())
    # Few while the new version is made; more while the old one goes, of which each file is a step.
    points = [*np.linspace(1, sealed, 3).astype(int).tolist(), *range(sealed + 2, sealed + 8, 2), calls - 4, calls]
    wanted = manifest.find(Store(tmp_path / "whole"), "test")
    states = set()
    for number, after in enumerate(points[::every]):
        store = Store(tmp_path / f"killed-{number}")
        shutil.copytree(root, store.root)
        assert run(store.root, after).returncode == -signal.SIGKILL
        standing = [manifest.find(store, f"test@{each}") for each in manifest.versions(store, "test")]
        assert {v.address for v in standing} <= {version.address, wanted.address} and standing
        for each in standing:
            assert list(manifest.verify(each)) == [] and audit(each, store).problems == []
        newest = standing[-1]
        states.add((len(standing), newest.address == wanted.address, (newest.folder / "forgotten.json").exists()))
        if newest.address == version.address or (newest.folder / operation.UNDER_WAY).exists():
            assert run(store.root, 10**6).returncode == 0
        assert manifest.versions(store, "test") == [wanted.manifest["version"]]
        assert statement.read(manifest.find(store, "test").folder)["statement"]["purged"]["still_held"] == []
        assert not list((store.root / "store").glob("*/.*")) and victim not in held_ids(store)
        shutil.rmtree(store.root)
    assert {(1, False, False), (1, True, False)} <= states


def held_ids(store: Store) -> set[str]:
    """Ids of all documents whose text some output holds."""
    return {i for path in store.root.rglob("documents.parquet") for i in pq.read_table(path)["doc_id"].to_pylist()}
