"""Evaluation: sums over documents, bytes that add up, n-grams on the same targets, whatever the batch."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer

from tests.training import runs
from training import batch, config, evaluate, loop, order, outcome
from training.manifest import open_version
from training.objectives.causal import Objective
from training.parallel import joined
from training.progress import Silent
from training.shards import Split


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return runs.version(tmp_path_factory.mktemp("version") / "v", length=24)


@pytest.fixture(scope="module")
def finished(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return runs.fit(runs.write_run(folder), manifest, folder)


def scored(finished, manifest, **settings):
    run = config.load(runs.write_run(finished.folder.parent), ['precision.compute="float32"'])
    read = open_version(manifest)
    model = loop.load(run, read, finished)
    asked = run.evaluation.model_copy(update=settings)
    with joined(run.precision) as group:
        return evaluate.score(model, Objective(), read, asked, run.precision, group), model, read


def test_the_batch_does_not_matter(finished, manifest):
    one, _, _ = scored(finished, manifest, micro_rows=1)
    all_, _, _ = scored(finished, manifest, micro_rows=64)
    assert np.array_equal(one.targets, all_.targets) and np.array_equal(one.size, all_.size)
    assert np.allclose(one.nats["model"], all_.nats["model"], rtol=1e-5)


def test_a_document_is_scored_as_if_it_stood_alone(finished, manifest):
    """Against the definition: each piece of each validation document by itself through the model."""
    tally, model, read = scored(finished, manifest)
    nats, targets = np.zeros_like(tally.targets), np.zeros_like(tally.targets)
    with torch.inference_mode():
        for row in Split(read, "val"):
            ends = [*row.starts[1:], row.used]
            for start, end, document in zip(row.starts, ends, row.documents, strict=True):
                tokens = torch.from_numpy(row.tokens[start:end].astype(np.int64))[None]
                logits = model.logits(model(tokens, torch.arange(end - start)[None], None))[0, :-1]
                said = torch.log_softmax(logits.double(), -1).gather(1, tokens[0, 1:, None])
                nats[document] -= float(said.sum())
                targets[document] += end - start - 1
    assert np.array_equal(targets, tally.targets)
    assert np.allclose(nats, tally.nats["model"], rtol=1e-4)


def test_bytes_of_the_targets_are_the_bytes_of_the_text(finished, manifest):
    tally, _, read = scored(finished, manifest)
    index = read.documents
    whole = np.flatnonzero(tally.targets == np.array(index["tokens"]) - 1)
    assert len(whole) > 3
    assert tally.size[whole].tolist() == np.array(index["text_bytes"])[whole].tolist()
    cut = np.flatnonzero((tally.targets > 0) & (tally.targets < np.array(index["tokens"]) - 1))
    missing = np.array(index["text_bytes"])[cut] - tally.size[cut]
    assert (missing >= 0).all() and (missing > 0).sum() > 10


def test_token_bytes_are_those_of_what_the_tokens_decode_to(manifest):
    read = open_version(manifest)
    sizes = evaluate.token_bytes(read.tokenizer_file)
    tokenizer = Tokenizer.from_file(str(read.tokenizer_file))
    for text in ("the mill wheel", "水车 grün\n", "\u2028x"):
        assert sum(sizes[tokenizer.encode(text).ids]) == len(text.encode())
    assert sizes[read.manifest.tokenizer.eot] == 0


def test_groups_add_up_and_the_file_holds_every_number(finished):
    report = json.loads((finished.folder / "report.json").read_text())
    evaluation = report["evaluation"]
    table = pq.read_table(finished.folder / evaluation["documents_file"])
    nats, size = float(np.sum(table["nats_model"])), int(np.sum(table["bytes"]))
    assert evaluation["bytes"] == size and evaluation["documents"] == table.num_rows
    assert math.isclose(evaluation["model"]["bits_per_byte"], nats / math.log(2) / size)
    for column in ("source", "language"):
        groups = evaluation[f"by_{column}"]
        assert sum(g["targets"] for g in groups.values()) == evaluation["targets"]
        assert set(groups) == {v or "unknown" for v in table[column].to_pylist()}
        for name, said in groups.items():
            mine = np.array([(v or "unknown") == name for v in table[column].to_pylist()])
            loss = float(np.array(table["nats_model"])[mine].sum() / np.array(table["targets"])[mine].sum())
            assert math.isclose(said["loss"], loss) and math.isclose(said["perplexity"], math.exp(loss))


def test_n_grams_are_trained_on_the_rows_that_were_read(finished, manifest):
    run = config.load(runs.write_run(finished.folder.parent))
    read = open_version(manifest)
    tally, _, _ = scored(finished, manifest)
    rows = outcome.rows_read(run, read, 12)
    steps = [batch.positions(step, 6) for step in range(12)]
    seen = {int(r) for s in steps for r in order.rows(len(Split(read, "train")), run.seed, s)}
    assert rows.tolist() == sorted(seen)
    counted = evaluate.yardstick(tally, Objective(), [2, 3], rows, Silent())
    assert counted == sum(Split(read, "train")[i].used for i in seen)
    report = json.loads((finished.folder / "report.json").read_text())
    for said in report["evaluation"]["ngrams"][:2]:
        assert math.isclose(said["bits_per_byte"], tally.numbers(f"ngram{said['order']}")["bits_per_byte"])
        assert said["tokens_read"] == counted


def test_a_split_that_is_not_there_is_an_error(finished, manifest):
    from training.manifest import ManifestError

    with pytest.raises(ManifestError, match="no split 'test'; has: train, val"):
        scored(finished, manifest, split="test")
