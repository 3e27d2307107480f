"""Law 11 at the front door: whatever became of a version, every verb that takes one says so, or answers as before.

A verb is held to it by itself: what it takes is read from the command line. A damaged version is refused by one
sentence and exit code 2 (1 by `verify` and `audit`, who are asked for differences) before anything is written; where an
answer does not hang on what was damaged, it is the very one that the sound version gives.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli import app
from pipeline import manifest as manifests
from pipeline.store import Store, read_parquet, write_parquet
from tests.flows.conftest import corpus, gristmill, last
from tests.flows.test_following import trained
from training.trace import trace

__all__ = ["corpus", "gristmill", "trained"]
# Parameters by which a verb takes a version or a run over one. `train` and `eval` become the trainer, whose own reader
# has its tests (tests/training/test_refusals.py).
VERSIONED, OTHERS, TRAINER = {"address", "a", "b", "version"}, {"trace"}, {"eval"}
ASKED = {"verify", "audit"}
# What is no part of an answer.
MEASURED = {"peak_memory_bytes", "written", "sha256"}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TAKING = {n for n, c in COMMANDS.items() if n in OTHERS or VERSIONED & {p.name for p in c.params}}
VERBS = sorted(TAKING - TRAINER)


@dataclass
class Kept:
    """A store with two versions, the child of a third by forgetting, and a run; laid out anew for each damage."""

    whole: Path
    place: Path
    words: dict[str, Any]
    child: str
    answers: dict[str, Any] = field(default_factory=dict)

    def fresh(self) -> Path:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.whole, self.place)
        return self.place

    def of_the_child(self) -> Kept:
        """The same, asked about the version that is a child."""
        named = dict.fromkeys(("address", "a", "version"), self.child)
        return Kept(self.whole, self.place, self.words | named, self.child)

    def command(self, verb: str) -> list[str]:
        """The verb with a word for everything that it needs, and for every option that names a version."""
        words = [verb]
        for parameter in COMMANDS[verb].params:
            word = self.words.get(parameter.name)
            if word is None:
                assert not parameter.required, f"{verb}: the law knows no word for {parameter.name!r}"
            elif parameter.param_type_name == "argument":
                words.append(str(word))
            else:
                words += [parameter.opts[0], *([] if word is True else [str(word)])]
        return words


@pytest.fixture(scope="module")
def kept(trained, gristmill, tmp_path_factory) -> Kept:
    whole = tmp_path_factory.mktemp("whole") / "store"
    shutil.copytree(trained[0], whole)
    folder = whole / "runs" / trained[1].name
    piece = trace(folder, 2)["pieces"][0]
    gristmill("apply", "small", "near.dup_rank.above=none", "--name", "other", "--store", whole, "--direct")
    ids = manifests.find(Store(whole), "small").index(["doc_id"])["doc_id"].to_pylist()
    gone = next(doc_id for doc_id in ids if doc_id != piece["doc_id"])
    gristmill("forget", "small", "--doc", gone, "--keep-parent", "--store", whole)
    place = tmp_path_factory.mktemp("place") / "store"
    parent, child = (version.address for version in versions(whole))
    words = {
        "address": parent,
        "a": parent,
        "b": "other",
        "version": parent,
        "store": place,
        "as_json": True,
        "doc_id": piece["doc_id"],
        "doc": piece["doc_id"],
        "run": folder.name,
        "step": 2,
        "token": 3,
        "changes": "gopher.word_count.below=25",
        "source": "samples",
        "check": True,
        "direct": True,
        "workers": 1,
    }
    return Kept(whole, place, words, child)


# Damages: each is done to every version of the name that the verbs are asked about


def versions(store: Path) -> list[manifests.Version]:
    return [manifests.find(Store(store), f"small@{number}") for number in manifests.versions(Store(store), "small")]


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A file of JSON edited by hand; its hard links stay as they were."""
    table = json.loads(path.read_text("utf-8"))
    change(table)
    path.unlink()
    path.write_text(json.dumps(table), "utf-8")


def edited(store: Path) -> None:
    for version in versions(store):
        rewritten(version.folder / "manifest.json", lambda table: table["accounting"][1].update(dropped=7))


def edited_canaries(store: Path) -> None:
    def change(table: dict[str, Any]) -> None:
        table["summaries"]["canaries"]["allowed"].append("gopher.word_count.below")

    rewritten(versions(store)[0].folder / "manifest.json", change)


def without_a_key(store: Path) -> None:
    for version in versions(store):
        rewritten(version.folder / "manifest.json", lambda table: table.pop("documents"))


def ledger_without_a_row(store: Path) -> None:
    for key in {version.build_keys().segments[0].judge for version in versions(store)}:
        path = Store(store).file(key, "ledger.parquet")
        table = read_parquet(path).slice(1)
        path.unlink()
        write_parquet(path, table)


def shard_of_another_version(store: Path) -> None:
    other = manifests.find(Store(store), "other")
    for version in versions(store):
        for split in version.manifest["splits"].values():
            for shard in split["shards"]:
                (version.folder / shard["file"]).unlink()
                shutil.copyfile(other.folder / shard["file"], version.folder / shard["file"])


def without_its_parent(store: Path) -> None:
    parent, _ = versions(store)
    shutil.rmtree(parent.folder)


