"""Cards: what a source is, where it is at home, under which licence, and how it is read.

The law: a card that loads can be read. Unknown keys, mistyped parameters and kinds that do not exist are errors that
list what does. `catalogs/schemas/card.schema.json` says the same for editors and for other programs.
"""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, ValidationError, field_validator

from pipeline import licences, sources
from pipeline.stage import ConfigError, check_params, suggest

Text = Annotated[str, StringConstraints(pattern=r"\S")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
SPDX = r"^\(*[A-Za-z0-9][A-Za-z0-9.+-]*\)*( (AND|OR|WITH) \(*[A-Za-z0-9][A-Za-z0-9.+-]*\)*)*$"

Category = Literal[
    "web",
    "encyclopaedia",
    "books",
    "papers",
    "mathematics",
    "documentation",
    "code",
    "mixed",
    "synthetic",
    "instruction",
    "classification",
    "generation",
    "evaluation",
]

_DATE = r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?"
PERIOD = rf"^{_DATE}(/{_DATE})?$"


class Card(BaseModel):
    """One TOML file of `catalogs/sources`. `licence` holds for documents that state none of their own; `collected` is
    when they were collected, an ISO 8601 date or two with a slash between. `category`, `size`, `citation` and the known
    `problems` are for who looks for a source; nothing that is read hangs on them."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    kind: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]
    title: Text
    description: Text
    homepage: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]\S*$")]
    licence: Annotated[str, StringConstraints(pattern=SPDX)]
    languages: Annotated[list[Language], Field(min_length=1)]
    collected: Annotated[str, StringConstraints(pattern=PERIOD)] | None = None
    category: Category | None = None
    size: Text | None = None
    citation: Text | None = None
    problems: list[Text] = []
    params: dict[str, Any] = {}

    _file: Path = PrivateAttr(default=Path())
    _data_dir: Path | None = PrivateAttr(default=None)

    @field_validator("languages")
    @classmethod
    def _once(cls, languages: list[str]) -> list[str]:
        if len(set(languages)) != len(languages) or ("mul" in languages and len(languages) > 1):
            raise ValueError('each language once, or ["mul"] alone for many')
        return languages

    @property
    def file(self) -> Path:
        """The file that the card was read from."""
        return self._file

    @property
    def folder(self) -> Path:
        """Where the card lies: relative `paths` start here."""
        return self._file.parent

    @property
    def data_dir(self) -> Path | None:
        """What stands for `{data}` in its paths; None leaves it to the environment (GRISTMILL_DATA)."""
        return self._data_dir


def available() -> list[str]:
    """Names of the cards that ship in `catalogs/sources`."""
    return sorted(_files())


@functools.cache
def _files() -> dict[str, Path]:
    """The file of each shipped card, by name: folders in the catalog are for people alone."""
    return {path.stem: path for path in shipped().rglob("*.toml")}


def shipped() -> Path:
    """The folder of the shipped cards, wherever the package is installed."""
    return Path(str(importlib.resources.files("catalogs") / "sources"))


def load(name_or_path: str, data_dir: Path | None = None) -> Card:
    """Read a card: the name of a shipped one, or a path to a .toml file. Raises ConfigError.

    `data_dir` stands for `{data}` in its paths; without it the environment says (GRISTMILL_DATA).
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in available():
            raise ConfigError(
                f"unknown source {name_or_path!r}{suggest(name_or_path, available())} (or give a .toml file)"
            )
        path = _files()[name_or_path]
    card = parse(_table(path), str(path))
    card._file, card._data_dir = path.absolute(), data_dir
    return card


def parse(table: dict[str, Any], where: str) -> Card:
    """Check a card's table, its kind and its parameters; the card then holds every default. Raises ConfigError."""
    try:
        card = Card.model_validate(table)
    except ValidationError as error:
        raise ConfigError(_message(error, where)) from error
    licences.check(card.licence, f"{where}: licence")
    module = sources.load(card.kind, where)
    return card.model_copy(
        update={"params": check_params(module.survey, card.params, f"{where} ({card.kind}) [params]")}
    )


def again(table: dict[str, Any], file: Path, data_dir: Path | None) -> Card:
    """The card that a build wrote down, and read from `file`. Raises ConfigError where this code no longer knows it."""
    card = parse(table, str(file))
    card._file, card._data_dir = file, data_dir
    return card


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: no such card: {error.strerror}; shipped ones: {', '.join(available())}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _message(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}{suggest(key, Card.model_fields)}"
    if first["type"] == "missing":
        return f"{where}: no {key!r}; a card has: {', '.join(Card.model_fields)}"
    return f"{where}: {key}: {first['msg']} (got {first['input']!r})"
