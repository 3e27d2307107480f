"""The encoder against transformers' own BertForMaskedLM, in both directions, and what training needs of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining

from tests.training.small_models import enlarged, packed, tokens_of
from training import TrainingError, models
from training.hugging_face import bert as hugging_face
from training.models import bert, layers
from training.models.bert import Model

LARGEST = 1e-5
TABLES: dict[str, dict[str, Any]] = {
    "defaults": {"layers": 2, "width": 48, "heads": 3},
    "other constants": {
        "layers": 3,
        "width": 40,
        "heads": 5,
        "feed_forward": 72,
        "segments": 3,
        "norm_epsilon": 1e-2,
    },
}
PACKED = [[1, 127, 300, 172], [129, 31, 32, 33, 375], [600]]


def encoder(table: dict[str, Any], *, vocab_size: int = 97, length: int = 600, seed: int = 1) -> Model:
    """An encoder with weights of the size of a trained one's."""
    model = models.build({"family": "bert", **table}, vocab_size=vocab_size, length=length, where="[model]")
    assert isinstance(model, Model)
    model.initialise(seed)
    return enlarged(model, seed)


def in_transformers(model: Model, kind: type = BertForMaskedLM) -> Any:
    """The same weights in transformers' class, with its plain attention."""
    config = BertConfig(**hugging_face.config(model, eot=0, length=model.length), attn_implementation="eager")
    theirs = kind(config).eval()
    missing, unexpected = theirs.load_state_dict(hugging_face.theirs(model), strict=False)
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert not unexpected and {name for name in missing if "pooler" not in name and "seq_" not in name} <= tied
    theirs.tie_weights()
    return theirs


