"""The audit believes nothing: a store whose every digest is right but whose books do not add up is found out."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import audit as audits
from pipeline.audit import Report, audit
from pipeline.manifest import Version
from pipeline.store import Store, read_parquet
from pipeline.tokens import pack, vocabulary
from tests import builds


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> tuple[Version, Path]:
    """Duplicates are measured and kept, so that clusters reach the shards; many small blocks."""
    corpus = builds.write_corpus(tmp_path_factory.mktemp("corpus"), documents=160)
    stages = [{"use": "normalise"}, {"use": "gopher", "drop": {"word_count": {"below": 20}}}]
    recipe = builds.make_recipe(corpus, [*stages, {"use": "near"}], pack={"length": 64, "split": {"val": 0.4}})
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "BLOCK_DOCUMENTS", 16)
        return builds.build(recipe, store), store


@pytest.fixture
def version(original, tmp_path) -> tuple[Version, Store]:
    """A copy to lie in."""
    version, store = original
    shutil.copytree(store, tmp_path / "store")
    folder = tmp_path / "store" / version.folder.relative_to(store)
    return Version(folder, copy.deepcopy(version.manifest)), Store(tmp_path / "store")


def rewrite(store: Store, key: str, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace one table of an output by another, with a marker that vouches for it."""
    kept = store.folder(key).with_name("kept")
    store.folder(key).rename(kept)
    with store.writing(key) as out:
        for path in kept.iterdir():
            if path.name == name:
                out.table(name, change(read_parquet(path)))
            elif path.name != "_done.json":
                shutil.copy(path, out.folder)
        out.result = json.loads((kept / "_done.json").read_text())["result"]
    shutil.rmtree(kept)
    store.check(key)


def put(table: pa.Table, row: int, column: str, value: object) -> pa.Table:
    values, field = table[column].to_pylist(), table.schema.field(column)
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))


def test_an_untouched_store_is_sound_over_many_blocks(version):
    assert audit(*version).problems == []
    assert sum(len(split["shards"]) for split in version[0].manifest["splits"].values()) > 8


def test_a_document_taken_out_of_the_ledger_has_no_end(version):
    judge = version[0].build_keys().segments[0].judge
    rewrite(version[1], judge, "ledger.parquet", lambda table: table.slice(1))
    problems = audit(*version).problems
    assert any(problem.startswith("documents without an end: ['grain:") for problem in problems)


def test_a_document_booked_twice_comes_from_nowhere(version):
    judge = version[0].build_keys().segments[0].judge
    rewrite(version[1], judge, "ledger.parquet", lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert any("documents from nowhere: ['grain:" in problem for problem in audit(*version).problems)


def test_another_reason_than_the_manifest_states_is_told(version):
    judge = version[0].build_keys().segments[0].judge
    rewrite(version[1], judge, "ledger.parquet", lambda table: put(table, 0, "reason", "no reason"))
    assert any("the manifest states" in problem for problem in audit(*version).problems)


@pytest.mark.parametrize(
    ("rank", "said"), [(1, "0 clusters have several survivors, 1 have none"), (0, "1 clusters have several survivors")]
)
def test_a_cluster_of_two_survivors_or_none_is_told(version, rank, said):
    def lie(table: pa.Table) -> pa.Table:
        """The second of a cluster becomes a first, or a first a second."""
        rows = pc.equal(table["near.dup_rank"], 1 - rank).to_pylist()
        return put(table, rows.index(True), "near.dup_rank", rank)

    cluster = version[0].build_keys().segments[0].relates[0]["cluster"]
    rewrite(version[1], cluster, "relation.parquet", lie)
    assert any(said in problem for problem in audit(*version).problems)


def test_a_cluster_in_two_splits_is_told(version):
    split = dict(zip(*(version[0].index()[name].to_pylist() for name in ("doc_id", "split")), strict=True))

    def lie(table: pa.Table) -> pa.Table:
        """A duplicate moves into the cluster of a document of the other split."""
        ids, ranks = table["doc_id"].to_pylist(), table["near.dup_rank"].to_pylist()
        row = ranks.index(1)
        other = next(i for i, rank in zip(ids, ranks, strict=True) if rank == 0 and split[i] != split[ids[row]])
        return put(table, row, "near.cluster", other)

    cluster = version[0].build_keys().segments[0].relates[0]["cluster"]
    rewrite(version[1], cluster, "relation.parquet", lie)
    assert "near: 1 clusters lie in two splits" in audit(*version).problems


def test_tokens_that_are_booked_to_another_document_are_told(version):
    shards = version[0].manifest["splits"]["train"]["shards"]
    shards[1]["first_document"] += 1
    report = Report("here", {})
    audits._check_tokens(report, version[0])
    assert report.problems and "have lost or gained tokens" in report.problems[0]


def test_a_document_more_changes_the_shard_of_its_block_alone(tmp_path, monkeypatch):
    """Under a vocabulary that is given: every other shard of the old version is one of the new, to the byte."""
    monkeypatch.setattr(pack, "BLOCK_DOCUMENTS", 16)
    corpus = builds.write_corpus(tmp_path / "corpus", documents=160)
    vocabulary.train(["the mill wheel turns with water"], 300).save(str(corpus / "mine.json"))
    digests = []
    for _ in range(2):
        recipe = builds.make_recipe(corpus, [{"use": "normalise"}], tokens={"tokenizer": "mine.json"})
        splits = builds.build(recipe, tmp_path / "store").manifest["splits"].values()
        digests.append([shard["digest"] for split in splits for shard in split["shards"]])
        row = {"text": "one more text about a mill", "label": "1", "url": "https://example.org/more"}
        (corpus / "cc.jsonl").write_text(json.dumps(row))
    before, after = digests
    assert len(before) > 8 and len(set(before) - set(after)) <= 1 and len(set(after) - set(before)) <= 2
