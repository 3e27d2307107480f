"""Extend and its proof at the front door: what they say to people and scripts, and how they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline import manifest as manifests
from pipeline.store import Store
from tests import builds
from tests.flows import conftest
from tests.flows.conftest import last


@pytest.fixture(scope="module")
def later(corpus, tmp_path_factory) -> Path:
    """The card of a dump: texts of the corpus again, some with a word changed, and texts of their own."""
    folder = tmp_path_factory.mktemp("later")
    lines = [
        json.loads(line) for line in (corpus / "a.jsonl").read_text("utf-8").splitlines() if line[:8] == '{"text":'
    ]
    rows = [{**row, "text": row["text"] + " changed"} if number % 2 else row for number, row in enumerate(lines[:20])]
    for number in range(20):
        text = " ".join(f"{word}{number}" for word in builds.WORDS)
        rows.append({"text": text, "label": "0", "url": "https://example.org/new"})
    (folder / "dump.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    card = (corpus / "grain.toml").read_text("utf-8").replace('"grain"', '"later"')
    (folder / "later.toml").write_text(card, "utf-8")
    return folder / "later.toml"


@pytest.fixture
def store(built, tmp_path) -> Path:
    return Path(shutil.copytree(built[0], tmp_path / "store"))


def test_a_source_more_is_one_command_and_the_proof_another(built, store, later, gristmill):
    _, old = built
    said = gristmill("extend", "small", "--source", later, "--store", store, "--workers", 1).stdout
    version = manifests.find(Store(store), "small")
    assert version.address in said and f"extends {old['address']} by later" in said
    shown = gristmill("show", "small", "--store", store).stdout
    assert f"extends {old['address']} by later" in shown
    again = last(gristmill("extend", old["address"], "--source", later, "--store", store, "--workers", 1, "--json"))
    assert again["address"] == version.address and again["extends"] == old["address"] and again["bridges"] == 0
    proof = gristmill("verify", "small", "--extends", old["address"], "--store", store).stdout
    assert f"documents of {old['address']} are there as they were" in proof and "sound" in proof
    found = last(gristmill("verify", old["address"], "--extends", "small", "--store", store, "--json", code=1))
    assert found["problems"][0] == "source later is not there any more"
    assert "sound" in gristmill("audit", "small", "--store", store).stdout
    rebuilt = gristmill("rebuild", "small", "--check", "--store", store, "--workers", 1).stdout
    assert version.address in rebuilt


def test_a_damaged_shard_of_the_old_version_breaks_the_proof(built, store, later, gristmill):
    _, old = built
    made = last(gristmill("extend", "small", "--source", later, "--store", store, "--workers", 1, "--json"))
    shard = next(Path(made["manifest"]).parent.glob("shards/train-grain-*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()
    shard.write_bytes(data)
    said = gristmill("verify", made["address"], "--extends", old["address"], "--store", store, code=1).stdout
    assert f"shards/{shard.name}" in said


RECIPE = 'name = "small"\nextends = "{address}"\nsources = ["later.toml"]\n'
STAGES = conftest.RECIPE[conftest.RECIPE.index("[[stage]]") : conftest.RECIPE.index("[tokens]")]


def test_a_recipe_that_extends_makes_the_same(built, store, later, gristmill):
    verb = last(gristmill("extend", "small", "--source", later, "--store", store, "--workers", 1, "--json"))
    written = later.with_name("more.toml")
    written.write_text(
        RECIPE.format(address=built[1]["address"]) + STAGES + "[tokens]\nvocab_size = 400\nsample = '1MB'\n"
    )
    made = last(gristmill("build", written, "--store", store, "--workers", 1, "--direct", "--json"))
    assert made["address"] == verb["address"]


def refused(gristmill: Any, store: Path, *arguments: object, said: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    result = gristmill(*arguments, "--store", store, code=2)
    assert said in result.stderr and result.stderr.count("\n") == 1 and not result.stdout
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


@pytest.mark.parametrize(
    ("address", "more", "said"),
    [
        ("smal@latest", "", "no version of 'smal'"),
        ("small", "seed = 6\n", "seed is 6 there and 0 in small@"),
        ("small", STAGES.replace("below = 20", "below = 30"), "gopher.word_count.below is 30 there and 20 in small@"),
        ("small", STAGES[: STAGES.index('[[stage]]\nuse = "near"')], "stage near is None there and near (relate)"),
        ("small", "[tokens]\nvocab_size = 500\n", "tokens.vocab_size is 500 there and 400 in small@"),
        ("small", "[tokens]\ntokenizer = 'other.json'\n", "other.json is not the tokenizer of small@"),
        ("small", "[pack]\nlength = 128\n", "pack.length is 128 there and 64 in small@"),
        ("small", "[licence]\nunknown = 'drop'\n", "licence"),
        ("small", "shards = 4\n", "unknown key 'shards'"),
    ],
)
def test_a_recipe_that_does_not_fit_its_parent_is_refused(store, later, gristmill, address, more, said):
    written = later.with_name("wrong.toml")
    shutil.copy(manifests.find(Store(store), "small").folder / "tokenizer.json", later.with_name("other.json"))
    with later.with_name("other.json").open("a") as file:
        file.write("\n\n")
    head = RECIPE.format(address=address)
    written.write_text(head + more, "utf-8")
    if "seed" in more:
        said = said.replace("and 0", "and 5")
    refused(gristmill, store, "build", written, "--direct", said=said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch", "--source", "LATER"], "no version of 'nosuch'"),
        (["small", "--source", "nosuch"], "nosuch"),
        (["small", "--source", "LATER", "--source", "LATER"], "source 'later' is named twice"),
        (["small", "--source", "GRAIN"], "source 'grain' is in small@"),
        (["small", "--source", "LATER", "--name", "No Name"], "--name must be lower-case letters"),
    ],
)
def test_what_cannot_be_extended_is_one_sentence_and_exit_code_2(store, corpus, later, gristmill, arguments, said):
    places = {"LATER": later, "GRAIN": corpus / "grain.toml"}
    refused(gristmill, store, "extend", *(places.get(each, each) for each in arguments), said=said)
