"""Recipes: every shipped one loads wherever the package lies; a wrong word is named with its place and what exists."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline import recipe, stage
from pipeline.catalog import cards
from pipeline.rules import Rule
from pipeline.stage import ConfigError
from tests import builds
from tests.given import load

ROOT = Path(__file__).parents[2]


# What ships


@pytest.mark.parametrize("name", recipe.available())
def test_a_shipped_recipe_loads_and_resolves_to_itself(name):
    """A law over the folder: its sources, stages, parameters and columns all exist, and its name is the file's."""
    loaded = recipe.load(name)
    assert loaded.name == name and loaded.steps and loaded.sources
    table = loaded.resolved()
    stages = [{"use": s["use"], **s["params"], **verbs(s["rules"])} for s in table["stages"]]
    again = recipe.parse(
        {**{k: table[k] for k in ("name", "seed", "sources", "tokens", "pack")}, "stage": stages}, "r", Path()
    )
    assert again.resolved() == {**table, "licence": None}


def verbs(rules: list[dict[str, Any]]) -> dict[str, Any]:
    """The `keep` and `drop` tables that resolved rules were written as."""
    found: dict[str, Any] = {"keep": {}, "drop": {}}
    for rule in rules:
        if rule["operator"] in ("in", "not in"):
            found["drop" if rule["operator"] == "in" else "keep"][rule["column"]] = rule["bound"]
        else:
            found["drop"].setdefault(rule["column"], {})[rule["operator"]] = rule["bound"]
    return found


def test_the_shipped_recipes_are_those_of_the_folder():
    files = {path.stem for path in (ROOT / "catalogs" / "recipes").glob("*.toml")}
    assert set(recipe.available()) == files >= {"debian-docs", "sst2"}


def test_a_folder_of_recipes_that_is_not_there_is_an_empty_one(monkeypatch, tmp_path):
    monkeypatch.setattr(recipe, "shipped", lambda: tmp_path / "none")
    assert recipe.available() == []
    with pytest.raises(ConfigError, match=r"unknown recipe 'quick'; has: nothing \(or give a \.toml file\)"):
        recipe.load("quick")


def test_recipes_and_cards_travel_in_the_wheel(tmp_path):
    """Built from a copy, unpacked elsewhere, and read by another process from there."""
    pytest.importorskip("setuptools", reason="a wheel cannot be built offline without setuptools")
    for name in ("pipeline", "catalogs", "training", "flows"):
        shutil.copytree(ROOT / name, tmp_path / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(tmp_path / "source")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "unpacked")
    code = "from pipeline import recipe; print(recipe.shipped(), *[recipe.load(n).name for n in recipe.available()])"
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'unpacked')!r}); {code}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert out == [str(tmp_path / "unpacked" / "catalogs" / "recipes"), *recipe.available()]


# What is wrong


@pytest.fixture
def write(tmp_path):
    builds.write_corpus(tmp_path, documents=6)

    def written(text: str) -> Path:
        path = tmp_path / "my.toml"
        path.write_text(text, "utf-8")
        return path

    return written