# What was done, and which verbs have to notice it: all, or who reads what was damaged.
DAMAGES: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "manifest": (edited, set(VERBS) - {"trace"}),
    "canaries": (edited_canaries, set(VERBS) - {"trace"}),
    "key": (without_a_key, set(VERBS) - {"trace"}),
    "ledger": (ledger_without_a_row, {"audit", "diff", "whatif", "apply", "rebuild", "forget", "why", "where"}),
    "shard": (shard_of_another_version, {"audit", "verify", "rebuild", "forget", "why", "where"}),
    "parent": (without_its_parent, set()),
}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def answer(result: Any) -> Any:
    return {name: value for name, value in last(result).items() if name not in MEASURED}


def problems(said: Any) -> list[str]:
    """What an answer itself says that it could not find out."""
    if isinstance(said, list):
        return [problem for each in said for problem in problems(each)]
    if not isinstance(said, dict):
        return []
    inner = [problem for value in said.values() for problem in problems(value)]
    return [*inner, *(said[name] for name in ("problem", "source_problem") if said.get(name))]


def run(kept: Kept, verb: str) -> Any:
    from typer.testing import CliRunner

    return CliRunner().invoke(app, kept.command(verb))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_version_is_refused_or_does_not_matter(kept, verb, damage):
    harm, noticing = DAMAGES[damage]
    if damage == "parent":
        kept = kept.of_the_child()
    if verb not in kept.answers:
        kept.fresh()
        sound = run(kept, verb)
        # What was forgotten stands in the sources still, so `apply` does not build a child again.
        assert sound.exit_code == 0 or (verb, damage) == ("apply", "parent"), f"{kept.command(verb)}\n{sound.output}"
        kept.answers[verb] = answer(sound) if sound.exit_code == 0 else None
    store = kept.fresh()
    harm(store)
    before = files(store)
    result = run(kept, verb)
    said = result.stderr.strip().splitlines()
    if result.exit_code == 0:
        assert verb not in noticing, f"{verb} does not notice it"
        mine = answer(result)
        assert mine == kept.answers[verb] or problems(mine), "it noticed nothing"
        return
    assert "Traceback" not in result.output and files(store) == before
    if verb in ASKED and result.exit_code == 1:
        assert last(result)["problems"]
    else:
        assert result.exit_code == 2 and len(said) == 1 and said[0].startswith("error: "), result.output
        what = ("restore", "build", "remove", "again")
        assert any(word in said[0] for word in what), f"it does not say what to do: {said[0]}"


def test_verbs_that_take_a_version_are_found():
    known = {
        "apply",
        "audit",
        "diff",
        "forget",
        "papers",
        "rebuild",
        "show",
        "trace",
        "verify",
        "whatif",
        "where",
        "why",
    }
    assert known <= set(VERBS) and not {"build", "ls", "quickstart", "deploy"} & set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_version_a_run_or_a_document_that_never_was_is_refused(kept, verb):
    """Each word in turn, and nothing is written."""
    store = kept.fresh()
    nowhere = "nowhere", "nowhere:x.jsonl:1"
    for name in ("address", "a", "b", "version", "run", "doc_id", "doc"):
        if name in {parameter.name for parameter in COMMANDS[verb].params}:
            wrong = Kept(kept.whole, kept.place, {**kept.words, name: nowhere[name.startswith("doc")]}, "")
            before = files(store)
            result = run(wrong, verb)
            assert result.exit_code == 2, f"{wrong.command(verb)}\n{result.output}"
            assert "nowhere" in result.stderr and len(result.stderr.strip().splitlines()) == 1
            assert files(store) == before


def test_a_run_that_read_what_was_forgotten_says_what_is_left(kept):
    store = kept.fresh()
    without_its_parent(store)
    told = run(kept, "trace")
    assert told.exit_code == 2 and len(told.stderr.strip().splitlines()) == 1
    assert f"were forgotten, and it was removed; what is left of it is {kept.child}" in told.stderr
    assert "cannot go on" in told.stderr


UNREADABLE = ["MIT AND", "(MIT", "public domain", "MIT/ISC"]


def licences() -> Iterator[list[str]]:
    """Where a person writes a licence; RECIPE stands for a recipe whose [licence] table has it."""
    yield from (["build", "RECIPE", "--direct"], ["dialects", "RECIPE"])
    yield from ([verb, "other", "licence.licence.allow=LICENCE"] for verb in ("whatif", "apply"))
    yield ["forget", "other", "--licence", "LICENCE"]


@pytest.mark.parametrize("licence", UNREADABLE)
@pytest.mark.parametrize("command", licences(), ids=lambda command: command[0])
def test_a_licence_that_cannot_be_read_is_refused(kept, corpus, gristmill, tmp_path, command, licence):
    store = kept.fresh()
    recipe = corpus / f"licensed-{os.getpid()}.toml"
    text = (corpus / "small.toml").read_text("utf-8")
    recipe.write_text(text.replace("[[stage]]", f'[licence]\nallow = ["{licence}"]\nunknown = "keep"\n[[stage]]', 1))
    words = [word.replace("LICENCE", licence).replace("RECIPE", str(recipe)) for word in command]
    before = files(store)
    told = gristmill(*words, *([] if command[0] == "dialects" else ["--store", store]), code=2).stderr
    assert len(told.strip().splitlines()) == 1 and licence in told
    assert files(store) == before
