"""The first weights of a run that goes on from another's: `init = "DIR"` in the run file.

DIR is a run of ours (its newest checkpoint counts), one of its checkpoints, or a Hugging Face folder. The model is
the one found there, so `[model]` may be left out, and what it says must agree.

The law: weights go on in their own vocabulary or not at all, and the digest of the weights, never the place where
they lay, is part of the identity of the run. All is read and refused before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import TrainingError, checkpoint, hugging_face, journal, lora, models, objectives, vocabulary
from training.classifier import Classifier
from training.hugging_face import _classification, _folder
from training.manifest import Version, digest, file_digest
from training.tables import suggest

BACKBONE = "backbone."  # before the names of a classifier's backbone
TABLES = (*lora.TOKENS, "positions.weight")  # a row a token, or a position


@dataclass(frozen=True)
class Source:
    """Trained weights on disk: the model's table, the digest of the weights, the tokenizer, and how to read them.

    `extra_tokens` have the ids behind the tokenizer's in a run of ours (None: the tokenizer itself says it). Of a
    classifier `tensors` are those of its backbone; `on_top` reads what lies above it (nothing, or a pooler, for other
    models), and `labels` are its classes. `checkpoint` is that of a run of ours.
    """

    model: dict[str, Any]
    digest: str
    tokenizer: Path
    tensors: Callable[[], dict[str, Tensor]]
    on_top: Callable[[], dict[str, Tensor]]
    labels: list[str] | None = None
    extra_tokens: Sequence[str] | None = None
    checkpoint: Path | None = None


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
    model, tokenizer = run.model, version.tokenizer_file

    def weights() -> dict[str, Tensor]:
        return lora.folded(checkpoint.read_weights(found[-1]), run.lora)

    if run.objective["use"] != "classify":
        extra_tokens = objectives.load(run.objective, "[objective]").over(version).extra_tokens
        return Source(model, digest(files), tokenizer, weights, dict, None, extra_tokens, found[-1])

    def backbone() -> dict[str, Tensor]:
        return {n.removeprefix(BACKBONE): t for n, t in weights().items() if n.startswith(BACKBONE)}

    def on_top() -> dict[str, Tensor]:
        return {n: t for n, t in weights().items() if not n.startswith(BACKBONE)}

    return Source(model, digest(files), tokenizer, backbone, on_top, version.manifest.labels, (), found[-1])


def _of_hugging_face(folder: Path) -> Source:
    place = folder / "config.json"
    config = _folder.read_table(place)
    family = hugging_face.of_config(config, str(place))
    form = _at(str(folder), _classification.reads, config)
    ours = partial(_classification.backbone, form, family) if form else family.ours

    def tensors() -> dict[str, Tensor]:
        found: dict[str, Tensor] = _at(str(folder), ours, _folder.tensors(folder))
        return found

    def on_top() -> dict[str, Tensor]:
        return _classification.on_top(config["model_type"], _folder.tensors(folder))

    labels = _classification.labels(config) if form else None
    if form:
        config = {key: value for key, value in config.items() if key != "architectures"}
    table = _at(str(place), family.table, config)
    return Source(table, _folder.weights_digest(folder), folder / "tokenizer.json", tensors, on_top, labels)


def built(found: Source, length: int, eot: int, place: str) -> Any:
    """The whole model of a source, a classifier with its head, for contexts of `length` tokens. Raises TrainingError
    where its tensors are not those of its table."""
    tensors = found.tensors()
    if "embedding.weight" not in tensors:
        raise TrainingError(f"{place}: the weights have no embedding of tokens")
    size = len(tensors["embedding.weight"])
    model = models.build(found.model, vocab_size=size, length=length, where=place)
    fitted = _at(place, partial(_fitted, model=model, there=(size, length)), tensors)
    if found.labels is None:
        checkpoint.fill(model, fitted, place)
        return model
    classifier = Classifier(model, found.labels, eot)
    named = {BACKBONE + name: tensor for name, tensor in fitted.items() if not _of_head(name)}
    checkpoint.fill(classifier, named | found.on_top(), place)
    return classifier


def _at(place: str, function: Callable[[Any], Any], given: Any) -> Any:
    """Call; what it refuses is said with the place."""
    try:
        return function(given)
    except TrainingError as error:
        raise TrainingError(f"{place}: {error}") from error


def fill(model: Any, folder: Path, version: Version, seed: int = 0, *, extra_tokens: Sequence[str] = ()) -> list[str]:
    """Give the model the weights of `folder`. Raises TrainingError where tokenizer, names or shapes differ.

    The tokenizer there may have special tokens behind those of the version's, as exports have: the first of them are
    then the `extra_tokens` of the objective, and the weights of the others are left out. Extra tokens that are not
    there begin as the mean of all tokens, so that what the model knows of the others stays (Hewitt 2021, "Initializing
    new word embeddings for pretrained language models"), and positions that only they need as the last one that is.
    Of a classifier the head is drawn by `seed` where the folder has none into the same labels, and so is the head that
    fills masked places where an encoder has none (BertModel). Returns the names of the parameters and tokens that are
    not from the folder.
    """
    found = source(folder)
    known = same_tokenizer(found, version, extra_tokens)
    tensors, fresh = found.tensors(), dict[str, Tensor]()
    if isinstance(model, Classifier):
        model.initialise_head(seed)
        tensors, fresh = _under_a_head(tensors, found, model)
    elif not (model.causal or models.has_encoder_and_decoder(model)) and not any(map(_of_head, tensors)):
        model.initialise(seed)
        fresh = {name: tensor.detach().clone() for name, tensor in model.named_parameters() if _of_head(name)}
    there = version.manifest.tokenizer.vocab_size + known, version.manifest.length
    fitted = _at(str(folder), partial(_fitted, model=model, there=there), tensors)
    checkpoint.fill(model, fitted | fresh, str(folder))
    return [*sorted(fresh), *extra_tokens[known:]]


def _of_head(name: str) -> bool:
    return name.startswith("head.")


def _under_a_head(
    tensors: Mapping[str, Tensor], found: Source, model: Classifier
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors by a classifier's names, without a head over the vocabulary; and those that it has to draw."""
    named = {BACKBONE + name: tensor for name, tensor in tensors.items() if not _of_head(name)}
    top = found.on_top()
    if model.reads_mean and found.labels is None:
        top = {f"pooler.{n.removeprefix('head.')}": t for n, t in tensors.items() if _of_head(n)}
    if found.labels != model.labels:
        top = {name: tensor for name, tensor in top.items() if not _of_head(name)}
    fresh = {name: parameter.detach().clone() for name, parameter in model.on_top().items() if name not in top}
    return {**named, **{name: top[name] for name in top if name in model.on_top()}}, fresh


def same_tokenizer(found: Source, version: Version, extra_tokens: Sequence[str]) -> int:
    """How many of the objective's tokens have weights there. Raises TrainingError where the tokenizer is another.

    It is compared by bytes, or else by content: the same tokenizer written by another release has other bytes.
    """
    file, size = found.tokenizer, version.manifest.tokenizer.vocab_size
    if not file.is_file():
        raise TrainingError(f"{file}: missing; whether the model knows the version's tokens cannot be told without it")
    if file_digest(file) != version.manifest.tokenizer.sha256:
        theirs, ours = (tokenizer_digest(path, size) for path in (file, version.tokenizer_file))
        if theirs != ours:
            raise TrainingError(
                f"{file}: the model's tokenizer has the digest {theirs} and that of {version.address} {ours}; "
                f"build a version with the model's tokenizer"
            )
    behind = _behind(file, size) if found.extra_tokens is None else found.extra_tokens
    for theirs, ours in zip(behind, extra_tokens, strict=False):
        if theirs != ours:
            raise TrainingError(
                f"{file}: {theirs!r} stands behind the version's tokens, where the objective has {ours!r}; "
                f"go on with the objective that the model was trained for"
            )
    return min(len(behind), len(extra_tokens))


def _behind(file: Path, size: int) -> list[str]:
    """The special tokens of a tokenizer.json from id `size` on."""
    added = vocabulary.extended(file, ()).get_added_tokens_decoder()
    return [token.content for number, token in sorted(added.items()) if number >= size and token.special]


def tokenizer_digest(file: Path, size: int) -> str:
    """32 hexadecimal characters over how a tokenizer.json cuts a text into its first `size` tokens, however it is
    written. What an export adds (special tokens, padding, end-of-text around a text) does not count; any other token
    would cut texts in another way. Raises TrainingError."""
    said = json.loads(vocabulary.extended(file, ()).to_str())
    added = [token for token in said["added_tokens"] if token["id"] < size or not token["special"]]
    around = dict.fromkeys(("post_processor", "padding", "truncation"))
    return digest({**said, **around, "added_tokens": added})


def _fitted(tensors: dict[str, Tensor], model: Any, there: tuple[int, int]) -> dict[str, Tensor]:
    """The tensors, less what the model has no use for, and with rows for what they do not have.

    A tied table that is written twice counts once. `there` are the tokens and positions that a table has to have rows
    of: those of tokens that the tokenizer does not have (a vocabulary that was padded), and of positions beyond the
    model's, are cut.
    """
    parameters = checkpoint.weights(model)
    known = [tensors[name] for name in tensors.keys() & parameters.keys()]
    tables = {False: (there[0], model.vocab_size), True: (there[1], model.length)}
    return {
        name: _rows(name, tensor, parameters[name], *tables["positions." in name]) if name in parameters else tensor
        for name, tensor in tensors.items()
        if name in parameters or not any(_same(tensor, other) for other in known)
    }


def _rows(name: str, tensor: Tensor, parameter: Tensor, there: int, wanted: int) -> Tensor:
    """A table of `wanted` tokens or positions, of which the first `there` must be in the tensor; anything else is
    left as it is. Tokens that are not there are the mean of those that are, and positions the last of them."""
    if not name.endswith(TABLES) or len(parameter) != wanted or tensor.shape[1:] != parameter.shape[1:]:
        return tensor
    if len(tensor) < there:
        raise TrainingError(f"{name!r} has {len(tensor)} rows; the version's tokens, or its rows' length, need {there}")
    if "positions." in name:
        return torch.cat([tensor, *[tensor[-1:]] * (wanted - len(tensor))])[:wanted]
    return torch.cat([tensor[:there], *[tensor[:there].float().mean(0, keepdim=True)] * (wanted - there)])


def _same(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape and torch.equal(tensor, other)
