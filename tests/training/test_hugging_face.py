"""Both ways between transformers and us: random models there and here have the same logits, gradients and tensors."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from tests.training.small_models import TABLES, compare_gradients, decoder, packed, tokens_of
from training import TrainingError, checkpoint, hugging_face, models
from training.hugging_face import gpt

LARGEST = 1e-4  # seen: 1.5e-5 on logits of up to 9
VOCABULARY, LENGTH = 89, 64
ROTARY: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": LENGTH,
}
GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": LENGTH, "n_embd": 32, "n_layer": 1, "n_head": 4}
PLAIN = {"qwen3": ROTARY, "llama": ROTARY, "gpt2": GPT2}


@st.composite
def configs(draw: st.DrawFn, form: str) -> dict[str, Any]:
    """A config of transformers' own, of any shape whose norms span six at the least: over two they are cliffs."""
    heads = draw(st.sampled_from([1, 2, 3, 4, 6]))
    width = heads * draw(st.sampled_from([6, 8, 16]))
    layers, tied = draw(st.integers(1, 3)), draw(st.booleans())
    epsilon = draw(st.sampled_from([1e-6, 1e-5, 1e-3]))
    inner = draw(st.integers(1, 90))
    if form == "gpt2":
        activation = draw(st.sampled_from(["gelu_new", "gelu_pytorch_tanh"]))
        return {
            **GPT2,
            "n_embd": width,
            "n_head": heads,
            "n_layer": layers,
            "n_inner": draw(st.sampled_from([None, inner])),
            "layer_norm_epsilon": epsilon,
            "activation_function": activation,
            "tie_word_embeddings": tied,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        }
    theta = draw(st.sampled_from([100.0, 10_000.0, 1_000_000.0]))
    return {
        **ROTARY,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])),
        "head_dim": draw(st.sampled_from([6, 8, 10, 16, *([None] if form == "llama" else [])])),
        "intermediate_size": inner,
        "rms_norm_eps": epsilon,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


