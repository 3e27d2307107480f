"""`gristmill eval` and `gristmill compare`: sets become versions, and the front door goes on as the trainer."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import evaluating, process, sources
from pipeline.stage import ConfigError
from tests import hubs
from tests.conftest import ROOT
from tests.training import exported
from training.manifest import open_version
from training.suites import items, load


class Became(Exception):
    """The command that this process would have become."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    def become(*arguments: str, processes: int = 1) -> None:
        raise Became(*arguments, processes)

    monkeypatch.setattr(process, "become", become)

    def call(*positional: Any, verb: Any = evaluating.evaluate, **options: Any) -> list[str]:
        with pytest.raises(Became) as found:
            verb(*positional, store=str(tmp_path / "store"), **options)
        return list(found.value.args)

    return call


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    return str(tmp_path / "hf")


def options(command: list[str]) -> dict[str, str]:
    return {a: b for a, b in itertools.pairwise(command) if str(a).startswith("--")}


def questions(path: Path, *more: dict[str, Any]) -> str:
    rows = [{"query": f"Q{n}", "choices": ["a", "b"], "gold": n % 2} for n in range(6)]
    path.write_text("\n".join(json.dumps(row) for row in (*rows, *more)), "utf-8")
    return str(path)


def test_a_shipped_suite_becomes_versions(became: Any, model: str) -> None:
    command = became(model, suite="riddles", processes=2)
    assert command[:2] == ["eval", model] and command[-1] == 2
    said = options(command)
    name, _, place = said["--set"].partition("=")
    assert name == "riddles" and len(items.read(open_version(place))) == 24
    assert load(Path(said["--suite"])).name == "riddles"


def test_a_set_of_the_hub_is_asked(became: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that ships, with the commit written in: the way that its own words send a reader."""
    place = tmp_path / "hub" / "cais" / "mmlu"
    place.mkdir(parents=True)
    rows = [{"question": f"Q{n}", "subject": "mills", "choices": list("abcd"), "answer": n % 4} for n in range(9)]
    (place / "test.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "mmlu.toml").write_text(sources.toml("mmlu").replace('"main"', f'"{hubs.REVISION}"'), "utf-8")
    (tmp_path / "suite.toml").write_text('name = "s"\n[[set]]\nset = "mmlu.toml"\nname = "mmlu"\n', "utf-8")
    configs = [{"config_name": "all", "data_files": [{"split": "test", "path": "test.jsonl"}]}]
    with hubs.hub(tmp_path / "hub", {"mmlu": {"configs": configs}}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        said = options(became(model, suite=str(tmp_path / "suite.toml")))
    found = items.read(open_version(said["--set"].partition("=")[2]))
    assert len(found) == 9


def test_a_file_of_questions_is_a_suite(became: Any, model: str, tmp_path: Path) -> None:
    said = options(became(model, suite=questions(tmp_path / "My Questions.jsonl")))
    (one,) = load(Path(said["--suite"])).set
    assert one.called == "my-questions"
    found = items.read(open_version(said["--set"].partition("=")[2]))
    assert [item.contexts for item in found] == [(f"Q{n}",) for n in range(6)]
    (tmp_path / "c.jsonl").write_text('{"context": "a", "continuation": "b"}\n', "utf-8")
    said = options(became(model, suite=str(tmp_path / "c.jsonl")))
    assert items.read(open_version(said["--set"].partition("=")[2]))[0].choices == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"query": "Q", "choices": ["a", "b"], "gold": 2}, r"row 7: 'gold' is 2, and the choices have numbers 0 to 1"),
        ({"query": "Q", "choices": ["a", ""], "gold": 0}, r"row 7: choice 1 of 'choices' is empty"),
    ],
)
def test_a_wrong_row_of_a_file_is_named(became: Any, model: str, tmp_path: Path, row: Any, said: str) -> None:
    file = questions(tmp_path / "q.jsonl", row)
    with pytest.raises(ConfigError, match=said):
        evaluating.evaluate(model, suite=file, store=str(tmp_path / "store"))


def test_suites_that_cannot_be_found_say_what_exists(became: Any, model: str, tmp_path: Path) -> None:
    def fails(suite: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            evaluating.evaluate(model, suite=suite, store=str(tmp_path / "store"))

    fails("englisch", "unknown suite 'englisch'; did you mean 'english'")
    (tmp_path / "a.toml").write_text('name = "a"\n[[set]]\nset = "arc-esay"\n')
    fails(str(tmp_path / "a.toml"), "set 'arc-esay' is no card; did you mean 'arc-easy'")
    (tmp_path / "a.toml").write_text('name = "a"\n[[set]]\nset = "sst2"\n')
    fails(str(tmp_path / "a.toml"), "card 'sst2' holds documents, not questions")
    (tmp_path / "a.jsonl").write_text('{"q": "a"}\n')
    fails(str(tmp_path / "a.jsonl"), "the first has q")
    fails(str(tmp_path / "none.jsonl"), "cannot be read")


@pytest.mark.slow
def test_the_command_scores_a_model(tmp_path: Path) -> None:
    model = exported.folder(tmp_path, "llama")
    command = [sys.executable, "-P", "-m", "flows", "eval", str(model), "--suite", "riddles", "--store", "store"]
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True, env=None)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sets"][0]["groups"]["all"]["items"] == 24
    assert (tmp_path / found["folder"] / "scores.html").is_file() and ROOT.is_dir()


def test_compare_finds_runs_and_what_sets_their_versions_apart(became: Any, tmp_path: Path) -> None:
    from pipeline.build import Mill
    from pipeline.store import Store
    from tests.pipeline.test_items import recipe, write

    addresses = []
    for number, changes in enumerate(({}, {"stage": [{"use": "exact", "drop": {"dup_rank": {"above": 0}}}]})):
        write(tmp_path, [{"query": "Q", "choices": ["a", "b"], "gold": 0}] * 3)
        addresses.append(Mill(Store(tmp_path / "store")).build(recipe(tmp_path, **changes)).address)
        folder = tmp_path / "store" / "runs" / f"run{number}"
        folder.mkdir(parents=True)
        table = {"format": "gristmill.run/1", "name": folder.name, "version": {"address": addresses[-1]}}
        (folder / "run.json").write_text(json.dumps(table))
    command = became(["run0", str(tmp_path / "store" / "runs" / "run1")], verb=evaluating.compare, out="p.html")
    runs = [str(tmp_path / "store" / "runs" / name) for name in ("run0", "run1")]
    assert command[:3] == ["compare", *runs] and options(command)["--out"] == "p.html"
    (diff,) = json.loads(Path(options(command)["--diffs"]).read_text("utf-8"))
    assert [diff["a"], diff["b"]] == addresses and diff["documents"]["removed"] == 2
    with pytest.raises(ConfigError, match="no run 'none'"):
        evaluating.compare(["none"], store=str(tmp_path / "store"))
