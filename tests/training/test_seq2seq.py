"""Sequence to sequence: the loss of `transformers`, what a target hangs on, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSeq2SeqLM

from tests.training import runs
from tests.training.versions import make_version
from training import TrainingError, export, journal, mix, objectives
from training.batch import row_keys
from training.manifest import Version, open_version
from training.shards import Split

T5: dict[str, Any] = {"family": "t5", "layers": 2, "width": 48, "heads": 3}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return runs.version(tmp_path_factory.mktemp("version") / "v", layout="examples")


@pytest.fixture(scope="module")
def version(manifest) -> Version:
    return open_version(manifest)


def test_losses_are_those_of_transformers(version, tmp_path):
    """Their decoder shifts the labels itself, beginning with end-of-text; each row alone, without our padding."""
    objective: Any = objectives.load({"use": "seq2seq"}, "").over(version)
    model = objectives.build(objective, T5, version, "[model]")
    model.initialise(2)
    eot = version.manifest.tokenizer.eot
    export.export(model, tokenizer_file=version.tokenizer_file, eot=eot, length=32, folder=tmp_path / "hf")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hf").eval()
    rows = Split(version, "val").take(np.arange(9))
    with torch.inference_mode():
        ours = objective.losses(model.eval(), objective.prepare(rows, row_keys(0, 0, rows.index)))
        expected = []
        for r in range(9):
            text = torch.from_numpy(rows.tokens[r : r + 1, : rows.used[r]].astype(np.int64))
            labels = torch.from_numpy(rows.targets.tokens[r : r + 1, 1 : rows.targets.used[r]].astype(np.int64))
            logits = theirs(input_ids=text, labels=labels).logits
            expected.append(torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="none"))
    assert len(ours) == sum(int(used) - 1 for used in rows.targets.used) > 30
    assert (ours - torch.cat(expected)).abs().max() < 1e-4


def test_a_run_learns_to_write_and_is_judged_by_bytes(manifest, version, tmp_path):
    changes = ('objective.use="seq2seq"', 'model.family="t5"', "schedule.steps=60")
    done = runs.fit(runs.write_run(tmp_path / "run"), manifest, tmp_path / "runs", changes=changes)
    said = json.loads((done.folder / "report.json").read_text("utf-8"))["evaluation"]
    first = mix.Stream(journal.read(done.folder)[1], version).step(0)
    assert done.entries("step")[0]["tokens"] == first.used.sum() + first.targets.used.sum()
    split = Split(version, "val")
    used = split.take(np.arange(len(split))).targets.used
    assert said["targets"] == int((used - 1).sum()) and said["documents"] == len(split) and said["ngrams"] == []
    assert runs.losses(done)[-1] < 0.6 * runs.losses(done)[0]
    assert 0 < said["model"]["bits_per_byte"] < 2.5


def test_the_report_shows_texts_targets_and_what_was_written(manifest, version, tmp_path):
    """Beside the model's own greedy answer, asked by `transformers`; a prompt of the run file has no target."""
    changes = ('objective.use="seq2seq"', 'model.family="t5"', "schedule.steps=60", 'samples.prompts=["the mill"]')
    done = runs.fit(runs.write_run(tmp_path / "run"), manifest, tmp_path / "runs", changes=changes)
    runs.command(1, "export", str(done.folder), str(tmp_path / "hf"))
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "hf").eval()
    samples = json.loads((done.folder / "report.json").read_text("utf-8"))["samples"]
    assert samples["temperature"] == 0 and samples["return_sequences"] == 1
    first, *texts = samples["prompts"]
    assert (first["prompt"], first["doc_id"], first["target"]) == ("the mill", None, None)
    assert len(texts) == 2 and texts[0]["doc_id"] != texts[1]["doc_id"]
    tokenizer, eot = Tokenizer.from_file(str(version.tokenizer_file)), version.manifest.tokenizer.eot
    ids = version.documents["doc_id"].to_pylist()
    split = Split(version, "val")
    rows = split.take(np.arange(len(split)))
    page = (done.folder / "report.html").read_text("utf-8")
    for entry in samples["prompts"]:
        read = torch.tensor([[eot, *tokenizer.encode(entry["prompt"]).ids, eot]])
        if entry["doc_id"]:
            [row] = [r for r in range(len(rows)) if ids[rows.documents[r]] == entry["doc_id"]]
            read = torch.from_numpy(rows.tokens[row : row + 1, : rows.used[row]].astype(np.int64))
            target = rows.targets.tokens[row, : rows.targets.used[row]]
            assert entry["prompt"] == tokenizer.decode(read[0].tolist())
            assert entry["target"] == tokenizer.decode(target.tolist()) and entry["target"] in page
        made = theirs.generate(read, max_new_tokens=6, do_sample=False)[0].tolist()
        assert entry["continuations"] == [tokenizer.decode(made)]


def test_a_row_without_a_target_has_nothing_to_write(version):
    objective: Any = objectives.load({"use": "seq2seq"}, "").over(version)
    rows = Split(version, "val").take(np.arange(4))
    rows.targets.used[1] = 0
    keys = row_keys(0, 0, rows.index)
    prepared = objective.prepare(rows, keys)
    assert set(objective.targets(rows, keys) // rows.tokens.shape[1]) == {0, 2, 3}
    assert len(prepared["at"]) == len(prepared["targets"]) == sum(int(rows.targets.used[r]) - 1 for r in (0, 2, 3))


def test_what_cannot_be_written_is_said_before_the_first_step(manifest, tmp_path):
    run_file = runs.write_run(tmp_path / "run")
    changes = ('objective.use="seq2seq"', 'model.family="t5"')
    texts = [{"text": f"wheel {i} turns", "label": "ab"[i % 2]} for i in range(40)]
    for folder, layout in (("examples", "examples"), ("packed", "packed")):
        bare = make_version(tmp_path / folder, texts, layout=layout)
        with pytest.raises(TrainingError, match=r"\(seq2seq\).*has no targets; map the target"):
            runs.fit(run_file, bare, tmp_path / "runs", changes=changes)
    with pytest.raises(TrainingError, match=r"family gpt"):
        runs.fit(run_file, manifest, tmp_path / "runs", changes=changes[:1])
    assert not list((tmp_path / "runs").glob("*/metrics.jsonl"))
