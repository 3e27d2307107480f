"""Items of evaluation sets: a question and the answers to choose from, or a text and how it goes on.

They lie in files of every form that `files` reads whose rows have columns (JSON lines, Parquet, Arrow, .csv, .tsv), and
become documents: `text` is the item with its right answer, as a corpus that leaked it would hold it, so that dedup and
decontamination see it; `label` is the number of that answer; and `item` is what is asked, to the byte, as JSON:
{"contexts": [..], "continuations": [..], "gold": n}. Parameters, beside `paths`, `private_addresses` and
`maximum_row_bytes` of `files` (all but `meta` make up the table `items` of kind `hub`, too; a column inside of another
is written with a dot, "choices.text"):

    form            choices: one query, several choices. cloze: one query and its continuation. contexts: several
                    contexts, of which one makes the same continuation likely (Winograd)
    query           template of the query; "{name}" is the value of a column. Default "{query}", of a cloze "{context}"
    choices         column that holds the list of choices (or of contexts), or a template for each of them
    continuation    template of the continuation of a cloze or of contexts
    gold            column of the right choice: its number from 0, or one of `golds`
    golds           how it names the choices, in their order: ["A", "B", "C", "D"], or the column that holds the list
    words           {column = {value = "text"}}: what templates say for the values of a column
    meta            columns to keep in `meta`

The law: a row is an item, or says why it is none: a gold index beyond the choices, an empty choice, a query that is
empty. Nothing of a text is trimmed or changed. The number that matters: none, the items that are scored though they
cannot be right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from pipeline.sources import ATOM_BYTES, Chunk, Collector, Item, files
from pipeline.sources._rows import Mapped, RowError
from pipeline.stage import ConfigError

Form = Literal["choices", "cloze", "contexts"]
BETWEEN = " "
_COLUMN = re.compile(r"\{([^{}]+)\}")
_DEFAULTS = {"choices": ("{query}", "choices"), "cloze": ("{context}", ""), "contexts": ("", "context_options")}


@with_config(ConfigDict(extra="forbid", strict=True))
class Asked(TypedDict, total=False):
    """How the rows of a data set ask: the parameters of this kind that are about a row."""

    form: Form
    query: str
    choices: str | list[str]
    continuation: str
    gold: str
    golds: str | list[str]
    words: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Asking(Mapped):
    """How a row becomes an item; reads only the columns that it names."""

    form: Form = "choices"
    query: str = ""
    choices: str | tuple[str, ...] = ""
    continuation: str = ""
    gold: str = ""
    golds: str | tuple[str, ...] = ()
    words: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()

    @property
    def required(self) -> list[str]:
        return self.wanted

    @property
    def wanted(self) -> list[str]:
        lists = [each for each in (self.choices, self.golds) if isinstance(each, str)]
        texts = [self.query, self.continuation, *([] if isinstance(self.choices, str) else self.choices)]
        named = [name for text in texts for name in _COLUMN.findall(text)]
        outer = [name.partition(".")[0] for name in [*named, *lists, self.gold]]
        return [*dict.fromkeys(name for name in [*outer, *self.meta] if name)]

    def document(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of DOCUMENT that a row gives. Raises RowError."""
        contexts, continuations, gold = self._item(row)
        item = {"contexts": contexts, "continuations": continuations, "gold": gold}
        for text in (*contexts, *continuations):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RowError("lone_surrogate", f"no Unicode text at character {error.start}") from error
        context, answer = (texts[gold if len(texts) > 1 else 0] for texts in (contexts, continuations))
        blank = not context or context[-1:].isspace() or answer[:1].isspace()
        return {
            "text": context + ("" if blank else BETWEEN) + answer,
            "label": None if self.form == "cloze" else str(gold),
            "target": None,
            "url": None,
            "licence": None,
            "meta": self.kept(row),
            "item": orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode(),
        }

    def _item(self, row: Mapping[str, Any]) -> tuple[list[str], list[str], int]:
        if self.form == "cloze":
            return [self._filled(self.query, row, "query")], [self._filled(self.continuation, row, "continuation")], 0
        several = self._several(row)
        gold = self._gold(row, len(several))
        if self.form == "contexts":
            return several, [self._filled(self.continuation, row, "continuation")], gold
        return [self._filled(self.query, row, "query")], several, gold

    def _filled(self, template: str, row: Mapping[str, Any], what: str) -> str:
        words = {name: dict(values) for name, values in self.words}

        def said(found: re.Match[str]) -> str:
            name, value = found[1], _at(row, found[1])
            if value is None:
                raise RowError(
                    f"missing_{what}", f"no {name!r}; has: {', '.join(map(str, list(row)[:12])) or 'nothing'}"
                )
            if name in words:
                if str(value) not in words[name]:
                    raise RowError("unknown_word", f"{name!r} is {value!r}, none of {', '.join(words[name])}")
                return words[name][str(value)]
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise RowError(f"{what}_not_a_string", f"{name!r} is no string")
            return str(value)

        text = _COLUMN.sub(said, template)
        if not text.strip():
            raise RowError(f"empty_{what}", f"the {what} is empty")
        return text

    def _several(self, row: Mapping[str, Any]) -> list[str]:
        if not isinstance(self.choices, str):
            return [self._filled(template, row, "choice") for template in self.choices]
        found = _at(row, self.choices)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise RowError("no_choices", f"{self.choices!r} is no list of strings")
        if len(found) < 2:
            raise RowError("too_few_choices", f"{self.choices!r} has {len(found)}; one is no choice")
        for number, text in enumerate(found):
            if not text.strip():
                raise RowError("empty_choice", f"choice {number} of {self.choices!r} is empty")
        return found

    def _gold(self, row: Mapping[str, Any], count: int) -> int:
        value, names = _at(row, self.gold), self.golds
        if isinstance(names, str):
            listed = _at(row, names)
            names = tuple(map(str, listed)) if isinstance(listed, list) else ()
            if len(names) != count:
                raise RowError("wrong_gold", f"{self.golds!r} names {len(names)} choices, and there are {count}")
        if names:
            if str(value) not in names[:count]:
                raise RowError("wrong_gold", f"{self.gold!r} is {value!r}, none of {', '.join(names[:count])}")
            return names.index(str(value))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
            raise RowError("wrong_gold", f"{self.gold!r} is {value!r}, and the choices have numbers 0 to {count - 1}")
        return value


