"""Low-rank adaptation: the model of before while B is zero, a plain twin's gradients, and whole models afterwards."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training import runs
from training import TrainingError, checkpoint, config, export, initial, journal, loop, lora, objectives
from training.batch import row_keys
from training.classifier import Classifier
from training.config import Lora
from training.manifest import Version, open_version
from training.models.layers import Linear
from training.optim import Optimizer
from training.shards import Split

EXACT = 'precision.compute="float32"'
BEGUN = runs.RUN[: runs.RUN.index("[model]")] + runs.RUN[runs.RUN.index("[batch]") :]  # a run file without [model]
LITTLE = ("evaluation.orders=[2]", "samples.documents=0", "evaluation.rows=4")
# Every objective on each family that it fits, with the objective that its first weights come from.
PAIRS = {
    "causal": ("gpt", "causal"),
    "causal gpt2": ("gpt", "causal"),
    "infill": ("gpt", "causal"),
    "instruct": ("gpt", "causal"),
    "masked": ("bert", "masked"),
    "masked modernbert": ("modernbert", "masked"),
    "span": ("t5", "span"),
    "seq2seq": ("t5", "seq2seq"),
    "classify gpt": ("gpt", "classify"),
    "classify bert": ("bert", "classify"),
    "classify modernbert": ("modernbert", "classify"),
    "classify t5": ("t5", "classify"),
}
CASES = sorted(PAIRS)
LOUDER = {"gpt": 3, "bert": 3, "modernbert": 3, "t5": 1}  # times the weights that a family starts from


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Version:
    return open_version(runs.version(tmp_path_factory.mktemp("version") / "v", layout="examples", length=64))


def made(case: str, version: Version) -> tuple[Any, Any]:
    """An objective over the version, and a model of it whose layers do more than whisper."""
    use, *form = case.split()
    family = PAIRS[case][0]
    table = {"family": family, "layers": 2, "width": 32, "heads": 2}
    if form == ["gpt2"]:
        table["form"] = "gpt2"
    objective = objectives.load({"use": use}, "[objective]").over(version)
    model = objectives.build(objective, table, version, "[model]")
    model.initialise(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(LOUDER[family])
    return objective, model


def batch_of(objective: Any, version: Version, count: int = 6) -> Any:
    rows = Split(version, "train").take(np.arange(count))
    return objective.prepare(rows, row_keys(0, 0, rows.index))


def adapted(model: Any, **settings: Any) -> Any:
    """A copy with A and B, where B is not zero any more."""
    copied = lora.adapt(copy.deepcopy(model), Lora(**settings))
    lora.begin(copied, seed=7)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if name.endswith("lora_b"):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    return copied


def twin_loss(plain: Any, objective: Any, batch: Any, pairs: dict[str, tuple[Tensor, Tensor]], scale: float) -> Tensor:
    """The loss of a plain model whose weights of these names are W + scale B A, by autograd alone."""
    weights = {f"model.{name}": weight for name, weight in plain.named_parameters()}
    for name, (a, b) in pairs.items():
        weights[f"model.{name}"] = weights[f"model.{name}"].detach() + scale * (b @ a)
    total: Tensor = torch.func.functional_call(loop.Scored(plain, objective), weights, (batch,))[0]
    return total


@pytest.mark.parametrize("case", CASES)
def test_while_b_is_zero_the_losses_are_those_of_the_model_to_the_bit(version, case):
    objective, model = made(case, version)
    fresh = lora.adapt(copy.deepcopy(model), Lora())
    lora.begin(fresh, seed=7)
    batch = batch_of(objective, version)
    with torch.no_grad():
        assert torch.equal(objective.losses(model, batch), objective.losses(fresh, batch))
    drawn = {name: p for name, p in fresh.named_parameters() if name.endswith("lora_a")}
    assert drawn and all(0.7 < float(p.detach().std()) * p.shape[1] ** 0.5 < 1.3 for p in drawn.values())


@pytest.mark.parametrize("modules", [None, ["query", "value"], ["down"]], ids=["all", "query-value", "down"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_a_plain_twin(version, case, modules):
    """The twin has neither our layers' A and B nor what they do instead of `Gated`."""
    objective, model = made(case, version)
    mine = adapted(model, rank=3, alpha=5.0, modules=modules)
    batch = batch_of(objective, version)
    loss = objective.loss(mine, batch)[0]
    loss.backward()
    found = {name: p for name, p in mine.named_parameters() if p.requires_grad}
    pairs = {
        name.replace("lora_a", "weight"): (
            found[name].detach().clone().requires_grad_(),
            found[name.replace("lora_a", "lora_b")].detach().clone().requires_grad_(),
        )
        for name in found
        if name.endswith("lora_a")
    }
    theirs = twin_loss(model, objective, batch, pairs, 5.0 / 3)
    theirs.backward()
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    for name, both in pairs.items():
        for part, other in zip(("lora_a", "lora_b"), both, strict=True):
            gradient, expected = found[name.replace("weight", part)].grad, other.grad
            assert gradient is not None and expected is not None and expected.abs().max() > 0
            assert (gradient - expected).abs().max() <= 2e-4 * expected.abs().max(), (name, part)
    every = dict(mine.named_parameters())
    assert all(p.grad is None for name, p in every.items() if name not in found)


