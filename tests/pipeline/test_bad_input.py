"""Law 11, loud: whatever is broken, a build ends in a clear error or a quarantined document, never in a silent hole."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import books
from pipeline import manifest as manifests
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.sources import SourceError
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError
from tests import builds

ROOT = Path(__file__).parents[2]
PLAIN = [{"use": "normalise"}, {"use": "exact", "drop": {"dup_rank": {"above": 0}}}]


@pytest.fixture
def corpus(tmp_path) -> Path:
    return builds.write_corpus(tmp_path / "corpus", documents=120)


# Input


def quarantined(store: Path, version: manifests.Version) -> dict[str, tuple[str, str]]:
    """Reason and detail by file and row, as `why` tells them."""
    keys = version.build_keys()
    found = {}
    for row in books.ledger(Store(store), keys).to_pylist():
        if row["verdict"] == "quarantined":
            why = queries.why(Store(store), version, row["doc_id"])
            assert (why.verdict, why.stage, why.reason, why.detail) == (
                "quarantined",
                "source",
                row["reason"],
                row["detail"],
            )
            found[row["doc_id"].removeprefix("grain:")] = (row["reason"], row["detail"])
    return found


def test_rows_and_files_that_cannot_be_read_are_quarantined_and_booked(corpus, tmp_path):
    good = json.dumps({"text": "the mill wheel turns with water from that river", "label": "1"})
    bad = ["{not json", '{"label": "1"}', '{"text": "lone \\ud800 surrogate"}', '{"text": ""}', '{"text": 5}', "[1]"]
    for path in corpus.glob("*.jsonl"):
        path.write_text("\n".join(json.dumps({"text": f"text {path.stem} {n}", "label": "0"}) for n in range(40)))
    (corpus / "bad.jsonl").write_text("\n".join([good, *bad, good.replace("mill", "water")]))
    (corpus / "empty.jsonl").write_bytes(b"")
    whole = gzip.compress("\n".join(good.replace("mill", f"mill{n}") for n in range(5000)).encode())
    (corpus / "short.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    card = (corpus / "grain.toml").read_text().replace('["*.jsonl"]', '["*.jsonl", "*.jsonl.gz"]')
    (corpus / "grain.toml").write_text(card.replace('"label", url = "url"', '"label?", url = "url?"'))
    version = builds.build(builds.make_recipe(corpus, PLAIN), tmp_path / "store")
    found = quarantined(tmp_path / "store", version)
    reasons = ["malformed_json", "missing_text", "lone_surrogate", "empty_text", "text_not_a_string", "not_an_object"]
    assert [found.pop(f"bad.jsonl:{n}")[0] for n in range(2, 8)] == reasons
    assert found.pop("empty.jsonl:0")[0] == "empty_file"
    [(place, (reason, detail))] = found.items()
    assert place.startswith("short.jsonl.gz:") and reason == "truncated_stream" and "copy the file again" in detail
    assert 1000 < int(place.rpartition(":")[2]) < 4000
    report = audit(version, Store(tmp_path / "store"))
    assert report.problems == [] and report.counts["quarantined"] == 8


def test_a_build_that_nothing_survives_says_why_most_of_it_left(corpus, tmp_path):
    card = (corpus / "grain.toml").read_text()
    (corpus / "grain.toml").write_text(card.replace('text = "text"', 'text = "body"'))
    with pytest.raises(ConfigError, match=r"no document is left in train.*; 123 left by: source: missing_text \(121\)"):
        builds.build(builds.make_recipe(corpus, PLAIN), tmp_path / "store")


def test_parquet_of_another_schema_stops_the_build_and_names_file_and_columns(corpus, tmp_path):
    pq.write_table(pa.table({"body": ["a"], "stars": [1]}), corpus / "other.parquet")
    card = (corpus / "grain.toml").read_text().replace('paths = ["*.jsonl"]', 'paths = ["*.jsonl", "*.parquet"]')
    (corpus / "grain.toml").write_text(card)
    with pytest.raises(SourceError, match=r"other\.parquet: no column 'text'; has: body, stars"):
        builds.build(builds.make_recipe(corpus, PLAIN), tmp_path / "store")
    assert not list(tmp_path.glob("store/versions/test/*/manifest.json"))


def test_input_that_changes_under_a_build_stops_it(corpus, tmp_path, monkeypatch):
    from pipeline import plan

    look = plan.look

    def late(recipe):
        found = look(recipe)
        path = corpus / "c.jsonl"
        path.write_bytes(path.read_bytes().replace(b"mill", b"mull", 1))
        return found

    monkeypatch.setattr(plan, "look", late)
    with pytest.raises(SourceError, match=r"c\.jsonl: changed since it was surveyed; run the build again"):
        builds.build(builds.make_recipe(corpus, PLAIN), tmp_path / "store")


# Store and versions


def flip(path: Path, position: int) -> None:
    """Change one bit in place: hard links see it too, as they would see a bad sector."""
    with path.open("r+b") as file:
        file.seek(position)
        [byte] = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9, 0.999])
def test_a_flipped_byte_in_any_stage_output_stops_the_next_build_and_fails_the_audit(corpus, tmp_path, place):
    """Every file of the store in turn, the markers too; the message says what to remove, and that mends it."""
    version = builds.build(builds.make_recipe(corpus), tmp_path)
    store, seen = Store(tmp_path), set()
    for key in version.build_keys().every():
        for path in sorted(store.folder(key).iterdir()):
            if path.name in seen or path.stat().st_size == 0:
                continue
            seen.add(path.name)
            flip(path, position := int(place * (path.stat().st_size - 1)))
            with pytest.raises(StoreError) as error:
                builds.build(builds.make_recipe(corpus), tmp_path)
            assert f"{key}/{path.name} is damaged" in str(error.value) and f"remove {path.parent}" in str(error.value)
            assert any(path.name in problem for problem in audit(version, store).problems)
            flip(path, position)
    assert {"_done.json", "tokens.arrow", "tokenizer.json", "signals.parquet", "pairs.parquet"} < seen
    assert any(name.startswith("train-") for name in seen)
    assert audit(version, store).problems == []


def test_a_damaged_shard_is_named_and_never_sealed_as_a_new_version(corpus, tmp_path):
    """A shard and the store's output are one file: who removes the version and builds again must hear of it."""
    version = builds.build(builds.make_recipe(corpus), tmp_path)
    shard = next(shard["file"] for shard in version.manifest["splits"]["train"]["shards"])
    path = version.folder / shard
    flip(path, path.stat().st_size // 2)
    assert any(shard in problem for problem in manifests.verify(version))
    assert any(shard in problem for problem in audit(version, Store(tmp_path)).problems)
    with pytest.raises(StoreError, match="is damaged"):
        builds.build(builds.make_recipe(corpus), tmp_path)
    (version.folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match="is damaged"):
        builds.build(builds.make_recipe(corpus), tmp_path)


def test_a_truncated_shard_is_named(corpus, tmp_path):
    version = builds.build(builds.make_recipe(corpus), tmp_path)
    shard = version.folder / next(shard["file"] for shard in version.manifest["splits"]["train"]["shards"])
    os.truncate(shard, shard.stat().st_size // 2)
    assert [p for p in manifests.verify(version) if shard.name in p and "cannot be read" in p]
    assert any(shard.name in problem for problem in audit(version, Store(tmp_path)).problems)
