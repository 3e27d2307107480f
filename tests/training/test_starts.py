"""Documents that begin with another token than they end with, as a tokenizer's own template has it ([CLS] of BERT)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from tests.training import runs
from tests.training.versions import EOT, train_tokenizer
from training import loading, objectives
from training.batch import row_keys
from training.manifest import open_version
from training.shards import Split

START = "<|start|>"
# What an objective wants beside packed rows and a decoder.
FAMILIES = {"masked": "bert", "classify": "bert", "span": "t5", "seq2seq": "t5"}
LAYOUTS = dict.fromkeys(("classify", "seq2seq", "instruct"), "examples")


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """A version of each layout; their tokenizer's template puts START before a text and end-of-text behind it."""
    tokenizer = train_tokenizer([" ".join(runs.WORDS)] * 20, 300)
    tokenizer.add_special_tokens([START])
    ids = [(token, tokenizer.token_to_id(token)) for token in (START, EOT)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {EOT}", special_tokens=ids)
    folder = tmp_path_factory.mktemp("starts")
    return {
        layout: runs.version(folder / layout, layout=layout, length=128, tokenizer=tokenizer, start=START)
        for layout in ("packed", "examples")
    }


@pytest.mark.parametrize("objective", objectives.available())
def test_runs_their_exports_and_their_reports_begin_texts_as_the_version_does(versions, tmp_path, objective):
    manifest = versions[LAYOUTS.get(objective, "packed")]
    known = json.loads(manifest.read_bytes())["tokenizer"]
    family = FAMILIES.get(objective, "gpt")
    changes = (f'objective.use="{objective}"', f'model.family="{family}"', "schedule.steps=3", "schedule.warmup=0")
    done = runs.fit(
        runs.write_run(tmp_path / "run"), manifest, tmp_path / "runs", changes=(*changes, "schedule.decay=1")
    )
    runs.command(1, "export", str(done.folder), str(tmp_path / "hf"))
    mine, its = loading.load(done.folder, "cpu"), loading.load(tmp_path / "hf", "cpu")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (known["bos"], known["eot"])
    for text in ("the mill", "", "that river"):
        ids = its.encode(text)
        assert ids == theirs(text)["input_ids"] and ids[0] == known["bos"] != known["eot"]
        if objective != "masked":  # whose run reads no text of a user's
            assert mine.encode(text) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == text
    # A decoder that reads an encoder begins with the end of text.
    assert mine.start == its.start == known["eot" if family == "t5" else "bos"]
    said = json.loads((done.folder / "report.json").read_text("utf-8"))
    written = json.dumps([said.get("samples"), said.get("evaluation")])
    assert START not in written


def test_a_decoder_begins_with_the_end_of_text_whatever_opens_its_target(versions):
    version = open_version(versions["examples"])
    rows = Split(version, "train").take(np.arange(8))
    known = version.manifest.tokenizer
    assert set(rows.targets.tokens[:, 0]) == {known.start} != {known.eot}
    objective = objectives.load({"use": "seq2seq"}, "[objective]").over(version)
    batch = objective.prepare(rows, row_keys(0, 0, rows.index))
    assert set(batch["tokens"][:, 0].tolist()) == {known.eot}
    assert known.start not in batch["targets"].tolist()