@pytest.mark.parametrize("case", CASES)
def test_folded_in_the_losses_are_the_same_and_the_model_is_plain(version, case):
    objective, model = made(case, version)
    mine = adapted(model)
    batch = batch_of(objective, version)
    with torch.no_grad():
        before = objective.losses(mine, batch)
        tensors = {name: p.detach().clone() for name, p in mine.named_parameters()}
        folded = lora.fold(mine)
        after = objective.losses(folded, batch)
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4) and not torch.equal(
        after, objective.losses(model, batch).detach()
    )
    plain = dict(folded.named_parameters())
    assert plain.keys() == dict(model.named_parameters()).keys() and all(p.requires_grad for p in plain.values())
    assert not any(isinstance(module, lora.Adapted) for module in folded.modules())
    by_tensors = lora.folded(tensors, Lora())
    assert all(torch.equal(by_tensors[name], p) for name, p in plain.items())


def test_the_optimiser_holds_what_learns_alone(version):
    """AdamW has two numbers a weight: they fall with the weights that learn."""
    _, model = made("causal", version)
    sizes = []
    for one in (copy.deepcopy(model), adapted(model, rank=2)):
        optimizer = Optimizer(one, config.Optimizer(use="adamw", average=0.9))
        for parameter in one.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step(1.0)
        sizes.append(sum(tensor.numel() for tensor in optimizer.state().values()))
        assert sizes[-1] >= 3 * lora.trained(one) and sizes[-1] < 3 * lora.trained(one) + 100
    assert sizes[1] < 0.2 * sizes[0]


@pytest.mark.parametrize("use", ["adamw", "muon"])
def test_of_a_table_the_optimiser_holds_the_rows_of_new_tokens_alone(version, use):
    """And turns them as it would beside all others; its state is spelt whole, and goes on from either."""
    _, model = made("instruct", version)
    settings, fresh = config.Optimizer(use=use), 2
    models, optimizers = [], []
    for ends in (0, fresh, fresh):
        models.append(lora.adapt(copy.deepcopy(model), Lora(rank=2)))
        lora.begin(models[-1], seed=7, fresh=fresh)
        optimizers.append(Optimizer(models[-1], settings, ends))
    for step in range(4):
        if step == 2:  # the last one goes on from what the first left
            with torch.no_grad():
                for mine, other in zip(models[2].parameters(), models[0].parameters(), strict=True):
                    mine.copy_(other)
            optimizers[2].restore({name: tensor.clone() for name, tensor in optimizers[0].state().items()})
        for one, optimizer in zip(models[: 2 if step < 2 else 3], optimizers, strict=False):
            for name, parameter in one.named_parameters():
                if parameter.requires_grad:
                    generator = torch.Generator().manual_seed(step + len(name))
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
            lora.hold(one, fresh)
            optimizer.step(1.0, step)
            assert all(parameter.grad is None for parameter in one.parameters())
    for other, optimizer in zip(models[1:], optimizers[1:], strict=True):
        weights = zip(models[0].parameters(), other.parameters(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in weights)
        whole, state = optimizers[0].state(), optimizer.state()
        assert whole.keys() == state.keys() and all(torch.equal(whole[name], state[name]) for name in whole)
        held = [
            sum(t.numel() for part in o.parts.values() for s in part.state.values() for t in s.values())
            for o in (optimizers[0], optimizer)
        ]
        rows, width = model.embedding.weight.shape
        assert held[0] - held[1] == 2 * (rows - fresh) * width


def test_every_matrix_of_the_layers_is_adapted_and_no_other(version):
    expected = {
        "causal": {"query", "key", "value", "output", "gate", "up", "down"},
        "causal gpt2": {"query", "key", "value", "output", "up", "down"},
        "masked": {"query", "key", "value", "output", "up", "down"},
        "span": {"query", "key", "value", "output", "gate", "up", "down"},
    }
    for case, names in expected.items():
        _, model = made(case, version)
        linears = {name for name, module in model.named_modules() if isinstance(module, Linear)}
        lora.adapt(model, Lora())
        found = {name for name, module in model.named_modules() if isinstance(module, lora.Adapted)}
        assert {name.rpartition(".")[2] for name in found} == names
        assert all("layers." in name for name in found)
        assert {name for name in linears - found if "layers." in name} == set()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modules": ["querry"]}, r"modules: the layers have no matrix 'querry'; did you mean 'query'\?"),
        ({"rank": 33}, r"rank 33 is more than 'query' of \[32, 32\] can have"),
    ],
)
def test_what_cannot_be_adapted_is_named(version, settings, words):
    _, model = made("causal", version)
    with pytest.raises(TrainingError, match=words):
        lora.adapt(model, Lora(**settings))


