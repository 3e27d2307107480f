"""T5 v1.1 as `transformers` knows it: T5ForConditionalGeneration with a gated GELU.

The head of v1.1 is its own, which a config says by `tie_word_embeddings: false`; `transformers` 5 then leaves out
the scaling of hidden states and keeps the head apart where the file holds both tensors. A config written by it says
`scale_decoder_outputs` instead. T5 before v1.1 (a ReLU without gate) is refused by name.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from training import TrainingError
from training.hugging_face._config import given
from training.models.t5 import Model

MODEL_TYPES: tuple[str, ...] = ("t5",)
GATED = ("gated-gelu", "gated-gelu_new")
OUTSIDE = {"embedding": "shared", "head": "lm_head"}
# Per stack: the sublayers of a block in their order there.
SUBLAYERS = {
    "encoder": ("attention", "feed_forward"),
    "decoder": ("attention", "cross_attention", "feed_forward"),
}
MODULES = {"attention": "SelfAttention", "cross_attention": "EncDecAttention", "feed_forward": "DenseReluDense"}
PROJECTIONS = {"query": "q", "key": "k", "value": "v", "output": "o", "gate": "wi_0", "up": "wi_1", "down": "wo"}
# Tensors that repeat another: `transformers` 4 wrote the shared embedding under these names too.
REPEATED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def table(config: dict[str, Any]) -> dict[str, Any]:
    """The `[model]` table of a config.json. Raises TrainingError for what is no T5 v1.1."""
    kind = config.get("feed_forward_proj", "relu")
    if kind not in GATED:
        raise TrainingError(f"feed_forward_proj {kind!r} is that of T5 before v1.1; known are: {', '.join(GATED)}")
    layers = given(config, "num_layers")
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    depth = config.get("num_decoder_layers")
    return {
        "family": "t5",
        "layers": layers,
        "decoder_layers": layers if depth is None else depth,
        "width": given(config, "d_model"),
        "heads": given(config, "num_heads"),
        "head_width": given(config, "d_kv"),
        "feed_forward": given(config, "d_ff"),
        "buckets": config.get("relative_attention_num_buckets", 32),
        "furthest": config.get("relative_attention_max_distance", 128),
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-6),
        "tie_embeddings": bool(scaled),
    }


def config(model: Model, *, eot: int, length: int) -> dict[str, Any]:
    """config.json of T5ForConditionalGeneration; the decoder starts with the end-of-text token."""
    c = model.config
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": model.vocab_size,
        "d_model": c.width,
        "d_kv": c.head_width,
        "d_ff": c.feed_forward,
        "num_layers": c.layers,
        "num_decoder_layers": c.decoder_layers,
        "num_heads": c.heads,
        "relative_attention_num_buckets": c.buckets,
        "relative_attention_max_distance": c.furthest,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
        "layer_norm_epsilon": c.norm_epsilon,
        "n_positions": length,
        "tie_word_embeddings": c.tie_embeddings,
        "use_cache": True,
        "decoder_start_token_id": eot,
        "eos_token_id": eot,
        "pad_token_id": eot,
    }


def theirs(model: Model) -> dict[str, Tensor]:
    """Parameters under the names of T5ForConditionalGeneration, float32 on the CPU."""
    named = model.named_parameters()
    return {_their_name(name): parameter.detach().float().cpu().contiguous() for name, parameter in named}


def ours(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a T5ForConditionalGeneration under our names. Raises TrainingError for a name that it has not."""
    return {_our_name(name): tensor for name, tensor in tensors.items() if name not in REPEATED}


def _their_name(name: str) -> str:
    """'decoder.layers.3.cross_attention.query.weight' is 'decoder.block.3.layer.1.EncDecAttention.q.weight' there."""
    stack, _, rest = name.partition(".")
    if stack in OUTSIDE:
        return f"{OUTSIDE[stack]}.{rest}"
    if rest == "norm.weight":
        return f"{stack}.final_layer_norm.weight"
    if rest == "bias.table.weight":
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    _, number, sublayer, *projection, _ = rest.split(".")
    kind = sublayer.removesuffix("_norm")
    within = f"{MODULES[kind]}.{PROJECTIONS[projection[0]]}" if projection else "layer_norm"
    return f"{stack}.block.{number}.layer.{SUBLAYERS[stack].index(kind)}.{within}.weight"


def _our_name(name: str) -> str:
    """The inverse of `_their_name`."""
    module, _, kind = name.rpartition(".")
    parts = module.split(".")
    outside = {theirs: ours for ours, theirs in OUTSIDE.items()}
    projections = {theirs: ours for ours, theirs in PROJECTIONS.items()}
    try:
        match parts:
            case [alone]:
                return f"{outside[alone]}.{kind}"
            case [stack, "final_layer_norm"] if stack in SUBLAYERS:
                return f"{stack}.norm.{kind}"
            case [stack, "block", "0", "layer", "0", "SelfAttention", "relative_attention_bias"]:
                return f"{stack}.bias.table.{kind}"
            case [stack, "block", number, "layer", place, *within]:
                sublayer = SUBLAYERS[stack][int(place)]
                if within == ["layer_norm"]:
                    return f"{stack}.layers.{number}.{sublayer}_norm.{kind}"
                if within[0] == MODULES[sublayer]:
                    return f"{stack}.layers.{number}.{sublayer}.{projections[within[1]]}.{kind}"
    except (KeyError, IndexError, ValueError):
        pass
    raise TrainingError(f"{name!r} is no tensor of a T5ForConditionalGeneration v1.1")
