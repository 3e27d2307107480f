"""A dead rule at the front door: refused with exit code 2 and before any work, allowed by name, and told afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows import show
from tests.flows.conftest import RECIPE, last

NAME = "gopher.alphabetic_word_ratio.above"


@pytest.fixture
def recipe(corpus: Path, tmp_path: Path):
    """Writes the small recipe with more in the table of gopher."""

    def write(more: str) -> Path:
        text = RECIPE.replace("grain.toml", str(corpus / "grain.toml"))
        (tmp_path / "mine.toml").write_text(text.replace("{below = 20}\n", f"{{below = 20}}\n{more}\n"), "utf-8")
        return tmp_path / "mine.toml"

    return write


def test_a_dead_rule_is_refused_and_its_name_allows_it(recipe, gristmill, tmp_path):
    path = recipe("drop.alphabetic_word_ratio = {above = 1.0}")
    build = ("build", path, "--store", tmp_path / "store", "--direct", "--workers", 1)
    said = gristmill(*build, code=2).stderr
    assert f"error: {path} stage 2 (gopher): drop.alphabetic_word_ratio = {{above = 1.0}} can never fire" in said
    assert "alphabetic_word_ratio was 0 to 1 in 2 documents" in said and f"--allow-dead {NAME}" in said
    assert not (tmp_path / "store" / "versions").exists()
    said = gristmill(*build, "--allow-dead", NAME).stdout
    assert "canaries: 3 of 4 rules fire where they must" in said and f"dead, and allowed: {NAME}" in said
    assert f"dead, and allowed: {NAME}" in gristmill("show", "small", "--store", tmp_path / "store").stdout
    made = last(gristmill(*build, "--allow-dead", NAME, "--json"))
    table = json.loads(Path(made["manifest"]).read_text("utf-8"))
    assert made["canaries"] == table["summaries"]["canaries"] and made["canaries"]["allowed"] == [NAME]
    apply = ("apply", "small", "gopher.word_count.below=25", "--store", tmp_path / "store", "--direct", "--workers", 1)
    assert f"--allow-dead {NAME}" in gristmill(*apply, code=2).stderr
    assert f"dead, and allowed: {NAME}" in gristmill(*apply, "--allow-dead", NAME).stdout


def test_a_name_that_no_rule_has_is_refused_at_once(recipe, gristmill, tmp_path):
    said = gristmill("build", recipe(""), "--store", tmp_path / "s", "--allow-dead", "gopher.word_count.bellow", code=2)
    assert "the recipe has no such rule; did you mean 'gopher.word_count.below'?" in said.stderr
    assert not (tmp_path / "s").exists()


def test_a_stage_that_leaves_its_band_is_refused(recipe, gristmill, tmp_path):
    path = recipe("expect = {max = 0.01}")
    said = gristmill("build", path, "--store", tmp_path / "s", "--direct", "--workers", 1, code=2).stderr
    assert f"error: {path} stage 2 (gopher): stage 'gopher' removed" in said and "outside expect = {max = 0.01}" in said


def test_what_could_not_be_tried_is_said():
    rules = {
        "a.b.above": {"verdict": "fires", "documents": 4, "tripped": 2},
        "mine.c.below": {"verdict": "untested", "documents": 0, "tripped": 0},
    }
    assert show.canaries({"rules": rules, "allowed": []}) == [
        "canaries: 1 of 2 rules fire where they must",
        "untested, for want of examples that reach them: mine.c.below",
    ]
    assert show.canaries(None) == show.canaries({"rules": {}, "allowed": []}) == []
