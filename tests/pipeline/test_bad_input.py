"""Law 11, loud: whatever is broken, a build ends in a clear error or a quarantined document, never in a silent hole."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import books
from pipeline import manifest as manifests
from pipeline import store as stores
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.models import ModelError
from pipeline.runner import WorkerLost
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


# The machine


LIMITED = """
import resource, sys
from pathlib import Path
from tests import builds
from pipeline.stage import ConfigError
recipe = builds.make_recipe(Path(sys.argv[1]), [{"use": "normalise"}])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    builds.build(recipe, Path(sys.argv[2]), count=int(sys.argv[4]), partition_bytes=20_000)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("size", "workers"), [(200, 1), (9_000, 2), (13_900, 1), (20_000, 1)])
def test_a_file_that_the_disk_will_not_take_is_a_clear_error(corpus, tmp_path, size, workers):
    """The operating system itself refuses, at another file for each size: nothing half-written is left, and when
    there is room the build goes on to the same version."""
    command = [sys.executable, "-c", LIMITED, str(corpus), str(tmp_path / "store"), str(size), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True).stdout
    assert out.startswith(f"StoreError cannot write to {tmp_path / 'store'}: File too large; make room there"), out
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(".")]
    recipe = builds.make_recipe(corpus, [{"use": "normalise"}])
    again = builds.build(recipe, tmp_path / "store", partition_bytes=20_000)
    assert again.manifest == builds.build(recipe, tmp_path / "other").manifest


@pytest.mark.parametrize("number", [1, 5, 18, 30])
def test_a_disk_that_fills_up_is_a_clear_error(corpus, tmp_path, monkeypatch, number):
    """The n-th flush says that there is no space left."""
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device; make room there and run the same command again"):
        builds.build(builds.make_recipe(corpus), tmp_path / "store")
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(".")]
    again = builds.build(builds.make_recipe(corpus), tmp_path / "store")
    assert audit(again, Store(tmp_path / "store")).problems == []


STAGE = '''
import os, signal
from pathlib import Path
import pyarrow as pa
from pipeline.models import ModelError
from pipeline.stage import measure

@measure(n="int32")
def grim(batch, *, flag: str, how: str):
    """Measure nothing of interest; while the file `flag` is there, fail as `how` says on the document of row 3."""
    if Path(flag).exists() and any(i.endswith("d.jsonl:3") for i in batch["doc_id"].to_pylist()):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"memory": MemoryError, "file": FileNotFoundError, "model": ModelError, "text": ValueError}[how]("gone")
    return {"n": pa.array([1] * batch.num_rows, pa.int32())}
'''


@pytest.fixture
def grim(tmp_path, monkeypatch) -> Any:
    """Somebody's own stage, beside the checkout; its flag is up."""
    (tmp_path / "mine" / "reapers").mkdir(parents=True)
    (tmp_path / "mine" / "reapers" / "grim.py").write_text(STAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    for name in ("reapers", "reapers.grim"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    flag = tmp_path / "flag"
    flag.touch()
    return lambda how: [{"use": "reapers.grim", "flag": str(flag), "how": how}, *PLAIN]


def test_a_worker_killed_in_the_middle_says_what_to_do(corpus, tmp_path, grim):
    recipe = builds.make_recipe(corpus, grim("kill"))
    with pytest.raises(WorkerLost, match=r"a worker died during .*: run the same command again, with fewer --workers"):
        builds.build(recipe, tmp_path / "store", count=2, partition_bytes=4_000)
    (tmp_path / "flag").unlink()
    again = builds.build(recipe, tmp_path / "store", partition_bytes=4_000)
    assert again.manifest == builds.build(recipe, tmp_path / "other").manifest


@pytest.mark.parametrize(
    ("how", "error", "workers"),
    [("memory", MemoryError, 1), ("file", OSError, 1), ("model", ModelError, 1), ("model", ModelError, 2)],
)
def test_what_is_wrong_with_the_machine_is_no_fault_of_a_document(corpus, tmp_path, grim, how, error, workers):
    """Quarantined, a missing model would cost the whole corpus and call it a result."""
    with pytest.raises(error, match="gone"):
        builds.build(builds.make_recipe(corpus, grim(how)), tmp_path / "store", count=workers, partition_bytes=4_000)


def test_what_is_wrong_with_a_document_costs_that_document_alone(corpus, tmp_path, grim):
    version = builds.build(builds.make_recipe(corpus, grim("text")), tmp_path / "store", partition_bytes=4_000)
    found = queries.why(Store(tmp_path / "store"), version, "grain:d.jsonl:3")
    assert (found.verdict, found.stage, found.reason, found.detail) == ("quarantined", "grim", "ValueError", "gone")
    assert audit(version, Store(tmp_path / "store")).counts["quarantined"] == 4
