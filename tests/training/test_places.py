"""The sum of losses that brings its gradients, against autograd over all logits."""

from __future__ import annotations

import pytest
import torch

from training import models
from training.objectives import _places

VOCABULARY, ROWS, LENGTH = 517, 30, 64
GPT = {"family": "gpt", "layers": 1, "width": 32, "heads": 2}
FAMILIES = {"gpt": GPT, "untied": {**GPT, "tie_embeddings": False}, "bert": {**GPT, "family": "bert"}}


def made(table):
    """A model and a batch of more targets than are summed at once, their number no multiple of anything."""
    model = models.build(table, vocab_size=VOCABULARY, length=LENGTH, where="test")
    model.initialise(1)
    with torch.no_grad():  # far from uniform, so that a wrong softmax shows
        model.embedding.weight.mul_(20)
        if not isinstance(model.head, torch.nn.Embedding | None):
            next(model.head.parameters()).mul_(20)
    drawn = torch.Generator().manual_seed(2)
    at = torch.arange(ROWS * LENGTH)[torch.rand(ROWS * LENGTH, generator=drawn) < 0.8]
    assert len(at) > _places.SUMMED and len(at) % _places.NEAR
    batch = {
        "tokens": torch.randint(VOCABULARY, (ROWS, LENGTH), generator=drawn),
        "positions": torch.arange(LENGTH).expand(ROWS, -1),
        "pieces": None,
        "at": at,
        "targets": torch.randint(VOCABULARY, at.shape, generator=drawn),
    }
    return model, batch


def gradients(model, loss):
    model.zero_grad()
    (0.25 * loss).backward()  # not 1: what flows in is multiplied with
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("narrow", "least"), [(False, 1e-5), (True, 2e-2)], ids=["float32", "bfloat16"])
def test_sum_and_gradients_are_those_of_autograd(family, narrow, least):
    model, batch = made(FAMILIES[family])
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        exact = _places.losses(model, batch).sum()
        total, count = _places.loss(model, batch)
    assert count == len(batch["targets"])
    torch.testing.assert_close(total, exact, rtol=1e-5, atol=0)
    wanted, found = gradients(model, exact), gradients(model, total)
    largest = max(float(value.norm()) for value in wanted.values())
    for name, value in wanted.items():
        assert float((found[name] - value).norm()) <= least * float(value.norm()) + 1e-6 * largest, name


def test_places_without_a_target_get_no_gradient():
    model, batch = made(GPT)
    hidden = torch.randn(ROWS, LENGTH, 32, generator=torch.Generator().manual_seed(3)).requires_grad_()
    _places.total(model, hidden, batch)[0].backward()
    silent = torch.ones(ROWS * LENGTH, dtype=torch.bool)
    silent[batch["at"]] = False
    given = hidden.grad.flatten(0, 1)
    assert silent.any() and not given[silent].any() and given[~silent].any(1).all()


def test_nothing_is_worked_out_for_a_model_that_learns_nothing():
    model, batch = made(GPT)
    with torch.no_grad():
        total, _ = _places.loss(model, batch)
        torch.testing.assert_close(total, _places.losses(model, batch).sum(), rtol=1e-5, atol=0)
    assert not total.requires_grad
