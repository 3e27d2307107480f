"""Checkpoints are whole or not there, and what is no checkpoint of this run is refused in one sentence."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT
from tests.training import runs
from training import TrainingError, checkpoint, models
from training.config import Checkpoint
from training.config import Optimizer as Settings
from training.manifest import file_digest
from training.optim import Optimizer
from training.parallel import Group

TABLE = {"family": "gpt", "layers": 1, "width": 16, "heads": 2}


def build(**changes):
    model = models.build({**TABLE, **changes}, vocab_size=40, length=16, where="[model]")
    model.initialise(1)
    return model


class Books:
    """A model, its optimiser after one step, and the writer of a folder."""

    def __init__(self, folder: Path, **settings) -> None:
        self.folder, self.model = folder, build()
        self.optimizer = Optimizer(self.model, Settings())
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step(1)
        self.writer = checkpoint.Writer(folder, Checkpoint(**settings), Group(0, 1, torch.device("cpu")))

    def save(self, step: int, loss: float | None = None) -> None:
        self.writer.save(step, self.model, self.optimizer, {"validation_loss": loss})


@pytest.fixture
def books(tmp_path) -> Books:
    return Books(tmp_path)


def names(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoint.steps(folder)]


def test_the_files_are_safetensors_and_hold_every_tensor(books):
    books.save(3)
    assert books.writer.finish() == 3 and books.writer.finish() is None
    [found] = checkpoint.steps(books.folder)
    wanted = {f"model/{n}": p.detach() for n, p in books.model.named_parameters()}
    wanted |= {f"optimizer/{n}": t for n, t in books.optimizer.state().items()}
    [shard] = found.glob("*.safetensors")
    for tensors in (load_file(shard), runs.tensors(found)):
        assert tensors.keys() == wanted.keys() and all(torch.equal(wanted[name], tensors[name]) for name in wanted)
    assert {path.name for path in found.iterdir()} == {"state.json", shard.name}
    other = Optimizer(build(), Settings())
    checkpoint.load_optimizer(found, other)
    assert all(torch.equal(tensor, other.state()[name]) for name, tensor in books.optimizer.state().items())


def test_a_save_goes_on_in_the_background_with_a_copy_and_the_one_before_stays(books, monkeypatch):
    books.save(1)
    books.writer.finish()
    before = {name: parameter.detach().clone() for name, parameter in books.model.named_parameters()}
    go, digests = threading.Event(), checkpoint.Writer._digests
    monkeypatch.setattr(checkpoint.Writer, "_digests", lambda *a: (go.wait(60), digests(*a))[1])
    books.writer.settings = Checkpoint(keep=1)
    books.save(2)
    with torch.no_grad():
        for parameter in books.model.parameters():
            parameter.zero_()
    assert books.writer.check() is None and names(books.folder) == [1]
    go.set()
    assert books.writer.finish() == 2 and names(books.folder) == [2]
    tensors = runs.tensors(checkpoint.steps(books.folder)[-1])
    assert all(torch.equal(before[name], tensors[f"model/{name}"]) for name in before)


def test_what_goes_wrong_in_the_background_stops_the_run(run_file, manifest, tmp_path, monkeypatch):
    digests = checkpoint.Writer._digests

    def full(self, folder):
        if "00000008" in folder.name:
            raise OSError(28, "No space left on device")
        return digests(self, folder)

    monkeypatch.setattr(checkpoint.Writer, "_digests", full)
    with pytest.raises(TrainingError, match=r"step 8 could not be written .*No space left.*one before it stays"):
        runs.fit(run_file, manifest, tmp_path)
    [folder] = tmp_path.iterdir()
    assert names(folder / "checkpoints") == [4]


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("best", [False, True])
def test_the_newest_stay_and_the_best(tmp_path, keep, best):
    losses = [3.0, None, 1.0, 2.0, None, 1.5]
    books = Books(tmp_path, keep=keep, keep_best=best)
    for step in range(1, 7):
        books.save(step, losses[step - 1])
        books.writer.finish()
        scored = [(loss, s) for s, loss in enumerate(losses[:step], 1) if loss is not None]
        kept = set(range(max(1, step - keep + 1), step + 1)) | ({min(scored)[1]} if best else set())
        assert set(names(tmp_path)) == kept


@pytest.mark.parametrize("moment", ["_digests", "_remove_old"])
def test_killed_while_it_writes_the_one_before_loads(run_file, manifest, tmp_path, moment):
    """The shards are there and the rest is not; or the new one is whole and the old one not yet gone."""
    slow = f"""
