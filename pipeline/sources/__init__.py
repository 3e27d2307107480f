"""Where documents come from: one file a kind, each with `survey` (find, hash, cut) and `read` (documents and rejects).

The law: every input row becomes exactly one document or one reject, under an id that depends neither on where
the data lies nor on how it was cut. The number that matters: 4 MiB, the input bytes that an item aims at, so that
partitions balance whatever the files look like.

The folder is the registry: `kind = "files"` is `pipeline/sources/files.py`, `kind = "mypkg.sources.thing"` is
anyone's. A file whose name starts with an underscore is no kind.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import xxhash

from pipeline import schema
from pipeline.stage import ConfigError, available, check_params, suggest

ATOM_BYTES = 4 << 20
CHUNK_ROWS = 4096
CHUNK_CHARACTERS = 8 << 20
DETAIL_CHARACTERS = 300


class SourceError(ValueError):
    """The input is not what the card says it is; the message names the file and the fix."""


@dataclass(frozen=True)
class Item:
    """A piece of input that is read by itself.

    `path` is logical and goes into doc_ids, `location` says where to open it, `size` counts the bytes of this item
    alone, `sha256` is that of everything under `path`. `part` is empty when the item is the whole; otherwise it says
    which part: items with the same path have the same sha256, distinct parts, and sizes that add up to the whole.
    `plain` counts about the bytes that come out of it, where the file is packed and says so; else 0.
    """

    path: str
    location: str
    size: int
    sha256: str
    part: tuple[tuple[str, int], ...] = ()
    plain: int = 0

    @property
    def weight(self) -> int:
        """The bytes of work that a partition counts."""
        return max(self.size, self.plain)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Item:
        """The inverse of `dataclasses.asdict`, also after a trip through JSON."""
        return cls(**{**fields, "part": tuple((str(name), int(value)) for name, value in fields["part"])})


class Chunk(NamedTuple):
    """Some rows of an item: `documents` in the DOCUMENT schema, `rejects` in the LEDGER schema."""

    documents: pa.RecordBatch
    rejects: pa.RecordBatch


class SourceCard(Protocol):
    """What reading needs to know of a card (`pipeline.catalog.cards.Card`)."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def folder(self) -> Path: ...
    @property
    def data_dir(self) -> Path | None: ...


def load(kind: str, where: str = "source") -> ModuleType:
    """The module of a shipped kind (`files`) or of anyone's (`mypkg.sources.thing`); ConfigError lists what exists."""
    if "." not in kind and kind not in available(__name__):
        raise ConfigError(f"{where}: unknown kind {kind!r}{suggest(kind, available(__name__))}")
    module = kind if "." in kind else f"{__name__}.{kind}"
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: kind {kind!r} cannot be imported: {error}") from error
    if missing := [name for name in ("survey", "read") if not callable(getattr(found, name, None))]:
        raise ConfigError(f"{where}: {module} is no source kind: it has no function {' and no '.join(missing)}")
    return found


def survey(card: SourceCard) -> Iterator[Item]:
    """Find, hash and cut the input of a card: items sorted by path and part. Raises SourceError."""
    module, params = _bind(card)
    yield from module.survey(**_locate(card, params))


def read(card: SourceCard, item: Item) -> Iterator[Chunk]:
    """Documents and rejects of one item, in order. Raises SourceError, also when the item changed since the survey."""
    module, params = _bind(card)
    yield from module.read(item, source=card.name, licence=card.licence, **params)


def _bind(card: SourceCard) -> tuple[ModuleType, dict[str, Any]]:
    module = load(card.kind, f"card {card.name}")
    return module, check_params(module.survey, card.params, f"card {card.name} ({card.kind})")


def _locate(card: SourceCard, params: dict[str, Any]) -> dict[str, Any]:
    """Make the parameter `paths`, where a kind has one, absolute: it is written relative to the card."""
    if not isinstance(paths := params.get("paths"), list):
        return params
    return {**params, "paths": [_absolute(card, path) for path in paths]}


def _absolute(card: SourceCard, path: str) -> str:
    if "://" in path:
        return path
    if not path.startswith("{data}"):
        return os.path.normpath(card.folder / Path(path).expanduser())
    folder = card.data_dir or os.environ.get("GRISTMILL_DATA")
    if not folder:
        raise SourceError(f"card {card.name}: {path} needs the data folder: give --data DIR or set GRISTMILL_DATA")
    if not Path(folder).is_dir():
        raise SourceError(f"card {card.name}: the data folder {folder} does not exist (--data DIR or GRISTMILL_DATA)")
    return os.path.normpath(Path(folder).absolute() / path.removeprefix("{data}").lstrip("/"))


class Guard:
    """Checks while an item is read that its bytes are those that were surveyed: feed `update`, then `finish`."""

    def __init__(self, item: Item) -> None:
        parts = dict(item.part)
        self._item, self._expected = item, parts.get("xxh64") if parts else int(item.sha256, 16)
        self._hash: Any = xxhash.xxh64() if parts else hashlib.sha256()
        self.update = self._hash.update

    def finish(self) -> None:
        """Raise SourceError if the bytes differ from the survey's."""
        if int(self._hash.hexdigest(), 16) != self._expected:
            raise SourceError(f"{self._item.location}: changed since it was surveyed; run the build again")


class Collector:
    """Gathers the documents and rejects of one item into chunks of bounded size."""

    def __init__(self, source: str, path: str, licence: str | None) -> None:
        self.prefix, self.source, self.licence = f"{source}:{path}:", source, licence
        self._path = path
        self._clear()

    def _clear(self) -> None:
        self._documents: list[dict[str, Any]] = []
        self._rejects: list[dict[str, Any]] = []
        self._characters = 0

    def document(self, row: int, fields: dict[str, Any], path: str | None = None) -> None:
        """Add a document; `fields` are columns of DOCUMENT. The card's licence holds where the row names none."""
        fields["doc_id"] = self._name(row, path)
        fields["source"] = self.source
        fields["licence"] = fields.get("licence") or self.licence
        self._documents.append(fields)
        self._characters += len(fields["text"])

    def reject(self, row: int, reason: str, detail: str, path: str | None = None) -> None:
        """Add a row that cannot be a document: it is quarantined with the reason, its place and the error."""
        entry = {"doc_id": self._name(row, path), "stage": "source", "verdict": "quarantined", "reason": reason}
        where = f"{path or self._path} row {row}: {detail}"
        self._rejects.append({**entry, "detail": printable(where)[:DETAIL_CHARACTERS]})

    def _name(self, row: int, path: str | None) -> str:
        return f"{self.source}:{path}:{row}" if path else f"{self.prefix}{row}"

    def rejected(self) -> pa.RecordBatch:
        """The rejects so far, for a chunk whose documents were made elsewhere; the collector starts anew."""
        rejects = schema.ledger(self._rejects)
        self._clear()
        return rejects

    @property
    def full(self) -> bool:
        return len(self._documents) + len(self._rejects) >= CHUNK_ROWS or self._characters >= CHUNK_CHARACTERS

    def take(self) -> Iterator[Chunk]:
        """The chunk so far, if it has any row; the collector starts anew."""
        if self._documents or self._rejects:
            yield Chunk(schema.documents(self._documents), schema.ledger(self._rejects))
        self._clear()


def printable(text: str) -> str:
    """The beginning of a text on one line, encodable: lone surrogates and control characters are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:1000])
