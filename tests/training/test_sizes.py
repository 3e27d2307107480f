"""One dial: the model has the size it says, what the run file says itself stays, and nothing of the dial is left."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from tests.training import runs
from training import TrainingError, config, models, sizes

PLAIN = 'size = "10M"\n' + runs.RUN.replace("layers = 2\nwidth = 32\nheads = 2\n", "").replace(
    "rows = 6\nmicro_rows = 2\n", "", 1
).replace("learning_rate = 0.01\n", "")


def filled(tmp_path, size: str, vocabulary: int = 8192, length: int = 256, text: str = PLAIN, *changes: str):
    run = config.load(runs.write_run(tmp_path, text), [f"size={size}", *changes])
    manifest = SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=vocabulary), length=length)
    return sizes.filled(run, SimpleNamespace(manifest=manifest))


@pytest.mark.parametrize(
    ("size", "vocabulary"),
    [("5M", 8192), ("10M", 8192), ("30M", 16384), ("124M", 50257), ("350M", 50257), ("1.5B", 100_000), ("3B", 151_936)],
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_has_the_size_it_says(tmp_path, size, vocabulary, tied) -> None:
    if not tied and size in ("5M", "10M", "30M"):
        pytest.skip("two tables of the vocabulary leave no room")
    run = filled(tmp_path, size, vocabulary, 256, PLAIN, f"model.tie_embeddings={str(tied).lower()}")
    with torch.device("meta"):
        model = models.build(run.model, vocab_size=vocabulary, length=256, where="[model]")
    count = model.parameter_counts()["parameters"]
    assert abs(count / sizes.target(size) - 1) <= sizes.NEAR
    assert 16 <= run.model["width"] / run.model["layers"] <= 256 and run.model["width"] % run.model["heads"] == 0
    inner = count - model.parameter_counts()["embedding_parameters"]
    assert inner == sizes.parameters(run.model["layers"], run.model["width"])
    compute = 6 * inner * 20 * count
    assert math.isclose(run.optimizer.learning_rate, 0.3118 / compute**0.125, rel_tol=0.05)
    assert math.isclose(run.batch.rows * 256, 0.2920 * compute**0.3271, rel_tol=0.1)
    assert run.size is None and sizes.filled(run, None) is run


def test_larger_models_take_smaller_rates_and_larger_batches(tmp_path) -> None:
    found = [filled(tmp_path, size) for size in ("5M", "10M", "30M", "100M", "300M", "1B")]
    rates, rows = [r.optimizer.learning_rate for r in found], [r.batch.rows for r in found]
    assert rates == sorted(rates, reverse=True) and rows == sorted(rows) and len(set(rates)) == len(rates)


def test_what_the_run_file_says_itself_stays(tmp_path) -> None:
    run = filled(tmp_path, "10M", 8192, 256, PLAIN, "batch.rows=4", "optimizer.learning_rate=0.02")
    assert (run.batch.rows, run.optimizer.learning_rate) == (4, 0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model.width=64"], "fills layers, width, heads; remove it, or"),
        (["model.family=bert"], "not 'bert'"),
        (["size=ten"], "write it like 10M"),
        (["size=0.1M"], "no decoder of 100,000 parameters for a vocabulary of 8192"),
    ],
)
def test_what_cannot_be_filled_is_said(tmp_path, changes, words) -> None:
    with pytest.raises(TrainingError, match=words):
        filled(tmp_path, "10M", 8192, 256, PLAIN, *changes)
