"""From the globs of a card to files with logical paths: the part of a path that enters doc_ids.

The law: a logical path names one file, a file has one logical path, and neither depends on where the data lies.
It is relative to the folder before the first wildcard; a plain path is its file's name.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.sources import Item, SourceError
from pipeline.sources._streams import whole

SEVEN_ZIP = (
    "7-Zip archives are not read; take the dump as .bz2 where there is one, or pack it again as a stream: "
    "7z x -so NAME.xml.7z | zstd > NAME.xml.zst"
)


def find(patterns: list[str]) -> list[tuple[str, Path]]:
    """Sorted (logical path, file) of absolute globs. Raises SourceError: no match, ambiguity, stray links."""
    by_path: dict[str, Path] = {}
    by_file: dict[Path, str] = {}
    for pattern in patterns:
        for logical, file in _matches(pattern):
            other = by_path.setdefault(logical, file)
            if other != file:
                raise SourceError(
                    f"{other} and {file} would both be {logical!r} in doc_ids; "
                    "name them by one glob from a folder above both, or rename one"
                )
            alias = by_file.setdefault(file, logical)
            if alias != logical:
                raise SourceError(
                    f"{file} is found as {alias!r} and as {logical!r} and counts twice; remove the link or a glob"
                )
    if not patterns:
        raise SourceError("`paths` is empty; name at least one file or glob")
    return sorted(by_path.items())


def wholes(patterns: list[str], named: Callable[[str], object] = bool, otherwise: str = "") -> Iterator[Item]:
    """An item for each file that the globs match, hashed whole.

    Raises SourceError: as `find`, where one cannot be read, or, with `otherwise`, where `named` says of its path
    that it is none of the source's.
    """
    for logical, path in find(patterns):
        if not named(logical):
            raise SourceError(f"{path}: {SEVEN_ZIP if logical.lower().endswith('.7z') else otherwise}")
        try:
            yield Item(logical, str(path), path.stat().st_size, whole(path))
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error}") from error


def _matches(pattern: str) -> list[tuple[str, Path]]:
    root = _root(pattern)
    found = [pattern] if Path(pattern).is_file() else glob.glob(pattern, recursive=True)  # noqa: PTH207 (absolute patterns)
    files = [_checked(Path(name), root) for name in found if not Path(name).is_dir()]
    if not files:
        raise SourceError(f"{pattern} matches no file; {_hint(root)}")
    return files


def _root(pattern: str) -> Path:
    """The folder before the first wildcard."""
    path = Path(pattern)
    if path.is_file():
        return path.parent
    for index, part in enumerate(path.parts):
        if glob.has_magic(part):
            return Path(*path.parts[:index])
    return path.parent


def _checked(path: Path, root: Path) -> tuple[str, Path]:
    logical = path.relative_to(root).as_posix()
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file (a broken link?); remove it or narrow the glob")
    resolved = path.resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise SourceError(f"{path} is a link to {resolved}, outside {root}; copy the file, or name its own folder")
    try:
        logical.encode()
    except UnicodeEncodeError as error:
        raise SourceError(
            f"{path!r}: the file's name is not UTF-8 and cannot be part of a doc_id; rename it"
        ) from error
    return logical, resolved


def _hint(root: Path) -> str:
    """What the nearest existing folder holds."""
    while not root.is_dir() and root != root.parent:
        root = root.parent
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    return f"{root} has: {', '.join(names[:12]) or 'nothing'}{' ...' if len(names) > 12 else ''}"
