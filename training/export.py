"""Write a trained decoder as a folder that `transformers` loads as its own Qwen3ForCausalLM.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json  README.md

The law: whole, or not there. The folder is written beside its place, synced and renamed, and the same model
gives the same bytes. Weights are float32, under the names of Qwen3; a tied head is not written twice.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from training import TrainingError
from training.files import sync
from training.models import gpt

FILES = (
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
WITHIN_LAYER = {
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
OUTSIDE = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}


def export(model: Any, *, tokenizer_file: Path, eot: int, length: int, folder: Path, card: str | None = None) -> None:
    """Write the folder; `length` is the longest context, `card` the text of its README.md.

    An earlier export in its place is replaced. Raises TrainingError where the model is no decoder, the tokenizer
    is not the model's, or the folder holds anything that no export wrote.
    """
    if not isinstance(model, gpt.Model):
        raise TrainingError(f"{type(model).__module__} has no export; the family gpt has")
    token = _end_of_text(tokenizer_file, eot, model.vocab_size)
    _refuse_foreign(folder)
    texts = {
        "config.json": _json(config(model, eot, length)),
        "generation_config.json": _json({"bos_token_id": eot, "eos_token_id": eot, "pad_token_id": eot}),
        "tokenizer_config.json": _json(_tokenizer_config(token, length)),
        **({"README.md": card} if card is not None else {}),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, text in texts.items():
            (temporary / name).write_text(text, "utf-8")
        shutil.copyfile(tokenizer_file, temporary / "tokenizer.json")
        save_file(weights(model), temporary / "model.safetensors", metadata={"format": "pt"})
        sync(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        sync(folder.parent, deep=False)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _end_of_text(tokenizer_file: Path, eot: int, vocab_size: int) -> str:
    """The text of the end-of-text token, after the tokenizer was seen to be the model's."""
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the Rust side raises plain Exception for a missing file as for a broken one
        raise TrainingError(f"{tokenizer_file}: not a tokenizer.json: {error}") from error
    size = tokenizer.get_vocab_size()
    if size != vocab_size:
        raise TrainingError(f"{tokenizer_file}: {size} tokens, but the model has {vocab_size}; give the version's own")
    token: str | None = tokenizer.id_to_token(eot)
    if token is None:
        raise TrainingError(f"{tokenizer_file}: has no token {eot}; eot is given in the manifest")
    return token


def _refuse_foreign(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise TrainingError(f"{folder}: is no folder; name another place")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else []
    if foreign:
        raise TrainingError(f"{folder}: holds {foreign[0]!r}, which no export wrote; name another folder")


def config(model: gpt.Model, eot: int, length: int) -> dict[str, Any]:
    """config.json of Qwen3ForCausalLM."""
    c = model.config
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": model.vocab_size,
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
        "tie_word_embeddings": c.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def _tokenizer_config(token: str, length: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token,
        "eos_token": token,
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }


def weights(model: gpt.Model) -> dict[str, Tensor]:
    """Parameters under Qwen3's names, float32 on the CPU."""
    return {
        name_in_qwen3(name): parameter.detach().float().cpu().contiguous()
        for name, parameter in model.named_parameters()
    }


def name_in_qwen3(name: str) -> str:
    """'layers.3.attention.query.weight' is 'model.layers.3.self_attn.q_proj.weight' there."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    layers, number, within = module.split(".", 2)
    return f"model.{layers}.{number}.{WITHIN_LAYER[within]}.{kind}"


def _json(table: dict[str, Any]) -> str:
    return json.dumps(table, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
