"""Decoders: the forms of the family gpt as Qwen3ForCausalLM, LlamaForCausalLM and GPT2LMHeadModel.

GPT-2 keeps each matrix as [inputs, outputs] (its Conv1D), and queries, keys and values side by side in one,
`c_attn`; all else is names. Dropout is no part of what a model computes and is not taken over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training import TrainingError
from training.hugging_face._config import given, refuse
from training.models.gpt import ROTARY_THETA, Model

ARCHITECTURES = {
    "qwen3": ["Qwen3ForCausalLM", "Qwen3Model"],
    "llama": ["LlamaForCausalLM", "LlamaModel"],
    "gpt2": ["GPT2LMHeadModel", "GPT2Model"],
}
MODEL_TYPES: tuple[str, ...] = tuple(ARCHITECTURES)

ROTARY_NAMES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "layers": "model.layers",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
GPT2_NAMES = {
    "embedding": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "layers": "transformer.h",
    "attention_norm": "ln_1",
    "attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
FUSED, PARTS = "attn.c_attn", ("attention.query", "attention.key", "attention.value")
TRANSPOSED = ("attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight", "attn.c_attn.weight")
# Constants that older checkpoints carry: causal masks, and the frequencies of rotary positions.
CONSTANTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")

# What a config.json may leave out, by the classes of transformers; None: see `table`.
ROTARY_DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
GPT2_DEFAULTS: dict[str, Any] = {"n_inner": None, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}

# The values that this family computes; a key that is absent has the first.
ROTARY_ONLY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1.0, None),
}
GPT2_ONLY: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
PLAIN_ROTATION = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1.0}
NEVER = ("quantization_config", "auto_map")


def table(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `[model]` table of a config.json. Raises TrainingError for what the family does not compute."""
    form = config["model_type"]
    _refuse(config, form)
    if form == "gpt2":
        c = {**GPT2_DEFAULTS, **config}
        width = given(c, "n_embd")
        return {
            "family": "gpt",
            "form": form,
            "layers": given(c, "n_layer"),
            "width": width,
            "heads": given(c, "n_head"),
            "feed_forward": 4 * width if c["n_inner"] is None else c["n_inner"],
            "norm_epsilon": c["layer_norm_epsilon"],
            "tie_embeddings": c["tie_word_embeddings"],
        }
    c = {**ROTARY_DEFAULTS, **({"head_dim": 128} if form == "qwen3" else {}), **config}
    width, heads = given(c, "hidden_size"), given(c, "num_attention_heads")
    said = {"kv_heads": c["num_key_value_heads"], "head_width": c["head_dim"]}
    return {
        "family": "gpt",
        "form": form,
        "layers": given(c, "num_hidden_layers"),
        "width": width,
        "heads": heads,
        **{key: value for key, value in said.items() if value is not None},
        "feed_forward": given(c, "intermediate_size"),
        "rope_theta": _theta(c),
        "norm_epsilon": c["rms_norm_eps"],
        "tie_embeddings": c["tie_word_embeddings"],
    }


def _refuse(config: Mapping[str, Any], form: str) -> None:
    architectures = config.get("architectures") or ARCHITECTURES[form]
    if unknown := [name for name in architectures if name not in ARCHITECTURES[form]]:
        raise TrainingError(f"architectures {unknown}: only {', '.join(ARCHITECTURES[form])} can be read")
    refuse(config, GPT2_ONLY if form == "gpt2" else ROTARY_ONLY)
    if beyond := [key for key in NEVER if config.get(key)]:
        raise TrainingError(f"{beyond[0]} asks for more than plain weights, which cannot be read")
    if kinds := [kind for kind in config.get("layer_types") or () if kind != "full_attention"]:
        raise TrainingError(f"layer_types {kinds[0]!r} is not computed here, only 'full_attention'")


def _theta(config: Mapping[str, Any]) -> Any:
    """The base of rotary positions: transformers 5 keeps it in rope_parameters, 4 beside rope_scaling."""
    theta = config.get("rope_theta") or ROTARY_THETA
    for key in ("rope_scaling", "rope_parameters"):
        said = config.get(key) or {}
        plain = isinstance(said, Mapping) and said.keys() <= PLAIN_ROTATION.keys() | {"rope_theta"}
        if not plain or any(said.get(name, usual) != usual for name, usual in PLAIN_ROTATION.items()):
            raise TrainingError(f"{key} {said!r} is not computed here, only rope_type 'default'")
        theta = said.get("rope_theta", theta)
    return theta  # checked with the table


