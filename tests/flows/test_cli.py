"""The verbs: what they say to people, and the object that they leave for scripts."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flows import runs
from pipeline import manifest as manifests
from pipeline import recipe as recipes
from pipeline.catalog import cards
from tests import builds
from tests.conftest import ROOT
from tests.flows.conftest import RECIPE, last

HEAVY = ("torch", "prefect", "numba", "datasets", "polars", "transformers", "pyarrow", "tokenizers")


def test_the_command_line_imports_nothing_heavy_and_quickly():
    """The best of three, because the cores are shared."""
    code = "import sys, time; t = time.perf_counter(); import flows.cli; print(time.perf_counter() - t, *sys.modules)"
    seconds = []
    for _ in range(3):
        took, *modules = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
        assert not set(HEAVY) & set(modules)
        seconds.append(float(took))
    assert min(seconds) < 1


def test_help_teaches_by_examples(gristmill):
    assert "gristmill quickstart" in gristmill("--help").stdout
    for verb in ("quickstart", "build", "train", "trace", "ls", "show", "why", "verify", "audit", "deploy"):
        said = gristmill(verb, "--help").stdout
        assert "--json" in said and (verb in ("ls", "verify", "audit") or f"  gristmill {verb}" in said), verb


def test_build_says_what_it_made(built):
    store, made = built
    version = manifests.find(manifests.Store(store), "small")
    assert made["address"] == version.address == f"{made['name']}@{made['version']}"
    assert Path(made["manifest"]) == version.folder / "manifest.json" and Path(made["tokenizer"]).is_file()
    assert 50_000_000 < made["peak_memory_bytes"] < 2_000_000_000
    assert made["documents"] == {"ingested": 243, "added": 0, "kept": 160, "dropped": 80, "quarantined": 3}
    assert {name: split["tokens"] for name, split in made["splits"].items()} == {
        name: split["tokens"] for name, split in version.manifest["splits"].items()
    }


def test_a_build_again_makes_the_same_and_says_so_to_people(built, corpus, gristmill):
    store, made = built
    said = gristmill("build", corpus / "small.toml", "--store", store, "--direct", "--batch-rows", 7).stdout
    assert made["address"] in said and made["manifest"] in said
    assert "243 documents ingested = 160 kept + 80 dropped + 3 quarantined" in said


def test_train_finds_the_version_by_the_name_of_the_run(built, corpus, gristmill, fake):
    store, made = built
    result = last(gristmill("train", corpus / "runs" / "small.toml", "--store", store, "--direct", "--json"))
    assert result["manifest"] == made["manifest"] and result["status"] == "complete"
    run = Path(result["folder"])
    assert run.parent == store / "runs" and (run / "run.json").is_file()
    said = gristmill("train", corpus / "runs" / "small.toml", "--store", store, "--direct").stdout
    assert "model 1.500, bigram 2.500, trigram 2.250" in said and result["report"] in said


def test_quickstart_goes_the_whole_way_and_says_what_to_try_next(corpus, gristmill, fake, monkeypatch, tmp_path):
    """With the small recipe under the name of the shipped one: the shipped one takes minutes."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace('"small"', '"quickstart"').replace("grain.toml", str(corpus / "grain.toml")))
    (tmp_path / "quickstart.toml").write_text('name = "quickstart"\n')
    load = recipes.load
    monkeypatch.setattr(recipes, "load", lambda name, data: load(str(recipe) if name == "quickstart" else name, data))
    monkeypatch.setattr(runs, "shipped", lambda: tmp_path)
    result = gristmill("quickstart", "--store", tmp_path / "store", "--direct", "--workers", 1)
    made = last(gristmill("quickstart", "--store", tmp_path / "store", "--direct", "--workers", 1, "--json"))
    for name in ("manifest", "checkpoint", "report"):
        assert made[name] in result.stdout
    assert made["address"].startswith("quickstart@") and made["bits_per_byte"] == 1.5
    assert "160 kept" in result.stdout and "model 1.500, bigram 2.500" in result.stdout
    advice = next(line for line in result.stdout.splitlines() if "gristmill why" in line)
    assert "dropped by near" in gristmill(*shlex.split(advice)[1:]).stdout, "the advice can be pasted"


