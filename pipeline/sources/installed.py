"""The documentation of the Python distributions on this machine: real text that needs no download.

A distribution gives its long description (row METADATA) and, for each documented .py module that it lists, one
document: see `_docstrings`. Modules without docstrings are no documents, and no rejects either; a module that this
Python cannot parse is a reject. Nothing is imported or executed. Parameters:

    distributions           names to take, with wildcards; those in `exclude` are left out, gristmill itself by default
    standard_library        take the standard library too, as distribution "python"
    skip_folders            folders of modules that are left out: tests, which say little and are a fifth of the source
    maximum_source_bytes    at most so many bytes of modules a distribution, chosen by the digest of their paths: a fair
                            choice that does not favour the letter a
    minimum_characters      shorter texts are no documents
    entries                 a document for each docstring instead of each module, and none for descriptions: texts of
                            about a hundred words that do not begin with the module's name
    labelled                the label of each document is the name of its distribution

The law: documents depend on the contents of the distributions alone, not on where site-packages lies, on caches or on
what is imported. The number that matters: 8 MB of documented source a second and core, of which a fifth is text.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orjson
import xxhash

from pipeline.sources import ATOM_BYTES, Chunk, Collector, Guard, Item, SourceError, _docstrings
from pipeline.sources._about import LIBRARY, About, about, field_of
from pipeline.stage import suggest

DESCRIPTION = "METADATA"
MODULE_BYTES = 4 << 20
SKIPPED = ("test", "tests", "idle_test", "__pycache__", "site-packages", "dist-packages")


@dataclass(frozen=True)
class Entry:
    """A file of a distribution: its logical path, where it lies, its bytes."""

    path: str
    location: Path
    size: int


@dataclass
class Slice:
    """Adjacent entries of a distribution: the first, how many, their bytes and a fast digest of them."""

    first: int
    files: int = 0
    size: int = 0
    hash: Any = field(default_factory=xxhash.xxh64)


def survey(
    *,
    distributions: list[str] | None = None,
    exclude: list[str] | None = None,
    standard_library: bool = True,
    skip_folders: list[str] | None = None,
    maximum_source_bytes: int | None = None,
    minimum_characters: int = 1,
    entries: bool = False,
    labelled: bool = False,
) -> Iterator[Item]:
    """One item a distribution, in several parts where it has more than about 4 MiB of modules.

    Raises SourceError when a pattern matches no distribution.
    """
    found = _found(distributions or ["*"], exclude or ["gristmill"], standard_library)
    for name, location in sorted(found.items()):
        files = _entries(name, location, _skipped(skip_folders), maximum_source_bytes)
        if files:
            yield from _cut(name, location, files)


def _found(patterns: list[str], exclude: list[str], standard_library: bool) -> dict[str, str]:
    """Normalised name -> metadata folder of the distributions that are asked for; the first on the path counts."""
    there: dict[str, str] = {LIBRARY: sysconfig.get_path("stdlib")} if standard_library else {}
    for distribution in importlib.metadata.distributions():
        if name := _name(distribution):
            there.setdefault(_normal(name), _place(distribution))
    for pattern in patterns:
        if not any(fnmatchcase(name, _normal(pattern)) for name in there):
            raise SourceError(f"no installed distribution matches {pattern!r}{suggest(pattern, there)}")
    return {name: place for name, place in there.items() if _named(name, patterns) and not _named(name, exclude)}


def _name(distribution: importlib.metadata.Distribution) -> str | None:
    """None for what an interrupted installation left behind: a folder whose metadata has no name."""
    try:
        return field_of(distribution.metadata, "Name") or None
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{_place(distribution)}: its metadata is not UTF-8 ({error}); reinstall or remove it"
        ) from error


def _place(distribution: importlib.metadata.Distribution) -> str:
    return str(distribution._path)  # type: ignore[attr-defined]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _named(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, _normal(pattern)) for pattern in patterns)


def _skipped(folders: list[str] | None) -> frozenset[str]:
    return frozenset(SKIPPED if folders is None else [*folders, *SKIPPED[3:]])


def _entries(name: str, location: str, skipped: frozenset[str], limit: int | None) -> tuple[Entry, ...]:
    """Sorted files of a distribution that may hold documentation. A file that is listed but absent is not there."""
    if name == LIBRARY:
        return _limited(_library(Path(location), skipped), limit)
    folder, distribution = Path(location), importlib.metadata.Distribution.at(location)
    files = {DESCRIPTION: next(filter(Path.is_file, (folder / "METADATA", folder / "PKG-INFO", folder)), folder)}
    for file in distribution.files or []:
        if file.suffix == ".py" and not skipped.intersection(file.parts[:-1]) and ".." not in file.parts:
            files[file.as_posix()] = Path(str(distribution.locate_file(file)))
    return _limited((_entry(*file) for file in files.items() if not file[1].name.startswith("__editable__")), limit)


@functools.lru_cache(maxsize=4)
def _listed(item: Item, skipped: frozenset[str], limit: int | None) -> tuple[Entry, ...]:
    """The entries that an item was cut from; remembered for the parts of a large distribution."""
    return _entries(item.path, item.location, skipped, limit)


def _library(folder: Path, skipped: frozenset[str]) -> Iterator[Entry | None]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in skipped]
        for path in (Path(place) / name for name in files if name.endswith(".py")):
            yield _entry(path.relative_to(folder).as_posix(), path)


def _entry(path: str, place: Path) -> Entry | None:
    path = os.fsencode(path).decode(errors="backslashreplace")
    return Entry(path, place, place.stat().st_size) if place.is_file() else None


def _limited(entries: Iterable[Entry | None], limit: int | None) -> tuple[Entry, ...]:
    """All entries, or those that fit into `limit` bytes in the order of their paths' digests; sorted by path."""
    total, chosen = 0, []
    fair = sorted(filter(None, entries), key=lambda e: hashlib.sha256(e.path.encode()).digest())
    for entry in sorted(fair, key=lambda e: e.path != DESCRIPTION):
        if limit is None or total + entry.size <= limit or entry.path == DESCRIPTION:
            total += entry.size
            chosen.append(entry)
    return tuple(sorted(chosen, key=lambda e: e.path))


