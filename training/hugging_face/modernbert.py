"""ModernBERT as `transformers` writes it: ModernBertForMaskedLM.

There queries, keys and values are one matrix, and so are gate and up. The law: `ours(theirs(model))` is the model, and
`table(config(model))` its `[model]` table. What has no place here is refused by name, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training import TrainingError
from training.hugging_face._config import given, refuse
from training.models import modernbert

MODEL_TYPES: tuple[str, ...] = ("modernbert",)
# The module of a layer there, and those of ours whose rows stand in it one below the other.
WITHIN_LAYER = {
    "attn_norm": ("attention_norm",),
    "attn.Wqkv": ("attention.query", "attention.key", "attention.value"),
    "attn.Wo": ("attention.output",),
    "mlp_norm": ("feed_forward_norm",),
    "mlp.Wi": ("feed_forward.gate", "feed_forward.up"),
    "mlp.Wo": ("feed_forward.down",),
}
OUTSIDE = {
    "model.embeddings.tok_embeddings.weight": "embedding.weight",
    "model.embeddings.norm.weight": "embedding_norm.weight",
    "model.final_norm.weight": "norm.weight",
    "head.dense.weight": "head.dense.weight",
    "head.norm.weight": "head.norm.weight",
    "decoder.bias": "head.bias",
}
TIED = "decoder.weight", "model.embeddings.tok_embeddings.weight"
PREFIX, BARE = "model.", re.compile(r"(embeddings|layers|final_norm)\.")
FAR, NEAR = "full_attention", "sliding_attention"
# Settings under which the mathematics is another, with the one value that is ours.
REQUIRED = {
    "hidden_activation": "gelu",
    "classifier_activation": "gelu",
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "classifier_bias": False,
    "decoder_bias": True,
    "tie_word_embeddings": True,
}


def table(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `[model]` table of a config.json. Raises TrainingError where the model would be another."""
    refuse(config, {key: (value,) for key, value in REQUIRED.items()})
    names = {
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
    }
    layers = given(config, "num_hidden_layers")
    return {
        "family": "modernbert",
        **{ours: given(config, theirs) for ours, theirs in names.items()},
        "global_every": _global_every(config, layers),
        "window": config.get("local_attention", 128),
        "rope_theta": _theta(config, FAR, "global_rope_theta", 160_000.0),
        "local_rope_theta": _theta(config, NEAR, "local_rope_theta", 10_000.0),
        "norm_epsilon": float(config.get("norm_eps", 1e-5)),
    }


def _global_every(config: Mapping[str, Any], layers: int) -> int:
    """Which layers see all: every so-manieth, the first among them. Older files say it by a number."""
    kinds = config.get("layer_types")
    if kinds is None:
        return int(config.get("global_attn_every_n_layers", 3))
    far = [number for number, kind in enumerate(kinds) if kind == FAR]
    every = far[1] if len(far) > 1 else layers
    if len(kinds) != layers or kinds != _layer_types(every, layers):
        raise TrainingError(
            f"layer_types {kinds!r} are not computed here, only {FAR!r} first and then every n-th, and {NEAR!r} between"
        )
    return every


def _layer_types(every: int, layers: int) -> list[str]:
    return [NEAR if number % every else FAR for number in range(layers)]


def _theta(config: Mapping[str, Any], kind: str, older: str, usual: float) -> float:
    """The base of a kind of layer. Raises TrainingError where positions are stretched."""
    if config.get("rope_scaling"):
        raise TrainingError("rope_scaling is set, which is not computed here")
    said = (config.get("rope_parameters") or {}).get(kind) or {}
    if said.get("rope_type", "default") != "default":
        raise TrainingError(f"rope_type {said['rope_type']!r} of {kind} is not computed here, only 'default'")
    return float(said.get("rope_theta", config.get(older, usual)))


def config(model: modernbert.Model, *, eot: int, length: int) -> dict[str, Any]:
    """config.json of ModernBertForMaskedLM; `length` is the longest context.

    No dropout: whoever trains it on sets it. No padding token: `transformers` would give its embedding no gradient.
    """
    c = model.config
    thetas = {FAR: c.rope_theta, NEAR: c.local_rope_theta}
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        "vocab_size": model.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.feed_forward,
        "max_position_embeddings": length,
        "layer_types": _layer_types(c.global_every, c.layers),
        "local_attention": c.window,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
        "norm_eps": c.norm_epsilon,
        "classifier_pooling": "mean",
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
        "classifier_dropout": 0.0,
        "initializer_range": 0.02,
        **REQUIRED,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "cls_token_id": eot,
        "sep_token_id": eot,
        "pad_token_id": None,
    }


def theirs(model: modernbert.Model) -> dict[str, Tensor]:
    """Parameters under ModernBertForMaskedLM's names, float32 on the CPU; the tied decoder is not written twice."""
    mine = {name: parameter.detach().float().cpu().contiguous() for name, parameter in model.named_parameters()}
    found = {name: mine[ours] for name, ours in OUTSIDE.items() if ours in mine}
    for number in range(model.config.layers):
        for module, parts in WITHIN_LAYER.items():
            rows = [mine[name] for part in parts if (name := f"layers.{number}.{part}.weight") in mine]
            if rows:  # the first layer has no norm before its attention
                found[f"model.layers.{number}.{module}.weight"] = torch.cat(rows)
    return found


def ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters under our names. Raises TrainingError for a name that no ModernBERT has, and for a decoder that is
    not tied.

    A file without a masked head (ModernBertModel's, whose names begin without `model.`) gives no `head.*`; the caller
    says that names are missing.
    """
    tensors = {PREFIX + name if BARE.match(name) else name: tensor for name, tensor in tensors.items()}
    copy, origin = TIED
    if copy in tensors and origin in tensors and not tensors[copy].equal(tensors[origin]):
        raise TrainingError(f"{copy} is not {origin}; the family modernbert ties them")
    return dict(pair for name, tensor in tensors.items() if name != copy for pair in _in_ours(name, tensor))


def _in_ours(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    if name in OUTSIDE:
        return [(OUTSIDE[name], tensor)]
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    parts = WITHIN_LAYER.get(found[2]) if found else None
    if found is None or parts is None or len(tensor) % len(parts):
        raise TrainingError(f"{name!r} is no parameter of a ModernBertForMaskedLM")
    rows = tensor.chunk(len(parts))
    return [(f"layers.{found[1]}.{part}.weight", each.clone()) for part, each in zip(parts, rows, strict=True)]
