"""What the command line teaches and says: help, keys of a run file, the lines around a run."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from tests.training import runs
from training import TrainingError, config, keys, models, objectives, terminal
from training.__main__ import app

VERBS = ("fit", "keys", "generate", "serve", "export", "trace", "report")


def said(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "120"}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("verb", VERBS)
def test_help_teaches_by_examples_and_explains_every_option(verb):
    page = said(verb, "--help")
    assert len(re.findall(r"^    (python|torchrun|gristmill|curl) ", page, re.MULTILINE)) >= (
        1 if verb == "report" else 3
    )
    assert all(line.startswith("    ") or len(line) <= 120 for line in page.splitlines())
    for option in re.findall(r"^  (--[a-z-]+.*)$", page, re.MULTILINE):
        assert re.search(r"  \S.*\w{3}", option), f"{option} says nothing"
    for example in re.findall(r"^    (python -P .*)$", page, re.MULTILINE):
        words = shlex.split(example.partition(" | ")[0])[4:]
        assert words[0] in VERBS, example
        known = {o for command in _commands().values() for p in command.params for o in p.opts}
        assert {word for word in words if word.startswith("--")} <= known, example


def _commands() -> dict[str, Any]:
    import typer

    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_help_of_all_names_every_verb_and_keeps_brackets():
    page = said("--help")
    assert all(re.search(rf"^  {verb} +\w", page, re.MULTILINE) for verb in VERBS)
    assert "[[mix]]" in said("fit", "--help")


def test_the_keys_that_are_listed_are_those_that_a_run_file_may_have():
    """Held against what the checks themselves name: every table, every family, every objective."""
    page = keys.listing()
    for name, field in config.Run.model_fields.items():
        assert re.search(rf"^(\[+{name}\]+|{name} = .*)$", page, re.MULTILINE), name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for key in field.annotation.model_fields:
                assert re.search(rf"^{key} = ", keys.listing(name), re.MULTILINE), key
    for table, key, choices in (("model", "family", models), ("objective", "use", objectives)):
        for choice in choices.available():
            assert f'{key} = "{choice}"' in keys.listing(table)


@pytest.mark.parametrize("name", ["batch", "optimizer", "precision", "evaluation", "checkpoint", "parallel", "samples"])
def test_the_defaults_that_are_listed_are_those_that_are_taken(name):
    kind = config.Run.model_fields[name].annotation
    listed = _said(keys.listing(name))[name]
    assert set(listed) == {key for key, value in kind() if value is not None}
    assert config.check(kind, listed, "listed") == kind()


@pytest.mark.parametrize("family", models.available())
def test_a_model_of_the_listed_defaults_is_the_model_without_them(family):
    [block] = [b for b in keys.listing("model").split("\n\n") if f'family = "{family}"' in b]
    least = {"family": family, "layers": 2, "width": 64, "heads": 2}
    listed = _said(block)
    assert len(listed) > 2 and not set(least) - {"family"} & set(listed)
    assert models.described({**least, **listed}, "listed") == models.described(least, "least")
    missing = re.findall(r"^(\w+) = \.\.\.", block, re.MULTILINE)
    assert set(missing) == {"layers", "width", "heads"}


def _said(listing: str) -> dict[str, Any]:
    """The values of a listing; lines whose key has none are left out."""
    return tomllib.loads(re.sub(r"^\w+ = (\.\.\.|unset|reckoned) .*$", "", listing, flags=re.MULTILINE))


def test_a_table_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(TrainingError, match=r"keys optimiser: .*did you mean 'optimizer'\?"):
        keys.listing("optimiser")


def test_a_run_says_what_it_is_each_validation_and_how_it_ended(run_file, manifest, tmp_path):
    arguments = ["fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path)]
    done = runs.command(1, *arguments, "--set", "optimizer.learning_rate=0.02")
    first, *lines = done.stderr.splitlines()
    [folder] = tmp_path.iterdir()
    assert first.startswith(f"{folder.name}: gpt, ") and " parameters, causal; 12 steps of 6 rows of 32 tokens" in first
    assert first.endswith(f"into {folder}")
    checks = [line for line in lines if "validation loss" in line]
    assert [line.partition(":")[0] for line in checks] == ["step 5", "step 10", "step 12"]
    assert all("bits per byte" in line for line in checks)
    assert done.stdout.startswith(f"{folder.name}: complete, 12 steps\n") and "None" not in done.stdout
    advice = done.stdout.partition("next:\n")[2].splitlines()
    assert len(advice) == 3
    words = shlex.split(next(line for line in advice if " trace " in line))
    assert "as it was read" in said(*words[words.index("trace") :]), "the advice can be pasted"


def test_a_run_that_goes_on_says_from_where(run_file, manifest, tmp_path):
    runs.fit(run_file, manifest, tmp_path, after=3)
    arguments = ["fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path), "--json"]
    events = tmp_path / "events"
    runs.command(1, *arguments, "--events", str(events))
    told = [json.loads(line) for line in events.read_text("utf-8").splitlines()]
    assert "on from step 3 of 12 steps" in told[0]["say"]
    assert sum("validation loss" in event.get("say", "") for event in told) == 3


def test_what_a_classifier_scored_is_told_beside_the_commonest_class():
    result = {"run": "r", "status": "complete", "steps": 5, "objective": "classify", "accuracy": 0.5, "macro_f1": 0.25}
    result |= {"baseline": {"label": "es", "accuracy": 0.125}, "bits_per_byte": None, "ngrams": {}}
    places = {name: str(Path("runs") / name) for name in ("folder", "checkpoint", "report", "manifest")}
    lines = terminal.ended({**result, **places})
    assert lines[1].split() == "accuracy 0.500, macro F1 0.250; naming every text 'es' gets 0.125".split()
    assert not any("generate" in line for line in lines), "it writes nothing"


def test_what_a_model_says_controls_no_terminal():
    assert terminal.visible("a\x1b[2J\nb") == "a\\x1b[2J\nb"
