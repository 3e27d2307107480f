"""Laws 1, 3, 4, 5 and 11 over whole builds: the books, one survivor, no leak, no token lost, loud."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import books
from pipeline import manifest as manifests
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.store import Store, read_parquet
from pipeline.tokens import pack, vocabulary
from tests import builds

LABELLED = [
    {"use": "normalise"},
    {"use": "exact", "drop": {"dup_rank": {"above": 0}}},
    {"use": "near", "drop": {"dup_rank": {"above": 0}}},
    {"use": "eda", "children": 2},
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return builds.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory):
    """The reference: one worker, default sizes."""
    store = tmp_path_factory.mktemp("store")
    return builds.build(builds.make_recipe(corpus), store), Store(store)


@pytest.fixture(scope="module")
def extended(corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("examples")
    pack = {"layout": "examples", "length": 64, "split": {"val": 0.2}}
    return builds.build(builds.make_recipe(corpus, LABELLED, pack=pack), store), Store(store)


@pytest.mark.parametrize("which", ["built", "extended"])
def test_books_balance_as_multisets_read_back_from_disk(which, request, corpus):
    version, store = request.getfixturevalue(which)
    keys = version.build_keys()
    lines = sum(len(path.read_text().splitlines()) for path in corpus.glob("*.jsonl"))
    came = Counter(books.entered(store, keys)["doc_id"].to_pylist())
    assert came.total() == lines
    went = Counter(books.ledger(store, keys)["doc_id"].to_pylist()) + Counter(version.index()["doc_id"].to_pylist())
    added = went - came
    assert not came - went
    assert all("#" in doc_id for doc_id in added) and (which == "extended") == bool(added)
    report = audit(version, store)
    assert report.problems == [] and len(report.checks) >= 6
    assert report.counts["quarantined"] == 3


def test_each_cluster_keeps_one_document_and_every_pair_shares_a_cluster(built):
    version, store = built
    kept = set(version.index()["doc_id"].to_pylist())
    relates = [relate for segment in version.build_keys().segments for relate in segment.relates]
    assert [relate["stage"] for relate in relates] == ["exact", "near"]
    for relate in relates:
        name = relate["stage"]
        rows = read_parquet(store.file(relate["cluster"], "relation.parquet")).to_pylist()
        members: dict[str, list[str]] = {}
        for row in rows:
            members.setdefault(row[f"{name}.cluster"] or row["doc_id"], []).append(row["doc_id"])
        assert any(len(ids) > 1 for ids in members.values()), f"{name} found no duplicates: the law was not tried"
        for ids in members.values():
            survivors = [row["doc_id"] for row in rows if row["doc_id"] in ids and row[f"{name}.dup_rank"] == 0]
            assert survivors == [min(ids)]
        if name == "near":
            assert all(len(kept & set(ids)) == 1 for ids in members.values())


def test_the_best_of_a_cluster_survives_in_the_split_of_the_earliest(built, corpus, tmp_path):
    best = {"survivor": "best", "quality": "gopher.word_count"}
    stages = [{**table, **best} if table["use"] == "near" else table for table in builds.STAGES]
    version, store = builds.build(builds.make_recipe(corpus, stages), tmp_path), Store(tmp_path)
    assert audit(version, store).problems == []
    (segment,) = version.build_keys().segments
    relations = {relate["stage"]: relate["cluster"] for relate in segment.relates}
    signals = pa.concat_tables([read_parquet(store.file(key, "signals.parquet")) for key in segment.parts])
    worth = {row["doc_id"]: (-row["gopher.word_count"], -row["text_bytes"]) for row in signals.to_pylist()}
    rows = read_parquet(store.file(relations["near"], "relation.parquet")).to_pylist()
    members: dict[str, list[str]] = {}
    for row in rows:
        members.setdefault(row["near.cluster"], []).append(row["doc_id"])
    for row in rows:
        ranked = sorted(members[row["near.cluster"]], key=lambda doc_id: (*worth[doc_id], doc_id))
        assert row["near.cluster"] == min(ranked) and ranked.index(row["doc_id"]) == row["near.dup_rank"]
    before, after = (
        dict(zip(v.index()["split_group"].to_pylist(), v.index()["split"].to_pylist(), strict=True))
        for v in (built[0], version)
    )
    assert before == after
    assert version.index()["doc_id"].to_pylist() != built[0].index()["doc_id"].to_pylist(), "the law was not tried"


def test_the_order_of_the_input_does_not_choose_the_survivor(built, corpus, tmp_path):
    """The same rows under the same ids, partitioned so that every document meets the others in another order."""
    again = builds.build(builds.make_recipe(corpus), tmp_path, partition_bytes=3_000, batch_rows=3)
    assert again.index()["doc_id"].to_pylist() == built[0].index()["doc_id"].to_pylist()


@pytest.fixture(scope="module")
def undropped(corpus, tmp_path_factory):
    """Duplicates are measured and kept: then splits must follow the clusters."""
    stages = [{"use": "normalise"}, {"use": "exact"}, {"use": "near"}]
    store = tmp_path_factory.mktemp("undropped")
    recipe = builds.make_recipe(corpus, stages, pack={"length": 64, "split": {"val": 0.4}})
    return builds.build(recipe, store), Store(store)


def test_no_verified_pair_lies_in_two_splits(undropped):
    version, store = undropped
    split = dict(zip(*(version.index()[name].to_pylist() for name in ("doc_id", "split")), strict=True))
    assert {"train", "val"} == set(split.values())
    [segment] = version.build_keys().segments
    digests = {}
    for part in segment.parts:
        table = read_parquet(store.file(part, "sketch-near.parquet"), ["doc_id", "digest"])
        for doc_id, digest in zip(*(table[name].to_pylist() for name in ("doc_id", "digest")), strict=True):
            if digest is not None and doc_id in split:
                digests.setdefault(digest, []).append(doc_id)
    pairs = read_parquet(store.file(segment.relates[1]["pairs"], "pairs.parquet")).to_pylist()
    tried = [a + b for a, b in ((digests[p["a"]], digests[p["b"]]) for p in pairs)]
    tried += [ids for ids in digests.values() if len(ids) > 1]
    assert len(tried) > 5
    for together in tried:
        assert len({split[doc_id] for doc_id in together}) == 1


def test_children_follow_their_parent_and_only_train_has_them(extended):
    version, store = extended
    rows = {row["doc_id"]: row for row in version.index().to_pylist()}
    children = [row for row in rows.values() if row["parent_id"]]
    assert children
    texts = {split: set() for split in ("train", "val")}
    for part in version.build_keys().segments[-1].parts:
        for row in read_parquet(store.file(part, "documents.parquet"), ["doc_id", "text"]).to_pylist():
            if row["doc_id"] in rows:
                texts[rows[row["doc_id"]]["split"]].add(row["text"])
    assert texts["val"] and not texts["train"] & texts["val"]
    for child in children:
        parent = rows[child["parent_id"]]
        assert child["split"] == parent["split"] == "train" and child["label"] == parent["label"]
    found = queries.why(store, version, children[0]["doc_id"])
    assert found.parent_id == children[0]["parent_id"] and found.verdict == "kept"


@pytest.fixture(scope="module")
def blocks(corpus, tmp_path_factory):
    """Blocks of sixteen documents, so that a split has many shards, written by two threads."""
    store = tmp_path_factory.mktemp("blocks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "BLOCK_DOCUMENTS", 16)
        version = builds.build(builds.make_recipe(corpus), store, count=2)
    assert len(version.manifest["splits"]["train"]["shards"]) > 4
    return version, Store(store)


@pytest.mark.parametrize("which", ["built", "blocks"])
def test_no_token_is_lost(which, request):
    """Every document's tokens, put together again from the shards, are its text's tokens between two end-of-text."""
    version, store = request.getfixturevalue(which)
    assert audit(version, store).problems == []
    tokenizer = vocabulary.load(version.folder / "tokenizer.json")
    index = version.index()
    texts = {}
    for part in version.build_keys().segments[-1].parts:
        table = read_parquet(store.file(part, "documents.parquet"), ["doc_id", "text"])
        texts.update(zip(*(table[name].to_pylist() for name in ("doc_id", "text")), strict=True))
    pieces: dict[int, dict[int, list[int]]] = {}
    for split in version.manifest["splits"].values():
        for shard in split["shards"]:
            for row in pa.ipc.open_file(str(version.folder / shard["file"])).read_all().to_pylist():
                ends = [*row["starts"][1:], row["used"]]
                for start_, end, document, offset in zip(
                    row["starts"], ends, row["documents"], row["offsets"], strict=True
                ):
                    pieces.setdefault(document + shard["first_document"], {})[offset] = row["tokens"][start_:end]
                assert set(row["tokens"][row["used"] :]) <= {version.manifest["tokenizer"]["eot"]}
    assert sorted(pieces) == list(range(index.num_rows))
    eot = version.manifest["tokenizer"]["eot"]
    for number, found in pieces.items():
        tokens = [token for offset in sorted(found) for token in found[offset]]
        assert tokens[0] == tokens[-1] == eot
        assert tokenizer.decode(tokens[1:-1], skip_special_tokens=False) == texts[index["doc_id"][number].as_py()]
        assert len(tokens) > 64 or len(found) == 1, "a document that fits a row is not cut"


def test_examples_are_cut_only_as_declared(extended):
    version, _ = extended
    index = version.index()["tokens"].to_pylist()
    for split in version.manifest["splits"].values():
        cut = 0
        for shard in split["shards"]:
            for row in pa.ipc.open_file(str(version.folder / shard["file"])).read_all().to_pylist():
                whole = index[row["document"] + shard["first_document"]]
                assert len(row["tokens"]) == min(whole, 64)
                assert row["tokens"][0] == row["tokens"][-1] == version.manifest["tokenizer"]["eot"]
                cut += whole - len(row["tokens"])
                assert row["label"] in (0, 1)
        assert cut == split["truncated"]


def test_a_flipped_byte_or_a_cut_file_of_a_version_is_named(built):
    version, _ = built
    names = [shard["file"] for split in version.manifest["splits"].values() for shard in split["shards"]]
    for name in [*names, "documents.parquet", "tokenizer.json"]:
        path = version.folder / name
        whole = path.read_bytes()
        for position in np.linspace(0, len(whole) - 1, 12).astype(int):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
            assert [p for p in manifests.verify(version) if name in p], f"byte {position} of {name}"
        path.write_bytes(whole[: len(whole) // 2])
        assert [p for p in manifests.verify(version) if name in p]
        path.write_bytes(whole)
    assert list(manifests.verify(version)) == []


def test_an_edited_manifest_is_noticed(built):
    version, _ = built
    path = version.folder / "manifest.json"
    whole = path.read_text()
    table = json.loads(whole)
    table["accounting"][1]["dropped"] += 1
    path.write_text(json.dumps(table))
    assert "edited" in next(manifests.verify(manifests.read(version.folder)))
    path.write_text(whole)


def test_the_audit_notices_a_row_taken_out_of_the_ledger(built):
    version, store = built
    key = version.build_keys().segments[0].judge
    path = store.file(key, "ledger.parquet")
    whole = path.read_bytes()
    from pipeline.store import write_parquet

    write_parquet(path, read_parquet(path).slice(1))
    try:
        assert audit(version, store).problems
    finally:
        path.write_bytes(whole)


def test_a_changed_threshold_measures_nothing_again(built, corpus, tmp_path):
    store = Store(tmp_path)
    builds.build(builds.make_recipe(corpus), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/*/signals.parquet")}
    stages = [dict(stage) for stage in builds.STAGES]
    stages[1]["drop"] = {"word_count": {"below": 5}}
    again = builds.build(builds.make_recipe(corpus, stages), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/*/signals.parquet")} == before
    assert again.manifest["version"] != built[0].manifest["version"] and audit(again, store).problems == []


def test_why_explains_every_document(built):
    version, store = built
    keys = version.build_keys()
    gone = {row["doc_id"]: row for row in books.ledger(store, keys).to_pylist()}
    for doc_id in books.entered(store, keys)["doc_id"].to_pylist()[::5]:
        found = queries.why(store, version, doc_id)
        if doc_id not in gone:
            assert found.verdict == "kept" and found.places
            assert sum(1 for place in found.places if place["offset"] == 0) == 1
        else:
            assert (found.verdict, found.reason) == (gone[doc_id]["verdict"], gone[doc_id]["reason"])
            if found.stage in ("exact", "near"):
                assert "dup_of=grain:" in found.detail
            elif found.stage == "gopher":
                assert "word_count=" in found.detail