def config(model: Model, *, eot: int, length: int) -> dict[str, Any]:
    """config.json of the form's causal language model."""
    c = model.config
    whole = {
        "architectures": ARCHITECTURES[c.form][:1],
        "model_type": c.form,
        "vocab_size": model.vocab_size,
        "tie_word_embeddings": c.tie_embeddings,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": eot,
        "eos_token_id": eot,
    }
    if c.form == "gpt2":
        return {
            **whole,
            "n_positions": model.length,
            "n_embd": c.width,
            "n_layer": c.layers,
            "n_head": c.heads,
            "n_inner": c.feed_forward,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": c.norm_epsilon,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        }
    return {
        **whole,
        "hidden_size": c.width,
        "intermediate_size": c.feed_forward,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": length,
        "rms_norm_eps": c.norm_epsilon,
        # transformers 5 reads rope_parameters; transformers 4 and other readers rope_theta.
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "rope_theta": c.rope_theta,
        "attention_bias": False,
        "attention_dropout": 0.0,
        **({"use_sliding_window": False} if c.form == "qwen3" else {"mlp_bias": False}),
    }


def theirs(model: Model) -> dict[str, Tensor]:
    """Parameters under their names, float32 on the CPU; a tied head is not written twice."""
    tensors = {name: parameter.detach().float().cpu() for name, parameter in model.named_parameters()}
    if model.config.form != "gpt2":
        return {_renamed(name, ROTARY_NAMES): tensor.contiguous() for name, tensor in tensors.items()}
    for number in range(model.config.layers):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"layers.{number}.{part}.{kind}") for part in PARTS]
            tensors[f"layers.{number}.{FUSED}.{kind}"] = torch.cat(parts)
    named = {_renamed(name, {**GPT2_NAMES, FUSED: FUSED}): tensor for name, tensor in tensors.items()}
    return {name: _turned(name, tensor).contiguous() for name, tensor in named.items()}


def ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names, of any form. Raises TrainingError for a name that no form has."""
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(CONSTANTS)}
    if any(name.endswith("wte.weight") for name in tensors):
        return _from_gpt2({name: _turned(name, tensor) for name, tensor in _whole(tensors, "transformer.").items()})
    names = {theirs: ours for ours, theirs in ROTARY_NAMES.items()}
    return {_renamed(name, names): tensor for name, tensor in _whole(tensors, "model.").items()}


def _from_gpt2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {theirs: ours for ours, theirs in {**GPT2_NAMES, FUSED: FUSED}.items()}
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        mine = _renamed(name, names)
        if FUSED not in mine:
            found[mine] = tensor
        elif len(tensor) % len(PARTS):
            raise TrainingError(f"{name!r} is {list(tensor.shape)}: no queries, keys and values of one size")
        else:
            split = zip(PARTS, tensor.chunk(len(PARTS)), strict=True)
            found |= {mine.replace(FUSED, part): values for part, values in split}
    return found


def _whole(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The names in a model with a head; one saved without it, like GPT-2 when it was published, has no prefix."""
    if any(name.startswith(prefix) for name in tensors):
        return tensors
    return {name if name.startswith("lm_head.") else prefix + name: tensor for name, tensor in tensors.items()}


def _turned(name: str, tensor: Tensor) -> Tensor:
    return tensor.T if name.endswith(TRANSPOSED) else tensor


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """'layers.3.attention.query.weight' is 'model.layers.3.self_attn.q_proj.weight', and back."""
    module, _, kind = name.rpartition(".")
    if module in names:
        return f"{names[module]}.{kind}"
    for layers in {"layers", "model.layers", "transformer.h"} & names.keys():
        number, _, within = module.removeprefix(f"{layers}.").partition(".")
        if module.startswith(f"{layers}.") and number.isdigit() and within in names:
            return f"{names[layers]}.{number}.{names[within]}.{kind}"
    raise TrainingError(f"{name!r} is no tensor that a model of the family gpt has")
