"""The verbs `papers` and `dialects`, and licences as the command line meets them."""

from __future__ import annotations

import json
import shutil

import pytest

from pipeline import papers
from tests.flows.conftest import RECIPE, last


def test_papers_writes_them_again_and_says_what_they_count(built, gristmill):
    store, made = built
    folder = store / "versions" / "small" / made["version"]
    (folder / "README.md").unlink()
    said = last(gristmill("papers", "small", "--store", store, "--json"))
    assert said["papers"] == list(papers.PAPERS) and said["address"] == made["address"]
    assert all((folder / name).is_file() for name in papers.PAPERS)
    assert said["licences"]["CC0-1.0"]["documents"] == made["documents"]["kept"]
    assert said["unknown_licence"]["documents"] == made["unknown_licence"] == 0
    assert "not stated 0" in gristmill("show", "small", "--store", store).stdout


def test_papers_of_an_edited_version_are_refused(built, gristmill, tmp_path):
    store, made = built
    shutil.copytree(store / "versions" / "small" / made["version"], tmp_path / "copy")
    table = json.loads((tmp_path / "copy" / "manifest.json").read_text("utf-8"))
    table["sources"][0]["licence"] = "MIT"
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(table), "utf-8")
    before = (tmp_path / "copy" / "README.md").read_bytes()
    refused = gristmill("papers", tmp_path / "copy", "--store", store, code=2)
    assert "was edited" in refused.stderr and (tmp_path / "copy" / "README.md").read_bytes() == before


def test_dialects_counts_and_shows(corpus, gristmill):
    said = last(gristmill("dialects", corpus / "small.toml", "--json"))
    assert [(choice["stage"], choice["other"]) for choice in said["choices"]] == [
        ("gopher", "dolma"),
        ("gopher", "dclm"),
    ]
    shown = gristmill("dialects", corpus / "small.toml", "--documents", 50).stdout
    assert "gopher: datatrove -> dolma" in shown and "gopher: word_count < 20" in shown
    (corpus / "none.toml").write_text(
        RECIPE.replace('use = "gopher"\ndrop.word_count = {below = 20}', 'use = "normalise"')
    )
    refused = gristmill("dialects", corpus / "none.toml", code=2)
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("licence", "table", "said"),
    [
        ("MIT AND", "", "grain.toml: licence"),
        ("CC0", "", "did you mean 'CC0-1.0'?"),
        ("MIT", '[licence]\nunknown = "drop"\nallow = ["Apache"]\n', "small.toml [licence] allow: 'Apache'"),
        ("MIT", '[licence]\nunknown = "drop"\ndeny = ["GPL", "MIT OR"]\n', "small.toml [licence] deny: 'GPL'"),
        ("MIT", '[licence]\nallow = ["MIT"]\n', 'unknown = "keep" or unknown = "drop"'),
    ],
)
def test_an_expression_that_does_not_parse_is_one_sentence_and_nothing_is_written(
    corpus, gristmill, tmp_path, licence, table, said
):
    shutil.copytree(corpus, tmp_path / "corpus")
    card = (corpus / "grain.toml").read_text("utf-8").replace("CC0-1.0", licence)
    (tmp_path / "corpus" / "grain.toml").write_text(card, "utf-8")
    (tmp_path / "corpus" / "small.toml").write_text(RECIPE.replace("[[stage]]", f"{table}[[stage]]", 1), "utf-8")
    refused = gristmill("build", tmp_path / "corpus" / "small.toml", "--store", tmp_path / "s", "--direct", code=2)
    assert said in refused.stderr and refused.stderr.count("\n") == 1 and refused.stderr.startswith("error: ")
    assert not (tmp_path / "s").exists()
