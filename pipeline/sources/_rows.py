"""From a row as it is found (a JSON object, a Parquet row) to the columns of a document.

The law: a row either becomes a document or says why it cannot; nothing is guessed. A column that the card names
must be there (`name?` where it may be absent); of those it does not name, only `text` must.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Column = Literal["text", "label", "target", "url", "licence", "language"]
DEFAULTS: dict[Column, str] = {"text": "text", "label": "label?", "url": "url?", "licence": "licence?"}


class RowError(ValueError):
    """A row that cannot be a document, with the reason that the ledger shows."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Mapped:
    """Which column of the input becomes what: target -> (column, must it be there), and the columns for `meta`."""

    columns: dict[Column, tuple[str, bool]]
    meta: tuple[str, ...]

    @classmethod
    def of(cls, columns: Mapping[Column, str] | None, meta: Collection[str] | None) -> Mapped:
        """From the card's `columns` and `meta`."""
        named = {**DEFAULTS, **(columns or {})}
        return cls(
            {t: (name.removesuffix("?"), not name.endswith("?")) for t, name in named.items()}, tuple(meta or ())
        )

    @property
    def required(self) -> list[str]:
        return [name for name, must in self.columns.values() if must]

    @property
    def wanted(self) -> list[str]:
        return [*dict.fromkeys([*(name for name, _ in self.columns.values()), *self.meta])]

    def document(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of DOCUMENT that a row gives. Raises RowError."""
        found = {target: self._find(row, target) for target in self.columns}
        if not isinstance(found["text"], str):
            reason = "missing_text" if found["text"] is None else "text_not_a_string"
            raise RowError(reason, f"{self.columns['text'][0]!r} is {_kind(found['text'])}")
        if not found["text"]:
            raise RowError("empty_text", f"{self.columns['text'][0]!r} is empty")
        language = self._language(row)
        return {
            "text": found["text"],
            "label": _label(found.get("label")),
            "target": _string("target", found.get("target")) or None,
            "url": _string("url", found.get("url")) or None,
            "licence": _string("licence", found.get("licence")),
            "meta": self._kept(row, language),
        }

    def kept(self, row: Mapping[str, Any]) -> str | None:
        """What `meta` holds of a row: the columns asked for, and the language, as JSON. Raises RowError."""
        return self._kept(row, self._language(row))

    def _kept(self, row: Mapping[str, Any], language: str | None) -> str | None:
        return _meta({**{m: row.get(m) for m in self.meta}, "language": language})

    def _language(self, row: Mapping[str, Any]) -> str | None:
        return _string("language", self._find(row, "language")) if "language" in self.columns else None

    def _find(self, row: Mapping[str, Any], target: Column) -> Any:
        name, must = self.columns[target]
        if must and name not in row:
            raise RowError(f"missing_{target}", f"no {name!r}; has: {', '.join(map(str, list(row)[:12])) or 'nothing'}")
        return row.get(name)


def _label(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, str | int | float) and value == value):
        return None if value is None else str(value)
    raise RowError("label_not_a_scalar", f"the label is {_kind(value)}")


def _string(target: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise RowError(f"{target}_not_a_string", f"the {target} is {_kind(value)}")


def _meta(values: Mapping[str, Any]) -> str | None:
    if not (present := {name: value for name, value in values.items() if value is not None}):
        return None
    try:
        return orjson.dumps(present, default=str, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise RowError("bad_meta", str(error)) from error


def _kind(value: Any) -> str:
    names = {
        type(None): "null",
        dict: "an object",
        list: "a list",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"of type {type(value).__name__}")