def compared(model: Model, theirs: Any, rows: int, length: int, segments: bool) -> None:
    """Logits and gradients of the two agree."""
    tokens = tokens_of(rows, length, model.vocab_size)
    kinds = tokens_of(rows, length, model.config.segments, seed=3) if segments else None
    ours = model.logits(model(tokens, torch.arange(length).expand(rows, -1), None, kinds))
    expected = theirs(tokens, token_type_ids=kinds).logits
    assert expected.abs().max() > 1
    assert (ours - expected).abs().max() < LARGEST * max(1, float(expected.detach().abs().max()))
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5))
    (ours * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = hugging_face.ours({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None})
    for name, parameter in model.named_parameters():
        # A key's bias moves all scores of a query alike, so its gradient is nought but for rounding.
        scale = gradients[name.replace("key.bias", "query.bias")].abs().max()
        assert (parameter.grad - gradients[name]).abs().max() < 1e-4 * scale, name


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_logits_and_gradients_are_those_of_transformers(table, segments):
    model = encoder(table)
    compared(model, in_transformers(model), 2, 300, segments)


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
def test_what_transformers_made_is_ours(
    layers_, heads, head_width, feed_forward, segments, vocabulary, length, epsilon
):
    """The other direction: their random configurations and weights, read from config.json and tensors alone."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=heads * head_width + heads,
        num_hidden_layers=layers_,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        max_position_embeddings=length,
        type_vocab_size=segments,
        layer_norm_eps=epsilon,
        pad_token_id=None,
        initializer_range=0.5,
        attn_implementation="eager",
    )
    theirs = BertForMaskedLM(config).eval()
    table = hugging_face.table(config.to_dict())
    model = models.build(table, vocab_size=vocabulary, length=length, where="config.json")
    model.load_state_dict(hugging_face.ours(theirs.state_dict()))
    tokens = tokens_of(3, length, vocabulary)
    found = model.logits(model(tokens, torch.arange(length).expand(3, -1), None))
    expected = theirs(tokens).logits
    assert (found - expected).abs().max() < 1e-4 * max(1, float(expected.detach().abs().max()))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_there_and_back_is_the_same_model(table):
    model = encoder(table)
    there = hugging_face.theirs(model)
    back = hugging_face.ours(there)
    named = dict(model.named_parameters())
    assert back.keys() == named.keys() and all(torch.equal(back[name], named[name]) for name in named)
    said = hugging_face.config(model, eot=0, length=600)
    resolved = models.build(hugging_face.table(said), vocab_size=97, length=600, where="config.json")
    assert resolved.config == model.config


def test_a_checkpoint_for_pretraining_is_read_without_its_other_heads():
    model = encoder(TABLES["defaults"])
    theirs = in_transformers(model, BertForPreTraining)
    found = hugging_face.ours(theirs.state_dict())
    assert found.keys() == dict(model.named_parameters()).keys()


def test_what_is_no_bert_of_ours_is_refused_by_name():
    model = encoder(TABLES["defaults"])
    said = hugging_face.config(model, eot=0, length=600)
    with pytest.raises(TrainingError, match="hidden_act is 'relu'"):
        hugging_face.table({**said, "hidden_act": "relu"})
    with pytest.raises(TrainingError, match="no 'hidden_size'"):
        hugging_face.table({key: value for key, value in said.items() if key != "hidden_size"})
    with pytest.raises(TrainingError, match=r"'bert.encoder.layer.0.odd.weight' is no parameter"):
        hugging_face.ours({"bert.encoder.layer.0.odd.weight": torch.zeros(1)})
    untied = {**hugging_face.theirs(model), "cls.predictions.decoder.weight": torch.ones(97, 48)}
    with pytest.raises(TrainingError, match="ties them"):
        hugging_face.ours(untied)
    with pytest.raises(TrainingError, match="601 tokens: the model has positions for 600"):
        hugging_face.config(model, eot=0, length=601)


def test_a_packed_row_has_the_hidden_states_of_its_documents_alone():
    """Pieces of one token, of a block and more, of no multiple of anything; against transformers, one by one."""
    model = encoder(TABLES["defaults"])
    positions, pieces = packed(PACKED)
    tokens = tokens_of(3, 600)
    with torch.inference_mode():
        hidden = model(tokens, positions, pieces)
        theirs = in_transformers(model).bert
        for row, lengths in enumerate(PACKED):
            ends = torch.tensor(lengths).cumsum(0).tolist()
            for start, end in zip([0, *ends], ends, strict=False):
                alone = theirs(tokens[row : row + 1, start:end]).last_hidden_state[0]
                assert (hidden[row, start:end] - alone).abs().max() < 2 * LARGEST


def test_blocks_and_the_dense_mask_are_one_model(monkeypatch):
    """Hidden states and every gradient, with pieces and without."""
    model = encoder(TABLES["defaults"])
    positions, pieces = packed(PACKED)
    tokens = tokens_of(3, 600)
    weights = torch.randn(3, 600, 48, generator=torch.Generator().manual_seed(5))

    def both(numbers: torch.Tensor | None) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        hidden = model(tokens, positions, numbers)
        (hidden * weights).sum().backward()
        return [hidden.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    for numbers, dense in ((pieces, pieces), (None, torch.zeros_like(pieces))):
        blocks = both(numbers)
        with monkeypatch.context() as patch:
            patch.setattr(bert, "both_ways", lambda *_, seen=dense: layers.together(seen, seen))
            masked = both(numbers)
        for a, b in zip(blocks, masked, strict=True):
            assert (a - b).abs().max() < 1e-4 * max(1.0, float(b.abs().max()))


def test_under_autocast_it_is_near_and_every_parameter_learns():
    model = encoder(TABLES["defaults"])
    positions, pieces = packed([[100, 60], [160]])
    tokens = tokens_of(2, 160)
    exact = model.logits(model(tokens, positions, pieces))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.logits(model(tokens, positions, pieces))
    assert logits.dtype == torch.bfloat16 and (logits - exact).norm() < 0.05 * exact.norm()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name


def test_flops_are_three_times_those_of_a_forward_pass(monkeypatch):
    model = encoder(TABLES["defaults"])
    monkeypatch.setattr(bert, "both_ways", lambda *_: torch.ones(2, 1, 64, 64, dtype=torch.bool))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        hidden = model(tokens_of(2, 64), torch.arange(64).expand(2, -1), None)
        model.logits(hidden.flatten(0, 1)[:37])
    assert model.flops(models.Work(tokens=128, length=64, targets=37)) == 3 * counter.get_total_flops()
    assert model.parameter_counts()["embedding_parameters"] == 97 * 48


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 5}, r"width 48 is not a multiple of heads 5; change one"),
    ],
)
def test_a_table_that_cannot_be_is_refused(change, said):
    table = {"family": "bert", **TABLES["defaults"], **change}
    with pytest.raises(TrainingError, match=said):
        models.build(table, vocab_size=97, length=64, where="[model]")