def test_ls_lists_versions_runs_and_what_ships(built, gristmill, tmp_path):
    store, made = built
    found = last(gristmill("ls", "--store", store, "--json"))
    assert [v["address"] for v in found["versions"]] == [made["address"]]
    assert found["versions"][0]["documents"] == 160 and found["recipes"] == recipes.available()
    assert {"installed", "samples"} <= {card["name"] for card in found["cards"]}
    said = gristmill("ls", "--store", store).stdout
    assert made["address"] in said and "quickstart" in said
    assert "none" in gristmill("ls", "--store", tmp_path / "nowhere").stdout


def test_evaluation_sets_lie_in_the_data_folder(gristmill, tmp_path, monkeypatch):
    monkeypatch.delenv("GRISTMILL_DATA", raising=False)
    corpus = builds.write_corpus(tmp_path / "corpus", 120)
    first = json.loads((corpus / "a.jsonl").read_text().splitlines()[0])["text"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "asked.jsonl").write_text(json.dumps({"text": " ".join(first.split()[10:40])}))
    stage = '[[stage]]\nuse = "decontaminate"\nsets = ["{data}/asked.jsonl"]\n[tokens]'
    (corpus / "small.toml").write_text(RECIPE.replace("[tokens]", stage))
    asked = ("build", corpus / "small.toml", "--store", tmp_path / "store", "--direct", "--workers", 1)
    assert "needs the data folder: set GRISTMILL_DATA" in gristmill(*asked, code=2).stderr
    made = last(gristmill(*asked, "--data", tmp_path / "data", "--json"))
    said = gristmill("show", made["address"], "--store", tmp_path / "store").stdout
    assert "asked: 1 of 1 evaluation items met (none is left; contamination.parquet)" in said
    assert "GRISTMILL_DATA" not in os.environ


def test_sources_are_listed_searched_and_told(gristmill, tmp_path):
    found = last(gristmill("sources", "--language", "zh", "--category", "web", "--json"))["cards"]
    assert {"fineweb2-zh", "skypile"} <= {card["name"] for card in found}
    assert all(card["category"] == "web" and {"zh", "mul"} & set(card["languages"]) for card in found)
    free = last(gristmill("sources", "--licence", "CC-BY-*", "--json"))["cards"]
    assert free and all(card["licence"].startswith("CC-BY") for card in free)
    assert [card["name"] for card in last(gristmill("sources", "word", "problems", "--json"))["cards"]] == ["gsm8k"]
    said = gristmill("sources", "gsm8k").stdout
    assert "openai/gsm8k" in said and "not pinned" in said and "arXiv 2110.14168" in said
    assert last(gristmill("sources", "gsm8k", "--json"))["params"]["subset"] == "main"
    (tmp_path / "mine.toml").write_text(gristmill("sources", "gsm8k", "--toml").stdout)
    assert cards.load(str(tmp_path / "mine.toml")).params == cards.load("gsm8k").params
    assert len(gristmill("sources").stdout.splitlines()) > 70


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--category", "webb"], "no card is of category 'webb'; did you mean 'web'?"),
        (["--kind", "hubb"], "no card is of kind 'hubb'; did you mean 'hub'?"),
        (["--licence", "MITT"], "--licence"),
        (["fineweeb", "--toml"], "unknown source 'fineweeb'; did you mean 'fineweb'?"),
        (["--toml"], "--toml prints one card"),
    ],
)
def test_what_no_source_is_called_is_said(gristmill, asked, said):
    result = gristmill("sources", *asked, code=2)
    assert said in result.stderr


def test_ls_lists_a_damaged_version_and_a_damaged_run_as_such(gristmill, tmp_path):
    for folder in (tmp_path / "versions/small/0123456789abcdef", tmp_path / "runs/broken"):
        folder.mkdir(parents=True)
    (tmp_path / "versions/small/0123456789abcdef/manifest.json").write_text("{}")
    (tmp_path / "versions/small/latest").write_text("0123456789abcdef\n")
    (tmp_path / "runs/broken/run.json").write_text("[")
    found = last(gristmill("ls", "--store", tmp_path, "--json"))
    assert "not of format" in found["versions"][0]["problem"] and "unreadable" in found["runs"][0]["status"]
    assert "not of format" in gristmill("ls", "--store", tmp_path).stdout


