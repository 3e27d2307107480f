"""What an exported model says of the texts behind it: the licences of what was read, counted, and nothing obeyed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tokenizers import Tokenizer

from tests.conftest import ROOT
from tests.training import runs
from tests.training.versions import make_version
from training import TrainingError, card, config, export, initial, journal, lineage
from training.manifest import open_version

EVIL = "x | <script>alert(1)</script> [a](javascript:b) \u202e\n---\n# no"
LICENCES = ("MIT", "CC-BY-4.0 OR MIT", None, "", EVIL)
TABLE: dict[str, Any] = {"name": "mine", "digest": "ab12", "step": 12, "steps": 12, "tokens_read": 4321}
TABLE |= {
    "config": {"init": None},
    "trained": {"parameters": 1234},
    "evaluation": {"bits_per_byte": 2.5, "split": "val"},
}
BOOKS = journal.Journal(Path("mine"), TABLE)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    rows = [
        {"text": f"wheel {i} turns " * (1 + i % 7), "source": "ab"[i % 2], "licence": LICENCES[i % 5]}
        for i in range(60)
    ]
    for row in rows[::3]:
        row["language"] = EVIL
    return open_version(make_version(tmp_path_factory.mktemp("made") / "version", rows))


def settings(tmp_path: Path, more: str = "") -> config.Run:
    (tmp_path / "run.toml").write_text(runs.RUN + more)
    return config.load(tmp_path / "run.toml", [])


def cells(text: str) -> dict[str, list[str]]:
    """The rows of the first table of licences."""
    lines = [*text.partition("| ---")[2].splitlines()[1:], ""]
    rows = [line.replace("\\|", "/").strip("| ").split(" | ") for line in lines[: lines.index("")]]
    return {row[0]: row[1:] for row in rows}


def test_licences_are_counted_over_what_the_run_could_read(version, tmp_path):
    made = card.papers(BOOKS, settings(tmp_path), version)
    rows = [row for row in version.documents.to_pylist() if row["split"] == "train"]
    for text in made.values():
        found = cells(text)
        mine = [row for row in rows if row["licence"] == "MIT"]
        tokens = sum(row["tokens"] for row in mine)
        whole = sum(row["tokens"] for row in rows)
        assert found["MIT"] == [str(len(mine)), str(tokens), f"{tokens / whole:.2%}"]
        nobody = sum(not row["licence"] for row in rows)
        assert found["NOASSERTION \\(nobody states one\\)"][0] == str(nobody)
        assert len(found) == 4 and sum(int(row[0]) for row in found.values()) == len(rows)
    assert "bits per byte on val: 2.5" in made["README.md"] and version.address in made["README.md"]
    assert made["ATTRIBUTION.md"].count("## ") == 2


def test_only_the_sources_that_are_mixed_are_attributed(version, tmp_path):
    made = card.papers(BOOKS, settings(tmp_path, '[[mix]]\nsource = "b"\n'), version)
    assert "- name: b of" in made["ATTRIBUTION.md"] and "- name: a of" not in made["ATTRIBUTION.md"]
    rows = [r for r in version.documents.to_pylist() if r["split"] == "train" and r["source"] == "b"]
    assert sum(int(row[0]) for row in cells(made["README.md"]).values()) == len(rows)


def test_hostile_words_are_shown_and_never_obeyed(version, tmp_path):
    yaml = pytest.importorskip("yaml")
    for name, text in card.papers(BOOKS, settings(tmp_path), version).items():
        assert all(character.isprintable() or character == "\n" for character in text)
        assert "<script" not in text.replace("\\<", "") and "](javascript" not in text
        if name == "README.md":
            front = yaml.safe_load(text.split("---\n")[1])
            assert front["language"] == ["en"] and front["pipeline_tag"] == "text-generation"


def attributed(folder: Path) -> dict[str, str]:
    return card.papers(*journal.read(folder))


def test_weights_of_no_known_run_are_named_and_their_texts_missed(version, tmp_path):
    manifest = version.folder / "manifest.json"
    done = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs")
    runs.command(1, "export", str(done.folder), str(tmp_path / "hf"))
    assert not any("before" in text for text in attributed(done.folder).values())
    second = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "second", changes=(f"init={tmp_path / 'hf'}",))
    weights = second.table["config"]["init"]["weights"]
    papers = attributed(second.folder)
    assert all(f"weights `{weights}` had learnt from before is not listed here" in text for text in papers.values())
    assert f"`causal`, from the weights `{weights}`: step 12 of 12" in papers["README.md"]
    page = (second.folder / "report.html").read_text("utf-8")
    assert f"<dt>Before that</dt><dd>the weights <code>{weights}</code>: what they had learnt" in page


def test_a_chain_of_runs_attributes_what_all_of_them_had_read(version, tmp_path):
    """Three runs, each from the one before, over sources and versions of their own: what each had read stands in the
    papers of the last, though the first two are gone."""
    tokenizer = Tokenizer.from_file(str(version.tokenizer_file))
    other = runs.version(tmp_path / "other", tokenizer=tokenizer, name="other")
    first = runs.fit(runs.write_run(tmp_path), other, tmp_path / "first")
    file = runs.write_run(tmp_path, runs.RUN + '[[mix]]\nsource = "a"\n')
    manifest = version.folder / "manifest.json"
    second = runs.fit(file, manifest, tmp_path / "second", after=5, changes=(f"init={first.folder}",))
    assert not second.complete
    file = runs.write_run(tmp_path, runs.RUN + '[[mix]]\nsource = "b"\n')
    third = runs.fit(file, manifest, tmp_path / "third", changes=(f"init={second.folder}",))
    found = initial.source(second.folder)
    shutil.rmtree(first.folder)
    second.folder.rename(tmp_path / "elsewhere")
    papers = attributed(third.folder)
    attribution, _, behind = papers["ATTRIBUTION.md"].partition("# Texts of the weights before")
    assert re.findall("- name: (.+) of", attribution) == ["b"]
    assert re.findall("- name: (.+) of `(.+?)@", behind) == [("a", "toy"), ("a", "other"), ("b", "other")]
    said = papers["README.md"].partition("## Data of the weights before")[2]
    assert re.findall("- run `(.+)`, (.+): `causal` up to step ([0-9]+)", said) == [
        (second.table["digest"], card.escaped(second.folder.name), "5"),
        (first.table["digest"], card.escaped(first.folder.name), "12"),
    ]
    rows = [row for row in version.documents.to_pylist() if row["source"] == "a"] + open_version(
        other
    ).documents.to_pylist()
    trained_on = sum(row["split"] == "train" for row in rows)
    assert sum(int(row[0]) for row in cells(said).values()) == trained_on
    page = (third.folder / "report.html").read_text("utf-8")
    for one, step, read in ((second, 5, version), (first, 12, open_version(other))):
        known = f"in <bdi>{one.folder.name}</bdi>, up to step {step}, of <code>{read.address}</code></dd>"
        assert known in page
    read = lineage.before(journal.read_books(third.folder))
    assert read is not None and read.runs[0].weights == found.digest and read.unknown is None


def test_the_schema_that_ships_is_that_of_the_file():
    shipped = json.loads((ROOT / "catalogs/schemas/before.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(shipped)
    assert shipped == {"$schema": shipped["$schema"], **lineage.Before.model_json_schema()}


def test_what_stands_before_is_kept_whole(version, tmp_path):
    manifest = version.folder / "manifest.json"
    first = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "first")
    changes = (f"init={first.folder}",)
    runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "second", after=4, changes=changes)
    [path] = (tmp_path / "second").glob(f"*/{lineage.FILE}")
    kept = path.read_bytes()
    done = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "second", changes=changes)
    assert path.read_bytes() == kept and done.table["resumed_at"] == [4]
    path.write_bytes(kept.replace(b"causal", b"masked"))
    with pytest.raises(TrainingError, match=r"before\.json: is not what run.json says"):
        attributed(done.folder)
    path.unlink()
    with pytest.raises(TrainingError, match=r"before\.json: cannot be read"):
        attributed(done.folder)


def test_an_exported_run_carries_both(tmp_path, capfd):
    done = runs.fit(runs.write_run(tmp_path), runs.version(tmp_path / "version"), tmp_path / "runs")
    runs.command(1, "export", str(done.folder), str(tmp_path / "hf"))
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == sorted(export.FILES)
    from huggingface_hub import ModelCard

    data = ModelCard.load(tmp_path / "hf" / "README.md").data
    assert data.library_name == "transformers" and "gristmill" in data.tags
    assert "NOASSERTION" in (tmp_path / "hf" / "ATTRIBUTION.md").read_text("utf-8")