def test_a_run_without_init_and_unknown_keys_are_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"small\.toml.*\[lora\] adapts a model that was trained before.*init"):
        config.load(runs.write_run(tmp_path, runs.RUN + "\n[lora]\nrank = 4\n"))
    with pytest.raises(
        TrainingError, match=r"unknown key 'lora\.rnk'; did you mean 'rank'\? has: alpha, modules, rank"
    ):
        config.load(runs.write_run(tmp_path, runs.RUN + "\n[lora]\nrnk = 4\n"))


def test_a_run_that_says_nothing_of_it_is_the_run_that_it_was(tmp_path):
    """Its identity names the folder of a run: one that adapts nothing keeps its own."""
    plain = config.load(runs.write_run(tmp_path))
    assert plain.identity("0" * 16) == "f2d46ee50a2b2c00cdcfc817d98a5cc4"


# Whole runs: a short one to begin with, and those that go on from it.


AT_ONCE = {"causal", "instruct", "masked", "seq2seq", "classify bert"}  # the others take as long again
EACH = [case if case in AT_ONCE else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.fixture(scope="module", params=EACH)
def case(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def begun(case, version, tmp_path_factory) -> Path:
    """The folder of a run whose weights are adapted."""
    folder = tmp_path_factory.mktemp("begun")
    family, use = PAIRS[case]
    form = ('model.form="gpt2"',) if case.endswith("gpt2") else ()
    changes = (f'model.family="{family}"', f'objective.use="{use}"', "schedule.steps=6", *form, *LITTLE)
    return runs.fit(runs.write_run(folder), version.folder / "manifest.json", folder / "runs", changes=changes).folder


@pytest.fixture(scope="module")
def changes(case, begun) -> tuple[str, ...]:
    use = case.split()[0]
    return (f"init={begun}", f'objective.use="{use}"', "lora.rank=4", EXACT, *LITTLE)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    return runs.write_run(tmp_path_factory.mktemp("run"), BEGUN)


@pytest.fixture(scope="module")
def done(run_file, version, changes, tmp_path_factory) -> journal.Journal:
    return runs.fit(run_file, version.folder / "manifest.json", tmp_path_factory.mktemp("runs"), changes=changes)


def test_what_is_frozen_is_to_the_bit_what_it_began_with(case, begun, done):
    start = checkpoint.read_weights(checkpoint.steps(begun / "checkpoints")[-1])
    end = checkpoint.read_weights(checkpoint.steps(done.checkpoints)[-1])
    moved = {name for name in start if start[name].shape != end[name].shape or not torch.equal(start[name], end[name])}
    new = {name for name in end if name.endswith(("lora_a", "lora_b"))}
    assert end.keys() - start.keys() == new and all(end[name].abs().max() > 0 for name in new)
    if case.startswith("classify"):
        assert moved == {name for name in start if not name.startswith("backbone.")}
    elif case in ("infill", "instruct"):  # their tokens have no weights there: these rows alone are trained
        assert moved == {"embedding.weight"}
        known = len(start["embedding.weight"])
        before, after = start["embedding.weight"], end["embedding.weight"]
        assert torch.equal(after[:known], before) and len(after) == known + {"infill": 3, "instruct": 2}[case]
        assert all((row - before.mean(0)).abs().max() > 1e-4 for row in after[known:])
    else:
        assert moved == set()


def test_stopped_and_resumed_is_as_if_never_stopped(done, run_file, version, changes, tmp_path):
    for after in (5, 3, None):
        manifest = version.folder / "manifest.json"
        parts = runs.fit(run_file, manifest, tmp_path, after=after, changes=changes)
    assert parts.table["resumed_at"] == [5, 8] and runs.losses(parts) == runs.losses(done)
    tensors = [runs.tensors(checkpoint.steps(j.checkpoints)[-1]) for j in (done, parts)]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_whatever_uses_the_run_sees_a_whole_model(done, version, tmp_path):
    """Loaded, exported and gone on from: the names of an ordinary model, and the same weights each time."""
    _, settings, read = journal.read(done.folder)
    model = loop.load(settings, read, done)
    extra_tokens = objectives.load(settings.objective, "").over(read).extra_tokens
    plain = loop._build(settings, read)
    assert dict(model.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    initial.fill(plain, done.folder, read, extra_tokens=extra_tokens)
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), model.parameters(), strict=True))
    export.export(
        model,
        tokenizer_file=version.tokenizer_file,
        eot=version.manifest.tokenizer.eot,
        length=model.length,
        folder=tmp_path / "hf",
        extra_tokens=extra_tokens,
    )
    again = initial.source(tmp_path / "hf").tensors()
    ours = dict((model.backbone if isinstance(model, Classifier) else model).named_parameters())
    for name in again.keys() & ours.keys():  # a classifier's folder has a token to pad with
        assert torch.equal(again[name][: len(ours[name])], ours[name]), name
    assert len(again.keys() & ours.keys()) >= len(ours) - 1