def in_transformers(form: str, config: dict[str, Any], seed: int = 0) -> Any:
    """A model there, its weights uniform and large enough that every part of it counts."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(form, **config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if parameter.ndim == 1 and "bias" not in name else 0.0
            parameter.copy_(around + torch.empty_like(parameter).uniform_(-0.4, 0.4, generator=generator))
    return model


def here(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """The same model as ours: what an import does, in memory."""
    model = models.build(gpt.table(config), vocab_size=VOCABULARY, length=LENGTH, where="[model]")
    ours = gpt.ours(tensors)
    if model.config.tie_embeddings:
        ours.pop("head.weight", None)
    checkpoint.fill(model, ours, "there")
    return model


def logits_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model.logits(model(tokens, torch.arange(tokens.shape[1]).expand(len(tokens), -1), None))
    return logits


@pytest.mark.parametrize("form", gpt.MODEL_TYPES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_model_of_any_shape_is_the_same_here_and_there_again(form, data):
    config = data.draw(configs(form))
    theirs = in_transformers(form, config, data.draw(st.integers(0, 99)))
    model = here(theirs.config.to_dict(), theirs.state_dict())
    tokens = tokens_of(2, 40, VOCABULARY, data.draw(st.integers(0, 99)))
    ours, expected = logits_of(model, tokens), theirs(tokens).logits
    assert (ours - expected).abs().max() < LARGEST
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(5))
    (ours * weights).sum().backward()
    (expected * weights).sum().backward()
    compare_gradients(model, theirs)
    back, whole = gpt.theirs(model), theirs.state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in back.items())
    assert whole.keys() - back.keys() == ({"lm_head.weight"} if config["tie_word_embeddings"] else set())
    again = AutoModelForCausalLM.from_config(AutoConfig.for_model(**gpt.config(model, eot=0, length=LENGTH))).eval()
    again.load_state_dict(back, strict=False)
    again.tie_weights()
    with torch.inference_mode():
        assert (again(tokens).logits - expected).abs().max() < LARGEST  # not 0: the two kinds of GELU round differently


@pytest.mark.parametrize("form", gpt.MODEL_TYPES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_pieces_of_a_packed_row_are_documents_alone_there(form, data):
    cuts = data.draw(st.lists(st.integers(1, LENGTH - 1), max_size=5, unique=True))
    bounds = [0, *sorted(cuts), LENGTH]
    theirs = in_transformers(form, data.draw(configs(form)))
    model = here(theirs.config.to_dict(), theirs.state_dict())
    tokens = tokens_of(1, LENGTH, VOCABULARY)
    positions, pieces = packed([[end - start for start, end in itertools.pairwise(bounds)]])
    with torch.inference_mode():
        logits = model.logits(model(tokens, positions, pieces))
        for start, end in itertools.pairwise(bounds):
            assert (logits[:, start:end] - theirs(tokens[:, start:end]).logits).abs().max() < LARGEST


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_names_and_tables_come_back(table):
    model = decoder(table)
    assert hugging_face.of_model(model) is gpt
    back = gpt.ours(gpt.theirs(model))
    parameters = checkpoint.weights(model)
    assert back.keys() == parameters.keys()
    assert all(torch.equal(back[name], parameters[name]) for name in back)
    config = gpt.config(model, eot=0, length=model.length)
    assert hugging_face.of_config(config, "") is gpt
    assert models.described(gpt.table(config), "") == models.described({"family": "gpt", **table}, "")


def test_gpt2_as_it_was_first_published():
    """Without the prefix, with masks as tensors, and a config.json that says less."""
    theirs = in_transformers("gpt2", GPT2)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    bare |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    model = here({"model_type": "gpt2", "n_ctx": 64, "architectures": ["GPT2LMHeadModel"], **GPT2}, bare)
    tokens = tokens_of(2, 40, VOCABULARY)
    assert (logits_of(model, tokens) - theirs(tokens).logits).abs().max() < LARGEST


@pytest.mark.parametrize("form", ["qwen3", "llama"])
def test_configs_of_older_releases(form):
    """rope_theta by itself, rope_scaling null, a whole number for a base, and inv_freq among the tensors."""
    theirs = in_transformers(form, {**ROTARY, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    config = {"model_type": form, **ROTARY, "rope_theta": 500_000, "rope_scaling": None, "sliding_window": 4096}
    tensors = {**theirs.state_dict(), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    model = here(config, tensors)
    tokens = tokens_of(2, 40, VOCABULARY)
    assert (logits_of(model, tokens) - theirs(tokens).logits).abs().max() < LARGEST


def test_a_model_saved_without_its_head():
    config = AutoConfig.for_model("llama", **ROTARY, tie_word_embeddings=True)
    base = AutoModel.from_config(config)
    model = here(config.to_dict(), base.state_dict())
    assert torch.equal(model.embedding.weight, base.embed_tokens.weight)


SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("form", "change", "said"),
    [
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling .*dynamic.* not computed here"),
        ("qwen3", {"rope_parameters": SCALED}, "rope_parameters .*linear.* only rope_type 'default'"),
        ("llama", {"rope_parameters": {"full_attention": SCALED}}, "rope_parameters .* not computed here"),
        ("llama", {"rope_scaling": "yarn"}, "rope_scaling 'yarn'"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window True is not computed here, only False"),
        ("qwen3", {"layer_types": ["sliding_attention"]}, "sliding_attention"),
        ("llama", {"attention_bias": True}, "attention_bias True"),
        ("llama", {"mlp_bias": True}, "mlp_bias True"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not computed here, only 'silu'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config asks for more than plain weights"),
        ("llama", {"auto_map": {"AutoModel": "x.Y"}}, "auto_map asks for more"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "only LlamaForCausalLM"),
        ("llama", {"hidden_size": None}, "no 'hidden_size', which a llama has"),
        ("gpt2", {"activation_function": "gelu"}, "activation_function 'gelu'"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention True"),
        ("gpt2", {"n_embd": None}, "no 'n_embd'"),
    ],
)
def test_what_is_not_computed_is_refused(form, change, said):
    with pytest.raises(TrainingError, match=said):
        gpt.table({"model_type": form, **PLAIN[form], **change})


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "num_hidden_layers", "rope_theta"])
@pytest.mark.parametrize("value", ["32", -1, [4], True])
def test_values_that_cannot_be_are_refused_by_the_models_own_check(key, value):
    with pytest.raises(TrainingError, match=r"config\.json"):
        models.described(gpt.table({"model_type": "llama", **ROTARY, key: value}), "config.json")


@pytest.mark.parametrize(
    ("form", "name", "said"),
    [
        ("llama", "model.layers.0.self_attn.q_proj.lora_A", "attention.query.lora_A"),
        ("llama", "score.weight", "score.weight"),
        ("llama", "model.layers.x.mlp.up_proj.weight", "layers.x"),
        ("gpt2", "transformer.h.0.crossattention.c_attn.weight", "crossattention"),
        ("gpt2", "v_head.weight", "v_head"),
    ],
)
def test_an_unknown_tensor_is_refused(form, name, said):
    tensors = {**in_transformers(form, PLAIN[form]).state_dict(), name: torch.zeros(2)}
    with pytest.raises(TrainingError, match=said):
        here({"model_type": form, **PLAIN[form]}, tensors)


@pytest.mark.parametrize("form", gpt.MODEL_TYPES)
def test_a_missing_tensor_or_another_shape_is_refused(form):
    whole = in_transformers(form, PLAIN[form]).state_dict()
    for name in whole.keys() - {"lm_head.weight"}:
        fewer, other = copy.copy(whole), copy.copy(whole)
        del fewer[name]
        other[name] = torch.zeros([size + 1 for size in other[name].shape])
        for tensors in (fewer, other):
            with pytest.raises(TrainingError):
                here({"model_type": form, **PLAIN[form]}, tensors)


def test_an_unknown_model_type_lists_what_can_be_read():
    with pytest.raises(TrainingError, match=r"config\.json: unknown model_type 'lama'; did you mean 'llama'\?.*qwen3"):
        hugging_face.of_config({"model_type": "lama"}, "config.json")
