"""The shipped way to a model that answers: recipe, run file, and a chat through one template, with no download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from flows import runs
from pipeline import recipe as recipes
from tests.conftest import ROOT
from tests.flows.conftest import last
from tests.training.runs import command

Gristmill = Callable[..., Result]
CONVERSATIONS = [
    json.loads(line)["messages"]
    for line in (ROOT / "catalogs" / "chats" / "talk.jsonl").read_text("utf-8").splitlines()
]


@pytest.fixture(scope="module")
def store(gristmill: Gristmill, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    made = last(gristmill("build", "talk", "--store", folder, "--direct", "--workers", 1, "--json"))
    assert made["documents"] == {"ingested": 40, "added": 0, "kept": 40, "dropped": 0, "quarantined": 0}
    return folder


def train(gristmill: Gristmill, store: Path, run: object, *changes: str, version: str = "talk") -> Any:
    asked = ("train", run, "--manifest", version, "--store", store, "--direct", "--json")
    quiet = ("samples.documents=0", "precision.threads=1")
    return last(gristmill(*asked, *(word for change in (*quiet, *changes) for word in ("--set", change))))


def answers(folder: Path, questions: list[str]) -> list[str]:
    options = [word for question in questions for word in ("--prompt", question)]
    said = command(1, "generate", str(folder), *options, "--greedy", "--new-tokens", "48", "--json").stdout
    return [entry["continuations"][0] for entry in json.loads(said)["prompts"]]


def test_what_it_was_told_it_answers_through_the_template(gristmill: Gristmill, store: Path) -> None:
    """Greedy, by `generate` as a text and by the messages of `serve`; nine of ten conversations were learnt from."""
    made = train(gristmill, store, "talk")
    assert made["objective"] == "instruct"
    firsts = [c[:2] for c in CONVERSATIONS if c[0]["role"] == "user"][:12]
    said = answers(Path(made["folder"]), [question["content"] for question, _ in firsts])
    right = sum(a == answer["content"] for a, (_, answer) in zip(said, firsts, strict=True))
    assert right >= 0.7 * len(firsts)


@pytest.mark.slow
def test_it_tunes_what_is_trained_as_the_readme_says(gristmill: Gristmill, store: Path, tmp_path: Path) -> None:
    """Exported; then a version with its tokenizer, and a copy of the run file that goes on from it."""
    gristmill("build", "languages", "--store", store, "--direct", "--workers", 1)
    few = ("schedule.steps=3", "schedule.warmup=0", "schedule.decay=1")
    first = train(gristmill, store, "quickstart", *few, version="languages")
    command(1, "export", first["folder"], str(tmp_path / "hf"))
    recipe = (recipes.shipped() / "talk.toml").read_text("utf-8")
    recipe = recipe.replace("vocab_size = 512", f"tokenizer = {json.dumps(str(tmp_path / 'hf' / 'tokenizer.json'))}")
    (tmp_path / "talk.toml").write_text(recipe.replace('name = "talk"', 'name = "told"'), "utf-8")
    gristmill("build", tmp_path / "talk.toml", "--store", store, "--direct", "--workers", 1)
    text = (runs.shipped() / "talk.toml").read_text("utf-8")
    begin, end = text.index("\n[model]") + 1, text.index("\n[objective]") + 1
    init = f"init = {json.dumps(str(tmp_path / 'hf'))}\n[lora]\nrank = 4\n"
    (tmp_path / "run.toml").write_text(text[:begin] + init + text[end:], "utf-8")
    made = train(gristmill, store, tmp_path / "run.toml", "schedule.steps=3", version="told")
    assert made["status"] == "complete" and len(answers(Path(made["folder"]), ["What does a mill do?"])) == 1


def test_the_run_file_ships_beside_its_recipe_and_its_card_needs_no_download() -> None:
    assert "talk" in runs.available() and "talk" in recipes.available()
    [card] = recipes.load("talk").sources
    assert (card.name, card.kind, card.licence) == ("talk", "chat", "CC0-1.0")