def test_the_report_and_the_books_say_what_learnt(done):
    report = json.loads((done.folder / "report.json").read_text("utf-8"))["run"]
    end = checkpoint.read_weights(checkpoint.steps(done.checkpoints)[-1])
    least = sum(t.numel() for name, t in end.items() if name.endswith(("lora_a", "lora_b")))
    whole = sum(t.numel() for name, t in end.items()) - least
    assert report["lora"]["rank"] == 4 and report["model"]["parameters"] == whole
    assert least <= report["model"]["trained_parameters"] == done.table["trained"]["trained_parameters"] < whole
    assert "trained by LoRA" in (done.folder / "report.html").read_text("utf-8")


# Of one family and objective: what does not hang on them.


@pytest.fixture(scope="module")
def decoder(version, tmp_path_factory) -> tuple[str, ...]:
    """Changes to a run file that go on from a decoder."""
    folder = tmp_path_factory.mktemp("decoder")
    manifest = version.folder / "manifest.json"
    begun = runs.fit(runs.write_run(folder), manifest, folder / "runs", changes=("schedule.steps=6", *LITTLE))
    return (f"init={begun.folder}", "lora.rank=4", EXACT, *LITTLE)


@pytest.fixture(scope="module")
def alone(run_file, version, decoder, tmp_path_factory) -> journal.Journal:
    return runs.fit(run_file, version.folder / "manifest.json", tmp_path_factory.mktemp("alone"), changes=decoder)


