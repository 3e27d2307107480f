"""The verb `eval`: the sets of a suite become versions of the store, and the trainer puts them to a model.

A set is a card (built, or found built, as a version of examples), or a version by its address. A file of questions is a
suite by itself: it gets a card, and every row of it must be an item.
"""

from __future__ import annotations

import glob
import importlib.resources
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.options import DataOption, JsonOption, ProcessesOption, StoreOption
from flows.screen import Screen

FORMS = {"choices": {"query", "choices", "gold"}, "cloze": {"context", "continuation"}, "contexts": {"context_options"}}
FILES = (".jsonl", ".ndjson")
CARD = """name = {name}
kind = "items"
title = {name}
description = "Questions from a file."
homepage = "https://example.org"
licence = "NOASSERTION"
languages = ["mul"]

[params]
paths = [{path}]
form = "{form}"
"""
RECIPE = """name = {name}
sources = [{card}]

[tokens]
vocab_size = 512

[pack]
layout = "examples"
length = 512
split = {{}}
"""


def register(verb: Callable[..., Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    verb(evaluate, name="eval")
    verb(compare)


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run by its name, or a run, checkpoint or Hugging Face folder.")
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite", metavar="NAME", help="A shipped suite (english, chinese, riddles), a .toml or a .jsonl."
        ),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            "--version", metavar="ADDRESS", help="A version whose split is predicted; default: the run's own."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="That split; default, without a suite: val.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Texts computed side by side.")] = 32,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FOLDER", help="Where scores go; default: in the run, or ./scores/MODEL."),
    ] = None,
    export_lm_eval: Annotated[
        str | None,
        typer.Option("--export-lm-eval", metavar="FOLDER", help="Write the suite as tasks of lm-eval, and end."),
    ] = None,
    processes: ProcessesOption = 1,
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model: questions by likelihood, and bits per byte by source, language and domain.

    Multiple choice (raw, by bytes, and by the answer alone) and cloze, with examples before them where the suite says
    so; each score with its 95 % bootstrap interval and the score of chance. Questions that a run had read by its step,
    where its version lists them, are scored apart. The sets of a suite are built as versions first.

    \b
      gristmill eval mine                                  bits per byte of val
      gristmill eval mine --suite riddles                  the questions that ship
      gristmill eval exported --suite english --data /mnt/corpora --processes 2
      gristmill eval mine --suite my-questions.jsonl --json | jq .sets
      gristmill eval exported --suite english --data /mnt/corpora --export-lm-eval tasks
    """
    from flows import making, process, runs
    from pipeline import manifest
    from pipeline.store import Store

    screen, root = Screen(as_json), Path(store).expanduser()
    folder = runs.usable(root, model)
    options = ["--batch", str(batch)]
    if suite:
        mill = making.mill(store, data, None)
        file, sets = prepared(suite, mill, screen)
        options += ["--suite", str(file), *(part for name, at in sets.items() for part in ("--set", f"{name}={at}"))]
    if version:
        options += ["--version", str(manifest.find(Store(root), version).folder)]
    given = {"--split": split, "--out": out, "--export-lm-eval": export_lm_eval}
    options += [part for name, value in given.items() if value for part in (name, value)]
    process.become("eval", str(folder), *options, *(["--json"] if as_json else []), processes=processes)


def shipped() -> Path:
    """The folder of the shipped suites."""
    return Path(str(importlib.resources.files("catalogs") / "suites"))


def available() -> list[str]:
    """Names of the suites that ship."""
    return sorted(path.stem for path in shipped().glob("*.toml"))


def prepared(suite: str, mill: Any, screen: Screen) -> tuple[Path, dict[str, Path]]:
    """The file of a suite, and the folder of the version of each set that it names. Raises ConfigError."""
    from pipeline.mistakes import ConfigError, suggest

    path = Path(suite).expanduser()
    if path.suffix in FILES:
        path = _of_file(path.absolute(), mill.root / "suites")
    elif path.suffix != ".toml":
        if suite not in available():
            raise ConfigError(f"unknown suite {suite!r}{suggest(suite, available())} (or give a .toml or .jsonl file)")
        path = shipped() / f"{suite}.toml"
    strict = path.parent == mill.root / "suites"
    names = _sources(path)
    return path, {name: version_of(name, path.parent, mill, screen, strict) for name in names}


def _sources(path: Path) -> list[str]:
    """Every set that a suite names; the rest of the file is the trainer's to check. Raises ConfigError."""
    from pipeline.mistakes import ConfigError

    try:
        tables = tomllib.loads(path.read_text("utf-8")).get("set")
    except OSError as error:
        raise ConfigError(f"{path}: no such suite ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables) or not tables:
        raise ConfigError(f"{path}: sets are written as [[set]] tables, with double brackets")
    named = [table.get(key) for table in tables for key in ("set", "shots_from")]
    return [*dict.fromkeys(name for name in named if isinstance(name, str))]


def version_of(name: str, folder: Path, mill: Any, screen: Screen, strict: bool) -> Path:
    """The folder of a set's version: one that is sealed, or built of a card. Raises ConfigError."""
    from flows import making
    from flows.parameters import BuildParameters
    from pipeline import agreement, manifest
    from pipeline.catalog import cards
    from pipeline.mistakes import ConfigError, suggest
    from pipeline.store import Store

    card = str(folder / name) if name.endswith(".toml") else name
    if "@" in name:
        return manifest.find(Store(mill.root), name).folder
    if not name.endswith(".toml") and name not in cards.available():
        raise ConfigError(
            f"set {name!r} is no card{suggest(name, cards.available())} (or give the path of one, or a version as "
            "NAME@latest)"
        )
    loaded = cards.load(card, mill.folder)
    if agreement.rows_of(loaded) != agreement.ITEMS:
        raise ConfigError(
            f"card {loaded.name!r} holds documents, not questions: its kind is {loaded.kind!r}, not 'items' (nor 'hub' "
            "with a table params.items)"
        )
    recipe = mill.root / "suites" / f"{loaded.name}-recipe.toml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    source = str(loaded.file) if name.endswith(".toml") else name
    recipe.write_text(RECIPE.format(name=json.dumps(loaded.name), card=json.dumps(source)), "utf-8")
    made = making.build(BuildParameters(recipe=str(recipe), mill=mill), True, screen)
    found = manifest.find(Store(mill.root), made["address"])
    if strict and (problem := _first_problem(Store(mill.root), found)):
        raise ConfigError(problem)
    return found.folder


def _first_problem(store: Any, version: Any) -> str | None:
    """What the first row is that was no item, in words."""
    from pipeline.store import read_parquet

    for key in version.build_keys().segments[0].parts:
        errors = read_parquet(store.file(key, "errors.parquet"))
        if errors.num_rows:
            found = errors.slice(0, 1).to_pylist()[0]
            return f"{found['detail']} ({found['reason']}); correct the file, or leave the row out"
    return None


def _of_file(path: Path, folder: Path) -> Path:
    """A suite of one set that asks the rows of a file. Raises ConfigError."""
    from pipeline.mistakes import ConfigError

    try:
        with path.open("rb") as file:
            first = json.loads(next((line for line in file if line.strip()), b"{}"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: its first row is not JSON ({error})") from error
    keys = set(first) if isinstance(first, dict) else set()
    form = next((form for form, wanted in FORMS.items() if wanted <= keys), None)
    if form is None:
        raise ConfigError(
            f"{path}: rows of questions have query, choices and gold, or context and continuation, or context_options, "
            f"continuation and gold; the first has {', '.join(sorted(keys)) or 'nothing'}. For other names write a "
            "card of kind 'items'"
        )
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in path.stem.lower()).strip("-") or "questions"
    folder.mkdir(parents=True, exist_ok=True)
    card, suite = folder / f"{name}-card.toml", folder / f"{name}.toml"
    said = {"name": json.dumps(name), "path": json.dumps(glob.escape(str(path)), ensure_ascii=False), "form": form}
    card.write_text(CARD.format(**said), "utf-8")
    suite.write_text(
        f"name = {json.dumps(name)}\n\n[[set]]\nset = {json.dumps(card.name)}\nname = {json.dumps(name)}\n"
    )
    return suite


def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Complete runs, by name or folder; two or more.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="FILE.html", help="The page.")] = "comparison.html",
    store: StoreOption = ".gristmill",
    as_json: JsonOption = False,
) -> None:
    """Hold runs against the first: paired bootstrap over items and seeds, curves over tokens, data, cost.

    Compared is what all answered: the documents of their own evaluation, and every suite that `gristmill eval` has put
    to each of them. Runs that differ in their seed alone are one side.

    \b
      gristmill compare small large --out page.html
      gristmill compare plain-1 plain-2 plain-3 better-1 better-2 better-3 --json | jq .differences
    """
    from flows import process, runs

    root = Path(store).expanduser()
    folders = [runs.find(root, name) for name in names]
    diffs = root / "suites" / "diffs.json"
    diffs.parent.mkdir(parents=True, exist_ok=True)
    diffs.write_text(json.dumps(_diffs(root, folders), default=str), "utf-8")
    options = ["--out", out, "--diffs", str(diffs), *(["--json"] if as_json else [])]
    process.become("compare", *map(str, folders), *options)


def _diffs(root: Path, folders: list[Path]) -> list[dict[str, Any]]:
    """What sets the versions of the runs apart from that of the first, as far as their books lie in the store."""
    from flows.differing import plain_data
    from flows.runs import of
    from pipeline import addresses
    from pipeline.diff import diff
    from pipeline.mistakes import ConfigError
    from pipeline.store import Store, StoreError

    known = {run.folder.resolve(): run.address for run in of(root)}
    read = [*dict.fromkeys(known[folder.resolve()] for folder in folders if folder.resolve() in known)]
    place, found = Store(root), []
    for other in read[1:]:
        try:
            a, b = (addresses.find(place, address) for address in (read[0], other))
            found.append(plain_data(diff(place, a, b, 0)))
        except (ConfigError, StoreError):  # a version that was forgotten, or came without its books
            continue
    return found
