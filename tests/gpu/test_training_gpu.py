"""What must be checked on a GPU: `pytest -m gpu tests/gpu`. Skipped, with the reason, where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training import runs
from training import models
from training.batch import row_keys
from training.models._dropout import Dropout, dropped

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]
SMALL = [
    {"family": "gpt", "layers": 3, "width": 64, "heads": 4, "kv_heads": 2},
    {"family": "bert", "layers": 3, "width": 64, "heads": 4},
    {"family": "modernbert", "layers": 3, "width": 64, "heads": 4, "window": 8},
]
RUNS = [(), ('model.family="bert"', 'objective.use="masked"')]


@pytest.mark.parametrize("table", SMALL, ids=[table["family"] for table in SMALL])
def test_hidden_states_are_those_of_the_cpu(table):
    model = models.build(table, vocab_size=300, length=64, where="[model]")
    model.initialise(5)
    tokens = torch.randint(300, (4, 64), generator=torch.Generator().manual_seed(1))
    positions, pieces = torch.arange(64).expand(4, -1), torch.arange(64).div(13, rounding_mode="floor").int()
    given = (tokens, positions, pieces.expand(4, -1))
    with torch.inference_mode():
        on_cpu = model(*given)
        on_gpu = model.cuda()(*(x.cuda() for x in given)).cpu()
    assert float((on_cpu - on_gpu).abs().max()) < 1e-4


def test_dropout_leaves_out_what_it_does_on_the_cpu():
    x = torch.randn(8, 50, 64, generator=torch.Generator().manual_seed(1))
    keys = torch.from_numpy(row_keys(1, 2, np.arange(8)).view(np.int64))
    on_cpu = dropped(x, Dropout(0.3, keys), 4)
    for leave_out in (dropped, torch.compile(dropped)):
        assert torch.equal(leave_out(x.cuda(), Dropout(0.3, keys.cuda()), 4).cpu() == 0, on_cpu == 0)


@pytest.mark.parametrize("changes", RUNS, ids=["causal", "masked"])
def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path, changes):
    manifest = runs.version(tmp_path / "v")
    run = runs.write_run(tmp_path)
    whole = runs.fit(run, manifest, tmp_path / "whole", changes=changes)
    runs.fit(run, manifest, tmp_path / "parts", after=5, changes=changes)
    runs.fit(run, manifest, tmp_path / "parts", after=3, changes=changes)
    parts = runs.fit(run, manifest, tmp_path / "parts", changes=changes)
    assert parts.table["resumed_at"] == [5, 8] and parts.table["chain"] == whole.table["chain"]
    assert np.allclose(runs.losses(whole), runs.losses(parts), rtol=0, atol=1e-3)


@pytest.mark.parametrize("changes", [(), ("parallel.activation_checkpointing=true",)], ids=str)
@pytest.mark.parametrize("compute", ["float32", "bf16"])
def test_shards_of_one_process_learn_like_the_whole(tmp_path, changes, compute):
    """FSDP2 by NCCL at world size 1, stopped and resumed, and its checkpoint read without it."""
    manifest, run = runs.version(tmp_path / "v"), runs.write_run(tmp_path)
    changes = (*changes, f'precision.compute="{compute}"', "optimizer.learning_rate=0.003")
    whole = runs.fit(run, manifest, tmp_path / "whole", changes=changes)
    runs.fit(run, manifest, tmp_path / "shards", after=5, changes=(*changes, 'parallel.use="fsdp"'))
    runs.fit(run, manifest, tmp_path / "shards", after=3, changes=changes)
    shards = runs.fit(run, manifest, tmp_path / "shards", changes=(*changes, 'parallel.use="fsdp"'))
    assert shards.table["resumed_at"] == [5, 8] and shards.table["chain"] == whole.table["chain"]
    tolerance = {"float32": 1e-3, "bf16": 1e-2}[compute]
    assert np.allclose(runs.losses(whole), runs.losses(shards), rtol=0, atol=tolerance)
