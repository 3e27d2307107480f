"""The decoder against transformers' own, its attention against a brute-force twin, and what training needs of it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.training.small_models import TABLES, compare_gradients, decoder, in_transformers, packed, tokens_of
from training import TrainingError, models
from training.models import _blocks, _gradients, gpt, layers

LARGEST = 1e-5  # seen: 4e-6 on logits of up to 4.4


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_logits_and_gradients_are_those_of_transformers(table):
    model = decoder(table)
    theirs = in_transformers(model)
    tokens = tokens_of(2, 300)
    ours = model.logits(model(tokens, torch.arange(300).expand(2, -1), None))
    expected = theirs(tokens).logits
    assert expected.abs().max() > 1.5
    assert (ours - expected).abs().max() < LARGEST
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5))
    (ours * weights).sum().backward()
    (expected * weights).sum().backward()
    compare_gradients(model, theirs)


@pytest.mark.parametrize("name", ["grouped", "llama", "gpt2"])
def test_a_packed_row_has_the_hidden_states_of_its_documents_alone(name):
    """Pieces of one token, of a block and more, of no multiple of anything; against transformers, one by one."""
    model = decoder(TABLES[name], length=600)
    sizes = [[1, 127, 300, 172], [129, 31, 32, 33, 375], [600]]
    positions, pieces = packed(sizes)
    tokens = tokens_of(3, 600)
    with torch.inference_mode():
        hidden = model(tokens, positions, pieces)
        theirs = in_transformers(model).base_model
        for row, lengths in enumerate(sizes):
            ends = torch.tensor(lengths).cumsum(0).tolist()
            for start, end in zip([0, *ends], ends, strict=False):
                alone = theirs(tokens[row : row + 1, start:end]).last_hidden_state[0]
                assert (hidden[row, start:end] - alone).abs().max() < LARGEST


def test_nothing_later_and_nothing_in_another_piece_moves_a_bit():
    model = decoder(TABLES["grouped"])
    positions, pieces = packed([[200, 150, 50], [130, 270]])
    tokens = tokens_of(2, 400)
    with torch.inference_mode():
        before = model(tokens, positions, pieces)
        for row, changed, end in [(0, 0, 200), (0, 137, 200), (0, 199, 200), (0, 200, 350), (1, 399, 400)]:
            other = tokens.clone()
            other[row, changed] = (other[row, changed] + 1) % 97
            moved = (model(other, positions, pieces) != before).any(-1)
            assert moved[row, changed:end].all()
            moved[row, changed:end] = False
            assert not moved.any()


def twin(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pieces: torch.Tensor, causal: bool) -> torch.Tensor:
    """One head of one token at a time, from the definition."""
    out = torch.empty_like(q)
    share = q.shape[2] // k.shape[2]
    for row, token, head in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        last = token + 1 if causal else q.shape[1]
        seen = [s for s in range(last) if pieces[row, s] == pieces[row, token]]
        scores = k[row, seen, head // share] @ q[row, token, head] / math.sqrt(q.shape[3])
        out[row, token, head] = scores.softmax(0) @ v[row, seen, head // share]
    return out


@pytest.mark.parametrize("causal", [True, False])
@settings(max_examples=25, deadline=None)
@given(data=st.data(), heads=st.sampled_from([(1, 1), (2, 1), (4, 2)]), width=st.sampled_from([2, 6]))
def test_attention_and_its_gradients_are_those_of_the_definition(causal, data, heads, width):
    """Float64, with blocks and multiples small enough for every way through the code; the mask's path as well."""
    rows, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 14))
    begins = data.draw(
        st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows)
    )
    pieces = torch.tensor(begins).cumsum(1).int()
    q, k, v, given_ = (draw(rows, length, n, width, seed) for seed, n in enumerate((*heads, heads[1], heads[0])))
    expected = gradients(twin(q, k, v, pieces, causal), given_, q, k, v)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_blocks, "BLOCK", data.draw(st.integers(1, 5)))
        patch.setattr(_blocks, "MULTIPLE", data.draw(st.integers(1, 4)))
        patch.setattr(_blocks, "KEEP", data.draw(st.sampled_from([0, 4, 100])))
        mask = (layers.up_to if causal else layers.together)(pieces, pieces)
        for sight in (_blocks.lay_out(pieces, rows, length, *heads, causal=causal), mask):
            found = gradients(layers.attention(q, k, v, sight), given_, q, k, v)
            assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found, expected, strict=True))


def draw(rows: int, length: int, heads: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, length, heads, width, dtype=torch.float64, generator=generator).requires_grad_()


def gradients(out: torch.Tensor, given_: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return [out.detach(), *torch.autograd.grad(out, inputs, given_.detach())]


def test_the_norm_has_the_gradient_of_its_formula():
    norm = layers.RMSNorm(6, 1e-3).double()
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(1))
    x = draw(2, 3, 2, 6, 0)
    expected = torch.nn.functional.rms_norm(x, (6,), norm.weight, 1e-3)
    assert torch.allclose(norm(x), expected, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda a, w: _gradients.Normalised.apply(a, w, 1e-3, a.dtype), (x, norm.weight))


