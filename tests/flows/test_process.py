"""Training as a process: the command line, the events, the exit codes, and who is told of a signal how often."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer

from flows import process, runs
from flows.process import Fit, TrainingFailed, TrainingRefused, TrainingStopped
from tests.conftest import ROOT
from tests.flows.conftest import FAKE, gone, until


class Recorded:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def phase(self, name: str, total: int) -> None:
        self.told.append((name, total))

    def advance(self, done: int = 1) -> None:
        self.told.append(done)

    def note(self, text: str) -> None:
        self.told.append(text)

    def say(self, text: str) -> None:
        self.told.append(f"said: {text}")


@pytest.fixture
def what(tmp_path) -> Fit:
    return Fit(tmp_path / "run.toml", tmp_path / "manifest.json", tmp_path / "runs", name="fake")


def with_mode(what: Fit, mode: str, **changes) -> Fit:
    return dataclasses.replace(what, changes=(f"fake.mode={mode}",), **changes)


def test_the_command_starts_the_installed_trainer_and_never_what_lies_in_the_folder(what):
    one = dataclasses.replace(what, changes=("a.b=1", "c=x y")).command(Path("E"), process.TRAINER)
    assert one[:6] == [sys.executable, "-P", "-m", "training", "fit", str(what.run)]
    assert one[6:] == [
        *("--manifest", str(what.manifest), "--runs", str(what.runs), "--events", "E", "--parent", str(os.getpid())),
        *("--name", "fake", "--set", "a.b=1", "--set", "c=x y", "--json"),
    ]
    mixed = dataclasses.replace(what, beside=(Path("/w/m.json"),)).command(Path("E"), process.TRAINER)
    assert mixed[14:] == ["--name", "fake", "--manifest", "/w/m.json", "--json"]
    several = dataclasses.replace(what, processes=3, name=None).command(Path("E"), process.TRAINER)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "training", "fit"]
    assert several[:10] == [sys.executable, "-P", *start] and "--name" not in several


def test_the_trainer_has_every_option_that_it_is_given(what):
    """The contract from the other side, read from the trainer's own command line."""
    from training.__main__ import app

    fit = typer.main.get_command(app).commands["fit"]
    known = {option for parameter in fit.params for option in parameter.opts}
    given = dataclasses.replace(what, changes=("a=1",)).command(Path("E"), process.TRAINER)
    assert {part for part in given if part.startswith("--")} <= known


def test_events_reach_the_progress_in_order_and_the_last_line_is_the_result(what):
    progress = Recorded()
    result = process.fit(what, progress, FAKE)
    losses = [1, "loss 3", 1, "loss 2", 1, "loss 1"]
    assert progress.told == ["said: three steps of a fake", ("train", 3), *losses, ("half a line", 1)]
    assert (result["run"], result["status"], result["bits_per_byte"]) == ("fake", "complete", 1.5)
    assert result["manifest"] == str(what.manifest)
    assert [path.name for path in what.runs.iterdir()] == ["fake"], "nothing but the run is left"


def test_a_refusal_is_the_sentence_of_the_trainer(what):
    with pytest.raises(TrainingRefused, match=r"batch\.rows.* is 1 for 2 processes$"):
        process.fit(with_mode(what, "refuse"), None, FAKE)
    assert [path.name for path in what.runs.iterdir()] == ["fake"]


@pytest.mark.parametrize(
    ("mode", "said"), [("crash", "ended with code 1"), ("killed", "killed by signal 9"), ("mute", "ended with code 0")]
)
def test_a_failure_keeps_the_log_and_shows_its_last_lines(what, mode, said):
    with pytest.raises(TrainingFailed, match=said) as caught:
        process.fit(with_mode(what, mode), None, FAKE)
    log = Path(str(caught.value).rpartition("its log is ")[2])
    assert log.is_file()
    if mode == "crash":
        assert len(caught.value.lines) == process.LAST_LINES and caught.value.lines[-1].endswith("broken")
        assert log.read_text().count("line ") == 40