def _at(row: Mapping[str, Any], name: str) -> Any:
    """What a row has in a column, or in one inside of another; None where there is none."""
    outer, _, inner = name.partition(".")
    value = row.get(outer)
    if not inner:
        return value
    return _at(value, inner) if isinstance(value, Mapping) else None


def asking(
    meta: list[str] | None,
    form: Form = "choices",
    query: str | None = None,
    choices: str | list[str] | None = None,
    continuation: str = "{continuation}",
    gold: str = "gold",
    golds: str | list[str] | None = None,
    words: dict[str, dict[str, str]] | None = None,
) -> Asking:
    """How rows ask by `Asked`. Raises ConfigError for what the form has no use of."""
    usual, several = _DEFAULTS[form]
    if form == "contexts" and query is not None:
        raise ConfigError('form = "contexts" has no query: its contexts are the `choices`')
    if form == "cloze" and (choices is not None or golds is not None):
        raise ConfigError('form = "cloze" has no choices and no golds')
    if isinstance(choices, list) and len(choices) < 2:
        raise ConfigError(f"choices: {len(choices)} templates; one is no choice")
    chosen = several if choices is None else choices
    return Asking(
        {},
        tuple(meta or ()),
        form,
        usual if query is None else query,
        chosen if isinstance(chosen, str) else tuple(chosen),
        "" if form == "choices" else continuation,
        "" if form == "cloze" else gold,
        golds if isinstance(golds, str) else tuple(golds or ()),
        tuple((name, tuple(values.items())) for name, values in (words or {}).items()),
    )


def survey(
    *,
    paths: list[str],
    form: Form = "choices",
    query: str | None = None,
    choices: str | list[str] | None = None,
    continuation: str = "{continuation}",
    gold: str = "gold",
    golds: str | list[str] | None = None,
    words: dict[str, dict[str, str]] | None = None,
    meta: list[str] | None = None,
    private_addresses: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Item]:
    """Every file that the globs match, as `files` cuts them. Raises SourceError as it does."""
    asked = asking(meta, form, query, choices, continuation, gold, golds, words)
    for logical, path in files.found(paths, private_addresses):
        yield from files.items(logical, path, asked, ATOM_BYTES)


def read(
    item: Item,
    *,
    source: str,
    licence: str | None,
    paths: list[str],
    form: Form = "choices",
    query: str | None = None,
    choices: str | list[str] | None = None,
    continuation: str = "{continuation}",
    gold: str = "gold",
    golds: str | list[str] | None = None,
    words: dict[str, dict[str, str]] | None = None,
    meta: list[str] | None = None,
    private_addresses: bool = False,
    maximum_row_bytes: int = 128 << 20,
) -> Iterator[Chunk]:
    """Items and rejects of one file or part. Raises SourceError for a damaged file or one that changed."""
    asked = asking(meta, form, query, choices, continuation, gold, golds, words)
    yield from files.chunks(item, asked, Collector(source, item.path, licence), private_addresses, maximum_row_bytes)
