"""`gristmill quickstart --task classify`: from docstrings to a served classifier, at a small size."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import Result

from flows import quickstart, runs
from pipeline import recipe as recipes
from pipeline.catalog import cards
from tests.conftest import ROOT
from tests.flows.conftest import last

Gristmill = Callable[..., Result]
SMALL = {
    'vocab_size = 4096': 'vocab_size = 600',
    'sources = ["projects"]': 'sources = ["few.toml"]',
    'length = 128': 'length = 48',
}  # fmt: skip
CHANGES = {
    "projects-bert": ("layers = 3", "width = 128", "heads = 2", "steps = 800", "warmup = 40", "decay = 200"),
    "projects-classify": ("steps = 240", "warmup = 24"),
}
TINY = {
    "projects-bert": ("layers = 1", "width = 32", "heads = 2", "steps = 12", "warmup = 2", "decay = 2"),
    "projects-classify": ("steps = 30", "warmup = 2"),
}


def changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ships, with three small projects instead of nine, a small model and few steps; returns a store to be."""
    shipped = {kind: ROOT / "catalogs" / kind for kind in ("recipes", "runs", "sources")}
    card = (shipped["sources"] / "projects.toml").read_text("utf-8")
    named = re.search(r"^distributions = .*$", card, re.MULTILINE)
    assert named
    few = {'name = "projects"': 'name = "few"', named[0]: 'distributions = ["jinja2", "rich", "typer"]'}
    (tmp_path / "few.toml").write_text(changed(card, few), "utf-8")
    recipe = tmp_path / "projects.toml"
    recipe.write_text(changed((shipped["recipes"] / "projects.toml").read_text("utf-8"), SMALL), "utf-8")
    (tmp_path / "runs").mkdir()
    for name, old in CHANGES.items():
        text = (shipped["runs"] / f"{name}.toml").read_text("utf-8")
        (tmp_path / "runs" / f"{name}.toml").write_text(changed(text, dict(zip(old, TINY[name], strict=True))), "utf-8")
    load = recipes.load
    monkeypatch.setattr(recipes, "load", lambda name, data: load(str(recipe) if name == "projects" else name, data))
    monkeypatch.setattr(runs, "shipped", lambda: tmp_path / "runs")
    return tmp_path / "store"


def test_what_a_task_names_ships_and_its_card_needs_no_data() -> None:
    for task in quickstart.TASKS.values():
        recipe = recipes.load(task.recipe, None)
        assert set(task.runs) <= set(runs.available())
        assert all(source.kind in ("installed", "files") for source in recipe.sources)
    card = cards.load("projects")
    needed = (ROOT / "pyproject.toml").read_text("utf-8")
    direct = {re.split(r"[^a-z0-9-]", name)[0] for name in tomllib.loads(needed)["project"]["dependencies"]}
    through = {"python", "networkx", "sympy", "sqlalchemy"}  # torch needs the next two, prefect the last
    assert set(card.params["distributions"]) <= direct | through


def test_each_training_goes_on_from_the_last_and_the_end_says_how_to_serve(
    small: Path, gristmill: Gristmill, fake: None
) -> None:
    asked = ("quickstart", "--task", "classify", "--store", small, "--direct", "--workers", 1)
    said = gristmill(*asked, "--set", "schedule.steps=7").stdout
    served = shlex.split(next(line for line in said.splitlines() if "gristmill serve" in line))
    assert Path(served[2]).is_dir() and Path(served[2]).parent == small / "exports"
    curl = shlex.split(next(line for line in said.splitlines() if "curl" in line))
    assert json.loads(curl[-1])["model"] == Path(served[2]).name
    for folder in (small / "exports").iterdir():
        folder.rmdir()
    made = last(gristmill(*asked, "--json"))
    [before] = made["before"]
    assert made["changes"] == [f"init={json.dumps(before['folder'])}"] and before["changes"] == []
    assert made["address"].startswith("projects@") and made["exported"] == served[2]


def test_show_says_the_scores_of_a_classifier_as_run_json_has_them(gristmill: Gristmill, tmp_path: Path) -> None:
    evaluation = {"accuracy": 0.75, "accuracy_interval": {"high": 0.8, "low": 0.7}, "labels": ["a", "b\x1b[31m"]}
    evaluation |= {"baseline": {"accuracy": 0.5, "label": "a", "macro_f1": 0.25}, "ngrams": {}}
    table = {"format": "gristmill.run/1", "name": "one", "status": "complete", "evaluation": evaluation}
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text(json.dumps(table), "utf-8")
    assert last(gristmill("show", "one", "--store", tmp_path, "--json"))["evaluation"] == evaluation
    said = gristmill("show", "one", "--store", tmp_path).stdout
    for words in ("accuracy: 0.75", "accuracy_interval: [0.7, 0.8]", "labels: a, b", "label a", "ngrams: none"):
        assert words in said
    assert "\x1b[31m" not in said


def test_another_task_is_refused(gristmill: Gristmill) -> None:
    assert "'sing'" in gristmill("quickstart", "--task", "sing", code=2).stderr


@pytest.mark.slow
def test_from_docstrings_to_a_served_classifier(small: Path, gristmill: Gristmill) -> None:
    """The real trainer; the line that is printed serves what was made, and the answers are those of transformers."""
    from transformers import pipeline

    said = gristmill("quickstart", "--task", "classify", "--store", small, "--direct", "--workers", 1).stdout
    served = shlex.split(next(line for line in said.splitlines() if "gristmill serve" in line))
    exported = Path(served[2])
    table = json.loads((small / "runs" / exported.name / "run.json").read_text("utf-8"))
    assert "accuracy" in table["evaluation"] and table["config"]["init"]["folder"]
    report = (small / "runs" / exported.name / "report.html").read_text("utf-8")
    assert "The surest mistakes" in report and "Calibration" in report
    shown = last(gristmill("show", exported.name, "--store", small, "--json"))["evaluation"]
    content = json.loads((small / "runs" / exported.name / "report.json").read_text("utf-8"))["classification"]
    assert shown["macro_f1"] == content["model"]["macro_f1"] and shown["brier"] == content["calibration"]["brier"]
    assert shown["accuracy_interval"] == content["interval"]["accuracy"]
    assert "BSD" in (exported / "ATTRIBUTION.md").read_text("utf-8")
    found = served_answers([*served[:-1], "0"], exported.name)
    theirs = pipeline("text-classification", str(exported), top_k=None)(["Render a template with these variables."])[0]
    assert found["label"] == max(theirs, key=lambda each: each["score"])["label"]
    assert set(found["scores"]) == {"jinja2", "rich", "typer"}


def served_answers(command: list[str], model: str) -> Any:
    """What the server says of one text; it is ended in order."""
    start = [sys.executable, "-P", "-m", "flows", *command[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(start, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        [address] = re.findall(r"http://\S+/v1", process.stdout.readline())
        body = {"model": model, "input": "Render a template with these variables."}
        answer = httpx.post(f"{address}/classify", json=body, timeout=60).json()
        process.terminate()
        assert process.wait(60) == 0
        return answer["data"][0]
    finally:
        process.kill()
