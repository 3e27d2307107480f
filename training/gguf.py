"""Write a decoder as a GGUF file, which llama.cpp and what is built on it (Ollama, LM Studio) run.

The file is written by the `gguf` package of llama.cpp's authors, and tensors have the names of its table. What is said
here is what its converter does with a Hugging Face folder of the forms qwen3, llama and gpt2:

    queries and keys of llama   rotation there turns neighbouring values of a head, ours one half with the other, so
                                their rows change places; qwen3 is turned by halves on both sides
    matrices                    [outputs, inputs], GPT-2's too, in the type that is asked for; vectors stay float32
    tokens                      those of a byte-level BPE, under the name that llama.cpp has for how it cuts texts

The same model gives the same bytes. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import TrainingError, card, hugging_face, journal, loading
from training.files import flush, sync
from training.loading import Loaded

WEIGHTS = ("f32", "f16", "bf16", "q8_0")
PAPERS = {"README.md": "gristmill.model_card", "ATTRIBUTION.md": "gristmill.attribution"}
# GPT-2's matrices are [inputs, outputs] as `transformers` has them.
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")

_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# llama.cpp's names of how a text is cut before its merges. Its `llama-bpe` takes a piece that is a token whole.
SPLITS = {_HEAD + r"\p{N}{1,3}" + _TAIL: "llama-bpe", _HEAD + r"\p{N}" + _TAIL: "qwen2"}
WHOLE = ("llama-bpe",)


def export(place: Path, target: Path, weights: str = "f16") -> None:
    """Write what lies in the folder of a run, of a checkpoint or of a Hugging Face export. Raises as `write` does."""
    papers = {name: (place / name).read_text("utf-8") for name in PAPERS if (place / name).is_file()}
    if (place / "run.json").is_file():
        books, settings, version = journal.read(place, verify=False)
        papers = card.papers(books, settings, version)
    write(loading.load(place, "cpu"), target, weights, papers)


def write(loaded: Loaded, target: Path, weights: str = "f16", papers: Mapping[str, str] | None = None) -> None:
    """Write the file whole or not at all; an earlier one in its place is replaced.

    `papers` (of `card`) travel in its metadata. Raises TrainingError where the model is no decoder, its tokenizer is
    none that llama.cpp knows, a matrix does not divide into blocks of the type, or `gguf` is not installed.
    """
    gguf = _package()
    model, form = loaded.model, _form(loaded)
    if weights not in WEIGHTS:
        raise TrainingError(f"weights {weights!r}: give one of {', '.join(WEIGHTS)}")
    architecture = gguf.MODEL_ARCH[form.upper()]
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(temporary, gguf.MODEL_ARCH_NAMES[architecture])
    try:
        _describe(writer, model, loaded.name, weights)
        _tokenizer(writer, loaded)
        for name, key in PAPERS.items():
            if text := (papers or {}).get(name):
                writer.add_string(key, text)
        names = gguf.get_tensor_name_map(architecture, model.config.layers)
        kind = gguf.GGMLQuantizationType[weights.upper()]
        for name, values in _tensors(model):
            theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
            asked = kind if values.ndim > 1 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(theirs, _packed(gguf, name, values, asked), raw_dtype=asked)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        flush(temporary)
        temporary.replace(target)
        sync(target.parent, deep=False)
    finally:
        temporary.unlink(missing_ok=True)


def _package() -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise TrainingError("a .gguf file needs gguf; install gristmill[gguf]") from error
    return gguf


def _form(loaded: Loaded) -> str:
    form = getattr(loaded.model.config, "form", None)
    if loaded.classifier or form is None:
        raise TrainingError(
            f"{loaded.name}: GGUF is written for decoders (qwen3, llama, gpt2) alone; name a folder for `transformers`"
        )
    return str(form)


def _describe(writer: Any, model: Any, name: str, weights: str) -> None:
    c = model.config
    writer.add_name(name)
    writer.add_block_count(c.layers)
    writer.add_context_length(model.length)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.feed_forward)
    writer.add_head_count(c.heads)
    if c.form == "gpt2":
        writer.add_layer_norm_eps(c.norm_epsilon)
    else:
        writer.add_head_count_kv(c.kv_heads)
        writer.add_layer_norm_rms_eps(c.norm_epsilon)
        writer.add_rope_freq_base(c.rope_theta)
        writer.add_rope_dimension_count(c.head_width)
        writer.add_key_length(c.head_width)
        writer.add_value_length(c.head_width)
    kinds = _package().LlamaFileType
    writer.add_file_type(kinds.ALL_F32 if weights == "f32" else kinds[f"MOSTLY_{weights.upper()}"])


def _tensors(model: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Tensors as the converter has them, under the names of `transformers`."""
    c = model.config
    for name, tensor in hugging_face.of_model(model).theirs(model).items():
        if c.form == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = _by_neighbours(tensor, c.head_width)
        elif c.form == "gpt2" and name.endswith(TURNED):
            tensor = tensor.T
        yield name, np.ascontiguousarray(tensor.to(torch.float32).numpy())


