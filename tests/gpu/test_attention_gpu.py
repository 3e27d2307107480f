"""FlexAttention inside pieces on a GPU against the dense mask, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.training.small_models import TABLES, decoder, packed, tokens_of
from training import models
from training.models import _flex, layers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]
# Ragged pieces; the last row ends in padding, which is a piece of its own.
SIZES = {400: [[1, 299, 12, 88], [400], [128, 128, 144], [127, 1, 1, 271]], 1024: [[1024], [500, 524], [3] * 341 + [1]]}
SHAPES = [(4, 4, 64), (4, 2, 32), (6, 2, 20), (3, 1, 8), (12, 12, 128)]


@pytest.fixture(autouse=True)
def fresh():
    """Each case compiles its own kernels, and none is turned away because others were compiled before."""
    torch._dynamo.reset()
    _flex._fused.cache_clear()


@pytest.mark.parametrize("length", SIZES)
@pytest.mark.parametrize(("causal", "reach"), [(True, None), (False, None), (False, 64)], ids=["causal", "all", "near"])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["float32", "bf16"]
)
def test_it_is_the_dense_mask_forward_and_backward(length, causal, reach, heads, kv_heads, width, dtype, tolerance):
    """Beside float64; the tolerance is a share of the largest number."""
    pieces = packed(SIZES[length])[1].cuda()
    generator = torch.Generator().manual_seed(length)
    shapes = [(len(pieces), length, count, width) for count in (heads, kv_heads, kv_heads, heads)]
    *given, wanted = (torch.randn(shape, generator=generator).to("cuda", dtype) for shape in shapes)
    mask = dense_mask(pieces, causal, reach)
    results = []
    for sight, kind in ((_flex.plan(pieces, causal=causal, reach=reach), dtype), (mask, torch.float64)):
        mine = [x.detach().to(kind).requires_grad_() for x in given]
        with sdpa_kernel(SDPBackend.MATH):
            out = layers.attention(*mine, sight)
        out.backward(wanted.to(kind))
        results.append([out.detach(), *(x.grad for x in mine)])
    for found, expected in zip(*results, strict=True):
        assert found.dtype == dtype and found.isfinite().all()
        assert (found - expected).abs().max() < tolerance * expected.abs().max()


def dense_mask(pieces, causal, reach=None):
    """What stands for a plan."""
    mask = layers.up_to(pieces, pieces) if causal else layers.together(pieces, pieces)
    return mask if reach is None else mask & layers.near(pieces, reach)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_the_same_call_gives_the_same_bits(causal):
    pieces = packed(SIZES[1024])[1].cuda()
    plan = _flex.plan(pieces, causal=causal)
    given = [torch.randn(3, 1024, heads, 64, device="cuda", dtype=torch.bfloat16) for heads in (4, 2, 2)]
    results = []
    for _ in range(3):
        mine = [x.clone().requires_grad_() for x in given]
        out = layers.attention(*mine, plan)
        out.float().square().sum().backward()
        results.append([out, *(x.grad for x in mine)])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("compute", ["float32", "bf16"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("family", ["gpt", "bert", "modernbert"])
def test_a_model_has_the_states_and_gradients_of_the_dense_mask(monkeypatch, family, compiled, compute):
    positions, pieces = packed(SIZES[400])
    tokens = tokens_of(4, 400)
    if family == "gpt":
        model = decoder(TABLES["grouped"])
    else:
        table = {"family": family, "layers": 2, "width": 64, "heads": 4}
        model = models.build(table, vocab_size=97, length=512, where="[model]")
        model.initialise(1)
    model.cuda()
    given = [x.cuda() for x in (tokens, positions, pieces)]
    results = []
    for dense in (True, False):
        model.zero_grad(set_to_none=True)
        with monkeypatch.context() as patch:
            if dense:
                patch.setattr(_flex, "plan", dense_mask)
            running = torch.compile(model, fullgraph=True) if compiled and not dense else model
            with torch.autocast("cuda", torch.bfloat16, enabled=compute == "bf16"):
                hidden = running(*given)
            hidden.float().square().mean().backward()
        results.append([hidden.detach().float(), *(p.grad for p in model.parameters() if p.grad is not None)])
    tolerance = {"float32": 1e-4, "bf16": 5e-2}[compute]
    for found, expected in zip(*results, strict=True):
        assert (found - expected).norm() <= tolerance * expected.norm() + 1e-7
