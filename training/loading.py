"""A trained model to be used: from a run, one of its checkpoints, or a Hugging Face folder, with its tokenizer.

The law: it is told a text as it was trained on one. What was trained here reads a document behind the end-of-text
token, and an encoder-decoder or a classifier one before it as well; in a Hugging Face folder the tokenizer says what
stands around a text, as it does in `transformers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, normalizers

from training import TrainingError, initial, journal, loop, objectives, vocabulary
from training.classifier import Classifier
from training.decoding import TooLong
from training.hugging_face import _folder
from training.models import has_encoder_and_decoder

SHRINKS = 3  # bytes of the Kelvin sign, which is one in lower case: no other character loses more
UNSAID = 512  # tokens that an encoder-decoder reads where its folder does not say how many


@dataclass(frozen=True)
class Loaded:
    """A model in `eval` on its device. `start` is the token that a text begins with where there is none, and that a
    decoder which reads an encoder begins with; `ends` end what is written. `prompted` is how a prompt is put to the
    model, `template` the Jinja template of a chat."""

    name: str
    model: Any
    tokenizer: Tokenizer
    start: int
    ends: frozenset[int]
    encode: Callable[[str], list[int]]
    prompted: Callable[[str], str] = str
    template: str | None = None
    special: dict[str, str] | None = None  # names of special tokens, for the template

    @property
    def pairs(self) -> bool:
        """It reads one text and writes another."""
        return has_encoder_and_decoder(self.model)

    @property
    def classifier(self) -> Classifier | None:
        return self.model if isinstance(self.model, Classifier) else None

    @cached_property
    def longest(self) -> int | None:
        """Bytes of a text that a token stands for at the most; None where one may stand for any number."""
        normal = self.tokenizer.normalizer
        if not isinstance(self.tokenizer.decoder, decoders.ByteLevel):
            return None
        if normal is not None and not isinstance(normal, normalizers.Lowercase):
            return None
        return max(len(token.encode()) for token in self.tokenizer.get_vocab()) * (1 if normal is None else SHRINKS)

    def read(self, text: str, what: str = "the prompt", *, bare: bool = False) -> list[int]:
        """The tokens of a text, with those around it unless `bare`. One that cannot fit into the context is not cut
        into tokens at all. Raises TooLong for that, and TrainingError for what is no Unicode text."""
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise TrainingError(f"{what} is no Unicode text at character {error.start}; give UTF-8") from error
        least, length = size // self.longest if self.longest else 0, self.model.length
        if least > length:
            raise TooLong(
                f"{what} has at least {least:,} tokens, and the model's context is {length:,}; cut the prompt"
            )
        if bare:
            found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
            return found
        return self.encode(text)

    def writer(self) -> None:
        """Raises TrainingError where the model writes nothing."""
        if self.classifier:
            raise TrainingError(
                f"{self.name}: names the class of a text and continues none; `gristmill serve` answers /v1/classify"
            )
        if not (self.model.causal or self.pairs):
            family = type(self.model).__module__.rpartition(".")[2]
            raise TrainingError(
                f"{self.name}: a {family} model sees both ways and continues no text; give one of a causal family or t5"
            )


def load(place: Path, device: str | None = None) -> Loaded:
    """What lies in a folder, on the GPU where there is one. Raises TrainingError where it is nothing to be used."""
    import torch

    if (place / "run.json").is_file() or (place / "state.json").is_file():
        found = _of_run(place)
    elif (place / "config.json").is_file():
        found = _of_hugging_face(place)
    else:
        raise TrainingError(
            f"{place}: no run (run.json), checkpoint (state.json) or Hugging Face folder (config.json) is here; "
            "gristmill ls lists the runs of a store"
        )
    found.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return found


def _of_run(place: Path) -> Loaded:
    chosen = place.absolute() if (place / "state.json").is_file() else None
    folder = chosen.parents[1] if chosen else place
    books, run, version = journal.read(folder, verify=False)
    model = loop.load(run, version, books, chosen)
    objective = objectives.load(run.objective, "[objective]").over(version)
    tokenizer = vocabulary.extended(version.tokenizer_file, objective.extra_tokens)
    start, eot = version.manifest.tokenizer.start, version.manifest.tokenizer.eot
    pairs = has_encoder_and_decoder(model)
    behind = [eot] if pairs or isinstance(model, Classifier) else []

    def encode(text: str) -> list[int]:
        return [start, *tokenizer.encode(text, add_special_tokens=False).ids, *behind]

    name = f"{folder.name}-{place.name}" if chosen else folder.absolute().name
    prompted, template = partial(objectives.prompted, objective), getattr(objective, "template", None)
    special = {"eos_token": str(tokenizer.id_to_token(eot))} if template else None
    first = eot if pairs else start
    return Loaded(name, model, tokenizer, first, frozenset([eot]), encode, prompted, template, special)


def _of_hugging_face(folder: Path) -> Loaded:
    config = _folder.read_table(folder / "config.json")
    said = {name: _optional(folder / name) for name in ("generation_config.json", "tokenizer_config.json")}
    tokens = {**config, **{k: v for k, v in said["generation_config.json"].items() if v is not None}}
    source = initial.source(folder)
    if not source.tokenizer.is_file():
        raise TrainingError(f"{source.tokenizer}: missing; the model's texts cannot be read without it")
    tokenizer = vocabulary.extended(source.tokenizer, ())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ends = tokens.get("eos_token_id")
    ends = [ends] if isinstance(ends, int) else ends or []
    firsts = (tokens.get("decoder_start_token_id"), tokens.get("bos_token_id"), *ends, tokens.get("pad_token_id"))
    start = next((token for token in firsts if isinstance(token, int)), None)
    if start is None:
        raise TrainingError(f"{folder}: neither config.json nor generation_config.json names a bos or eos token")
    model = initial.built(source, _length(config, said["tokenizer_config.json"]), start, str(folder))

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text).ids or [start]

    table = said["tokenizer_config.json"]
    template = folder / "chat_template.jinja"
    return Loaded(
        folder.absolute().name,
        model,
        tokenizer,
        start,
        frozenset(ends),
        encode,
        template=template.read_text("utf-8") if template.is_file() else _template(table.get("chat_template")),
        special={key: _spelt(table[key]) for key in ("bos_token", "eos_token", "pad_token") if table.get(key)},
    )


def _length(config: dict[str, Any], tokenizer: dict[str, Any]) -> int:
    """The longest context in tokens."""
    stated = [config.get("max_position_embeddings"), config.get("n_positions"), tokenizer.get("model_max_length")]
    return next((n for n in stated if isinstance(n, int) and 0 < n < 10**9), UNSAID)


def _optional(path: Path) -> dict[str, Any]:
    return _folder.read_table(path) if path.is_file() else {}


def _template(said: Any) -> str | None:
    """The chat template; of several named ones that of the name `default`."""
    if isinstance(said, list):
        said = {entry["name"]: entry["template"] for entry in said}.get("default")
    return said if isinstance(said, str) else None


def _spelt(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)
