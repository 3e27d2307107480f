"""The documents of a source as texts to train a classifier on.

A text is what fastText would be given when it judges: one line. Each text counts once, whichever document has it; one
that stands on both sides says nothing and is left out. Whether a text is held back hangs on its hash alone, so neither
order, nor source, nor a copy of it brings a text that was trained on among those that judge.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import xxhash

from pipeline import addresses, sources
from pipeline.catalog import cards
from pipeline.catalog.cards import Card
from pipeline.mistakes import ConfigError
from pipeline.store import Store, file_digest, read_parquet

LABEL, END = "__label__", "</s>"
UNSTATED, NOWHERE = "NOASSERTION", "https://nowhere.invalid"
SEPARATORS = " \t\n\v\f\r\0"
_SPACED = str.maketrans(dict.fromkeys(SEPARATORS, " "))


@dataclass
class Labelled:
    """The texts of one label, by their hash, and what is said of where they are from."""

    label: str
    texts: dict[int, str] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    documents: int = 0
    empty: int = 0
    again: int = 0
    both: int = 0

    @property
    def said(self) -> dict[str, Any]:
        """What a card tells of it."""
        counts = {"documents": self.documents, "texts": len(self.texts), "empty": self.empty, "copies": self.again}
        return {"label": self.label, "sources": self.sources, **counts, "on both sides": self.both}


def line(text: str) -> str:
    """A text as fastText reads one document: a line without what it would take for a label or for the line's end."""
    words = (word for word in text.translate(_SPACED).split(" ") if word)
    return " ".join(word for word in words if word != END and not word.startswith(LABEL))


def read(
    label: str,
    names: Sequence[str],
    seed: int,
    most: int | None = None,
    data: Path | None = None,
    store: Path | None = None,
    of: Callable[[str], str] = line,
) -> Labelled:
    """The texts of some cards (their names or .toml files), files of documents, or versions of a store (NAME@VERSION,
    their documents as they were kept), by label.

    `of` makes a text of a document's, empty for one that says nothing. With `most`, only those with the lowest hashes
    of all, as many: a sample that hangs on no order. Raises ConfigError for a source that has no text, and what reading
    raises.
    """
    found = Labelled(label)
    lowest: list[int] = []
    for name in names:
        before = len(found.texts) + found.again
        documents = _of_version(store, name, found) if store and "@" in name else _of_card(_card(name, data), found)
        for document in documents:
            if not (text := of(document)):
                found.empty += 1
                continue
            key = xxhash.xxh3_64_intdigest(text.encode(), seed)
            if key in found.texts:
                found.again += 1
                continue
            if most is None or len(lowest) < most:
                heapq.heappush(lowest, -key)
            elif key < -lowest[0]:
                found.texts.pop(-heapq.heapreplace(lowest, -key))
            else:
                continue
            found.texts[key] = text
        if most is None and len(found.texts) + found.again == before:
            raise ConfigError(f"source {name} of label {label!r} has no document with a word in it")
    if not found.texts:
        raise ConfigError(f"label {label!r} has no text: {' and '.join(names)} hold no document with a word in it")
    return found


def apart(positive: Labelled, negative: Labelled) -> None:
    """Leave out the texts that stand on both sides. Raises ConfigError where a side is left with none."""
    both = positive.texts.keys() & negative.texts.keys()
    for side in (positive, negative):
        side.both = len(both)
        for key in both:
            del side.texts[key]
        if not side.texts:
            raise ConfigError(f"every text of label {side.label!r} is one of the other label too: nothing to learn")


def held_back(key: int, share: float) -> bool:
    """Whether the text of this hash judges, and does not train."""
    return xxhash.xxh3_64_intdigest(key.to_bytes(8, "little")) < share * 2**64


def _of_version(root: Path, address: str, found: Labelled) -> Iterator[str]:
    store = Store(root)
    version, keys = addresses.find(store, address)
    kept = version.index(["doc_id"])["doc_id"].combine_chunks()
    for key in keys.segments[-1].parts:
        table = read_parquet(store.file(key, "documents.parquet"), ["doc_id", "text"])
        chosen = table["text"].filter(pc.is_in(table["doc_id"], kept))
        found.documents += len(chosen)
        yield from chosen.to_pylist()
    licences = sorted({source["licence"] for source in version.manifest["sources"]})
    found.sources.append({"name": version.address, "licence": " AND ".join(licences), "files": []})


def _of_card(card: Card, found: Labelled) -> Iterator[str]:
    digests = {}
    for item in sources.survey(card):
        digests[item.path] = item.sha256
        for chunk in sources.read(card, item):
            found.documents += chunk.documents.num_rows + chunk.rejects.num_rows
            found.empty += chunk.rejects.num_rows
            yield from chunk.documents["text"].to_pylist()
    files = [{"path": path, "sha256": digest} for path, digest in sorted(digests.items())]
    home = {} if card.homepage == NOWHERE else {"homepage": card.homepage}
    found.sources.append({"name": card.name, "licence": card.licence, **home, "files": files})


def _card(name: str, data: Path | None) -> Card:
    """A card, or one for a file of documents of which nobody states a licence."""
    path = Path(name).expanduser()
    if path.suffix == ".toml" or (not path.suffix and not path.exists()):
        return cards.load(name, data)
    if not path.is_file():
        raise ConfigError(f"{name}: no such file; give a card (gristmill ls) or a file of documents")
    table = {
        "name": "".join(c if c.isascii() and c.isalnum() else "-" for c in path.stem.lower()).strip("-") or "file",
        "kind": "files",
        "title": path.name,
        "description": f"sha256 {file_digest(path, 'sha256')}",
        "homepage": NOWHERE,
        "licence": UNSTATED,
        "languages": ["mul"],
        "params": {"paths": [str(path.absolute())]},
    }
    card = cards.parse(table, str(path))
    card._file = path.absolute()
    return card
