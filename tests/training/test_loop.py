"""What a step does when it cannot be done: not finite, out of memory; and the average of the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training import runs
from training import TrainingError, checkpoint, journal, loop, machine
from training.journal import Journal


@pytest.fixture
def run_file(tmp_path) -> Path:
    return runs.write_run(tmp_path)


@pytest.fixture
def spoil(monkeypatch):
    """Makes the loss of some steps, counted from 1, infinite."""

    def at(*steps: int) -> None:
        plain = loop.Loop._gradients

        def gradients(self, laid):
            loss, weight = plain(self, laid)
            return (float("inf") if self.step + 1 in steps else loss), weight

        monkeypatch.setattr(loop.Loop, "_gradients", gradients)

    return at


def weights(books: Journal) -> dict[str, torch.Tensor]:
    run = journal.read(books.folder, verify=False)
    return dict(loop.load(run[1], run[2], books).named_parameters())


def test_a_step_that_is_not_finite_changes_no_weight_and_names_its_documents(run_file, manifest, tmp_path, spoil):
    changes = ("optimizer.patience=3", "schedule.warmup=0", "schedule.decay=0", "checkpoint.every=1")
    before = runs.fit(run_file, manifest, tmp_path / "a", after=4, changes=changes)
    spoil(5, 6, 9)
    after = runs.fit(run_file, manifest, tmp_path / "b", after=6, changes=changes)
    assert all(torch.equal(a, b) for a, b in zip(weights(before).values(), weights(after).values(), strict=True))
    done = runs.fit(run_file, manifest, tmp_path / "b", changes=changes)
    refused = done.entries("refused")
    assert [e["step"] for e in refused] == [5, 6, 9] and done.complete
    assert [e["step"] for e in done.entries("step")] == [1, 2, 3, 4, 7, 8, 10, 11, 12]
    assert len(refused[0]["rows"]) == 6 and all(i.startswith("toy:") for i in refused[0]["documents"])
    assert refused[0]["loss"] == "inf"
    report = json.loads((done.folder / "report.json").read_text())
    assert report["run"]["refused_steps"] == 3 and len(report["training"]["validation"]) == 3


def test_after_so_many_in_a_row_it_stops_also_when_it_was_resumed_between(run_file, manifest, tmp_path, spoil):
    spoil(5, 6, 7)
    changes = ("optimizer.patience=3", "checkpoint.every=1")
    runs.fit(run_file, manifest, tmp_path, after=6, changes=changes)
    with pytest.raises(TrainingError, match=r"step 7: loss inf .* 3 steps in a row; nothing was changed.*toy:"):
        runs.fit(run_file, manifest, tmp_path, changes=changes)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_says_which_micro_batch_to_try(run_file, manifest, tmp_path, monkeypatch, error):
    def forward(self, prepared):
        raise error

    monkeypatch.setattr(loop.Scored, "forward", forward)
    with pytest.raises(TrainingError, match=r"2 rows at once; try --set batch\.micro_rows=1\b"):
        runs.fit(run_file, manifest, tmp_path)
    with pytest.raises(TrainingError, match=r"1 rows at once; make \[model\] smaller"):
        runs.fit(run_file, manifest, tmp_path, changes=("batch.micro_rows=1",))


def test_the_processors_own_allocator_is_understood(manifest):
    with pytest.raises(TrainingError, match="micro_rows=4"), machine.fitting(8):
        torch.empty(1 << 50, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="size"), machine.fitting(8):
        torch.ones(2) @ torch.ones(3)


def test_the_average_is_what_is_judged_kept_and_loaded(run_file, manifest, tmp_path):
    changes = ("optimizer.average=0.8", "checkpoint.every=1", "checkpoint.keep=100", "evaluation.every=12")
    plain = runs.fit(run_file, manifest, tmp_path / "plain", changes=changes[1:])
    runs.fit(run_file, manifest, tmp_path / "mean", after=5, changes=changes)
    mean = runs.fit(run_file, manifest, tmp_path / "mean", changes=changes)
    assert runs.losses(plain) == runs.losses(mean)  # the average moves nothing
    assert plain.entries("validation") != mean.entries("validation")
    wanted: dict[str, torch.Tensor] = {}
    _, run, version = journal.read(plain.folder, verify=False)
    model = loop._build(run, version)
    model.initialise(run.seed)
    wanted = {name: p.detach().double() for name, p in model.named_parameters()}
    for number, found in enumerate(checkpoint.steps(plain.checkpoints)):
        checkpoint.load_weights(found, model)
        decay = min(0.8, (1 + number) / (10 + number))
        wanted = {n: decay * wanted[n] + (1 - decay) * p.detach().double() for n, p in model.named_parameters()}
    for name, found in weights(mean).items():
        assert np.allclose(found.detach().numpy(), wanted[name].numpy(), atol=1e-6)
    judged = json.loads((mean.folder / "report.json").read_text())["evaluation"]["model"]["loss"]
    assert abs(judged - json.loads((plain.folder / "report.json").read_text())["evaluation"]["model"]["loss"]) > 1e-4
