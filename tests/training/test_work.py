"""FLOPs of a batch of each objective against torch's own counter, over the padded rows that are really multiplied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training import objectives
from training.batch import row_keys
from training.manifest import Version, open_version
from training.models import Work, bert, gpt
from training.shards import Split

PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "causal": ({"family": "gpt", "form": "gpt2"}, {"use": "causal"}),
    "masked": ({"family": "bert"}, {"use": "masked"}),
    "span": ({"family": "t5"}, {"use": "span"}),
}


@pytest.fixture(scope="module")
def version(manifest: Path) -> Version:
    return open_version(manifest, verify=False)


@pytest.mark.parametrize("name", PAIRS)
def test_a_step_takes_three_forward_passes_of_what_is_no_padding(name, version, monkeypatch):
    """The counter sees padding too: counted with it, and with attention over whole rows, the figures are equal."""
    monkeypatch.setattr(gpt, "causal", lambda *_: None)
    monkeypatch.setattr(bert, "both_ways", lambda *_: torch.ones(6, 1, 32, 32, dtype=torch.bool))
    table, use = PAIRS[name]
    objective = objectives.load(use, "[objective]").over(version)
    model = objectives.build(objective, {**table, "layers": 2, "width": 32, "heads": 2}, version, "[model]")
    rows = Split(version, "train").take(np.arange(6))
    batch = objective.prepare(rows, row_keys(0, 0, rows.index))
    work = objectives.work(rows, batch)
    assert 0 < work.tokens < batch["tokens"].numel() and work.targets == len(batch["targets"])
    padded = {"tokens": batch["tokens"].numel()}
    if "encoder_tokens" in batch:
        assert 0 < work.encoder_tokens < batch["encoder_tokens"].numel()
        padded["encoder_tokens"] = batch["encoder_tokens"].numel()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        objective.losses(model, batch)
    counted = 3 * counter.get_total_flops()
    assert model.flops(work) < model.flops(work._replace(**padded))
    assert model.flops(work._replace(**padded)) == counted


def test_a_masked_batch_counts_its_head_at_the_masks_alone(version):
    rows = Split(version, "train").take(np.arange(6))
    objective = objectives.load({"use": "masked"}, "[objective]").over(version)
    model = objectives.build(objective, {"family": "bert", "layers": 1, "width": 32, "heads": 2}, version, "[model]")
    work = objectives.work(rows, objective.prepare(rows, row_keys(0, 0, rows.index)))
    assert work == Work(int(rows.used.sum()), 32, work.targets) and work.targets < 0.3 * work.tokens
    head = model.flops(work) - model.flops(work._replace(targets=0))
    assert head == 6 * work.targets * 32 * (32 + version.manifest.tokenizer.vocab_size + 1)
