"""The optimisers: the schedule's shape, who turns what, and a state that survives the disk."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from training import TrainingError
from training.config import RATES, Schedule
from training.config import Optimizer as Settings
from training.optim import Optimizer, clip, factor


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.layer = nn.Linear(6, 8, bias=False)
        self.norm = nn.LayerNorm(8, bias=False)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.layer(self.embedding(tokens))))


def stepped(model: nn.Module, optimizer: Optimizer, steps: int) -> None:
    for step in range(steps):
        tokens = torch.arange(7) + step
        nn.functional.cross_entropy(model(tokens % 11), (tokens + 1) % 11).backward()
        optimizer.step(1 / (1 + step))


def test_warmup_stable_decay():
    schedule = Schedule(steps=10, warmup=3, decay=4, floor=0.1)
    shape = [factor(schedule, step) for step in range(10)]
    assert shape[:3] == [0.25, 0.5, 0.75] and shape[3:6] == [1, 1, 1]
    assert shape[6:] == sorted(shape[6:], reverse=True) and 0.1 < shape[-1] < shape[6] < 1
    assert [factor(Schedule(steps=3, decay=0), step) for step in range(3)] == [1, 1, 1]


def test_what_a_run_file_leaves_open_is_a_short_warmup_and_a_fall_over_half_the_steps():
    schedule = Schedule(steps=200)
    assert (schedule.shape, schedule.warmup, schedule.decay, schedule.floor) == ("wsd", 4, 100, 0)
    assert Schedule(steps=10, warmup=8).decay == 2 and Schedule(steps=1).decay == 0
    assert Schedule(steps=200, shape="cosine").decay == 0
    assert {use: Settings(use=use).learning_rate for use in RATES} == RATES


def test_linear_and_cosine_fall_from_the_warmup_to_the_floor():
    for shape in ("linear", "cosine"):
        schedule = Schedule(shape=shape, steps=43, warmup=3, floor=0.1)
        found = [factor(schedule, step) for step in range(44)]
        assert found[:4] == [0.25, 0.5, 0.75, 1] and found[3:] == sorted(found[3:], reverse=True)
        for step in (10, 23, 43):
            left = 1 - (step - 3) / 40
            height = left if shape == "linear" else 0.5 * (1 + math.cos(math.pi * (1 - left)))
            assert math.isclose(found[step], 0.1 + 0.9 * height, abs_tol=1e-12)
        assert factor(Schedule(shape=shape, steps=1), 0) == 1
        with pytest.raises(ValueError, match="decay is a key of wsd"):
            Schedule(shape=shape, steps=10, decay=2)


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("use", ["muon", "adamw"])
def test_saved_and_restored_state_gives_the_same_next_steps(use, average):
    torch.manual_seed(0)
    model, settings = Small(), Settings(use=use, average=average)
    optimizer = Optimizer(model, settings)
    stepped(model, optimizer, 3)
    twin = copy.deepcopy(model)
    restored = Optimizer(twin, settings)
    restored.restore(load(save({k: v.contiguous() for k, v in optimizer.state().items()})))
    stepped(model, optimizer, 3)
    stepped(twin, restored, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    ours, theirs = optimizer.state(), restored.state()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    fresh = copy.deepcopy(twin)
    stepped(fresh, Optimizer(fresh, settings), 1)
    stepped(twin, restored, 1)
    assert not all(torch.equal(a, b) for a, b in zip(fresh.parameters(), twin.parameters(), strict=True))


def test_every_parameter_is_turned_by_one_optimiser_and_only_matrices_decay():
    model = Small()
    optimizer = Optimizer(model, Settings(use="muon", weight_decay=0.3))
    turned = {
        optimizer.names[id(p)]: (kind, group["weight_decay"])
        for kind, part in optimizer.parts.items()
        for group in part.param_groups
        for p in group["params"]
    }
    assert turned == {
        "layer.weight": ("muon", 0.3),
        "embedding.weight": ("adamw", 0.0),
        "head.weight": ("adamw", 0.0),
        "norm.weight": ("adamw", 0.0),
    }


def test_a_state_of_another_run_is_refused():
    model = Small()
    muon, adamw = Optimizer(model, Settings(use="muon")), Optimizer(model, Settings(use="adamw"))
    stepped(model, muon, 1)
    with pytest.raises(TrainingError, match="muon/layer"):
        adamw.restore(muon.state())


def test_clip_scales_first_and_says_the_norm():
    model = Small()
    model(torch.arange(5)).square().sum().backward()
    plain = torch.cat([p.grad.flatten() for p in model.parameters()]).clone()
    norm = clip(model, 0.5, 0.25 * float(plain.norm()))
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.isclose(norm, plain.norm() / 2) and torch.isclose(found.norm(), plain.norm() / 4, rtol=1e-4)
    assert torch.allclose(found / found.norm(), plain / plain.norm())