def test_a_trainer_that_stopped_says_so(what):
    with pytest.raises(TrainingStopped, match="'fake' has a checkpoint"):
        process.fit(with_mode(what, "stopped"), None, FAKE)


def test_it_works_in_a_thread_that_may_not_handle_signals(what):
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(process.fit(what, None, FAKE)["status"]))
    thread.start()
    thread.join(60)
    assert results == ["complete"]


PARENT = """
import sys
from pathlib import Path
from flows import process, runs
folder, mode, processes = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
changes = (f"fake.mode={mode}",)
what = process.Fit(folder / "run.toml", folder / "manifest.json", folder / "runs", "fake", processes, changes)
try:
    process.fit(what, None, (sys.argv[1],))
except (KeyboardInterrupt, process.TrainingStopped):
    sys.exit(130)
"""


def start(folder: Path, mode: str, processes: int = 1, ignores: bool = False) -> subprocess.Popen[bytes]:
    """A parent in a process group of its own, as a shell would start it, and its trainers at work."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *FAKE, str(folder), mode, str(processes)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignores else None,
    )
    until(lambda: len(trainers(folder)) == processes)
    return parent


def trainers(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("runs/fake/pid-*")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_a_signal_reaches_the_trainer_once_and_it_is_waited_for(tmp_path, number):
    parent = start(tmp_path, "wait")
    [pid] = trainers(tmp_path)
    os.killpg(parent.pid, number)
    code = parent.wait(30)
    assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert json.loads((tmp_path / "runs/fake/checkpoint-0").read_text()) == [signal.SIGTERM]
    assert gone(pid)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["fake"]


def test_a_ctrl_c_that_the_shell_has_us_ignore_stops_all_the_same(tmp_path):
    """What a script starts with & ignores SIGINT; whoever sends one still means it."""
    parent = start(tmp_path, "wait", ignores=True)
    [pid] = trainers(tmp_path)
    os.kill(parent.pid, signal.SIGINT)
    assert parent.wait(30) == 130 and gone(pid)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["fake"]


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    parent = start(tmp_path, "deaf")
    [pid] = trainers(tmp_path)
    os.kill(parent.pid, signal.SIGINT)
    time.sleep(0.5)
    assert parent.poll() is None and not gone(pid)
    os.kill(parent.pid, signal.SIGINT)
    assert parent.wait(30) == 130
    until(lambda: gone(pid), 5)


def test_no_trainer_outlives_a_parent_that_was_killed(tmp_path):
    parent = start(tmp_path, "wait")
    [pid] = trainers(tmp_path)
    parent.kill()
    parent.wait()
    until(lambda: gone(pid), 10)
    assert json.loads((tmp_path / "runs/fake/checkpoint-0").read_text()) == [], "it ended by itself, with a checkpoint"


@pytest.mark.slow
def test_under_torchrun_too_a_refusal_is_told_and_a_signal_waits_for_every_checkpoint(what, tmp_path):
    with pytest.raises(TrainingRefused, match=r"batch\.rows"):
        process.fit(with_mode(what, "refuse", processes=2), None, FAKE)
    result = process.fit(dataclasses.replace(what, processes=2), None, FAKE)
    assert result["status"] == "complete"
    parent = start(tmp_path, "wait", processes=2)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(60) == 130
    for rank in (0, 1):
        assert json.loads((tmp_path / f"runs/fake/checkpoint-{rank}").read_text()) == [signal.SIGTERM]
    assert all(map(gone, trainers(tmp_path)))


def test_the_versions_that_a_run_mixes_are_read_from_its_file(tmp_path):
    (tmp_path / "here").mkdir()
    parts = [{"version": "b@1f"}, {"source": "x"}, {"version": "a"}, {"version": "b@1f", "source": "y"}]
    text = 'name = "m"\n' + "".join(
        "[[mix]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in part.items())
        for part in [*parts, {"version": "here"}]
    )
    (tmp_path / "m.toml").write_text(text, "utf-8")
    assert runs.mixed(tmp_path / "m.toml") == ["a", "b@1f"] and runs.name_of(tmp_path / "m.toml") == "m"
