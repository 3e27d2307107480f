"""BERT as `transformers` writes it: BertForMaskedLM.

The law: `ours(theirs(model))` is the model, and `table(config(model))` its `[model]` table. A checkpoint of
another head (next sentence, pooler) is read for what masked language modelling needs; what has no place here
is refused by name, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from training import TrainingError
from training.hugging_face._config import given, refuse
from training.models import bert

MODEL_TYPES: tuple[str, ...] = ("bert",)
WITHIN_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
OUTSIDE = {
    "embedding": "bert.embeddings.word_embeddings",
    "positions": "bert.embeddings.position_embeddings",
    "segments": "bert.embeddings.token_type_embeddings",
    "norm": "bert.embeddings.LayerNorm",
    "head.dense": "cls.predictions.transform.dense",
    "head.norm": "cls.predictions.transform.LayerNorm",
    "head": "cls.predictions",
}
OURS_WITHIN, OURS_OUTSIDE = ({theirs: ours for ours, theirs in names.items()} for names in (WITHIN_LAYER, OUTSIDE))
# What BertForPreTraining has beside, and copies of tied tensors that older files repeat.
UNUSED = re.compile(
    r"bert\.pooler\.|cls\.seq_relationship\.|cls\.predictions\.decoder\.(weight|bias)$|bert\.embeddings\.position_ids$"
)
PREFIX, BARE = "bert.", re.compile(r"(embeddings|encoder|pooler)\.")
# Settings under which the mathematics is another, with the one value that is ours.
REQUIRED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
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
    return {
        "family": "bert",
        **{ours: given(config, theirs) for ours, theirs in names.items()},
        "segments": config.get("type_vocab_size", 2),
        "norm_epsilon": float(config.get("layer_norm_eps", 1e-12)),
    }


def config(model: bert.Model, *, eot: int, length: int) -> dict[str, Any]:
    """config.json of BertForMaskedLM; `length` is the longest context, at most the model's positions.

    No dropout: whoever trains it on sets it. No padding token: `transformers` would give its embedding no gradient.
    The table of positions is written whole, so it gives their number.
    """
    if length > model.length:
        raise TrainingError(f"a context of {length} tokens: the model has positions for {model.length}")
    c = model.config
    return {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": model.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.feed_forward,
        "max_position_embeddings": model.length,
        "type_vocab_size": c.segments,
        "layer_norm_eps": c.norm_epsilon,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        **REQUIRED,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "pad_token_id": None,
    }


def theirs(model: bert.Model) -> dict[str, Tensor]:
    """Parameters under BertForMaskedLM's names, float32 on the CPU; the tied decoder is not written twice."""
    return {
        _name_in_theirs(name): parameter.detach().float().cpu().contiguous()
        for name, parameter in model.named_parameters()
    }


def ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters under our names. Raises TrainingError for a name that no BERT has, and for decoders that are not tied.

    A file without a masked head (BertModel's, whose names begin without `bert.`) gives no `head.*`; the caller says
    that names are missing.
    """
    tensors = {PREFIX + name if BARE.match(name) else name: tensor for name, tensor in tensors.items()}
    for copy, origin in (
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ):
        if copy in tensors and origin in tensors and not tensors[copy].equal(tensors[origin]):
            raise TrainingError(f"{copy} is not {origin}; the family bert ties them")
    return {_name_in_ours(name): tensor for name, tensor in tensors.items() if not UNUSED.match(name)}


def _name_in_theirs(name: str) -> str:
    """'layers.3.query.weight' is 'bert.encoder.layer.3.attention.self.query.weight' there."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    _, number, within = module.split(".", 2)
    return f"bert.encoder.layer.{number}.{WITHIN_LAYER[within]}.{kind}"


def _name_in_ours(name: str) -> str:
    # Files from TensorFlow call the norm's weight and bias gamma and beta.
    module, _, kind = name.rpartition(".")
    kind = {"gamma": "weight", "beta": "bias"}.get(kind, kind)
    if module in OURS_OUTSIDE:
        return f"{OURS_OUTSIDE[module]}.{kind}"
    found = re.fullmatch(r"bert\.encoder\.layer\.(\d+)\.(.+)", module)
    if found is None or found[2] not in OURS_WITHIN:
        raise TrainingError(f"{name!r} is no parameter of a BertForMaskedLM")
    return f"layers.{found[1]}.{OURS_WITHIN[found[2]]}.{kind}"
