"""Tables that people write: checked at load, and an error names the place, the key and what exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from training import TrainingError


class Table(BaseModel):
    """A TOML table: unknown keys and values of another type are errors, and nothing changes after the check."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


T = TypeVar("T", bound=Table)


def check(model: type[T], table: Any, where: str) -> T:
    """The checked table. Raises TrainingError with `where` in front, listing the keys that exist."""
    if not isinstance(table, Mapping):
        raise TrainingError(f"{where}: expected a table, got {table!r}")
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        # A key that is misspelt is unknown and missing at once.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise TrainingError(f"{where}: unknown key {key!r}{suggest(key, _keys(model, first['loc']))}") from error
        if first["type"] == "missing":
            raise TrainingError(f"{where}: no {key!r}; it has no default") from error
        raise TrainingError(f"{where}: {key or 'table'}: {first['msg']} (got {first['input']!r})") from error


def _keys(model: type[BaseModel], place: tuple[int | str, ...]) -> Iterable[str]:
    """The keys of the table in which an error stands."""
    for part in place[:-1]:
        if isinstance(part, int):  # of a list of tables
            continue
        inner = model.model_fields[part].annotation
        kinds = [kind for kind in (inner, *get_args(inner)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not kinds:
            return []
        model = kinds[0]
    return model.model_fields


def suggest(word: str, existing: Iterable[str]) -> str:
    """'; did you mean X? has: A, B, X' for an error about an unknown name."""
    existing = sorted(existing)
    near = difflib.get_close_matches(word.rpartition(".")[2], existing, n=1, cutoff=0.6)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" has: {', '.join(existing) or 'nothing'}"
