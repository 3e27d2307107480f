"""The encoder and decoder of T5 v1.1 against transformers' own, and what training needs of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from tests.training.small_models import packed, tokens_of
from training import TrainingError, models
from training.generate import generate
from training.hugging_face import t5 as named
from training.models._distances import bucket
from training.models.t5 import Model

LARGEST = 1e-4
TABLES: dict[str, dict[str, Any]] = {
    "defaults": {"layers": 2, "width": 48, "heads": 3},
    "uneven": {"layers": 1, "decoder_layers": 3, "width": 32, "heads": 4, "head_width": 20, "feed_forward": 40},
    "tied": {"layers": 2, "width": 32, "heads": 2, "tie_embeddings": True},
    "other constants": {"layers": 1, "width": 32, "heads": 2, "buckets": 8, "furthest": 20, "norm_epsilon": 1e-2},
}


def model_of(table: dict[str, Any], *, vocab_size: int = 97, length: int = 512, seed: int = 1) -> Model:
    """Norms around 1 rather than at it, and tables of distances that matter."""
    model = models.build({"family": "t5", **table}, vocab_size=vocab_size, length=length, where="[model]")
    assert isinstance(model, Model)
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.5, 0.5, generator=generator))
            if name.endswith("bias.table.weight"):
                parameter.mul_(8)
    return model.eval()


def in_transformers(model: Model) -> T5ForConditionalGeneration:
    """The same weights in T5ForConditionalGeneration."""
    theirs = T5ForConditionalGeneration(T5Config(**named.config(model, eot=0, length=model.length))).eval()
    if not model.config.tie_embeddings:
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    missing, unexpected = theirs.load_state_dict(named.theirs(model), strict=False)
    repeated = {*named.REPEATED, *(["lm_head.weight"] if model.config.tie_embeddings else [])}
    assert not unexpected and set(missing) == repeated
    return theirs


def same_logits_and_gradients(model: Model, theirs: T5ForConditionalGeneration, tokens, decoder_tokens) -> None:
    ours = model.logits(model(tokens, None, decoder_tokens, None))
    expected = theirs(input_ids=tokens, decoder_input_ids=decoder_tokens).logits
    assert expected.std() > 0.01
    assert (ours - expected).abs().max() < LARGEST
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5))
    (ours * weights).sum().backward()
    (expected * weights).sum().backward()
    there = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    largest = max(gradient.abs().max() for gradient in there.values())
    for name, gradient in named.ours(there).items():
        mine = dict(model.named_parameters())[name].grad
        assert (mine - gradient).abs().max() < 1e-4 * gradient.abs().max() + 1e-6 * largest, name
    assert len(there) == sum(1 for _ in model.parameters())


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_logits_and_gradients_are_those_of_transformers(table):
    model = model_of(table)
    same_logits_and_gradients(model, in_transformers(model), tokens_of(2, 300), tokens_of(2, 150, seed=1))


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_random_configurations_in_both_directions(data):
    """Their config and weights into ours: the direction that an import takes."""
    size = st.integers(1, 3)
    buckets = 2 * data.draw(st.integers(2, 20))
    theirs = T5ForConditionalGeneration(
        T5Config(
            vocab_size=53,
            d_model=8 * data.draw(size),
            d_kv=data.draw(st.integers(1, 9)),
            d_ff=data.draw(st.integers(1, 40)),
            num_layers=data.draw(size),
            num_decoder_layers=data.draw(st.none() | size),
            num_heads=data.draw(size),
            relative_attention_num_buckets=buckets,
            relative_attention_max_distance=buckets // 2 + data.draw(st.integers(1, 200)),
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=data.draw(st.booleans()),
            decoder_start_token_id=0,
        )
    ).eval()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    table = named.table(theirs.config.to_dict())
    if not table["tie_embeddings"]:
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().flip(0).clone())
    model = models.build(table, vocab_size=53, length=64, where="")
    assert isinstance(model, Model)
    tensors = named.ours(dict(theirs.named_parameters()))
    assert tensors.keys() == dict(model.named_parameters()).keys()
    model.load_state_dict(tensors)
    lengths = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    same_logits_and_gradients(model, theirs, tokens_of(2, lengths[0], 53), tokens_of(2, lengths[1], 53, 1))
    written = named.theirs(model)
    assert all(torch.equal(written[name], parameter) for name, parameter in theirs.named_parameters())


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(("count", "furthest"), [(32, 128), (8, 20), (4, 3), (64, 4096)])
def test_buckets_are_those_of_transformers(both, count, furthest):
    distance = torch.arange(-5000, 5001)
    expected = T5Attention._relative_position_bucket(distance, both, count, furthest)
    assert torch.equal(bucket(distance, count, furthest, both=both), expected)


def test_packed_pairs_have_the_hidden_states_that_they_have_alone():
    model = model_of(TABLES["uneven"])
    sizes, decoder_sizes = [[1, 127, 72], [60, 100, 40]], [[30, 1, 9], [3, 20, 17]]
    (_, pieces), (_, decoder_pieces) = packed(sizes), packed(decoder_sizes)
    tokens, decoder_tokens = tokens_of(2, 200), tokens_of(2, 40, seed=1)
    theirs = in_transformers(model)
    with torch.inference_mode():
        logits = model.logits(model(tokens, pieces, decoder_tokens, decoder_pieces))
        for number in range(6):
            source, target = pieces == number, decoder_pieces == number
            pair = tokens[source][None], decoder_tokens[target][None]
            alone = theirs(input_ids=pair[0], decoder_input_ids=pair[1]).logits[0]
            assert (logits[target] - alone).abs().max() < LARGEST


def test_padding_is_finite_and_moves_nothing():
    """Padding of the decoder whose number no piece of the encoder has sees nothing: no NaN, and no gradient."""
    model = model_of(TABLES["defaults"])
    tokens, decoder_tokens = tokens_of(1, 20), tokens_of(1, 12, seed=1)
    pieces, decoder_pieces = torch.zeros(1, 20, dtype=torch.int32), torch.zeros(1, 12, dtype=torch.int32)
    decoder_pieces[:, 9:] = -1
    hidden = model(tokens, pieces, decoder_tokens, decoder_pieces)
    assert hidden.isfinite().all()
    hidden[:, :9].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    alone = model(tokens, None, decoder_tokens[:, :9], None)
    assert (hidden[:, :9] - alone).abs().max() < 1e-5


def test_a_cache_changes_nothing():
    model = model_of(TABLES["uneven"])
    tokens, decoder_tokens = tokens_of(3, 30), tokens_of(3, 12, seed=1)
    with torch.inference_mode():
        encoded = model.encode(tokens, None)
        whole = model.decode(decoder_tokens, None, encoded, None)
        cache, parts = model.cache(3), []
        for first, last in [(0, 5), (5, 6), (6, 7), (7, 12)]:
            parts.append(
                model.decode(decoder_tokens[:, first:last], None, encoded if first == 0 else None, None, cache)
            )
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5


def test_it_writes_greedily_what_transformers_writes():
    """Prompts of several lengths in one batch; transformers is asked one by one."""
    model = model_of(TABLES["uneven"], length=64)
    theirs = in_transformers(model)
    prompts = [tokens_of(1, length, seed=length)[0].tolist() for length in (3, 17, 30, 9)]
    options = {"top_k": None, "top_p": None, "return_sequences": 1, "seed": 0, "eot": 0}
    found = generate(model, prompts, new_tokens=12, temperature=0.0, batch=3, **options)
    for prompt, [mine] in zip(prompts, found, strict=True):
        said = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, use_cache=False)[
            0, 1:
        ].tolist()
        assert mine == said
    drawn = [
        generate(model, prompts, new_tokens=8, temperature=1.0, batch=size, **{**options, "return_sequences": 2})
        for size in (1, 5)
    ]
    assert drawn[0] == drawn[1] and drawn[0] != [[a, a] for [a] in found]
    with pytest.raises(TrainingError, match="reads and writes at most 64 each"):
        generate(model, prompts, new_tokens=65, temperature=0.0, **options)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_under_autocast_it_is_near_and_every_parameter_learns(table):
    model = model_of(table)
    (_, pieces), (_, decoder_pieces) = packed([[100, 60], [160]]), packed([[30, 10], [40]])
    decoder_pieces[1] = 2
    tokens, decoder_tokens = tokens_of(2, 160), tokens_of(2, 40, seed=1)
    exact = model.logits(model(tokens, pieces, decoder_tokens, decoder_pieces))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(tokens, pieces, decoder_tokens, decoder_pieces)
        logits = model.logits(hidden)
    assert hidden.dtype == logits.dtype == torch.bfloat16
    assert (logits - exact).norm() < 0.05 * exact.norm()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), decoder_tokens.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_flops_are_three_times_those_of_a_forward_pass(table):
    model = model_of(table)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        hidden = model(tokens_of(2, 64), None, tokens_of(2, 24, seed=1), None)
        model.logits(hidden.flatten(0, 1)[:37])
    work = models.Work(tokens=48, length=24, targets=37, encoder_tokens=128, encoder_length=64)
    assert model.flops(work) == 3 * counter.get_total_flops()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 5}, r"width 48 is not a multiple of heads 5; change one or give head_width"),
        ({"buckets": 7}, r"buckets: .*multiple of 2"),
        ({"furthest": 16}, r"furthest 16 must be above half of buckets 32"),
    ],
)
def test_a_table_that_cannot_be_is_refused(change, said):
    with pytest.raises(TrainingError, match=said):
        models.build({"family": "t5", **TABLES["defaults"], **change}, vocab_size=9, length=8, where="[model]")


def test_what_is_no_t5_v1_1_is_refused_by_name():
    with pytest.raises(TrainingError, match=r"feed_forward_proj 'relu' is that of T5 before v1\.1"):
        named.table(T5Config().to_dict())
    for name in ("encoder.block.0.layer.2.DenseReluDense.wi_0.weight", "transformer.h.0.attn.weight", "wte.weight"):
        with pytest.raises(TrainingError, match=f"'{name}' is no tensor of"):
            named.ours({name: torch.zeros(1)})