HEAD = 'name = "mine"\nsources = ["grain.toml"]\n'
STAGES = '[[stage]]\nuse = "normalise"\n[[stage]]\nuse = "gopher"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + '[[stage]]\nuse = "gofer"',
            "stage 1: unknown stage 'gofer'; did you mean 'gopher'? has: c4, c4_lines,",
        ),
        (
            HEAD + STAGES + 'unit = "script"',
            "stage 2 (gopher): unknown parameter 'unit'; did you mean 'units'? has: dial",
        ),
        (
            HEAD + STAGES + 'units = "words"',
            "stage 2 (gopher): parameter 'units': Input should be 'whitespace' or 'scr",
        ),
        (
            HEAD + STAGES + "drop.word_cout = {below = 5}",
            "stage 2 (gopher): drop.word_cout: stage 'gopher' measures no such column; did you mean 'word_count'?",
        ),
        (HEAD + STAGES + "drop.word_count = {under = 5}", "stage 2 (gopher): drop.word_count: unknown bound 'under'"),
        (HEAD + STAGES + "drop = 5", "stage 2 (gopher): write drop.COLUMN = ..., not drop = 5"),
        (HEAD + "[[stage]]\nuse = 5", "stage 1: a stage table needs `use`"),
        (HEAD + '[stage]\nuse = "gopher"', "stages are written as [[stage]] tables, with double brackets"),
        (
            HEAD + "[[stages]]",
            "unknown key 'stages'; did you mean 'stage'? has: licence, mix, name, pack, seed, sources",
        ),
        (HEAD + '[[stage]]\nuse = "near"\nthreshold = 1.5', "stage 1 (near): threshold must be above 0 and at most 1"),
        (
            HEAD + '[[stage]]\nuse = "exact"\nquality = "gopher.word_count"',
            'stage 1 (exact): quality is for survivor = "best"',
        ),
        (
            HEAD + STAGES + '[[stage]]\nuse = "near"\nsurvivor = "best"\nquality = "gopher.word_cout"',
            "(near): 'gopher.word_cout' is no number that a stage measures in its segment, between the barrier before "
            "and this one; did you mean 'gopher.word_count'?",
        ),
        (HEAD + '[[stage]]\nuse = "language"\ncharacters = 0', "stage 1 (language): characters must be at least 1"),
        (HEAD + '[[stage]]\nuse = "eda"', "stage 1 (eda): a stage that adds documents comes after exact and near"),
        (
            HEAD + '[[stage]]\nuse = "exact"\n[[stage]]\nuse = "eda"\n[[stage]]\nuse = "near"',
            "stage 2 (eda): a stage that adds documents comes after exact and near, behind the last of them",
        ),
        (HEAD + STAGES + '[[stage]]\nuse = "gopher"', "stage 3 (gopher): used twice; its signals would collide"),
        (HEAD + '[[stage]]\nuse = "nowhere.thing"', "stage 1: stage 'nowhere.thing' cannot be imported"),
        (HEAD + '[[stage]]\nuse = "pipeline.rules"', "pipeline.rules has no stage function 'rules'"),
        ('name = "mine"\nsources = ["grains"]', "unknown source 'grains'"),
        ('name = "mine"\nsources = ["grain.toml", "grain.toml"]', "sources name 'grain' twice"),
        (
            'name = "mine"\nsources = "grain.toml"',
            "sources must be a list of card names or paths; `gristmill sources` lists",
        ),
        (
            'name = "Mine!"\nsources = ["grain.toml"]',
            "name must be lower-case letters, digits and hyphens, got 'Mine!'",
        ),
        ("seed = 1.5\n" + HEAD, "seed must be a whole number, got 1.5"),
        (
            HEAD + "[pack]\nlenght = 5",
            "[pack]: unknown key 'lenght'; did you mean 'length'? has: layout, length, split",
        ),
        (HEAD + "[pack]\nlength = 4", "[pack]: length: Input should be greater than or equal to 8 (got 4)"),
        (HEAD + "[pack]\nsplit = {val = 1.5}", "[pack] split: shares lie between 0 and 1"),
        (HEAD + "[pack]\nsplit = {train = 0.5}", "[pack] split: train is what the others leave; do not list it"),
        (HEAD + '[pack]\nsplit = {val = ["mien"]}', "[pack] split: 'mien' is no source of the recipe"),
        (HEAD + "[pack]\nsplit = {val = []}", "[pack] split: 'val' names no source; name one, or give a share"),
        (HEAD + '[pack]\nsplit = {"../x" = 0.5}', "[pack] split: names are lower-case letters, digits and underscores"),
        (HEAD + '[tokens]\nsample = "lots"', "[tokens] sample: 'lots' is no size; write it like 64MB or 2GB"),
        (
            HEAD + '[tokens]\ntokenizer = "t.json"\nlowercase = true',
            "[tokens]: t.json reads texts as it was trained; leave lowercase out, or the tokenizer",
        ),
        (HEAD + '[licence]\nunknown = "drop"\nallow = []', "[licence]: allow: List should have at least 1 item"),
        (HEAD + '[licence]\nallow = ["MIT"]', '[licence]: unknown = "keep" or unknown = "drop" is missing'),
        (HEAD + '[licence]\nunknown = "ask"', "[licence]: unknown: Input should be 'keep' or 'drop'"),
        (HEAD + '[licence]\nunknown = "drop"\nallow = ["CC0"]', "allow: 'CC0' is no SPDX expression"),
        (
            HEAD + '[licence]\nunknown = "drop"\ndeny = ["CC-BX-*"]',
            "deny: no licence of the SPDX list is called 'CC-BX-*'",
        ),
        (HEAD + '[licence]\nunknown = "drop"\nallow = ["MIT OR ISC"]', "allow: 'MIT OR ISC' is no entry"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_wrong_word_is_named_with_its_place_and_what_exists(write, text, said):
    path = write(text)
    with pytest.raises(ConfigError) as error:
        recipe.load(str(path))
    assert said in str(error.value)
    assert str(path) in str(error.value) or "grains" in text or "pipeline.rules" in text


def test_a_recipe_that_is_not_there_lists_those_that_ship(tmp_path):
    with pytest.raises(
        ConfigError, match=r"none\.toml: no such recipe: No such file or directory; shipped ones: .*sst2"
    ):
        recipe.load(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"unknown recipe 'ssst2'; did you mean 'sst2'\?"):
        recipe.load("ssst2")


# What is meant


def test_defaults_are_filled_in_and_rules_keep_their_order(write):
    text = HEAD + STAGES + "drop.word_count = {below = 5, above = 900}\ndrop.hash_ratio = {above = 0.1}\n"
    loaded = recipe.load(str(write(text)))
    assert loaded.steps[1].rules == (
        Rule("gopher", "word_count", "below", 5),
        Rule("gopher", "word_count", "above", 900),
        Rule("gopher", "hash_ratio", "above", 0.1),
    )
    assert loaded.resolved()["stages"][1]["params"] == {
        "dialect": "datatrove",
        "units": "whitespace",
        "stop_words": None,
    }
    assert (loaded.seed, loaded.pack.split, loaded.pack.length, loaded.licence) == (0, {"val": 0.01}, 512, None)


def test_segments_are_cut_behind_relating_stages(write):
    uses = ["normalise", "gopher", "exact", "near", "language", "eda"]
    loaded = recipe.load(str(write(HEAD + "".join(f'[[stage]]\nuse = "{use}"\n' for use in uses))))
    cut = [([s.stage.name for s in g.steps], [s.stage.name for s in g.relates]) for g in loaded.segments]
    assert cut == [(uses[:2], ["exact", "near"]), (uses[4:], [])]
    assert [len(recipe.load(str(write(HEAD))).segments)] == [1]


@pytest.mark.parametrize(("text", "size"), [("64MB", 64_000_000), ("2GB", 2 * 10**9), (" 1.5 KB ", 1500), ("7B", 7)])
def test_sizes_are_decimal(text, size):
    assert recipe.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "5", "5mb", "-5MB", "0B", "0.1B", "5 M B", "1e3KB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="is no size"):
        recipe.parse_size(text)


def test_every_stage_and_card_that_ships_can_be_named():
    assert all(load(name).name == name for name in stage.available())
    assert all(cards.load(name).name == name for name in cards.available())
