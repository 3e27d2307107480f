"""Write a trained model as a folder that `transformers` loads as its own: a decoder as Qwen3, Llama or GPT-2.

The tokenizer puts what begins a document before a text, and end-of-text behind it where the model continues none, as
every document has it in training: a prompt means the same to the run and to its export. That of a classifier has a
token to pad with.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json
    README.md  ATTRIBUTION.md

The law: whole, or not there. The folder is written beside its place, synced and renamed, and the same model
gives the same bytes. What is named how is said by the family's file in `hugging_face`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.processors import ByteLevel, TemplateProcessing
from tokenizers.processors import Sequence as Sequenced
from torch import Tensor

from training import TrainingError, hugging_face
from training.files import sync
from training.vocabulary import extended, mask_of

# How a folder holds its tensors, and what its config.json says of it.
WEIGHTS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
PAPERS = ("ATTRIBUTION.md", "README.md")
FILES = (
    "ATTRIBUTION.md",
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def export(
    model: Any,
    *,
    tokenizer_file: Path,
    eot: int,
    start: int | None = None,
    length: int,
    folder: Path,
    papers: Mapping[str, str] | None = None,
    extra_tokens: Sequence[str] = (),
    template: str | None = None,
    weights: str = "f32",
) -> None:
    """Write the folder; `length` is the longest context, `papers` the texts of its PAPERS (`card`), `eot` ends a text
    and `start`, by default `eot`, begins it.

    `extra_tokens` are the objective's, whose ids follow the tokenizer's: the mask, or the sentinels. `template` is the
    Jinja template by which it is told a chat, `weights` one of WEIGHTS.
    An earlier export in its place is replaced. Raises TrainingError where the model's family has no file in
    `hugging_face`, the tokenizer is not the model's, the folder holds anything that no export wrote, or there is a
    number that `weights` cannot hold.
    """
    family = hugging_face.of_model(model)
    padding = getattr(family, "PADDING", None)
    extra_tokens = [*extra_tokens, *([padding] if padding else [])]
    tokenizer = _tokenizer(tokenizer_file, extra_tokens, model.vocab_size + bool(padding))
    first = eot if start is None else start
    around = _spelt(tokenizer, tokenizer_file, first), _spelt(tokenizer, tokenizer_file, eot)
    _surround(tokenizer, around, (first, eot), behind=bool(padding) or not model.causal)
    _refuse_foreign(folder)
    tensors = _held(family.theirs(model), weights)
    kept = str(WEIGHTS[weights]).removeprefix("torch.")
    config = {**family.config(model, eot=eot, length=length), "dtype": kept, "torch_dtype": kept}
    config |= {"bos_token_id": first} if "bos_token_id" in config else {}
    texts = {
        "config.json": _json(config),
        **({} if padding else {"generation_config.json": _json(_generation_config(config, first, eot))}),
        "tokenizer_config.json": _json(_tokenizer_config(around, length, mask_of(tokenizer), padding, template)),
        **{name: text for name, text in (papers or {}).items() if name in PAPERS},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, text in texts.items():
            (temporary / name).write_text(text, "utf-8")
        (temporary / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        sync(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        sync(folder.parent, deep=False)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _held(tensors: Mapping[str, Tensor], weights: str) -> dict[str, Tensor]:
    """The tensors in the type that is asked for."""
    if weights not in WEIGHTS:
        raise TrainingError(
            f"weights {weights!r}: a folder holds {', '.join(WEIGHTS)}; a target that ends in .gguf has more"
        )
    held = {name: tensor.to(WEIGHTS[weights]) for name, tensor in tensors.items()}
    for name, tensor in held.items():
        if not tensor.isfinite().all() and tensors[name].isfinite().all():
            raise TrainingError(f"{name} has values that {weights} cannot hold; choose bf16")
    return held


def _tokenizer(tokenizer_file: Path, extra_tokens: Sequence[str], vocab_size: int) -> Tokenizer:
    """The version's tokenizer with the objective's tokens behind it, after it was seen to be the model's."""
    tokenizer = extended(tokenizer_file, extra_tokens)
    before = extended(tokenizer_file, ()).get_vocab_size()
    size = tokenizer.get_vocab_size()
    if size != vocab_size or size != before + len(extra_tokens):
        raise TrainingError(
            f"{tokenizer_file}: {before} tokens and {len(extra_tokens)} of the objective, but the model has "
            f"{vocab_size}; give the version's own"
        )
    return tokenizer


def _spelt(tokenizer: Tokenizer, tokenizer_file: Path, number: int) -> str:
    token: str | None = tokenizer.id_to_token(number)
    if token is None:
        raise TrainingError(f"{tokenizer_file}: has no token {number}; it is given in the manifest")
    return token


def _surround(tokenizer: Tokenizer, around: tuple[str, str], ids: tuple[int, int], *, behind: bool) -> None:
    """Let the tokenizer put the first token before each text, and, if `behind`, the second behind it; nothing else."""
    first, end = around
    single, pair = f"{first} $A", f"{first} $A {end} $B:1"
    if behind:
        single, pair = f"{single} {end}", f"{pair} {end}:1"
    template = TemplateProcessing(single=single, pair=pair, special_tokens=[*zip(around, ids, strict=True)])
    before = tokenizer.post_processor
    # One that is a template would put tokens of its own beside these.
    tokenizer.post_processor = Sequenced([before, template]) if isinstance(before, ByteLevel) else template


def _refuse_foreign(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise TrainingError(f"{folder}: is no folder; name another place")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else []
    if foreign:
        raise TrainingError(f"{folder}: holds {foreign[0]!r}, which no export wrote; name another folder")


def _generation_config(config: dict[str, Any], start: int, eot: int) -> dict[str, Any]:
    """Tokens that begin, end and pad what is generated: those of config.json, or else the end of text."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    usual = dict(zip(names, (start, eot, eot), strict=False))
    return usual | {name: config[name] for name in names if config.get(name) is not None}


def _tokenizer_config(
    around: tuple[str, str], length: int, mask: str | None, padding: str | None, template: str | None
) -> dict[str, Any]:
    return {
        **({"mask_token": mask} if mask and not padding else {}),
        **({"chat_template": template} if template else {}),
        **({"pad_token": padding, "padding_side": "right"} if padding else {}),
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": around[0],
        "eos_token": around[1],
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }


def _json(table: dict[str, Any]) -> str:
    return json.dumps(table, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