def _by_neighbours(matrix: Tensor, head_width: int) -> Tensor:
    """Rows of heads [heads x head_width, width] whose first half is turned with the second, in pairs side by side."""
    return matrix.view(-1, 2, head_width // 2, matrix.shape[1]).transpose(1, 2).reshape(matrix.shape)


def _packed(gguf: Any, name: str, values: NDArray[np.float32], kind: Any) -> NDArray[Any]:
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if values.shape[-1] % block:
        raise TrainingError(
            f"{name} has rows of {values.shape[-1]} values, and {kind.name.lower()} has blocks of {block}; choose f16"
        )
    packed: NDArray[Any] = gguf.quants.quantize(values, kind)
    return packed


def _tokenizer(writer: Any, loaded: Loaded) -> None:
    gguf = _package()
    table = json.loads(loaded.tokenizer.to_str())
    special = {token["id"] for token in table["added_tokens"] if token["special"]}
    spelt: list[str] = [f"[PAD{number}]" for number in range(loaded.model.vocab_size)]
    kinds = [gguf.TokenType.UNUSED] * len(spelt)
    added = {token["id"]: token["content"] for token in table["added_tokens"]}
    for token, number in {**table["model"]["vocab"], **{text: number for number, text in added.items()}}.items():
        spelt[number] = token
        usual = gguf.TokenType.USER_DEFINED if number in added else gguf.TokenType.NORMAL
        kinds[number] = gguf.TokenType.CONTROL if number in special else usual
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(table, loaded.name))
    writer.add_token_list(spelt)
    writer.add_token_types(kinds)
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in table["model"]["merges"]]
    )
    writer.add_bos_token_id(loaded.start)
    writer.add_eos_token_id(min(loaded.ends, default=loaded.start))
    writer.add_add_bos_token(loaded.encode("a") == [loaded.start, *loaded.read("a", bare=True)])
    if loaded.template:
        writer.add_chat_template(loaded.template)


def _pre_tokenizer(table: Mapping[str, Any], name: str) -> str:
    """llama.cpp's name. A normalizer to NFC is passed over, as its converter does: it reads texts as they are."""
    model, normal = table["model"], table["normalizer"]
    odd = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    found = None if odd or model["type"] != "BPE" or normal not in (None, {"type": "NFC"}) else _split(table)
    if found is None or bool(model.get("ignore_merges")) != (found in WHOLE):
        raise TrainingError(
            f"{name}: its tokenizer cuts texts in a way that llama.cpp has no name for; "
            "byte-level BPE as GPT-2, Llama 3, Qwen or SmolLM have it can be written"
        )
    return found


def _split(table: Mapping[str, Any]) -> str | None:
    bytes_alone = {"type": "ByteLevel", "add_prefix_space": False}
    match table["pre_tokenizer"]:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return "gpt-2"
        case {"type": "Sequence", "pretokenizers": [first, second]} if bytes_alone.items() <= second.items():
            if first == {"type": "Digits", "individual_digits": True} and second["use_regex"]:
                return "smollm"
            pattern = {"type": "Split", "behavior": "Isolated", "invert": False}.items() <= first.items()
            return SPLITS.get(first["pattern"].get("Regex")) if pattern and not second["use_regex"] else None
    return None
