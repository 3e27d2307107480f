"""`python -m training fit`: what it prints, where it writes, how it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.training import runs
from training import checkpoint
from training.journal import Journal


@pytest.fixture(scope="module")
def done(run_file, manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    events = folder / "events.jsonl"
    arguments = ["fit", str(run_file), "--manifest", str(manifest), "--runs", str(folder / "runs")]
    return arguments, runs.command(1, *arguments, "--events", str(events), "--json"), events


def test_it_says_what_it_made_and_it_is_there(done):
    _, finished, events = done
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["status"] == "complete" and result["steps"] == 12
    for name in ("folder", "manifest", "checkpoint", "report", "report_json"):
        assert Path(result[name]).exists(), name
    assert 0 < result["bits_per_byte"] < 20 and set(result["ngrams"]) == {"2", "3", "4"}
    table = json.loads((Path(result["folder"]) / "run.json").read_text())
    assert table["status"] == "complete" and table["step"] == table["steps"] == 12
    assert (Path(result["folder"]) / table["version"]["manifest"]).resolve() == Path(result["manifest"]).resolve()
    assert table["peak"]["flops"] > 0 and len(table["code"]) == 32 and table["config"]["seed"] == 3
    assert [v["step"] for v in table["validations"]] == [5, 10, 12] and "torch" in table["packages"]
    report = json.loads(Path(result["report_json"]).read_text())["run"]
    assert 0 < report["mfu"] < 1 and report["peak"] == table["peak"]
    steps = Journal(Path(result["folder"])).entries("step")
    assert all(0 <= step["wait_seconds"] <= step["seconds"] for step in steps)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    phases = [event["phase"] for event in told if "phase" in event]
    assert phases[0] == "train" and {"evaluate", "n-grams", "sample", "report"} <= set(phases)
    assert any("MFU" in event.get("note", "") for event in told)
    assert sum(event.get("advance", 0) for event in told) >= 12


def test_a_run_that_is_complete_is_not_done_again(done):
    arguments, finished, _ = done
    result = json.loads(finished.stdout.splitlines()[-1])
    before = {p: p.stat().st_mtime_ns for p in Path(result["folder"]).rglob("*")}
    again = json.loads(runs.command(1, *arguments, "--json").stdout.splitlines()[-1])
    assert again == result
    assert {p: p.stat().st_mtime_ns for p in Path(result["folder"]).rglob("*")} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_command_goes_on(done, tmp_path, number):
    arguments, _, _ = done
    arguments = [*arguments[:-1], str(tmp_path), "--set", "schedule.steps=4000", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "training", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("*/metrics.jsonl")):
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    result = json.loads(out.splitlines()[-1])
    assert result["status"] == "stopped"
    books = Journal(Path(result["folder"]))
    assert runs.state(checkpoint.steps(books.checkpoints)[-1])["step"] == len(books.entries("step")) > 0


def test_it_ends_when_its_parent_is_gone(done, tmp_path):
    arguments, _, _ = done
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    arguments = [*arguments[:-1], str(tmp_path), "--set", "schedule.steps=4000", "--parent", str(parent.pid)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "training", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    while not list(tmp_path.glob("*/metrics.jsonl")):
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert process.wait(60) == 130


def test_a_loss_that_is_not_finite_changes_nothing_and_names_the_documents(run_file, manifest, tmp_path):
    wild = ["--set", "optimizer.learning_rate=1e30", "--set", "optimizer.use=adamw"]
    refused = runs.command(1, "fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path), *wild, code=2)
    assert (
        "not both finite" in refused.stderr and "toy:" in refused.stderr and "optimizer.learning_rate" in refused.stderr
    )


def test_a_run_continues_texts_and_draws_its_report_again(done):
    folder = Path(json.loads(done[1].stdout.splitlines()[-1])["folder"])
    options = ["--prompt", "the mill", "--return-sequences", "2", "--new-tokens", "5", "--json"]
    said = [runs.command(1, "generate", str(folder), *options, "--seed", "4").stdout for _ in range(2)]
    assert said[0] == said[1]
    [entry] = json.loads(said[0])["prompts"]
    assert entry["prompt"] == "the mill" and len(entry["continuations"]) == 2
    page = (folder / "report.html").read_bytes()
    runs.command(1, "report", str(folder))
    assert (folder / "report.html").read_bytes() == page