import sys, time
from training import checkpoint
plain = checkpoint.Writer.{moment}
def slow(self, *a):
    if self._step == 8:
        print("now", flush=True)
        time.sleep(60)
    return plain(self, *a)
checkpoint.Writer.{moment} = slow
from training.__main__ import main
main()
"""
    arguments = ["fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == b"now\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [folder] = tmp_path.iterdir()
    whole = names(folder / "checkpoints")
    assert whole == {"_digests": [4], "_remove_old": [4, 8]}[moment]
    books = runs.fit(run_file, manifest, tmp_path)
    assert books.table["resumed_at"] == [whole[-1]] and books.complete
    assert names(books.checkpoints) == [8, 12] and not list(books.checkpoints.glob(".step*"))


def altered(found: Path, change) -> None:
    table = runs.state(found)
    change(table)
    (found / "state.json").write_text(json.dumps(table), "utf-8")


def test_another_model_an_unknown_format_and_strange_files_are_refused(books):
    books.save(1)
    books.writer.finish()
    [found] = checkpoint.steps(books.folder)
    with pytest.raises(TrainingError, match=r"'layers\.1\..*on one side only: the checkpoint is of another model"):
        checkpoint.load_weights(found, build(layers=2))
    with pytest.raises(TrainingError, match=r"is \[40, 16\], the model's is \[40, 32\]: .* another model"):
        checkpoint.load_weights(found, build(width=32))
    with pytest.raises(TrainingError, match=r"which this run has not"):
        checkpoint.load_optimizer(found, Optimizer(build(), Settings(use="adamw")))
    save_file({"model/embedding.weight": torch.zeros(40, 16)}, found / "more.safetensors")
    with pytest.raises(TrainingError, match=r"more\.safetensors: is no part of the checkpoint"):
        checkpoint.read_state(found)
    altered(found, lambda table: table.update(format="gristmill.checkpoint/1"))
    with pytest.raises(
        TrainingError, match=r"format 'gristmill\.checkpoint/1' is not known; .*'gristmill\.checkpoint/2'"
    ):
        checkpoint.read_state(found)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_is_never_read(books, tmp_path):
    books.save(1)
    books.writer.finish()
    [found] = checkpoint.steps(books.folder)
    [shard] = found.glob("*.safetensors")
    trap = tmp_path / "sprung"
    (found / ".metadata").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(TrainingError, match=r"\.metadata: is no part of the checkpoint"):
        checkpoint.read_state(found)
    checkpoint.load_weights(found, books.model)
    shard.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(TrainingError, match="missing or altered"):
        (found / ".metadata").unlink()
        checkpoint.read_state(found)
    altered(found, lambda table: table["files"].update({shard.name: file_digest(shard)}))
    checkpoint.read_state(found)
    with pytest.raises(TrainingError, match="not safetensors that can be read"):
        checkpoint.load_weights(found, books.model)
    assert not trap.exists()


def test_a_shard_of_the_version_that_changed_between_stop_and_resume_is_refused(run_file, manifest, tmp_path):
    copy = Path(shutil.copytree(manifest.parent, tmp_path / "v"))
    runs.fit(run_file, copy, tmp_path / "runs", after=5)
    shard = min((copy / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(TrainingError, match=shard.name):
        runs.fit(run_file, copy, tmp_path / "runs")