def test_show_is_the_manifest_as_a_tree(built, gristmill):
    store, made = built
    said = gristmill("show", "small", "--store", store).stdout
    manifest = json.loads(Path(made["manifest"]).read_text("utf-8"))
    for entry in manifest["accounting"]:
        for reason, count in entry["reasons"].items():
            assert f"{count:,}  {reason}" in said
    for split in manifest["splits"].values():
        assert f"{split['tokens']:,} tokens in {split['rows']:,} rows" in said
        assert all(shard["file"] in said for shard in split["shards"])
    table = last(gristmill("show", made["address"][:10], "--store", store, "--json"))
    assert table["accounting"] == manifest["accounting"] and Path(table["folder"]) == Path(made["manifest"]).parent


def test_show_knows_runs_and_the_version_that_they_read(built, corpus, gristmill, fake):
    store, made = built
    gristmill("train", corpus / "runs" / "small.toml", "--name", "mine", "--store", store, "--direct")
    assert "mine: complete, step 3 of 3, 1.500 bits per byte" in gristmill("show", "small", "--store", store).stdout
    assert made["address"] in gristmill("show", "mine", "--store", store).stdout
    assert last(gristmill("show", "mine", "--store", store, "--json"))["bits_per_byte"] == 1.5


def test_why_tells_a_duplicate_from_its_original_and_a_kept_from_an_unreadable(built, gristmill):
    store, _ = built
    version = manifests.find(manifests.Store(store), "small")
    ledger = {row["doc_id"]: row for row in listing_of(store, version)}
    near = next(doc_id for doc_id, row in ledger.items() if row["stage"] == "near")
    said = gristmill("why", near, "--store", store).stdout
    found = last(gristmill("why", near, "--version", "small@latest", "--store", store, "--json"))
    measured = {name: value for entry in found["signals"] for name, value in entry.items()}
    assert f"duplicate of {measured['near.dup_of']}, Jaccard {measured['near.jaccard']:.4g}" in said
    assert "dropped by near: dup_rank > 0" in said and f"word_count = {measured['gopher.word_count']}" in said
    kept = version.index()["doc_id"][0].as_py()
    said = gristmill("why", kept, "--store", store).stdout
    place = last(gristmill("why", kept, "--store", store, "--json"))["places"][0]
    assert "kept" in said and f"{place['file']}: row {place['row']}" in said
    lost = next(doc_id for doc_id, row in ledger.items() if row["verdict"] == "quarantined")
    assert f"quarantined by source: {ledger[lost]['reason']}" in gristmill("why", lost, "--store", store).stdout


def test_why_claims_no_similarity_that_was_not_verified(corpus, gristmill, tmp_path):
    loose = {"small": "loose", "val = 0.1": "val = 0.5"}
    loose['use = "near"'] = 'use = "near"\nverify = false\nngram = 1\nbands = 3\nrows = 3'
    recipe = (corpus / "small.toml").read_text()
    for old, new in loose.items():
        recipe = recipe.replace(old, new)
    (corpus / "loose.toml").write_text(recipe)
    gristmill("build", corpus / "loose.toml", "--store", tmp_path, "--direct", "--workers", 1)
    ledger = listing_of(tmp_path, manifests.find(manifests.Store(tmp_path), "loose"))
    said = [gristmill("why", row["doc_id"], "--store", tmp_path).stdout for row in ledger if row["stage"] == "near"]
    assert any("by way of" in text for text in said)
    # Of equal sets it is known; of others it is worked out, and said to be.
    told = [text.count("Jaccard 1") + text.count("(not compared in the build)") for text in said]
    assert all(
        "duplicate of" in text and text.count("Jaccard") == count for text, count in zip(said, told, strict=True)
    )
    assert any("(not compared in the build)" in text for text in said)


def listing_of(store: Path, version: manifests.Version) -> list[dict[str, str]]:
    from pipeline import books

    return books.ledger(manifests.Store(store), version.build_keys()).to_pylist()


def test_verify_and_audit_find_a_flipped_byte(built, gristmill):
    store, made = built
    for verb in ("verify", "audit"):
        assert "sound" in gristmill(verb, "small", "--store", store).stdout
        assert last(gristmill(verb, "small", "--store", store, "--json"))["problems"] == []
    shard = next(Path(made["manifest"]).parent.glob("shards/*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    try:
        for verb in ("verify", "audit"):
            assert f"shards/{shard.name}" in gristmill(verb, "small", "--store", store, code=1).stdout
            assert last(gristmill(verb, "small", "--store", store, "--json", code=1))["problems"]
    finally:
        shard.write_bytes(whole)
