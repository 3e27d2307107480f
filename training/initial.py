"""The first weights of a run that goes on from another's: `init = "DIR"` in the run file.

DIR is a run of ours (its newest checkpoint counts), one of its checkpoints, or a Hugging Face folder. The model is
the one found there, so `[model]` may be left out, and what it says must agree.

The law: weights go on in their own vocabulary or not at all, and the digest of the weights, never the place where
they lay, is part of the identity of the run. All is read and refused before the first step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import TrainingError, checkpoint, hugging_face, journal, models, vocabulary
from training.hugging_face import _folder
from training.manifest import Version, digest, file_digest
from training.tables import suggest

TABLES = ("embedding.weight", "positions.weight", "head.weight", "head.bias")  # a row a token, or a position


@dataclass(frozen=True)
class Source:
    """Trained weights on disk: the model's table, the digest of the weights, the tokenizer, and how to read them."""

    model: dict[str, Any]
    digest: str
    tokenizer: Path
    tensors: Callable[[], dict[str, Tensor]]


def resolved(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A run file's table whose `init` is looked up: the folder, the digest of its weights, and the model found there.

    Raises TrainingError where the folder cannot be continued, or `[model]` says otherwise.
    """
    folder = table["init"]
    if not isinstance(folder, str):
        raise TrainingError(f"{where}: init: expected the name of a folder, got {folder!r}")
    found = source(Path(folder))
    model = models.described(found.model, folder)
    given = table.get("model", {})
    if not isinstance(given, Mapping):
        raise TrainingError(f"{where}: model: expected a table, got {given!r}")
    for key, value in given.items():
        if key not in model:
            raise TrainingError(f"{where} [model]: unknown key {key!r}{suggest(key, model)}")
        if model[key] != value:
            raise TrainingError(
                f"{where} [model]: {key} is {value!r}, and that of the model in {folder} {model[key]!r}; "
                f"leave [model] out to go on with that model"
            )
    return {**table, "model": model, "init": {"folder": folder, "weights": found.digest}}


def source(folder: Path) -> Source:
    """What lies in a folder. Raises TrainingError where it is nothing that can be continued."""
    if (folder / "run.json").is_file():
        return _of_run(folder, None)
    if (folder / "state.json").is_file():
        return _of_run(folder.absolute().parents[1], folder)
    if (folder / "config.json").is_file():
        return _of_hugging_face(folder)
    raise TrainingError(
        f"init {folder}: no run (run.json), checkpoint (state.json) or Hugging Face folder (config.json) is here"
    )


def _of_run(folder: Path, chosen: Path | None) -> Source:
    books, run, version = journal.read(folder, verify=False)
    found = [chosen] if chosen else checkpoint.steps(books.checkpoints)
    if not found:
        raise TrainingError(f"{folder}: has no checkpoint yet")
    files = checkpoint.read_state(found[-1])["files"]
    return Source(run.model, digest(files), version.tokenizer_file, lambda: checkpoint.read_weights(found[-1]))


def _of_hugging_face(folder: Path) -> Source:
    place = folder / "config.json"
    config = _folder.read_table(place)
    family = hugging_face.of_config(config, str(place))

    def tensors() -> dict[str, Tensor]:
        found: dict[str, Tensor] = _at(str(folder), family.ours, _folder.tensors(folder))
        return found

    table = _at(str(place), family.table, config)
    return Source(table, _folder.weights_digest(folder), folder / "tokenizer.json", tensors)


def _at(place: str, function: Callable[[Any], Any], given: Any) -> Any:
    """Call; what it refuses is said with the place."""
    try:
        return function(given)
    except TrainingError as error:
        raise TrainingError(f"{place}: {error}") from error


def fill(model: Any, folder: Path, version: Version, *, extra_tokens: Sequence[str] = ()) -> None:
    """Give the model the weights of `folder`. Raises TrainingError where tokenizer, names or shapes differ.

    The tokenizer there may have special tokens behind those of the version's, as exports have: the first of them are
    then the `extra_tokens` of the objective, and the weights of the others are left out.
    """
    found = source(folder)
    _same_tokenizer(found.tokenizer, version, extra_tokens)
    checkpoint.fill(model, _at(str(folder), partial(_fitted, model=model), found.tensors()), str(folder))


def _same_tokenizer(file: Path, version: Version, extra_tokens: Sequence[str]) -> None:
    """By bytes, or else by content: the same tokenizer written by another release has other bytes."""
    if not file.is_file():
        raise TrainingError(f"{file}: missing; whether the model knows the version's tokens cannot be told without it")
    if file_digest(file) == version.manifest.tokenizer.sha256:
        return
    behind = _behind(file, version.manifest.tokenizer.vocab_size)
    theirs = tokenizer_digest(file)
    if theirs != tokenizer_digest(version.tokenizer_file, behind):
        raise TrainingError(
            f"{file}: the model's tokenizer has the digest {theirs} and that of {version.address} "
            f"{tokenizer_digest(version.tokenizer_file)}; build a version with the model's tokenizer"
        )
    if behind and behind[: len(extra_tokens)] != list(extra_tokens):
        raise TrainingError(
            f"{file}: {behind[0]!r} stands behind the version's tokens, where the objective has {extra_tokens[0]!r}; "
            f"go on with the objective that the model was trained for"
        )


def _behind(file: Path, size: int) -> list[str]:
    """The special tokens of a tokenizer.json from id `size` on."""
    added = vocabulary.extended(file, ()).get_added_tokens_decoder()
    return [token.content for number, token in sorted(added.items()) if number >= size and token.special]


def tokenizer_digest(file: Path, extra_tokens: Sequence[str] = ()) -> str:
    """32 hexadecimal characters over what a tokenizer.json says, however it is written, with `extra_tokens` behind its
    own. Raises TrainingError."""
    text = vocabulary.extended(file, extra_tokens).to_str()
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _fitted(tensors: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The tensors, less what the model has no use for.

    A tied table that is written twice counts once. Rows of tokens that the tokenizer does not have (a vocabulary
    that was padded), and of positions beyond the version's rows, are cut.
    """
    parameters = checkpoint.weights(model)
    known = [tensors[name] for name in tensors.keys() & parameters.keys()]
    tables = {model.vocab_size, model.length}
    return {
        name: _cut(name, tensor, parameters[name], tables) if name in parameters else tensor
        for name, tensor in tensors.items()
        if name in parameters or not any(_same(tensor, other) for other in known)
    }


def _cut(name: str, tensor: Tensor, parameter: Tensor, tables: set[int]) -> Tensor:
    """Only a table of tokens or positions has rows that a smaller one can do without."""
    rows = len(parameter)
    if not name.endswith(TABLES) or rows not in tables or tensor.shape[1:] != parameter.shape[1:]:
        return tensor
    if len(tensor) < rows:
        raise TrainingError(f"{name!r} has {len(tensor)} rows; the version's tokens, or its rows' length, need {rows}")
    return tensor[:rows]


def _same(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape and torch.equal(tensor, other)
