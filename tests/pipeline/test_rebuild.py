"""Rebuild: equal where nothing changed, refused where a source did, and the first document named where code did."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import addresses, manifest
from pipeline import recipe as recipes
from pipeline.build import Mill
from pipeline.compare import Comparison
from pipeline.manifest import Version
from pipeline.rebuild import rebuild
from pipeline.sources import SourceError
from pipeline.stage import ConfigError
from pipeline.stages import gopher
from pipeline.store import Store
from tests import builds


def again(store: Store, address: str, **settings: Any) -> Comparison:
    def build(scratch: Store, recipe: Any, inputs: Sequence[Any]) -> Version:
        return Mill(scratch, **settings).build(recipe, inputs)

    return rebuild(store, *addresses.find(store, address), build)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Version]:
    root = tmp_path_factory.mktemp("rebuild")
    corpus = builds.write_corpus(root / "corpus", documents=150)
    return root, builds.build(
        builds.make_recipe(corpus, licence={"allow": ["CC0-*"], "unknown": "drop"}), root / "store"
    )


@pytest.fixture
def copied(made, tmp_path) -> tuple[Path, Store, Version]:
    """A store to damage; its corpus stays where the plans say, unless a test moves it."""
    root, version = made
    shutil.copytree(root / "store", tmp_path / "store")
    return root / "corpus", Store(tmp_path / "store"), version


def test_a_sound_version_built_again_is_equal_and_leaves_nothing_behind(made):
    root, version = made
    before = {path: path.stat().st_mtime_ns for path in (root / "store").rglob("*") if path.is_file()}
    found = again(Store(root / "store"), "test", batch_rows=7, partition_bytes=4000)
    assert found.equal and not found.differences and found.version == found.rebuilt == version.address
    assert found.digests == [version.manifest["version"]] * 2
    assert all(a == b for a, b in found.splits.values()) and set(found.splits) == {"train", "val"}
    assert before == {path: path.stat().st_mtime_ns for path in (root / "store").rglob("*") if path.is_file()}
    assert not (root / "store" / "rebuild").exists()


def test_files_that_came_since_are_none_of_the_version(made):
    root, version = made
    extra = root / "corpus" / "later.jsonl"
    extra.write_text(json.dumps({"text": "later " * 90, "label": "1", "url": "u"}), "utf-8")
    try:
        assert again(Store(root / "store"), version.address).equal
    finally:
        extra.unlink()


def test_a_source_that_changed_is_refused_with_both_digests_before_any_work(made):
    root, version = made
    path = root / "corpus" / "c.jsonl"
    sound = path.read_bytes()
    digests = [hashlib.sha256(each).hexdigest() for each in (sound, sound + b"\n")]
    path.write_bytes(sound + b"\n")
    try:
        with pytest.raises(SourceError) as caught:
            again(Store(root / "store"), version.address)
    finally:
        path.write_bytes(sound)
    assert str(path) in str(caught.value) and all(digest in str(caught.value) for digest in digests)
    path.rename(path.with_suffix(".gone"))
    try:
        with pytest.raises(SourceError, match=rf"c\.jsonl had sha256 {digests[0]}, and now has nothing"):
            again(Store(root / "store"), version.address)
    finally:
        path.with_suffix(".gone").rename(path)
    assert not (root / "store" / "rebuild").exists()


def test_code_that_counts_otherwise_is_named_with_the_first_document(made, monkeypatch):
    """Under the code of today some texts have three words: the first document whose verdict that changes is named."""
    root, version = made
    kept = version.index(["doc_id"])["doc_id"].to_pylist()
    victims = [kept[23], kept[11], kept[17]]
    victim = min(victims)
    sound = gopher.gopher

    def short(batch: pa.RecordBatch, **params: Any) -> dict[str, pa.Array]:
        found = sound(batch, **params)
        hit = pc.is_in(batch["doc_id"], pa.array(victims))
        return {**found, "word_count": pc.if_else(hit, pa.scalar(3, found["word_count"].type), found["word_count"])}

    for name in ("stage_kind", "stage_signals"):
        setattr(short, name, getattr(sound, name))
    short.__module__, short.__kwdefaults__ = sound.__module__, sound.__kwdefaults__
    short.__signature__ = inspect.signature(sound, eval_str=True)  # type: ignore[attr-defined]
    monkeypatch.setattr("pipeline.together.measure", lambda stages, batch: (batch, set()))
    monkeypatch.setattr(gopher, "gopher", short)
    found = again(Store(root / "store"), version.address)
    assert not found.equal and found.digests[0] != found.digests[1]
    first = found.differences[0]
    assert first.what == "ledger" and first.doc_id == victim
    assert f"of the first, {victim}: nothing and now gopher, dropped, word_count < 20, word_count=3" in first.said
    assert first.place["reason"] == [None, "word_count < 20"]
    [accounting] = [d for d in found.differences if d.what == "accounting"]
    assert accounting.said.startswith("stage gopher counts otherwise: gopher.dropped ")
    [index] = [d for d in found.differences if d.what == "index"]
    assert index.doc_id == kept[11] and index.place == {"row": 11}
    assert not (root / "store" / "rebuild").exists()


@pytest.mark.parametrize("place", ["inside", "end", "start"])
def test_a_row_that_no_build_would_make_is_named(copied, place):
    """Also where the token is the first of its document in that row."""
    _, store, version = copied
    shard = version.manifest["splits"]["train"]["shards"][0]
    starts = pa.ipc.open_file(pa.memory_map(str(version.folder / shard["file"]))).read_all()["starts"].to_pylist()
    second = next(number for number, row in enumerate(starts) if len(row) > 1)
    row, position = {"inside": (0, 5), "end": (3, 63), "start": (second, starts[second][1])}[place]

    def change(rows: pa.Table) -> pa.Table:
        flat = rows["tokens"].combine_chunks().flatten().to_numpy().copy()
        length = rows["tokens"].type.list_size
        flat[row * length + position] ^= 1
        tokens = pa.FixedSizeListArray.from_arrays(pa.array(flat), length)
        return rows.set_column(0, rows.schema.field(0), tokens)

    address, file = builds.hand_sealed(store, version, change)
    found = again(store, address)
    [difference] = found.differences
    assert difference.place == {"split": "train", "file": file, "row": row, "position": position}
    assert difference.doc_id == holder(version, file, row, position)
    assert f"{file} (digest " in difference.said and f"in {difference.doc_id}" in difference.said
    assert found.rebuilt == version.address != found.version == address


def holder(version: Version, file: str, row: int, position: int) -> str:
    """The document at a place of a shard, by walking over its pieces."""
    shard = next(s for s in version.manifest["splits"]["train"]["shards"] if s["file"] == file)
    table = pa.ipc.open_file(pa.memory_map(str(version.folder / file))).read_all().slice(row, 1).to_pylist()[0]
    local = [document for start, document in zip(table["starts"], table["documents"], strict=True) if start <= position]
    return version.index(["doc_id"])["doc_id"].to_pylist()[shard["first_document"] + local[-1]]


def test_a_damaged_version_is_no_measure_and_verify_says_whose_tokens_are_hit(copied):
    _, store, version = copied
    standing = manifest.find(store, version.address)
    shard = version.manifest["splits"]["train"]["shards"][0]
    path = standing.folder / shard["file"]
    content = bytearray(path.read_bytes())
    path.unlink()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    ids = version.index(["doc_id"])["doc_id"].to_pylist()[shard["first_document"] :][: shard["documents"]]
    [problem] = manifest.verify(standing)
    assert problem.endswith(f"; it holds {len(ids)} documents, from {ids[0]} to {ids[-1]}")
    with pytest.raises(ConfigError, match="is damaged, so there is nothing to compare with"):
        again(store, version.address)


def test_a_tokenizer_that_was_given_is_taken_from_the_version(made, tmp_path):
    root, version = made
    given = tmp_path / "tokenizer.json"
    shutil.copyfile(version.folder / "tokenizer.json", given)
    recipe = builds.make_recipe(root / "corpus", tokens={"tokenizer": str(given)})
    built = builds.build(recipe, tmp_path / "store")
    given.unlink()
    found = again(Store(tmp_path / "store"), "test")
    assert found.equal and found.rebuilt == built.address != version.address


def test_plans_that_are_gone_are_said_to_be_gone(copied):
    _, store, version = copied
    key = version.build_keys().segments[0].parts[0]
    (store.root / "plans" / f"{key}.json").unlink()
    with pytest.raises(ConfigError, match=f"the plan of {key} is not in"):
        again(store, version.address)


def test_data_replaces_the_data_folder_of_then(tmp_path):
    corpus = builds.write_corpus(tmp_path / "here" / "corpus", documents=60)
    card = (corpus / "grain.toml").read_text("utf-8").replace('["*.jsonl"]', '["{data}/corpus/*.jsonl"]')
    (tmp_path / "grain.toml").write_text(card, "utf-8")
    table = {"name": "test", "sources": ["grain.toml"], "stage": builds.STAGES[:2]}
    table |= {"tokens": {"vocab_size": 300}, "pack": {"length": 64, "split": {"val": 0.3}}}
    version = builds.build(recipes.parse(table, "test", tmp_path, tmp_path / "here"), tmp_path / "store")
    store = Store(tmp_path / "store")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(SourceError, match="does not exist"):
        again(store, version.address)

    def build(scratch: Store, recipe: Any, inputs: Sequence[Any]) -> Version:
        return Mill(scratch).build(recipe, inputs)

    found = rebuild(store, *addresses.find(store, "test"), build, tmp_path / "there", keep=True)
    assert found.equal and found.folder
    [scratch] = (store.root / "rebuild").iterdir()
    assert manifest.find(Store(scratch), "test").address == version.address
