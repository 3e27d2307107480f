"""Texts that a stage is given beside the corpus: evaluation sets, or what a corpus shall be like.

Each is named by a string in the recipe: the name of a card or its file (NAME.toml), a data file (JSON lines, CSV or
Parquet, also compressed), or the folder of a version with layout "examples", whose rows are read back from its tokens.
A path is absolute or begins with `{data}`, the data folder (GRISTMILL_DATA), so that a recipe says the same everywhere.

The law: what a stage makes of a reference hangs on its content, by `digest`, and not on where it lies.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.catalog import cards
from pipeline.catalog.cards import Card
from pipeline.digests import digest as digest_of
from pipeline.mistakes import suggest
from pipeline.schema import TURN
from pipeline.sources import SourceError, _formats, read, survey
from pipeline.store import file_digest

Row = Mapping[str, Any]
LONGEST = 128 << 20
PARQUET = ".parquet"
DATA = "GRISTMILL_DATA"
BLOCK = 1 << 20


def check(names: Sequence[str]) -> None:
    """Raise ValueError for a name that can mean nothing, or two of which one would be taken for the other."""
    for name in names:
        if _is_card(name):
            continue
        if not Path(name).suffix and "/" not in name:
            raise ValueError(f"{name!r} is no card{suggest(name, cards.available())} (or give the path of a file)")
        if not name.startswith("{data}") and not Path(name).is_absolute():
            raise ValueError(f"{name!r}: write {{data}}/... or an absolute path; a task may run in any folder")
    called = [title(name) for name in names]
    if twice := [each for each in called if called.count(each) > 1]:
        raise ValueError(f"two references would be called {twice[0]!r}; rename the file of one")


@contextlib.contextmanager
def used(folder: Path | None) -> Iterator[None]:
    """Let `{data}` stand for this folder, here and in every worker that is started meanwhile; None changes nothing."""
    before = os.environ.get(DATA)
    if folder is not None:
        os.environ[DATA] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(DATA, None)
        else:
            os.environ[DATA] = before


def title(name: str) -> str:
    """What a reference is called in reports: the card's name, the file's without what says how it is read, the
    folder's."""
    path = Path(name)
    form, compression = _formats.split(path.name)
    known = (*_formats.LINES, *_formats.TABLES, PARQUET, ".toml")
    return path.name.removesuffix(compression).removesuffix(form) if form in known else path.name


def digests(names: Sequence[str]) -> dict[str, str]:
    """The digest of the content of each by its name, looked at anew. Raises SourceError where one cannot be read."""
    _current.cache_clear()
    return {name: _current(name) for name in names}


@functools.cache
def _current(name: str) -> str:
    if _is_card(name):
        card = _card(name)
        mapped = [card.kind, card.params]
        return digest_of([mapped, sorted({(item.path, item.sha256) for item in survey(card)})])
    path = _file(name)
    if path.is_dir():
        return digest_of(file_digest(path / "manifest.json", "sha256"))
    return digest_of(file_digest(path, "sha256"))


def current(names: Sequence[str]) -> tuple[str, ...]:
    """The digests as this process last saw them: what to keep what was made of the references under."""
    return tuple(_current(name) for name in names)


def rows(name: str) -> Iterator[Row]:
    """Rows of a reference in order; of a card or version `text`, and `target` where there is one, or what an
    evaluation item asks: `contexts`, `continuations` and `gold`.

    Raises SourceError, in one sentence, where it is not there, is damaged, or has a row that cannot be read.
    """
    if _is_card(name):
        yield from _of_card(_card(name))
        return
    path = _file(name)
    if path.is_dir():
        yield from _of_version(path)
    elif path.suffix == PARQUET:
        yield from _of_parquet(path)
    else:
        yield from _of_lines(path)


def _is_card(name: str) -> bool:
    return name in cards.available() or name.endswith(".toml")


def _card(name: str) -> Card:
    return cards.load(name if name in cards.available() else str(_file(name)))


def _file(name: str) -> Path:
    folder = os.environ.get(DATA)
    if name.startswith("{data}") and not folder:
        raise SourceError(f"{name} needs the data folder: set GRISTMILL_DATA")
    path = Path(name.replace("{data}", str(Path(folder or "").absolute()), 1))
    if not path.exists():
        raise SourceError(f"{path} is not there: a stage of the recipe names it")
    return path


def _of_card(card: Card) -> Iterator[Row]:
    for item in survey(card):
        for chunk in read(card, item):
            if chunk.rejects.num_rows:
                raise SourceError(f"card {card.name}: {chunk.rejects['detail'][0].as_py()}")
            for row in chunk.documents.select(["text", "target", "label", "item"]).to_pylist():
                yield row if row["item"] is None else json.loads(row["item"])


def _of_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def _of_lines(path: Path) -> Iterator[Row]:
    form, compression = _formats.split(path.name)
    if form not in _formats.LINES + _formats.TABLES:
        known = ", ".join((*_formats.LINES, *_formats.TABLES, PARQUET))
        raise SourceError(f"{path}: {form or 'a file without a suffix'} is not read here; has: {known}")
    with path.open("rb") as file:
        for number, row in _formats.rows(iter(lambda: file.read(BLOCK), b""), form, compression, LONGEST):
            if not isinstance(row, dict):
                raise SourceError(f"{path} row {number}: {row}")
            yield row


def _of_version(folder: Path) -> Iterator[Row]:
    """The rows of a version with layout "examples", from its tokens, in the order of its document index."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        layout, known = manifest["layout"], manifest["tokenizer"]
        around = {known["eot"], known.get("bos", known["eot"])}
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{folder} is no version: {error}") from error
    if layout != "examples":
        raise SourceError(f'{folder}: its rows are packed; a reference is a version with layout = "examples"')
    index = manifest["documents"]
    if "item" in pq.read_schema(folder / index["file"]).names:
        yield from map(json.loads, pq.read_table(folder / index["file"], columns=["item"])["item"].to_pylist())
        return
    tokenizer = Tokenizer.from_file(str(folder / manifest["tokenizer"]["file"]))
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    for shard in sorted(shards, key=lambda shard: int(shard["first_document"])):
        table = pa.ipc.open_file(pa.memory_map(str(folder / shard["file"]))).read_all().sort_by("document")
        for row in table.select([n for n in ("tokens", "target") if n in table.column_names]).to_pylist():
            names = {"tokens": "text", "target": "target"}
            yield {names[n]: _spelt(tokenizer, tokens or [], around) for n, tokens in row.items()}


def _spelt(tokenizer: Any, tokens: list[int], around: set[int]) -> str:
    """The text of a row: what stands between the tokens that begin and end documents, and part turns."""
    turns = [list(turn) for ends, turn in itertools.groupby(tokens, around.__contains__) if not ends]
    return TURN.join(tokenizer.decode(turn, skip_special_tokens=False) for turn in turns)
