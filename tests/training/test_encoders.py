"""The encoders against transformers' own classes, in both directions, and what training needs of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForMaskedLM, BertForPreTraining, ModernBertModel

from tests.training.small_models import enlarged, packed, tokens_of
from training import TrainingError, hugging_face, models
from training.models import bert, layers, modernbert

LARGEST = 1e-5


class Case(NamedTuple):
    """A family, its `[model]` table, and whether tokens of several segments are read."""

    family: str
    table: dict[str, Any]
    segments: bool = False


OTHER = {"layers": 3, "width": 40, "heads": 5, "feed_forward": 72, "norm_epsilon": 1e-2}
CASES = {
    "bert": Case("bert", {"layers": 2, "width": 48, "heads": 3}),
    "bert segments": Case("bert", {"layers": 2, "width": 48, "heads": 3}, segments=True),
    "bert other constants": Case("bert", {**OTHER, "segments": 3}, segments=True),
    "modernbert": Case("modernbert", {"layers": 5, "width": 48, "heads": 3}),
    "modernbert other constants": Case(
        "modernbert",
        {**OTHER, "global_every": 2, "window": 18, "rope_theta": 500.0, "local_rope_theta": 70.0},
    ),
}
FAMILIES = {"bert": CASES["bert"], "modernbert": CASES["modernbert"]}
PACKED = [[1, 127, 300, 172], [129, 31, 32, 33, 375], [600]]


def encoder(case: Case, *, vocab_size: int = 97, length: int = 600, seed: int = 1) -> Any:
    """An encoder with weights of the size of a trained one's."""
    model = models.build({"family": case.family, **case.table}, vocab_size=vocab_size, length=length, where="[model]")
    model.initialise(seed)
    return enlarged(model, seed)


