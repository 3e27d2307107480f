"""Any number of processes: the same rows, the same losses within rounding, whole or sharded, dying or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor import DTensor

from tests.training import runs
from training import TrainingError, batch, checkpoint, config, loop, models
from training.journal import Journal
from training.manifest import open_version
from training.parallel import Group, gather, joined
from training.progress import Silent

EXACT = 'precision.compute="float32"'
FSDP, DDP = 'parallel.use="fsdp"', 'parallel.use="ddp"'
# Muon orthogonalises in bfloat16: another order of float32 sums moves a loss of 4 to 6 nats by up to 1.5e-3.
NEAR = 5e-3
FAMILIES = {
    "gpt": (),
    "bert": ('model.family="bert"', 'objective.use="masked"'),
    "modernbert": ('model.family="modernbert"', 'objective.use="masked"'),
    "t5": ('model.family="t5"', 'objective.use="span"'),
}


@pytest.fixture(scope="module")
def alone(run_file, manifest, tmp_path_factory) -> Journal:
    """A run of one process that nothing disturbs."""
    return runs.fit(run_file, manifest, tmp_path_factory.mktemp("alone"), changes=(EXACT,))


def same_rows(left: Journal, right: Journal) -> None:
    """The ledgers are equal: the chain over all spans read, and the tokens of each step."""
    ends = [runs.state(checkpoint.steps(j.checkpoints)[-1]) for j in (left, right)]
    assert ends[0]["chain"] == ends[1]["chain"] == left.table["chain"] == right.table["chain"]
    read = [[(e["step"], e["tokens"]) for e in j.entries("step")] for j in (left, right)]
    assert read[0] == read[1] and len(read[0]) == 12


THREE_WORLDS = [(1, DDP), (2, DDP), (1, DDP)]
THREE_WAYS = pytest.param([(2, DDP), (2, FSDP), (2, DDP)], marks=pytest.mark.slow)


@pytest.mark.parametrize("parts", [THREE_WORLDS, THREE_WAYS], ids=["1-2-1", "ddp-fsdp-ddp"])
def test_stopped_twice_and_resumed_by_others(alone, run_file, manifest, tmp_path, parts):
    for (processes, use), after in zip(parts, (5, 3, None), strict=True):
        begin = runs.fit if processes == 1 else lambda *a, **k: runs.several(2, *a, **k)
        books = begin(run_file, manifest, tmp_path, after=after, changes=(EXACT, use))
    assert books.table["resumed_at"] == [5, 8] and books.table["processes"] == parts[-1][0]
    same_rows(alone, books)
    assert np.allclose(runs.losses(alone), runs.losses(books), rtol=0, atol=NEAR)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost(alone, run_file, manifest, tmp_path):
    books = runs.several(2, run_file, manifest, tmp_path, changes=(EXACT, FSDP), restarts=1, kill_at=6)
    assert books.table["resumed_at"] == [4]
    same_rows(alone, books)
    assert np.allclose(runs.losses(alone), runs.losses(books), rtol=0, atol=NEAR)


@pytest.mark.parametrize("use", ["muon", "adamw"])
@pytest.mark.parametrize("compute", ["float32", "bf16"])
def test_shards_of_one_process_learn_like_the_whole(run_file, manifest, tmp_path, use, compute):
    changes = (f'optimizer.use="{use}"', f'precision.compute="{compute}"', "optimizer.learning_rate=0.003")
    whole = runs.fit(run_file, manifest, tmp_path / "whole", changes=changes)
    shards = runs.fit(run_file, manifest, tmp_path / "shards", changes=(*changes, FSDP))
    same_rows(whole, shards)
    tolerance = {"float32": 1e-6, "bf16": 2e-3}[compute]
    assert np.allclose(runs.losses(whole), runs.losses(shards), rtol=0, atol=tolerance)
    tensors = [runs.tensors(checkpoint.steps(j.checkpoints)[-1]) for j in (whole, shards)]
    assert {n: t.shape for n, t in tensors[0].items()} == {n: t.shape for n, t in tensors[1].items()}


def test_what_is_gathered_is_what_was_sharded(run_file):
    settings = config.load(run_file, (FSDP,))
    models_ = [models.build(settings.model, vocab_size=97, length=32, where="") for _ in range(2)]
    models_[0].initialise(4)
    before = {name: parameter.detach().clone() for name, parameter in models_[0].named_parameters()}
    with joined(settings.precision, settings.parallel) as group:
        group.wrap(models_[0], settings.precision, settings.parallel)
        assert all(isinstance(parameter, DTensor) for parameter in models_[0].parameters())
        gather(*models_)
    assert all(torch.equal(before[name], parameter) for name, parameter in models_[1].named_parameters())


@pytest.mark.parametrize("compute", ["float32", "bf16"])
def test_layers_computed_again_give_the_same_to_the_bit(run_file, manifest, tmp_path, compute):
    changes = (f'precision.compute="{compute}"', "schedule.steps=6", "samples.documents=0")
    kept = runs.fit(run_file, manifest, tmp_path / "kept", changes=changes)
    again = runs.fit(
        run_file, manifest, tmp_path / "again", changes=(*changes, "parallel.activation_checkpointing=true")
    )
    assert runs.losses(kept) == runs.losses(again)
    tensors = [runs.tensors(checkpoint.steps(j.checkpoints)[-1]) for j in (kept, again)]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_activation_checkpointing_keeps_less(run_file):
    settings = config.load(run_file, ("parallel.activation_checkpointing=true",))
    sizes = []
    for parallel in (config.Parallel(), settings.parallel):
        model = models.build(settings.model, vocab_size=97, length=32, where="")
        model.initialise(1)
        Group(0, 1, torch.device("cpu")).wrap(model, settings.precision, parallel)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        tokens = torch.arange(64).view(2, 32)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(tokens, torch.arange(32).expand(2, -1), None)
        sizes.append(sum(kept.values()))
    assert sizes[1] < 0.5 * sizes[0]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 8))
def test_every_rank_has_as_many_micro_batches_and_none_is_too_large(rows, size, world):
    if world > rows:
        return
    parts = batch.parts(rows, size, world)
    shares = [len(batch.positions(3, rows, rank, world)) for rank in range(world)]
    assert all(-(-share // min(parts, share)) <= size for share in shares)
    assert parts == max(-(-share // size) for share in shares)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [[(1, DDP)], [(1, FSDP), (2, FSDP)]], ids=["whole", "sharded"])
def test_compiled_layers_learn_like_the_others(request, tmp_path, family, parts):
    run_file, manifest = request.getfixturevalue("run_file"), request.getfixturevalue("manifest")
    changes = (EXACT, 'optimizer.use="adamw"', "optimizer.learning_rate=0.003", *FAMILIES[family])
    eager = runs.fit(run_file, manifest, tmp_path / "eager", changes=changes)
    for processes, use in parts:
        begin = runs.fit if processes == 1 else lambda *a, **k: runs.several(2, *a, **k)
        folder = tmp_path / f"{processes}"
        compiled = begin(run_file, manifest, folder, changes=(*changes, use, "precision.compile=true"))
        same_rows(eager, compiled)
        assert np.allclose(runs.losses(eager), runs.losses(compiled), rtol=0, atol=1e-4)


def test_what_shards_cannot_do_is_said_before_the_first_step(run_file, manifest, tmp_path):
    settings, version = config.load(run_file, (FSDP, "batch.rows=5", "batch.micro_rows=1")), open_version(manifest)
    group = Group(0, 2, torch.device("cpu"), shards=True)
    with pytest.raises(TrainingError, match=r"not as many for each of 2 processes.*batch\.micro_rows"):
        loop.Loop(settings, version, Journal(tmp_path), group, Silent())
