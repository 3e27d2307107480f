"""What a row's key leaves out of its hidden states: the bits of `order.mix`, in every family, beside whatever rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div, nll_loss

from tests.training import runs
from tests.training.test_classify import BACKBONES, classifier
from training import TrainingError, objectives, order
from training.batch import row_keys
from training.manifest import Version, open_version
from training.models._dropout import AGAIN, EMBEDDING, GAMMA, Dropout, dropped, mix
from training.shards import Split

KEYS = row_keys(3, 7, np.arange(6))
SHARE = 0.3


def of(keys: np.ndarray[Any, Any], share: float = SHARE) -> Dropout:
    return Dropout(share, torch.from_numpy(keys.view(np.int64)))


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Version:
    return open_version(runs.version(tmp_path_factory.mktemp("version") / "v", layout="examples"))


def test_it_mixes_as_the_order_does():
    bits = np.random.default_rng(1).integers(0, 1 << 64, 10_000, np.uint64)
    bits[:3] = 0, 1, (1 << 64) - 1
    assert np.array_equal(mix(torch.from_numpy(bits.view(np.int64))).numpy().view(np.uint64), order.mix(bits))


@pytest.mark.parametrize("site", [EMBEDDING, 0, 5])
def test_what_stays_is_what_the_arithmetic_of_numpy_says(site):
    x = torch.randn(6, 9, 8, generator=torch.Generator().manual_seed(1))
    gamma = np.uint64(GAMMA % (1 << 64))
    with np.errstate(over="ignore"):
        begun = order.mix(KEYS + np.uint64(site % (1 << 64)) * gamma)
        bits = order.mix(begun[:, None] + np.arange(1, 73, dtype=np.uint64) * gamma)
    # A signed number in the place of the unsigned one: the upper half comes first.
    stays = (bits ^ np.uint64(1 << 63)).astype(np.float64) / 2.0**64 >= SHARE
    expected = np.where(stays.reshape(6, 9, 8), x.numpy() / (1 - SHARE), 0)
    np.testing.assert_allclose(dropped(x, of(KEYS), site).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_as_much_is_left_out_as_is_asked_for(share):
    """Within four deviations over all, at each place of the rows, and for two sites together, which are independent."""
    keys = row_keys(1, 1, np.arange(2000))
    x = torch.ones(2000, 4, 16)
    one, other = (dropped(x, of(keys, share), site) == 0 for site in (0, 1))

    def near(found: torch.Tensor, expected: float, of_: int) -> bool:
        return bool(((found.double() / of_ - expected).abs() < 4.5 * (expected * (1 - expected) / of_) ** 0.5).all())

    assert near(one.sum(), share, one.numel()) and near(one.sum(0), share, len(one))
    assert near((one & other).sum(), share**2, one.numel())
    assert dropped(x, of(keys, share), 0).mean() == pytest.approx(1, abs=5 * (share / (1 - share) / x.numel()) ** 0.5)


def test_a_row_loses_the_same_alone_and_in_a_longer_batch():
    x = torch.ones(6, 12, 8)
    whole = dropped(x, of(KEYS), 2)
    alone = dropped(x[3:5, :7], of(KEYS[3:5]), 2)
    assert torch.equal(whole[3:5, :7], alone) and not torch.equal(alone[0], alone[1])
    assert torch.equal(dropped(x.bfloat16(), of(KEYS), 2) != 0, whole != 0)
    assert dropped(x, None, 2) is x and dropped(x[:0, 0], of(KEYS[:0]), 2).shape == (0, 8), "a share may have no row"


@pytest.mark.parametrize("name", BACKBONES)
def test_a_text_alone_learns_what_it_learns_in_a_batch(version, name):
    """Logits and gradients while a model learns: those of each text by itself, others than those that are judged, and
    others again at another step."""
    model = classifier(BACKBONES[name], version).double()
    objective: Any = objectives.load({"use": "classify", "dropout": SHARE}, "").over(version)
    rows = Split(version, "train").take(np.arange(8))
    keys = row_keys(0, 4, rows.index)

    def learnt(first: int, last: int, keys: np.ndarray[Any, Any] = keys) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        logits = objective.logits(model, objective.prepare(rows.slice(first, last), keys[first:last]))
        logits.square().sum().backward()
        return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    model.train()
    logits, gradient = learnt(0, 8)
    parts = [learnt(*part) for part in ((0, 3), (3, 4), (4, 8))]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sum(part[1] for part in parts), gradient, rtol=1e-4, atol=1e-4)
    assert (learnt(0, 8, row_keys(0, 5, rows.index))[0] - logits).abs().max() > 1e-2
    model.eval()
    judged, plain = learnt(0, 8)[0], objectives.load({"use": "classify"}, "").over(version)
    assert (judged - logits).abs().max() > 1e-2
    assert torch.equal(judged, plain.logits(model, plain.prepare(rows, keys)).detach())  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["gpt", "bert", "modernbert", "t5"])
def test_every_layer_and_the_embedding_lose_something(version, family):
    """Each sublayer is asked once, at a site of its own, and so are the embeddings and the state behind them."""
    from training import classifier as head
    from training.models import bert, gpt, modernbert, t5

    asked: list[tuple[int, ...]] = []

    def watched(x: torch.Tensor, dropout: Dropout | None, site: int) -> torch.Tensor:
        assert dropout is not None
        asked.append(tuple(dropout.inside(site).keys.tolist()))
        return dropped(x, dropout, site)

    model = classifier(BACKBONES[{"gpt": "qwen3"}.get(family, family)], version).train()
    objective: Any = objectives.load({"use": "classify", "dropout": SHARE}, "").over(version)
    rows = Split(version, "train").take(np.arange(4))
    with pytest.MonkeyPatch.context() as patch:
        for module in (head, bert, gpt, modernbert, t5):
            patch.setattr(module, "dropped", watched)
        objective.logits(model, objective.prepare(rows, row_keys(0, 4, rows.index)))
    config = model.config
    stacks = [2 * config.layers, 3 * config.decoder_layers] if family == "t5" else [2 * config.layers]
    assert len(asked) == len(set(asked)) == sum(stacks) + len(stacks) + 1


@pytest.mark.parametrize("name", BACKBONES)
def test_two_readings_of_a_text_are_to_be_right_and_alike(version, name):
    """R-Drop: half the paper's loss, by torch's own divergence, over two readings apart; each text by itself; a text
    that is judged is read once."""
    alpha, model = 1.5, classifier(BACKBONES[name], version).double()
    objective: Any = objectives.load({"use": "classify", "dropout": SHARE, "r_drop": alpha}, "").over(version)
    rows = Split(version, "train").take(np.arange(8))
    keys = row_keys(0, 4, rows.index)

    def learnt(first: int, last: int) -> tuple[float, float]:
        total, count = objective.loss(model, objective.prepare(rows.slice(first, last), keys[first:last]))
        return float(total.detach()), float(count)

    model.train()
    batch = objective.prepare(rows, keys)
    other = of(keys).inside(AGAIN).keys
    p, q = (
        objective.logits(model, {**batch, "keys": each}).detach().log_softmax(-1) for each in (batch["keys"], other)
    )
    right = nll_loss(p, batch["targets"], reduction="sum") + nll_loss(q, batch["targets"], reduction="sum")
    apart = kl_div(q, p, reduction="sum", log_target=True) + kl_div(p, q, reduction="sum", log_target=True)
    assert apart > 0.1
    whole = learnt(0, 8)
    assert whole == (pytest.approx(float((right + alpha * apart / 2) / 2), rel=1e-5), len(batch["targets"]))
    assert np.sum([learnt(0, 3), learnt(3, 4), learnt(4, 8)], axis=0) == pytest.approx(whole, rel=1e-5)
    model.eval()
    plain: Any = objectives.load({"use": "classify"}, "").over(version)
    assert learnt(0, 8)[0] == float(plain.loss(model, plain.prepare(rows, keys))[0].detach())
    once, twice = (model.flops(each.work(rows, batch)) for each in (plain, objective))
    assert twice == 2 * once


def test_two_readings_that_leave_nothing_out_are_refused():
    with pytest.raises(TrainingError, match=r"r_drop .* needs dropout above 0"):
        objectives.load({"use": "classify", "r_drop": 1.0}, "")


def test_what_is_computed_again_for_lack_of_memory_loses_the_same(version, tmp_path):
    manifest = runs.version(tmp_path / "v", layout="examples")
    run = runs.write_run(tmp_path / "run")
    changes = ('objective.use="classify"', 'model.family="modernbert"', "objective.dropout=0.3")
    kept = runs.fit(run, manifest, tmp_path / "kept", changes=changes)
    again = runs.fit(run, manifest, tmp_path / "again", changes=(*changes, "parallel.activation_checkpointing=true"))
    assert runs.losses(kept) == runs.losses(again)
    plain = runs.fit(run, manifest, tmp_path / "plain", changes=changes[:2])
    assert runs.losses(plain) != runs.losses(kept) and plain.table["chain"] == kept.table["chain"]
    told = json.loads((kept.folder / "report.json").read_text("utf-8"))["run"]["objective_table"]
    assert told == {"use": "classify", "word_dropout": 0.0, "dropout": 0.3, "r_drop": 0.0}
    page = (kept.folder / "report.html").read_text("utf-8")
    assert "<dt><bdi>dropout</bdi></dt><dd><bdi>0.3</bdi></dd>" in page


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "modernbert", "t5"])
@pytest.mark.parametrize("processes", [1, 2], ids=["compiled", "compiled and in shards"])
def test_compiled_layers_and_shards_lose_the_same(tmp_path, family, processes):
    manifest, run = runs.version(tmp_path / "v", layout="examples"), runs.write_run(tmp_path / "run")
    changes = ('objective.use="classify"', f'model.family="{family}"', "objective.dropout=0.3")
    changes += (
        "objective.r_drop=1.0",
        'precision.compute="float32"',
        'optimizer.use="adamw"',
        "optimizer.learning_rate=0.003",
    )
    eager = runs.fit(run, manifest, tmp_path / "eager", changes=changes)
    begin = runs.fit if processes == 1 else lambda *a, **k: runs.several(2, *a, **k)
    how = ("precision.compile=true", 'parallel.use="fsdp"') if processes == 2 else ("precision.compile=true",)
    other = begin(run, manifest, tmp_path / "other", changes=(*changes, *how))
    assert np.allclose(runs.losses(eager), runs.losses(other), rtol=0, atol=1e-4)


def test_a_share_is_below_one():
    with pytest.raises(TrainingError, match="dropout"):
        objectives.load({"use": "classify", "dropout": 1.0}, "")
