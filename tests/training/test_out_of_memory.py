"""What the end of memory is told as, wherever it comes: a sentence with what to try, and a run that then goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.training import runs
from training import OutOfMemory, decoding
from training.objectives import causal

EVALUATED = ("evaluation.micro_rows=4", "evaluation.rows=8")


def out_of_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def goes_on(run_file, manifest, folder, *changes: str) -> None:
    """The advice can be taken: the run that stands is completed, and no step is done twice."""
    done = runs.fit(run_file, manifest, folder, changes=(*EVALUATED, *changes))
    assert done.complete and [e["step"] for e in done.entries("step")] == list(range(1, 13))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_in_an_evaluation_says_how_many_rows_to_try(run_file, manifest, tmp_path, monkeypatch, error):
    """The last one, after all steps were done: of a validation between them likewise, from the checkpoint before."""

    def losses(self, model, batch):
        if not torch.is_inference_mode_enabled() or len(batch["tokens"]) < 4:
            return scored(self, model, batch)
        raise error

    scored = causal.Objective.losses
    monkeypatch.setattr(causal.Objective, "losses", losses)
    for every in (5, 100):
        changes = (*EVALUATED, f"evaluation.every={every}")
        with pytest.raises(OutOfMemory, match=r"4 rows at once; try --set evaluation\.micro_rows=2; the run goes on"):
            runs.fit(run_file, manifest, tmp_path / str(every), changes=changes)
        goes_on(run_file, manifest, tmp_path / str(every), "evaluation.micro_rows=2")


def test_samples_that_do_not_fit_are_drawn_fewer_at_once(run_file, manifest, tmp_path, monkeypatch):
    """The same texts as where all fit, for a batch decides nothing; where not one fits, the sentence says how long."""
    plain = runs.fit(run_file, manifest, tmp_path / "plain", changes=EVALUATED)
    add, most = decoding.Batch.add, [1]

    def narrow(self, writings):
        return add(self, writings) if len(self.rows) + len(writings) <= most[0] else out_of_memory()

    monkeypatch.setattr(decoding.Batch, "add", narrow)
    found = runs.fit(run_file, manifest, tmp_path / "narrow", changes=EVALUATED)
    texts = [json.loads((each.folder / "report.json").read_text("utf-8"))["samples"] for each in (plain, found)]
    assert texts[0] == texts[1] and len(texts[0]["prompts"]) == 2
    most[0] = 0
    with pytest.raises(OutOfMemory, match=r"6 new tokens a text; try --set samples\.new_tokens=3; the run goes on"):
        runs.fit(run_file, manifest, tmp_path / "none", changes=EVALUATED)
    most[0] = 32
    goes_on(run_file, manifest, tmp_path / "none", "samples.new_tokens=3")


def test_n_grams_that_do_not_fit_are_named_with_those_to_try(run_file, manifest, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("training.ngram.KneserNey.read", out_of_memory)
        with pytest.raises(OutOfMemory, match=r"3 orders of n-grams; try --set evaluation\.orders=\[2,3\]; the run go"):
            runs.fit(run_file, manifest, tmp_path, changes=EVALUATED)
    goes_on(run_file, manifest, tmp_path, "evaluation.orders=[2,3]")
