"""OpenLineage events of builds and runs, held against what schema 2-0-2 asks of an event."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from flows import lineage, progress, work
from flows.parameters import BuildParameters, MillParameters, TrainParameters
from flows.process import TrainingFailed, TrainingRefused
from training.lineage import Before

STATES = {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    for name in ("URL", "ENDPOINT", "API_KEY", "NAMESPACE", "DISABLED"):
        monkeypatch.delenv(f"OPENLINEAGE_{name}", raising=False)


def events(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / lineage.FILE).read_text("utf-8").splitlines()]


def is_uri(text: str) -> bool:
    parts = urlsplit(text)
    return bool(parts.scheme and (parts.netloc or parts.path)) and not any(map(str.isspace, text))


def check(event: dict[str, Any]) -> None:
    """What the schema requires: keys, formats, and of every facet its producer and schema."""
    assert set(event) == {"eventType", "eventTime", "producer", "schemaURL", "run", "job", "inputs", "outputs"}
    assert event["eventType"] in STATES and datetime.fromisoformat(event["eventTime"]).tzinfo
    assert is_uri(event["producer"])
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    assert str(uuid.UUID(event["run"]["runId"])) == event["run"]["runId"]
    for named in (event["job"], *event["inputs"], *event["outputs"]):
        assert named["namespace"] and named["name"] and set(named) <= {"namespace", "name", "facets", "outputFacets"}
    facets = [event["run"]["facets"], event["job"]["facets"]]
    facets += [dataset["facets"] for dataset in (*event["inputs"], *event["outputs"])]
    facets += [dataset["outputFacets"] for dataset in event["outputs"] if "outputFacets" in dataset]
    for name, facet in (pair for found in facets for pair in found.items()):
        assert is_uri(facet["_producer"]) and is_uri(facet["_schemaURL"]), name
        assert facet["_schemaURL"].startswith("https://openlineage.io/spec/"), name
    engine, kind = event["run"]["facets"]["processing_engine"], event["job"]["facets"]["jobType"]
    assert engine["version"] and {"processingType", "integration"} <= set(kind)
    if event["eventType"] == "FAIL":
        message = event["run"]["facets"]["errorMessage"]
        assert message["message"] and message["programmingLanguage"] == "Python"


def small(corpus: Path, store: Path) -> BuildParameters:
    return BuildParameters(recipe=str(corpus / "small.toml"), mill=MillParameters(store=str(store), workers=1))


def test_a_build_and_a_run_over_it_are_one_lineage(corpus, tmp_path, fake):
    version = work.build(small(corpus, tmp_path))
    run = TrainParameters(run=str(corpus / "runs" / "small.toml"), store=str(tmp_path), name="mine")
    work.train(run)
    told = events(tmp_path)
    assert [event["eventType"] for event in told] == ["START", "COMPLETE"] * 2
    for event in told:
        check(event)
    begun, built, _, trained = told
    assert begun["run"]["runId"] == built["run"]["runId"] != trained["run"]["runId"]
    assert built["job"]["name"] == "build.small" and trained["job"]["name"] == "train.small"
    [source], [made] = built["inputs"], built["outputs"]
    assert (source["name"], made["name"]) == ("source/grain", "version/small")
    assert source["facets"]["version"]["datasetVersion"] == version.manifest["sources"][0]["revision"]
    assert made["facets"]["version"]["datasetVersion"] == version.manifest["version"]
    shards = [shard for split in version.manifest["splits"].values() for shard in split["shards"]]
    statistics = made["outputFacets"]["outputStatistics"]
    assert statistics["rowCount"] == sum(shard["rows"] for shard in shards)
    assert statistics["size"] == sum((version.folder / shard["file"]).stat().st_size for shard in shards)
    kept = version.manifest["documents"]["rows"]
    assert made["facets"]["gristmill_licences"]["licences"] == [{"licence": "CC0-1.0", "documents": kept}]
    [read] = trained["inputs"]
    assert {name: read[name] for name in ("namespace", "name")} == {name: made[name] for name in ("namespace", "name")}
    assert read["facets"]["version"] == made["facets"]["version"]
    assert trained["outputs"][0]["name"] == "run/mine"


def test_a_run_that_goes_on_from_another_reads_it(corpus, tmp_path, fake):
    work.build(small(corpus, tmp_path))
    earlier = [{"name": name, "digest": "0", "objective": "causal", "step": 3, "weights": "1"} for name in "ab"]
    before = Before.model_validate({"runs": [{**one, "texts": []} for one in earlier], "unknown": None})
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "before.json").write_text(before.model_dump_json(), "utf-8")
    work.train(TrainParameters(run=str(corpus / "runs" / "small.toml"), store=str(tmp_path), name="mine"))
    *_, begun, trained = events(tmp_path)
    check(trained)
    assert [one["name"] for one in begun["inputs"]] == ["version/small"]
    assert [one["name"] for one in trained["inputs"]] == ["version/small", "run/a"]


def test_what_fails_or_is_stopped_says_so(corpus, tmp_path, fake):
    work.build(small(corpus, tmp_path))
    run = TrainParameters(run=str(corpus / "runs" / "small.toml"), store=str(tmp_path), changes=("fake.mode=refuse",))
    with pytest.raises((TrainingRefused, TrainingFailed)):
        work.train(run)
    with pytest.raises(KeyboardInterrupt), lineage.told(tmp_path, lineage.Run("build.x", "BUILD", [])):
        raise KeyboardInterrupt
    told = events(tmp_path)[2:]
    assert [event["eventType"] for event in told] == ["START", "FAIL", "START", "ABORT"]
    for event in told:
        check(event)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append((self.path, dict(self.headers), json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(self.server.answer)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *said: Any) -> None:
        return


@pytest.fixture
def receiver(monkeypatch) -> Iterator[Any]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    server.came, server.answer = [], 201  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}/")
    yield server
    server.shutdown()
    server.server_close()


def test_events_are_posted_as_they_are_written(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "open sesame")
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "mine")
    with lineage.told(tmp_path, lineage.Run("build.x", "BUILD", [])):
        pass
    assert [path for path, _, _ in receiver.came] == ["/api/v1/lineage"] * 2
    assert [body for _, _, body in receiver.came] == events(tmp_path)
    _, headers, body = receiver.came[0]
    assert (headers["Authorization"], headers["Content-Type"]) == ("Bearer open sesame", "application/json")
    assert body["job"]["namespace"] == "mine"
    monkeypatch.setenv("OPENLINEAGE_ENDPOINT", "/else")
    with lineage.told(tmp_path, lineage.Run("build.x", "BUILD", [])):
        pass
    assert receiver.came[-1][0] == "/else"


class Notes(progress.Quiet):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("trouble", ["answer", "nobody", "address", "file"])
def test_lineage_that_cannot_be_told_is_a_note_and_stops_nothing(tmp_path, receiver, monkeypatch, trouble):
    receiver.answer = 500
    if trouble == "nobody":
        monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    elif trouble == "address":
        monkeypatch.setenv("OPENLINEAGE_URL", "file:///etc/passwd")
    elif trouble == "file":
        (tmp_path / lineage.FILE).mkdir()
    notes = Notes()
    monkeypatch.setattr(progress, "current", lambda: notes)
    with lineage.told(tmp_path, lineage.Run("build.x", "BUILD", [])):
        pass
    assert len(notes.said) == 2 and all("lineage was not told" in said for said in notes.said)
    assert trouble == "file" or len(events(tmp_path)) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": [{}]}'])
def test_a_run_before_that_cannot_be_read_is_a_note_and_stops_nothing(tmp_path, monkeypatch, text):
    (tmp_path / "before.json").write_text(text, "utf-8")
    notes = Notes()
    monkeypatch.setattr(progress, "current", lambda: notes)
    run = lineage.Run("train.x", "TRAIN", [])
    with lineage.told(tmp_path, run):
        lineage.trained(run, {"run": "x", "folder": str(tmp_path)})
    assert events(tmp_path)[-1]["eventType"] == "COMPLETE" and run.inputs == []
    [said] = notes.said
    assert "lineage was not told (the run before" in said


def test_who_wants_no_lineage_gets_none(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    with lineage.told(tmp_path, lineage.Run("build.x", "BUILD", [])):
        pass
    assert not (tmp_path / lineage.FILE).exists()
