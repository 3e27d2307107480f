"""Files that a stage is given by its recipe: models and lists, known by what is in them.

    def classifier(batch, *, model: File, ...)          model = "{data}/filters/quality/model.bin"

A path is relative to the recipe, or begins with `{data}`. Where the file is there, the parameter becomes
`sha256:DIGEST` as the recipe is read: so keys, manifests and versions know the content and no path, and a file that
changed is another parameter. Where it lies is noted in the cache folder, for worker processes and for whoever builds a
version again. A file that is not there is an error when the work is planned, in one sentence with the module's
`MISSING[parameter]`, how to come by it (`{folder}` there is where it should lie).

The law: what is opened has the digest that the parameter says, or nothing is opened.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pipeline.cache import cache_home
from pipeline.mistakes import ConfigError
from pipeline.models import ModelError

NAMED = re.compile(r"sha256:[0-9a-f]{64}")
MOST_PLACES = 8


class _Given:
    """Marks a parameter that is the path of a file."""


File = Annotated[str, _Given()]
_places: dict[str, list[str]] = {}


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters of a stage that are files."""
    hints = typing.get_type_hints(function, include_extras=True)
    return [name for name, hint in hints.items() if name != "return" and _is_file(hint)]


def _is_file(hint: Any) -> bool:
    if any(isinstance(mark, _Given) for mark in getattr(hint, "__metadata__", ())):
        return True
    return any(map(_is_file, typing.get_args(hint)))


def named(value: str, folder: Path, data: Path | None = None) -> str:
    """`sha256:DIGEST` of the file that a recipe in `folder` names, noted; or its path, where there is no such file.

    `data` stands for `{data}`; without it the environment says (GRISTMILL_DATA). Raises ConfigError for a digest that
    is none.
    """
    if value.startswith("sha256:"):
        if not NAMED.fullmatch(value):
            raise ConfigError(f"{value!r} is no digest: sha256: and 64 hexadecimal digits")
        return value
    if value.startswith("{data}"):
        root = data or os.environ.get("GRISTMILL_DATA")
        if not root:
            return value
        path = Path(root) / value.removeprefix("{data}").lstrip("/")
    else:
        path = folder / Path(value).expanduser()
    path = Path(os.path.normpath(path.absolute()))
    return note(path) if path.is_file() else str(path)


def note(path: Path) -> str:
    """`sha256:DIGEST` of a file, and where it lies, for whoever asks `find`."""
    name = f"sha256:{_digest(path)}"
    here = [str(path.absolute()), *(place for place in _read(name) if place != str(path.absolute()))][:MOST_PLACES]
    _places[name] = here
    note = _note(name)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, prefix=f".{note.name}.", delete=False) as file:
            json.dump(here, file)
        Path(file.name).replace(note)
    except OSError:
        pass  # This process knows it all the same.
    return name


@functools.cache
def find(value: str) -> Path:
    """The file of a parameter, whose content is checked once a process. Raises ModelError where it cannot be had."""
    if not NAMED.fullmatch(value):
        raise ModelError(f"{value} is not there")
    tried = _read(value)
    for place in map(Path, tried):
        if place.is_file() and f"sha256:{_digest(place)}" == value:
            return place
    where = f"it was {' or '.join(tried)}, which is gone or was changed" if tried else "nobody knows here where it lies"
    raise ModelError(f"no file has {value}: {where}; restore it, and name it in the recipe again")


def missing(params: Mapping[str, Any], files: typing.Iterable[str], hints: Mapping[str, str]) -> str | None:
    """What is to be said of the first file that is not there, with how to come by it."""
    for name in files:
        value = params[name]
        paths = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for path in paths:
            if path is None or NAMED.fullmatch(path):
                continue
            data = "; {data} needs --data DIR or GRISTMILL_DATA" if path.startswith("{data}") else ""
            hint = hints.get(name, "").replace("{folder}", str(Path(path).parent))
            return f"{name}: there is no file {path}{data}{'; ' if hint else ''}{hint}"
    return None


def _note(name: str) -> Path:
    return cache_home() / "files" / f"{name.removeprefix('sha256:')}.json"


def _read(name: str) -> list[str]:
    if name in _places:
        return _places[name]
    try:
        found = json.loads(_note(name).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [place for place in found if isinstance(place, str)] if isinstance(found, list) else []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
