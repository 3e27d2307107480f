"""What a GPU is told to compute, as far as a CPU can check it: every tile, the forward pass, and that it is traced."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from tests.training.small_models import TABLES, decoder, packed, tokens_of
from training.models import _flex, layers

SIZES = [[1, 299, 12, 88], [400], [128, 128, 144], [127, 1, 1, 271]]


def dense(pieces: torch.Tensor, causal: bool, reach: int | None = None) -> torch.Tensor:
    """[B, T, T] by its definition."""
    same = pieces[:, :, None] == pieces[:, None]
    if reach is not None:
        same = same & (torch.ones_like(same).triu(-reach) & torch.ones_like(same).tril(reach))
    return same.tril() if causal else same


def tiles(count: torch.Tensor, index: torch.Tensor) -> list[list[list[int]]]:
    """The blocks of keys, ascending, that are listed for each block of queries of each row."""
    rows = zip(count[:, 0].tolist(), index[:, 0].tolist(), strict=True)
    return [[sorted(listed[:many]) for many, listed in zip(*row, strict=True)] for row in rows]


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    causal=st.booleans(),
    reach=st.one_of(st.none(), st.sampled_from([1, 127, 128, 129, 257]), st.integers(1, 400)),
)
def test_tiles_are_those_of_the_dense_mask_and_of_torch(data, causal, reach):
    reach = None if causal else reach
    length = data.draw(st.integers(1, 600))
    ends = [sorted(data.draw(st.sets(st.integers(1, length), max_size=6)) | {length}) for _ in range(3)]
    pieces = torch.stack([torch.searchsorted(torch.tensor(e), torch.arange(length), right=True) for e in ends]).int()
    names = torch.randperm(100, generator=torch.Generator().manual_seed(length)).int()
    plan = _flex.plan(names[pieces], causal=causal, reach=reach)  # what a piece is called means nothing
    assert plan.kv_indices.dtype == torch.int32 and plan.seq_lengths == (length, length)
    partly, wholly = tiles(plan.kv_num_blocks, plan.kv_indices), tiles(plan.full_kv_num_blocks, plan.full_kv_indices)
    mask = dense(pieces, causal, reach)
    for row in range(3):
        for i in range(-(-length // 128)):
            for j in range(-(-length // 128)):
                tile = mask[row, i * 128 : i * 128 + 128, j * 128 : j * 128 + 128]
                whole = bool(tile.all()) and tile.shape == (128, 128)
                assert (j in wholly[row][i]) == whole and (j in partly[row][i]) == (bool(tile.any()) and not whole)
    theirs = create_block_mask(plan.mask_mod, 3, None, length, length, device="cpu")
    assert tiles(theirs.kv_num_blocks, theirs.kv_indices) == partly
    assert tiles(theirs.full_kv_num_blocks, theirs.full_kv_indices) == wholly
    assert tiles(theirs.q_num_blocks, theirs.q_indices) == tiles(plan.q_num_blocks, plan.q_indices)
    at = torch.arange(length)
    assert torch.equal(plan.mask_mod(torch.arange(3)[:, None, None], torch.tensor(0), at[:, None], at), mask)


def queries_keys_values(length: int, heads: int, kv_heads: int, width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(4, length, count, width) for count in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def by_dense_mask(q, k, v, mask, scale):
    shared = q.shape[2] // k.shape[2]
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(shared, 1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], scale=scale).transpose(1, 2)


def compare(causal, heads, kv_heads, width, scale, dtype, tolerance):
    pieces = packed(SIZES)[1]
    given_ = queries_keys_values(400, heads, kv_heads, width, dtype)
    with torch.no_grad():
        found = layers.attention(*given_, _flex.plan(pieces, causal=causal), scale)
    assert found.shape == given_[0].shape and found.dtype == dtype
    assert (found - by_dense_mask(*given_, dense(pieces, causal), scale)).abs().max() < tolerance


CASES = [(True, 4, 4, 32, None), (False, 4, 2, 16, None), (True, 6, 2, 20, 1.0), (False, 3, 1, 8, 0.5)]


@pytest.mark.parametrize(("causal", "heads", "kv_heads", "width", "scale"), CASES)
def test_its_forward_pass_is_that_of_the_dense_mask(monkeypatch, causal, heads, kv_heads, width, scale):
    """The mathematics alone, token by token: what is listed in tiles is checked above."""
    monkeypatch.setattr(_flex, "_fused", lambda: flex_attention)
    compare(causal, heads, kv_heads, width, scale, torch.float32, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("causal", "heads", "kv_heads", "width", "scale"), CASES[:3])
def test_the_kernel_that_reads_the_tiles_gives_the_same(causal, heads, kv_heads, width, scale):
    """Compiled, as on a GPU: a CPU has the forward pass."""
    compare(causal, heads, kv_heads, width, scale, torch.float32, 1e-5)
    compare(causal, heads, kv_heads, width, scale, torch.bfloat16, 3e-2)


def test_a_model_is_traced_whole_with_its_plan(monkeypatch):
    """As compiled on a GPU: plan and attention are part of the one graph. A CPU lends its dense mask's place."""
    model = decoder(TABLES["grouped"]).eval()
    positions, pieces = packed([[100, 60, 40], [200]])
    tokens = tokens_of(2, 200)
    plans = []

    def plan(mine, seen):
        plans.append(mine.shape)
        return _flex.plan(mine, causal=True)

    monkeypatch.setattr(layers, "up_to", plan)
    with torch.no_grad():
        expected = model(tokens, positions, pieces)
        assert not plans
        traced = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert (traced(tokens, positions, pieces) - expected).abs().max() < 1e-4
    assert plans == [(2, 200)]
