"""Labelled sentences, SST-2: a version of examples whose augmented children can be traced, in train alone."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from pipeline import books
from pipeline.audit import audit
from pipeline.catalog import queries
from tests.pipeline.real import Built, built


@pytest.fixture(scope="module")
def sentences(shared_data, tmp_path_factory) -> Built:
    return built("sst2", shared_data, tmp_path_factory.mktemp("sst2"))


def test_labelled_sentences_have_children_in_train_alone(sentences, shared_data):
    report = audit(sentences.version, sentences.store)
    assert report.problems == [] and report.counts["ingested"] == 6920 and report.counts["quarantined"] == 0
    rows = {row["doc_id"]: row for row in sentences.version.index().to_pylist()}
    children = [row for row in rows.values() if row["parent_id"]]
    train = [row for row in rows.values() if row["split"] == "train" and not row["parent_id"]]
    assert report.counts["added"] > 3 * len(train) > 15_000
    assert report.counts["added"] - 5 < len(children) < report.counts["added"], (
        "a child or two copy a held-out sentence"
    )
    for child in children:
        parent = rows[child["parent_id"]]
        assert child["split"] == parent["split"] == "train" and child["split_group"] == parent["split_group"]
        assert child["label"] == parent["label"] and parent["parent_id"] is None
    gold = pq.read_table(shared_data / "classification" / "sst2" / "train.parquet").to_pylist()
    assert {row["label"] for row in rows.values()} == {str(row["label"]) for row in gold}
    for doc_id, row in rows.items():
        if not row["parent_id"]:
            assert row["label"] == str(gold[int(doc_id.rpartition(":")[2])]["label"])


def test_why_leads_from_a_child_to_its_parent_and_back(sentences):
    index = sentences.version.index().to_pylist()
    texts = sentences.texts(1)
    for row in [row for row in index if row["parent_id"]][::900]:
        child = queries.why(sentences.store, sentences.version, row["doc_id"])
        assert (child.verdict, child.parent_id, child.excerpt) == ("kept", row["parent_id"], texts[row["doc_id"]][:400])
        assert len(child.places) == 1 and child.index["label"] == row["label"]
        parent = queries.why(sentences.store, sentences.version, row["parent_id"])
        assert row["doc_id"] in parent.children and parent.parent_id is None
        assert set(texts[row["doc_id"]].split()) <= set(texts[row["parent_id"]].split())


def test_no_sentence_of_validation_has_a_copy_in_train(sentences):
    """Not even as a child of another sentence: such a child leaves, and the ledger says whose text it has."""
    index, texts = sentences.version.index().to_pylist(), sentences.texts(1)
    held = {texts[row["doc_id"]] for row in index if row["split"] == "val"}
    assert len(held) > 500 and not [row for row in index if row["split"] == "train" and texts[row["doc_id"]] in held]
    gone = [
        row for row in books.ledger(sentences.store, sentences.version.build_keys()).to_pylist() if "#" in row["doc_id"]
    ]
    assert gone
    for row in gone:
        assert (row["stage"], row["verdict"], row["reason"]) == ("eda", "dropped", "text of another split")
        assert texts[row["doc_id"]] == texts[row["detail"].removeprefix("dup_of=")] in held
