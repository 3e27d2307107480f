"""Every key of a run file with its default and what it may be, drawn from the tables that check it.

`python -m training keys` prints them all, `keys batch` those of one table. The law: what is listed is what a run file
may say, for there is no second list.
"""

from __future__ import annotations

import importlib
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from training import TrainingError, config, models, objectives
from training.tables import Table, suggest

WIDTH = 110
LARGE = 1 << 53  # a bound that nobody meets
COLUMN = 38  # where the notes begin
REQUIRED, UNSET, RECKONED = "...", "unset", "reckoned"
LEGEND = f"""\
# A run file needs a name, a [model] and [schedule] steps; any other key may be left out. TABLE.KEY=VALUE after --set
# says one on the command line. {REQUIRED} has no default, {UNSET} has no value, {RECKONED} follows from other keys."""
TOP = {
    "name": "of the run: its folder is this and eight characters of its digest",
    "seed": "of the first weights, the order of the rows, masks and samples",
    "init": "folder of the weights to go on from: a run, one of its checkpoints, or one in Hugging Face layout",
    "size": 'of a gpt, like "10M": fills layers, width, heads, and learning rate and rows where they are not said',
}


def listing(table: str | None = None) -> str:
    """All tables of a run file, or one of them. Raises TrainingError where there is none of that name."""
    known = dict(_tables())
    if table is None:
        return "\n\n".join([LEGEND, *known.values()])
    if table not in known:
        raise TrainingError(f"keys {table}: no such table of a run file{suggest(table, known)}")
    return known[table]


def _tables() -> Iterator[tuple[str, str]]:
    run = config.Run
    yield "run", "\n".join(_line(name, _default(run, name), f"{said}; {_of(run, name)}") for name, said in TOP.items())
    yield "model", _choices("model", "family", models.available(), models.__name__, "Config")
    yield "objective", _choices("objective", "use", objectives.available(), objectives.__name__, "Objective")
    for name, field in run.model_fields.items():
        if name in (*TOP, "model", "objective"):
            continue
        kind = next(k for k in (field.annotation, *get_args(field.annotation)) if isinstance(k, type))
        header = f"[[{name}]]" if name == "mix" else f"[{name}]"
        yield name, "\n".join([_prose(inspect.getdoc(kind)), header, *_lines(kind)])


def _choices(table: str, key: str, names: list[str], package: str, kind: str) -> str:
    """A table whose keys hang on what one of them names: each choice, and its own keys."""
    found = [f"[{table}]"]
    for name in names:
        module = importlib.import_module(f"{package}.{name}")
        chosen: type[Table] = getattr(module, kind)
        about = [inspect.getdoc(module), inspect.getdoc(chosen)] if chosen.model_fields else [inspect.getdoc(module)]
        found += ["", *(_prose((text or "").partition("\n\n")[0]) for text in about)]
        found += [f'{key} = "{name}"', *_lines(chosen)]
    return "\n".join(found)


def _lines(kind: type[Table]) -> list[str]:
    return [_line(name, _default(kind, name), _of(kind, name)) for name in kind.model_fields]


def _of(kind: type[Table], name: str) -> str:
    """What the value of a key may be, in words."""
    return _words(kind.model_json_schema()["properties"][name])


def _words(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:  # of `init`, which a run file gives as a text
        return "a text"
    if "anyOf" in schema:
        return " or ".join(_words(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return " or ".join(_toml(value) for value in schema["enum"])
    if schema["type"] == "array":
        return f"a list, each {_words(schema['items'] if 'items' in schema else schema['prefixItems'][0])}"
    names = {"integer": "a whole number", "number": "a number", "string": "a text", "boolean": "true or false"}
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    said = [f"{word} {schema[key]}" for key, word in bounds.items() if abs(schema.get(key, LARGE)) < LARGE]
    said += [f"in steps of {schema['multipleOf']}" for key in schema if key == "multipleOf"]
    return " ".join([names[schema["type"]], *said])


def _default(kind: type[Table], name: str) -> str:
    """As it is written in TOML, or one of the words of the legend."""
    field, fields = kind.model_fields[name], kind.model_fields.items()
    needed = {key: 1 for key, each in fields if each.is_required() and key != name}
    if field.is_required():
        return REQUIRED if _misses(kind, needed, name) else RECKONED
    if field.default is PydanticUndefined:
        return RECKONED if needed else _toml(getattr(kind(), name))
    return UNSET if field.default is None else _toml(field.default)


def _misses(kind: type[Table], given: Mapping[str, Any], name: str) -> bool:
    """Whether a table is refused for the lack of this key: some follow from others."""
    try:
        kind.model_validate(given)
    except ValidationError as error:
        return any(each["type"] == "missing" and each["loc"] == (name,) for each in error.errors())
    return False


def _toml(value: Any) -> str:
    return json.dumps(value)


def _line(name: str, default: str, note: str) -> str:
    return f"{f'{name} = {default}':<{COLUMN}}# {note}"


def _prose(text: str | None) -> str:
    words = " ".join((text or "").split())
    return textwrap.fill(words, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