@pytest.mark.parametrize("use", [pytest.param("ddp", marks=pytest.mark.slow), "fsdp"])
def test_two_processes_learn_what_one_learns(alone, run_file, version, decoder, tmp_path, use):
    """And what one of them left the other goes on with: stopped under two, ended by one."""
    changes = (*decoder, f'parallel.use="{use}"')
    manifest = version.folder / "manifest.json"
    runs.several(2, run_file, manifest, tmp_path, after=5, changes=changes)
    books = runs.fit(run_file, manifest, tmp_path, changes=decoder)
    assert books.table["resumed_at"] == [5] and books.folder.name == alone.folder.name
    assert np.allclose(runs.losses(books), runs.losses(alone), rtol=0, atol=5e-3)
    ends = [checkpoint.read_weights(checkpoint.steps(j.checkpoints)[-1]) for j in (alone, books)]
    assert ends[0].keys() == ends[1].keys()
    frozen = [name for name in ends[0] if not name.endswith(("lora_a", "lora_b"))]
    assert frozen and all(torch.equal(ends[0][name], ends[1][name]) for name in frozen)


def test_sharded_tables_keep_every_row_but_those_of_new_tokens(run_file, version, decoder, tmp_path):
    changes = (*decoder, 'objective.use="instruct"', 'parallel.use="fsdp"', "schedule.steps=8")
    books = runs.several(2, run_file, version.folder / "manifest.json", tmp_path, changes=changes)
    before = initial.source(Path(decoder[0].removeprefix("init="))).tensors()["embedding.weight"]
    after = checkpoint.read_weights(checkpoint.steps(books.checkpoints)[-1])["embedding.weight"]
    assert torch.equal(after[: len(before)], before)
    assert all((row - before.mean(0)).abs().max() > 1e-4 for row in after[len(before) :])
    assert books.table["trained"]["trained_parameters"] < after.numel()


def test_shards_of_one_process_learn_like_the_whole(alone, run_file, version, decoder, tmp_path):
    books = runs.fit(run_file, version.folder / "manifest.json", tmp_path, changes=(*decoder, 'parallel.use="fsdp"'))
    assert np.allclose(runs.losses(alone), runs.losses(books), rtol=0, atol=1e-5)
    assert books.table["evaluation"]["loss"] == pytest.approx(alone.table["evaluation"]["loss"], abs=1e-4)
    assert books.table["trained"]["trained_parameters"] == alone.table["trained"]["trained_parameters"]


def test_the_average_is_of_what_learns_and_is_what_is_loaded(run_file, version, decoder, tmp_path):
    changes = (*decoder, "optimizer.average=0.8")
    books = runs.fit(run_file, version.folder / "manifest.json", tmp_path, changes=changes)
    _, settings, read = journal.read(books.folder)
    place = checkpoint.steps(books.checkpoints)[-1]
    tensors = runs.tensors(place)
    kept = {name.split("/")[2] for name in tensors if name.startswith("optimizer/average/")}
    assert kept and all(name.endswith(("lora_a", "lora_b")) for name in kept)
    wanted = checkpoint.read_weights(place) | {name: tensors[f"optimizer/average/{name}/weight"] for name in kept}
    expected = lora.folded(wanted, settings.lora)
    loaded = dict(loop.load(settings, read, books).named_parameters())
    assert all(torch.equal(expected[name], parameter) for name, parameter in loaded.items())
    last = lora.folded(checkpoint.read_weights(place), settings.lora)
    assert not all(torch.equal(last[name], parameter) for name, parameter in loaded.items())


@pytest.mark.parametrize("case", ["causal gpt2", "masked", "span", "classify bert"])
def test_a_frozen_weight_costs_one_backward_product_less(version, case):
    """2 for each frozen weight of a product and place, and 6 for each number of A and B."""
    objective, model = made(case, version)
    rows = Split(version, "train").take(np.arange(6))
    work = objectives.work(rows, objective.prepare(rows, row_keys(0, 0, rows.index)))
    whole = model.flops(work)
    model.requires_grad_(False)
    backbone = getattr(model, "backbone", model)
    attended = backbone.flops(work._replace(tokens=0, targets=0, encoder_tokens=0))
    assert attended == 0 and whole * 2 / 3 < model.flops(work) < whole
    mine = lora.adapt(copy.deepcopy(model), Lora(rank=2))
    lora.begin(mine, seed=1)
    fewer = mine.flops(work) - model.flops(work)
    numbers = sum(p.numel() for name, p in mine.named_parameters() if name.endswith(("lora_a", "lora_b")))
    assert fewer >= 6 * numbers * min(work.tokens, work.encoder_tokens or work.tokens) > 0