def in_transformers(model: Any) -> Any:
    """The same weights in transformers' class, with its plain attention."""
    file = hugging_face.of_model(model)
    config = AutoConfig.for_model(**file.config(model, eot=0, length=model.length))
    theirs = AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    missing, unexpected = theirs.load_state_dict(file.theirs(model), strict=False)
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "decoder.weight"}
    assert not unexpected and set(missing) <= tied
    theirs.tie_weights()
    return theirs


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_logits_and_gradients_are_those_of_transformers(case):
    model = encoder(case)
    file, theirs = hugging_face.of_model(model), in_transformers(model)
    tokens, positions = tokens_of(2, 300, model.vocab_size), torch.arange(300).expand(2, -1)
    kinds = tokens_of(2, 300, model.config.segments, seed=3) if case.segments else None
    ours = model.logits(model(tokens, positions, None, *([kinds] if case.segments else [])))
    expected = theirs(tokens, **({"token_type_ids": kinds} if case.segments else {})).logits
    assert expected.abs().max() > 1
    assert (ours - expected).abs().max() < LARGEST * max(1, float(expected.detach().abs().max()))
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5))
    (ours * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = file.ours({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    for name, parameter in model.named_parameters():
        # A key's bias moves all scores of a query alike, so its gradient is nought but for rounding.
        scale = gradients[name.replace("key.bias", "query.bias")].abs().max()
        assert (parameter.grad - gradients[name]).abs().max() < 1e-4 * scale, name


def same_logits(settings_: dict[str, Any], length: int) -> None:
    """Of their configuration and weights, read from config.json and tensors alone."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**settings_, pad_token_id=None, initializer_range=0.5)
    theirs = AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    said = config.to_dict()
    file = hugging_face.of_config(said, "config.json")
    model = models.build(file.table(said), vocab_size=config.vocab_size, length=length, where="config.json")
    model.load_state_dict(file.ours(theirs.state_dict()))
    tokens = tokens_of(3, length, config.vocab_size)
    found = model.logits(model(tokens, torch.arange(length).expand(3, -1), None))
    expected = theirs(tokens).logits
    assert (found - expected).abs().max() < 1e-4 * max(1, float(expected.detach().abs().max()))


@settings(max_examples=15, deadline=None)
@given(
    layers_=st.integers(1, 3),
    heads=st.integers(1, 4),
    head_width=st.integers(1, 12),
    feed_forward=st.integers(1, 40),
    segments=st.integers(1, 3),
    vocabulary=st.integers(2, 60),
    length=st.integers(1, 70),
    epsilon=st.sampled_from([1e-12, 1e-5, 1e-3]),
)
def test_any_bert_of_transformers_is_ours(
    layers_, heads, head_width, feed_forward, segments, vocabulary, length, epsilon
):
    said = {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": heads * head_width + heads,
        "num_hidden_layers": layers_,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        "max_position_embeddings": length,
        "type_vocab_size": segments,
        "layer_norm_eps": epsilon,
    }
    same_logits(said, length)


@settings(max_examples=15, deadline=None)
@given(
    layers_=st.integers(1, 5),
    heads=st.integers(1, 4),
    half_head=st.integers(1, 6),
    feed_forward=st.integers(1, 40),
    every=st.one_of(st.none(), st.integers(1, 4)),
    window=st.integers(1, 40).map(lambda half: 2 * half),
    thetas=st.one_of(st.none(), st.tuples(st.floats(10, 1e6), st.floats(10, 1e6))),
    vocabulary=st.integers(2, 60),
    length=st.integers(1, 200),
)
def test_any_modernbert_of_transformers_is_ours(
    layers_, heads, half_head, feed_forward, every, window, thetas, vocabulary, length
):
    """As newer files say it, or older ones: by a number and two names for the bases."""
    older = {} if every is None else {"global_attn_every_n_layers": every}
    if thetas:
        older |= {"global_rope_theta": thetas[0], "local_rope_theta": thetas[1]}
    said = {
        "model_type": "modernbert",
        "vocab_size": vocabulary,
        "hidden_size": 2 * heads * half_head,
        "num_hidden_layers": layers_,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        "max_position_embeddings": length,
        "local_attention": window,
        **older,
    }
    same_logits({**said, "cls_token_id": 0, "sep_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}, length)
    tables = [hugging_face.of_config(said, "").table(each) for each in (said, AutoConfig.for_model(**said).to_dict())]
    # Where no later layer sees all, a file of today does not say after how many one would.
    if layers_ <= tables[0]["global_every"]:
        assert tables[1].pop("global_every") == layers_ and tables[0].pop("global_every")
    assert tables[0] == tables[1]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_there_and_back_is_the_same_model(case):
    model = encoder(case)
    file = hugging_face.of_model(model)
    back = file.ours(file.theirs(model))
    named = dict(model.named_parameters())
    assert back.keys() == named.keys() and all(torch.equal(back[name], named[name]) for name in named)
    said = file.config(model, eot=0, length=600)
    resolved = models.build(file.table(said), vocab_size=97, length=600, where="config.json")
    assert resolved.config == model.config


def test_a_checkpoint_for_pretraining_is_read_without_its_other_heads():
    model = encoder(FAMILIES["bert"])
    file = hugging_face.of_model(model)
    config = AutoConfig.for_model(**file.config(model, eot=0, length=600))
    assert file.ours(BertForPreTraining(config).state_dict()).keys() == dict(model.named_parameters()).keys()


def test_a_bare_modernbert_is_read_and_has_no_head():
    model = encoder(FAMILIES["modernbert"])
    file = hugging_face.of_model(model)
    config = AutoConfig.for_model(**file.config(model, eot=0, length=600))
    missing = dict(model.named_parameters()).keys() - file.ours(ModernBertModel(config).state_dict()).keys()
    assert missing == {"head.dense.weight", "head.norm.weight", "head.bias"}


REFUSED = {
    "bert": [
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not computed"),
        ({"hidden_size": None}, "no 'hidden_size'"),
    ],
    "modernbert": [
        ({"norm_bias": True}, "norm_bias True is not"),
        ({"decoder_bias": False}, "decoder_bias False is not"),
        ({"intermediate_size": None}, "no 'intermediate_size'"),
        ({"layer_types": ["sliding_attention", *["full_attention"] * 4]}, "layer_types .* first"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "'yarn' of full_attention is not"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling is set"),
    ],
}


@pytest.mark.parametrize(("family", "change", "said"), [(f, *case) for f, cases in REFUSED.items() for case in cases])
def test_a_config_of_other_mathematics_is_refused_by_name(family, change, said):
    model = encoder(FAMILIES[family])
    file = hugging_face.of_model(model)
    config = {**file.config(model, eot=0, length=600), **change}
    with pytest.raises(TrainingError, match=said):
        file.table({key: value for key, value in config.items() if value is not None})


@pytest.mark.parametrize(
    ("family", "odd", "decoder"),
    [
        ("bert", "bert.encoder.layer.0.odd.weight", "cls.predictions.decoder.weight"),
        ("modernbert", "model.layers.0.attn.odd.weight", "decoder.weight"),
    ],
)
def test_tensors_that_have_no_place_are_refused_by_name(family, odd, decoder):
    model = encoder(FAMILIES[family])
    file = hugging_face.of_model(model)
    with pytest.raises(TrainingError, match=rf"'{odd}' is no parameter"):
        file.ours({odd: torch.zeros(1)})
    with pytest.raises(TrainingError, match="ties them"):
        file.ours({**file.theirs(model), decoder: torch.ones(97, 48)})


def test_no_context_is_longer_than_the_table_of_positions():
    model = encoder(FAMILIES["bert"])
    with pytest.raises(TrainingError, match="601 tokens: the model has positions for 600"):
        hugging_face.of_model(model).config(model, eot=0, length=601)


@pytest.mark.parametrize("case", FAMILIES.values(), ids=FAMILIES)
def test_a_packed_row_has_the_hidden_states_of_its_documents_alone(case):
    """Pieces of one token, of a block and more, of no multiple of anything; against transformers, one by one."""
    model = encoder(case)
    positions, pieces = packed(PACKED)
    tokens = tokens_of(3, 600)
    with torch.inference_mode():
        hidden = model(tokens, positions, pieces)
        theirs = in_transformers(model).base_model
        for row, lengths in enumerate(PACKED):
            ends = torch.tensor(lengths).cumsum(0).tolist()
            for start, end in zip([0, *ends], ends, strict=False):
                alone = theirs(tokens[row : row + 1, start:end]).last_hidden_state[0]
                assert (hidden[row, start:end] - alone).abs().max() < 2 * LARGEST


def dense(pieces: torch.Tensor) -> Any:
    """What stands for `both_ways` where all is one mask."""

    def sight(*_: Any, reach: int | None = None, whole: Any = None) -> torch.Tensor:
        same = layers.together(pieces, pieces)
        return same if reach is None else same & layers.near(pieces, reach)

    return sight


def both_ways_replaced(patch: pytest.MonkeyPatch, sight: Any) -> None:
    for module in (bert, modernbert):
        patch.setattr(module, "both_ways", sight)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_blocks_and_the_dense_mask_are_one_model(monkeypatch, case):
    """Hidden states and every gradient, with pieces and without."""
    model = encoder(case)
    positions, pieces = packed(PACKED)
    tokens = tokens_of(3, 600)
    weights = torch.randn(3, 600, model.config.width, generator=torch.Generator().manual_seed(5))

    def both(numbers: torch.Tensor | None) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        hidden = model(tokens, positions, numbers)
        (hidden * weights).sum().backward()
        return [hidden.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    for numbers in (pieces, None):
        blocks = both(numbers)
        with monkeypatch.context() as patch:
            both_ways_replaced(patch, dense(torch.zeros_like(pieces) if numbers is None else pieces))
            masked = both(numbers)
        for a, b in zip(blocks, masked, strict=True):
            assert (a - b).abs().max() < 1e-4 * max(1.0, float(b.abs().max()))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), reach=st.integers(1, 200))
def test_what_is_near_is_what_the_dense_mask_says(data, reach):
    """Forward and backward, for pieces of any length around a block's and a reach's."""
    length = data.draw(st.integers(1, 420))
    ends = sorted(data.draw(st.sets(st.integers(1, length), max_size=4)) | {length})
    pieces = torch.searchsorted(torch.tensor(ends), torch.arange(length), right=True)[None].int()
    generator = torch.Generator().manual_seed(length)
    given_ = [torch.randn(1, length, 2, 8, generator=generator).requires_grad_() for _ in range(4)]
    results = []
    whole = layers.both_ways(pieces, pieces, 2, 2)
    for sight in (layers.both_ways(pieces, pieces, 2, 2, reach=reach, whole=whole), dense(pieces)(reach=reach)):
        seen = layers.attention(*given_[:3], sight)
        results.append([seen.detach(), *torch.autograd.grad(seen, given_[:3], given_[3].detach())])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() < LARGEST * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("case", FAMILIES.values(), ids=FAMILIES)
def test_under_autocast_it_is_near_and_every_parameter_learns(case):
    model = encoder(case)
    positions, pieces = packed([[100, 60], [160]])
    tokens = tokens_of(2, 160)
    exact = model.logits(model(tokens, positions, pieces))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.logits(model(tokens, positions, pieces))
    assert logits.dtype == torch.bfloat16 and (logits - exact).norm() < 0.05 * exact.norm()
    nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_flops_are_three_times_those_of_a_forward_pass(monkeypatch, case):
    """The counter multiplies whole rows, also in a layer that sees less: there the window is the whole row's."""
    table = {**case.table, **({"window": 126} if case.family == "modernbert" else {})}
    model = encoder(case._replace(table=table))
    both_ways_replaced(monkeypatch, lambda *_, **__: torch.ones(2, 1, 64, 64, dtype=torch.bool))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        hidden = model(tokens_of(2, 64), torch.arange(64).expand(2, -1), None)
        model.logits(hidden.flatten(0, 1)[:37])
    assert model.flops(models.Work(tokens=128, length=64, targets=37)) == 3 * counter.get_total_flops()
    assert model.parameter_counts()["embedding_parameters"] == 97 * model.config.width


def test_a_layer_that_sees_near_counts_its_window_alone():
    near, far = (
        encoder(Case("modernbert", {"layers": 3, "width": 48, "heads": 3, "window": 16, "global_every": every}))
        for every in (3, 1)
    )
    work = models.Work(tokens=200, length=100, targets=0)
    assert far.flops(work) - near.flops(work) == 12 * 48 * 2 * (100 - 17) * 200


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("bert", {"heads": 5}, r"width 48 is not a multiple of heads 5; change one"),
        ("modernbert", {"heads": 16}, r"width 48 is not a multiple of twice the heads, 32; change one"),
        ("modernbert", {"window": 7}, r"window.*multiple of 2"),
    ],
)
def test_a_table_that_cannot_be_is_refused(family, change, said):
    table = {"family": family, **FAMILIES[family].table, **change}
    with pytest.raises(TrainingError, match=said):
        models.build(table, vocab_size=97, length=64, where="[model]")
