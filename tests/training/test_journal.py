"""run.json: what a run says of itself while it runs, and however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from tests.conftest import ROOT
from tests.training import runs
from training import TrainingError, machine, tensorboard
from training.journal import Journal

SCHEMA = json.loads((ROOT / "catalogs/schemas/run.schema.json").read_text("utf-8"))


def told(folder: Path) -> dict[str, Any]:
    """run.json of the one run in a folder, held against its schema."""
    [path] = folder.glob("*/run.json")
    table: dict[str, Any] = json.loads(path.read_text("utf-8"))
    jsonschema.validate(table, SCHEMA)
    return table


def test_the_schema_is_one_and_knows_every_key_of_a_run(run_file, manifest, tmp_path):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    runs.fit(run_file, manifest, tmp_path)
    table = told(tmp_path)
    assert table.keys() == SCHEMA["properties"].keys() and table["status"] == "complete"
    for key in table:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**table, key: object()}, SCHEMA)
        changed = {name: value for name, value in table.items() if name != key}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed, SCHEMA)


def test_each_start_says_what_it_did_and_validations_are_there_as_they_happen(
    run_file, manifest, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_PLACES", "cores")
    books = runs.fit(run_file, manifest, tmp_path, after=6)
    table = told(tmp_path)
    assert [entry["step"] for entry in table["validations"]] == [5] and table["evaluation"] is None
    assert table["environment"]["OMP_PLACES"] == "cores" and "PATH" not in table["environment"]
    monkeypatch.delenv("OMP_PLACES")
    books = runs.fit(run_file, manifest, tmp_path, changes=("batch.micro_rows=3",))
    table = told(tmp_path)
    first, second = table["starts"]
    assert (first["status"], first["first_step"]) == ("killed", 1)  # nobody said that it was stopped
    assert (second["status"], second["first_step"]) == ("complete", 7) and table["resumed_at"] == [6]
    assert "OMP_PLACES" in first["environment"] and "OMP_PLACES" not in second["environment"]
    assert datetime.fromisoformat(first["ended"]) <= datetime.fromisoformat(second["began"])
    assert table["seconds"] == first["seconds"] + second["seconds"] > 0 and table["began"] == first["began"]
    steps = books.entries("step")
    assert table["tokens_read"] == sum(step["tokens"] for step in steps)
    written = [{k: v for k, v in entry.items() if k != "kind"} for entry in books.entries("validation")]
    assert [{k: v for k, v in entry.items() if k != "tokens"} for entry in table["validations"]] == written
    for entry in table["validations"]:
        assert entry["tokens"] == sum(step["tokens"] for step in steps if step["step"] <= entry["step"])


def test_what_was_validated_behind_the_checkpoint_is_forgotten(run_file, manifest, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Journal, "flush", lambda self: 1 / 0 if self.table["validations"] else None)
        runs.fit(run_file, manifest, tmp_path)  # dies at the checkpoint of step 8, after the validation of step 5
    table = told(tmp_path)
    assert (table["status"], table["problem"]) == ("failed", "ZeroDivisionError: division by zero")
    assert [entry["step"] for entry in table["validations"]] == [5] and table["step"] == 4
    runs.fit(run_file, manifest, tmp_path, after=2)
    table = told(tmp_path)
    assert [entry["step"] for entry in table["validations"]] == [5] and table["step"] == 6
    assert [start["status"] for start in table["starts"]] == ["failed", "running"]


def test_a_refused_step_is_told_with_its_sentence(run_file, manifest, tmp_path):
    wild = ("optimizer.learning_rate=1e30", "optimizer.use=adamw")
    with pytest.raises(TrainingError) as refused:
        runs.fit(run_file, manifest, tmp_path, changes=wild)
    table = told(tmp_path)
    assert table["status"] == table["starts"][0]["status"] == "refused"
    assert table["problem"] == str(refused.value) and "not both finite" in table["problem"]


def test_the_end_of_memory_is_told_apart(run_file, manifest, tmp_path, monkeypatch):
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("training.loop.Scored.forward", full)
    with pytest.raises(TrainingError, match="out of memory with 2 rows"):
        runs.fit(run_file, manifest, tmp_path)
    assert told(tmp_path)["status"] == "out of memory"


def test_the_command_line_is_told_and_a_signal_and_a_kill(run_file, manifest, tmp_path):
    command = ["-m", "training", "fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path)]
    command += ["--set", "schedule.steps=4000", "--set", "evaluation.every=2"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, "-P", *command],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = len(told(tmp_path)["validations"]) if list(tmp_path.glob("*/run.json")) else 0
        while not list(tmp_path.glob("*/run.json")) or len(told(tmp_path)["validations"]) <= before:
            time.sleep(0.05)
        process.send_signal(number)
        process.wait(60)
        if number == signal.SIGTERM:
            table = told(tmp_path)
            assert table["status"] == "stopped" and table["problem"] is None
            assert table["changes"] == ["schedule.steps=4000", "evaluation.every=2"]
            assert table["step"] == table["validations"][-1]["step"] or table["step"] > 2
    table = told(tmp_path)
    assert [start["status"] for start in table["starts"]] == ["stopped", "running"]  # as it was when it was killed


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    (tmp_path / "machine.py").write_text("a = 1\n")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    machine.commit.cache_clear()
    assert machine.commit() is None
    git("init", "-q")
    machine.commit.cache_clear()
    assert machine.commit() is None  # a checkout, but not of the trainer
    git("add", ".")
    git("commit", "-q", "-m", "a")
    machine.commit.cache_clear()
    assert machine.commit() == {"id": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "machine.py").write_text("a = 2\n")
    machine.commit.cache_clear()
    assert machine.commit() == {"id": git("rev-parse", "HEAD"), "changed": True}
    monkeypatch.setenv("PATH", "")
    machine.commit.cache_clear()
    assert machine.commit() is None
    machine.commit.cache_clear()


def test_a_log_that_cannot_be_written_is_refused_if_it_is_asked_for(run_file, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"gristmill\[tensorboard\]"):
        runs.fit(run_file, manifest, tmp_path, changes=("log.tensorboard=true",))
    assert not list(tmp_path.rglob("metrics.jsonl"))
    books = runs.fit(run_file, manifest, tmp_path)
    assert books.complete and not list(tmp_path.rglob("events.*")) and told(tmp_path)["tensorboard"] is False