def test_gradients_of_rotations_and_gates_are_those_of_their_formulas():
    generator = torch.Generator().manual_seed(4)
    x, angles = (torch.randn(2, 3, 2, size, dtype=torch.float64, generator=generator) for size in (8, 4))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: layers.rotate(a, (angles.cos(), angles.sin()), a.dtype), x)
    gate, up = (torch.randn(5, 7, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2))
    weight = torch.randn(4, gate.shape[-1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_gradients.Gated.apply, (gate, up, weight))
    wanted = torch.nn.functional.linear(torch.nn.functional.silu(gate) * up, weight)
    assert torch.equal(_gradients.Gated.apply(gate, up, weight), wanted)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_under_autocast_it_is_near_and_every_parameter_learns(table):
    model = decoder(table, scale=1)
    positions, pieces = packed([[100, 60], [160]])
    tokens = tokens_of(2, 160)
    exact = model.logits(model(tokens, positions, pieces))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(tokens, positions, pieces)
        logits = model.logits(hidden)
    assert hidden.dtype == logits.dtype == torch.bfloat16
    assert (logits - exact).norm() < 0.02 * exact.norm()
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_initial_weights_hang_on_the_seed_and_their_names_alone():
    def made(seed: int, count: int) -> dict[str, torch.Tensor]:
        model = models.build({"family": "gpt", "layers": count, "width": 256, "heads": 4}, **VOCABULARY)
        model.initialise(seed)
        return {name: parameter.detach() for name, parameter in model.named_parameters()}

    state = torch.get_rng_state()
    first = made(7, 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again, deeper, other = made(7, 2), made(7, 3), made(8, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert torch.equal(first["layers.1.attention.key.weight"], deeper["layers.1.attention.key.weight"])
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    assert not torch.equal(first["layers.0.attention.key.weight"], first["layers.1.attention.key.weight"])
    for name, parameter in first.items():
        into_residual = name.endswith(("output.weight", "down.weight"))
        wanted = 1.0 if parameter.ndim == 1 else 0.02 / (2 if into_residual else 1)
        spread = parameter.std() if parameter.ndim == 2 else parameter.mean()
        assert math.isclose(spread, wanted, rel_tol=6 / math.sqrt(2 * parameter.numel())), name
    assert first["embedding.weight"][0, :4].tolist() == pytest.approx(GOLDEN, rel=1e-6)


VOCABULARY = {"vocab_size": 300, "length": 64, "where": "[model]"}
GOLDEN = [-0.014287508092820644, -0.026713503524661064, 8.224805787904188e-05, -0.023850075900554657]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_flops_are_three_times_those_of_a_forward_pass(table, monkeypatch):
    """Against torch's counter, which sees the matrix products of attention in full where no kernel hides them."""
    model = decoder(table)
    monkeypatch.setattr(gpt, "causal", lambda *_: None)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        hidden = model(tokens_of(2, 64), torch.arange(64).expand(2, -1), None)
        model.logits(hidden.flatten(0, 1)[:37])
    assert model.flops(models.Work(tokens=128, length=64, targets=37)) == 3 * counter.get_total_flops()
    counts = model.parameter_counts()
    assert counts["embedding_parameters"] == 97 * model.config.width * (1 if model.config.tie_embeddings else 2)
    assert counts["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 5}, r"width 48 is not a multiple of heads 5; change one or give head_width"),
        ({"kv_heads": 2}, r"heads 3 is not a multiple of kv_heads 2"),
        ({"head_width": 7}, r"head_width: .*multiple of 2"),
        ({"form": "gpt3"}, r"form: .*'qwen3', 'llama' or 'gpt2'.*'gpt3'"),
        ({"form": "gpt2", "kv_heads": 1}, r"form 'gpt2' has no kv_heads 1; leave kv_heads out"),
        ({"form": "gpt2", "head_width": 32}, r"form 'gpt2' has no head_width 32"),
        ({"form": "gpt2", "rope_theta": 1e4}, r"form 'gpt2' has no rope_theta"),
        ({"form": "gpt2", "heads": 5}, r"width 48 is not a multiple of heads 5; change one \(got"),
        ({"form": "llama", "rope_theta": None}, r"form 'llama' needs a rope_theta"),
    ],
)
def test_a_table_that_cannot_be_is_refused(change, said):
    with pytest.raises(TrainingError, match=said):
        models.build({"family": "gpt", **TABLES["defaults"], **change}, **VOCABULARY)


@pytest.mark.parametrize(("width", "feed_forward"), [(24, 64), (256, 704), (384, 1024), (768, 2048), (1000, 2688)])
def test_defaults_follow_the_width(width, feed_forward):
    """8/3 of the width, up to a multiple of 64."""
    config = decoder({"layers": 1, "width": width, "heads": 4}).config
    assert (config.kv_heads, config.head_width, config.feed_forward) == (4, width // 4, feed_forward)