def _cut(name: str, location: str, entries: tuple[Entry, ...]) -> Iterator[Item]:
    """Hash every file once, and cut where a part has reached the size of an atom."""
    whole = hashlib.sha256()
    parts: list[Slice] = []
    for index, entry in enumerate(entries):
        if not parts or parts[-1].size >= ATOM_BYTES:
            parts.append(Slice(index))
        for piece in _framed(entry, entry.location.read_bytes()):
            whole.update(piece)
            parts[-1].hash.update(piece)
        parts[-1].files += 1
        parts[-1].size += entry.size
    for cut in parts:
        part = (("first", cut.first), ("files", cut.files), ("xxh64", cut.hash.intdigest()))
        yield Item(name, location, cut.size, whole.hexdigest(), part if len(parts) > 1 else ())


def _framed(entry: Entry, content: bytes) -> tuple[bytes, bytes]:
    """What is hashed of a file: its path and length, then its content."""
    return f"{entry.path}\0{len(content)}\0".encode(), content


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    distributions: list[str] | None = None,
    exclude: list[str] | None = None,
    standard_library: bool = True,
    skip_folders: list[str] | None = None,
    maximum_source_bytes: int | None = None,
    minimum_characters: int = 1,
    entries: bool = False,
    labelled: bool = False,
) -> Iterator[Chunk]:
    """Documents of one item. Raises SourceError when the distribution changed since the survey."""
    whole = replace(item, size=0, part=())
    files = _listed(whole, _skipped(skip_folders), maximum_source_bytes)
    parts, guard, collector = dict(item.part), Guard(item), Collector(source, item.path, licence)
    first = parts.get("first", 0)
    said = about(whole)
    for entry in files[first : first + parts.get("files", len(files))]:
        content = entry.location.read_bytes()
        for piece in _framed(entry, content):
            guard.update(piece)
        form = Form(minimum_characters, entries, item.path if labelled else None)
        _collect(collector, f"{item.path}/{entry.path}", entry, content, said, form)
        if collector.full:
            yield from collector.take()
    guard.finish()
    yield from collector.take()


@dataclass(frozen=True)
class Form:
    """What becomes a document: the least characters, whether each docstring is one, and the label of all."""

    minimum: int
    entries: bool
    label: str | None


def _collect(collector: Collector, path: str, entry: Entry, content: bytes, said: About, form: Form) -> None:
    module = re.sub(r"(/__init__)?\.py$", "", entry.path).replace("/", ".")
    try:
        texts = _texts(entry, content, said, module, form)
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        collector.reject(0, "lone_surrogate", f"a docstring has {error.object[error.start]!r}", path)
    except SyntaxError as error:
        collector.reject(0, "syntax_error", f"line {error.lineno}: {error.msg}", path)
    except (ValueError, RecursionError, MemoryError) as error:
        collector.reject(0, "unparsable_module", f"{type(error).__name__}: {error}", path)
    else:
        for row, text in enumerate(texts):
            if text and len(text) >= form.minimum:
                meta = {"distribution": said.name, "version": said.version}
                meta |= {} if entry.path == DESCRIPTION else {"module": module}
                fields = {"text": text, "licence": said.licence, "url": said.url, "meta": orjson.dumps(meta).decode()}
                collector.document(row, fields | ({"label": form.label} if form.label else {}), path)


def _texts(entry: Entry, content: bytes, said: About, module: str, form: Form) -> list[str]:
    if entry.path == DESCRIPTION:
        return [] if form.entries else [said.description]
    if len(content) > MODULE_BYTES:
        raise ValueError(f"{len(content):,} bytes of source; a module may have {MODULE_BYTES:,}")
    return _docstrings.entries(content) if form.entries else [_docstrings.document(content, module) or ""]
