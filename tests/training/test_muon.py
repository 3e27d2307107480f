"""Muon: torch's step but for the polynomial, whole or over shards; and the polynomial against a singular value
decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from training import config, muon
from training.muon import Muon
from training.parallel import joined

SHAPES = [(24, 8), (8, 24), (16, 16), (1, 7)]


def spectrum(kind: str, count: int) -> torch.Tensor:
    """Singular values, the largest 1."""
    generator = torch.Generator().manual_seed(count)
    drawn = {
        "one": torch.arange(count) == 0,
        "equal": torch.ones(count),
        "falling": torch.logspace(0, -1.5, count),
        "one above many": torch.where(torch.arange(count) == 0, 1.0, 0.1),
        "drawn": torch.rand(count, generator=generator),
    }[kind]
    return drawn.float() / drawn.float().max()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["one", "equal", "falling", "one above many", "drawn"])
@pytest.mark.parametrize("shape", [(48, 48), (48, 160), (160, 48), (1, 7), (300, 20)])
def test_singular_values_end_near_one_and_vectors_stay(shape, kind, scale):
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(1)), full_matrices=False
    )
    values = spectrum(kind, min(shape))
    [found] = muon.polar((left * (scale * values) @ right)[None])
    assert found.dtype == torch.bfloat16 and found.shape == shape
    turned = left.T @ found.float() @ right.T
    ends, rest = turned.diagonal(), turned - turned.diagonal().diag()
    bound = values.pow(4).sum() ** 0.25
    seen = values >= 0.01 * bound
    assert (ends[seen] > 0.6).all() and (ends < 1.3).all() and (ends > -0.02).all()
    assert torch.linalg.matrix_norm(rest, 2) < 0.15


def test_each_step_is_the_best_of_its_kind():
    """What equioscillates is the best (Chebyshev): the largest error of each step is met with both signs."""
    low, high = 0.01, 1.01
    for a, b, c in muon.STEPS:
        x = np.linspace(low, high, 200_001)
        error = a * x + b * x**3 + c * x**5 - 1
        ends = [error[0], error[np.argmax(error)], error[np.argmin(error[1:]) + 1], error[-1]]
        assert np.allclose(np.abs(ends), np.abs(error).max(), rtol=5e-3)
        assert ends[0] < 0 < ends[1] and ends[2] < 0 < ends[3]
        low, high = 1 - np.abs(error).max(), (1 + np.abs(error).max()) * 1.01


def test_nothing_becomes_nothing():
    assert torch.equal(muon.polar(torch.zeros(2, 5, 3)), torch.zeros(2, 5, 3, dtype=torch.bfloat16))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_is_torchs_but_for_the_polynomial(monkeypatch, shape, nesterov):
    generator = torch.Generator().manual_seed(1)
    start, *gradients = (torch.randn(shape, generator=generator) for _ in range(4))
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", lambda matrix, *_: muon.polar(matrix[None])[0])
    options = {"lr": 0.1, "weight_decay": 0.2, "adjust_lr_fn": "match_rms_adamw", "nesterov": nesterov}
    theirs, ours = (torch.nn.Parameter(start.clone()) for _ in range(2))
    pair = [torch.optim.Muon([theirs], **options), Muon([ours], **options)]
    for gradient in gradients:
        theirs.grad, ours.grad = gradient.clone(), gradient.clone()
        for optimizer in pair:
            optimizer.step()
    assert torch.equal(theirs, ours) and not torch.equal(ours, start)


@pytest.mark.parametrize("axis", [0, 1])
def test_heads_are_matrices_of_their_own(axis):
    """A step is that of an optimiser that was given each head as a parameter."""
    generator = torch.Generator().manual_seed(1)
    start, *gradients = (torch.randn(24, 32, generator=generator) for _ in range(4))
    options = {"lr": 0.1, "weight_decay": 0.2, "adjust_lr_fn": "match_rms_adamw"}
    whole = torch.nn.Parameter(start.clone())
    heads = [torch.nn.Parameter(head.clone()) for head in start.split(8, axis)]
    pair = [Muon([{"params": [whole], "heads": (axis, 8)}], **options), Muon(heads, **options)]
    for number, gradient in enumerate(gradients):
        whole.grad = gradient.clone() * (1 + number)
        for head, its in zip(heads, whole.grad.split(8, axis), strict=True):
            head.grad = its.clone()
        for optimizer in pair:
            optimizer.step()
    assert torch.equal(whole, torch.cat(list(heads), axis))
    joint = torch.nn.Parameter(start.clone())
    joint.grad = gradients[0].clone()
    Muon([joint], **options).step()
    first = torch.nn.Parameter(start.clone())
    first.grad = gradients[0].clone()
    Muon([{"params": [first], "heads": (axis, 8)}], **options).step()
    assert not torch.allclose(joint, first, atol=1e-3)


@pytest.mark.parametrize("heads", [None, (0, 4), (1, 4)])
@pytest.mark.parametrize("shape", SHAPES)
def test_over_shards_it_is_the_same(run_file, shape, heads):
    if heads and shape[heads[0]] % heads[1]:
        pytest.skip("no whole heads")
    settings = config.load(run_file, ('parallel.use="fsdp"',))
    generator = torch.Generator().manual_seed(1)
    start, *gradients = (torch.randn(shape, generator=generator) for _ in range(4))
    with joined(settings.precision, settings.parallel):
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        whole = torch.nn.Parameter(start.clone())
        shards = torch.nn.Parameter(distribute_tensor(start.clone(), mesh))
        shards = torch.nn.Parameter(shards.detach().redistribute(placements=[Shard(0)]))
        options = {"lr": 0.1, "weight_decay": 0.2, "adjust_lr_fn": "match_rms_adamw"}
        pair = [Muon([{"params": [matrix], "heads": heads}], **options) for matrix in (whole, shards)]
        for gradient in gradients:
            whole.grad = gradient.clone()
            shards.grad = DTensor.from_local(gradient.clone(), mesh, shards.placements)
            for optimizer in pair:
                optimizer.step()
        assert torch.equal(whole, shards.full_tensor())
