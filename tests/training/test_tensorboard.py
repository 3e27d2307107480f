"""The TensorBoard log, read back by TensorBoard's own reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT
from tests.training import runs
from training import checkpoint, config
from training.journal import Journal
from training.tensorboard import Log


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every series that TensorBoard would draw of a folder."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def expected(books: Journal) -> Iterator[tuple[str, str, list[tuple[int, float]]]]:
    """Folder, series and points that the lines of metrics.jsonl come to."""
    steps, checks = books.entries("step"), books.entries("validation")
    read = {entry["step"]: sum(e["tokens"] for e in steps[: number + 1]) for number, entry in enumerate(steps)}
    for entry in steps:
        entry["tokens_per_second"] = entry["tokens"] / entry["seconds"]
    names = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "wait_seconds", "mfu")
    for name in names:
        yield "", f"train/{name}", [(e["step"], e[name]) for e in steps]
    for name in ("loss", "bits_per_byte"):
        yield "", f"validation/{name}", [(e["step"], e[name]) for e in checks]
        yield "by_tokens", f"validation by tokens/{name}", [(read[e["step"]], e[name]) for e in checks]
    yield "by_tokens", "train by tokens/loss", [(read[e["step"]], e["loss"]) for e in steps]


def compare(books: Journal) -> None:
    series = [each for each in expected(books) if each[2]]
    for place in ("", "by_tokens"):
        found = shown(books.folder / place)
        assert found.keys() == {tag for where, tag, _ in series if where == place}
        for where, tag, points in series:
            if where == place:
                assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
                assert [value for _, value in found[tag]] == pytest.approx([v for _, v in points], rel=1e-6), tag


def test_it_shows_what_the_metrics_say(run_file, manifest, tmp_path):
    books = runs.fit(run_file, manifest, tmp_path)
    assert len(shown(books.folder)["train/loss"]) == 12
    compare(books)


def test_each_step_stands_once_wherever_a_run_was_stopped_or_killed(run_file, manifest, tmp_path, monkeypatch):
    runs.fit(run_file, manifest, tmp_path, after=3)

    class Killed(BaseException):
        pass

    add, seen = Journal.add, []

    def dying(self: Journal, kind: str, **values: Any) -> None:
        add(self, kind, **values)
        seen.append(values["step"])
        if values["step"] == 7:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Journal, "add", dying)
        patch.setattr("training.tensorboard.DELAY", 3600)
        patch.setattr(Log, "close", lambda self: None)  # what is not in the files by then is lost
        runs.fit(run_file, manifest, tmp_path)  # the newest checkpoint is that of step 4
    books = runs.fit(run_file, manifest, tmp_path)
    assert seen == [4, 5, 5, 6, 7] and books.table["resumed_at"] == [3, 4]
    assert len(list(books.folder.glob("events.*"))) == 3
    compare(books)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from tensorboard.summary.writer.record_writer import RecordWriter
from tests.training import runs
from training import loop, tensorboard

advance, write = loop.Loop.advance, RecordWriter.write

def slow(self, data):
    time.sleep(0.05)  # a disk that is behind: up to ten of the last events are on their way
    write(self, data)

def dying(self, stop):
    if self.step == int(sys.argv[4]):
        self.written(wait=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(self, stop)

tensorboard.DELAY = 3600
RecordWriter.write, loop.Loop.advance = slow, dying
runs.fit(*map(Path, sys.argv[1:4]))
"""


def test_what_leads_to_a_checkpoint_is_in_the_files_before_the_checkpoint_is_whole(run_file, manifest, tmp_path):
    """Killed with -9 as soon as a checkpoint is: its steps are never done again, so what is not there stays away."""
    for at in (4, 8):
        command = [sys.executable, "-P", "-c", KILLED, str(run_file), str(manifest), str(tmp_path), str(at)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
        [folder] = tmp_path.iterdir()
        assert checkpoint.steps(folder / "checkpoints")[-1].name == f"step-{at:08d}"
        compare(Journal(folder))
    books = runs.fit(run_file, manifest, tmp_path)
    assert books.table["resumed_at"] == [4, 8]
    compare(books)


@pytest.mark.slow
def test_one_of_two_processes_writes_it(run_file, manifest, tmp_path):
    books = runs.several(2, run_file, manifest, tmp_path)
    assert len(list(books.folder.glob("events.*"))) == 1
    compare(books)


def test_it_is_no_part_of_what_a_run_is(run_file, manifest, tmp_path):
    kinds = [config.load(run_file, [f"log.tensorboard={asked}"]) for asked in ("true", "false")]
    assert len({run.identity("0" * 16) for run in [*kinds, config.load(run_file)]}) == 1
    books = runs.fit(run_file, manifest, tmp_path, changes=("log.tensorboard=false",))
    assert not list(books.folder.rglob("events.*"))
