"""`why`, `where`, `trace` and `forget` from the command line, over a version that a real run has read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import following
from pipeline import addresses, manifest
from pipeline.forgetting import operation, statement
from pipeline.store import Store
from tests.conftest import ROOT
from tests.flows.conftest import last
from tests.training import runs
from training.trace import trace
from training.where import where as asked


@pytest.fixture(scope="module")
def trained(corpus, gristmill, tmp_path_factory) -> tuple[Path, Path]:
    """A store with a version of the small corpus, and a run of 12 steps over it."""
    store = tmp_path_factory.mktemp("followed") / "store"
    made = last(gristmill("build", corpus / "small.toml", "--store", store, "--direct", "--workers", 1, "--json"))
    text = runs.RUN.replace('version = "toy"', "")
    books = runs.fit(runs.write_run(store.parent / "files", text), Path(made["manifest"]), store / "runs")
    return store, books.folder


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    shutil.copytree(trained[0], tmp_path / "store")
    return tmp_path / "store"


def test_where_names_the_place_and_the_steps_of_every_run(trained, gristmill, monkeypatch):
    store, folder = trained
    piece = trace(folder, 5)["pieces"][1]
    found = last(gristmill("where", piece["doc_id"], "--store", store, "--json"))
    assert found["places"] == last(gristmill("why", piece["doc_id"], "--store", store, "--json"))["places"]
    [run] = found["runs"]
    [wanted] = asked(folder, [piece["doc_id"]])["documents"]
    assert run["steps"] == wanted["steps"] and 5 in [step["step"] for step in run["steps"]] and run["checkpoints"]
    said = gristmill("where", piece["doc_id"], "--store", store).stdout
    assert f"{folder.name}: read in step" in said and found["places"][0]["file"] in said
    assert sum(place["tokens"] for place in found["places"]) == found["index"]["tokens"]
    monkeypatch.setattr(following, "LISTED", 0)
    said = gristmill("where", piece["doc_id"], "--store", store).stdout
    assert f"and {len(found['places'])} more pieces, which --json lists" in said


HEAVY = ("numba", "polars", "pandas", "scipy", "torch", "prefect", "pyarrow.dataset", "pipeline.kernels._jit")


@pytest.mark.parametrize("verb", [["why", "ID"], ["where", "ID"], ["trace", "RUN", "--step", 3, "--token", 5]])
@pytest.mark.parametrize("house", ["flows", "training"])
def test_an_answer_about_one_document_loads_nothing_that_takes_longer_than_it(trained, verb, house):
    """Neither by the front door nor by the trainer that it asks."""
    store, folder = trained
    known = manifest.find(Store(store), "small")
    lost = next(row["doc_id"] for row in _ledger(store) if row["stage"] == "near")
    for doc_id in (known.index(["doc_id"])["doc_id"][0].as_py(), lost):
        words = [{"ID": doc_id, "RUN": folder.name}.get(word, word) for word in verb]
        told, given = ["flows", *words, "--store", store], ""
        if house == "training" and verb[0] == "trace":
            told = ["training", "trace", folder, *words[2:]]
        elif house == "training":
            told, given = ["training", "where", folder], json.dumps([doc_id])
        command = [sys.executable, "-X", "importtime", "-m", *map(str, told)]
        done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, check=True)
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert f"{house}.__main__" in loaded or "typer" in loaded
        assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_where_says_why_a_document_lies_nowhere(trained, gristmill):
    store, _ = trained
    gone = next(row for row in _ledger(store) if row["stage"] == "gopher")
    found = last(gristmill("where", gone["doc_id"], "--store", store, "--json"))
    assert found["left"]["reason"] == gone["reason"] and found["places"] == [] and found["runs"][0]["steps"] == []
    assert "dropped by gopher" in gristmill("where", gone["doc_id"], "--store", store).stdout


def _ledger(store: Path) -> list[dict[str, str]]:
    from pipeline import books

    _, keys = addresses.find(Store(store), "small")
    rows: list[dict[str, str]] = books.ledger(Store(store), keys).to_pylist()
    return rows


def test_trace_of_a_token_shows_the_line_and_the_row_of_the_source(trained, gristmill, corpus):
    store, folder = trained
    pieces = trace(folder, 2)["pieces"]
    piece = next(p for p in pieces if p["tokens"] > 12)
    number = piece["first_token"] + 9
    found = last(gristmill("trace", folder.name, "--step", 2, "--token", number, "--store", store, "--json"))
    line = found["source_line"]
    assert found["source_problem"] is None and line["doc_id"] == piece["doc_id"]
    assert line["file"] == str(corpus / piece["doc_id"].split(":")[1])
    row = json.loads(Path(line["file"]).read_text("utf-8").split("\n")[line["row"] - 1])
    assert line["text"] in row["text"] and line["text"][line["start"] : line["end"]] == line["token"]
    said = gristmill("trace", folder.name, "--step", 2, "--token", number, "--store", store).stdout
    assert "as it was read" in said and f"{line['file']}: row {line['row']}" in said and line["text"][:40] in said


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (["why", "nobody:a:1"], "never met a document 'nobody:a:1'"),
        (["where", "nobody:a:1"], "never met a document 'nobody:a:1'"),
        (["trace", "RUN", "--step", "13", "--token", "1"], "the run has steps 1 to 12"),
        (["trace", "RUN", "--step", "3", "--token", "99999"], "step 3 has tokens 1 to"),
        (["trace", "none", "--step", "3", "--token", "1"], "no run 'none'"),
        (["forget", "small", "--doc", "nobody:a:1"], "never met a document 'nobody:a:1'"),
        (["forget", "small"], "say what to forget"),
        (["forget", "smal", "--doc", "x"], "did you mean 'small'"),
        (["forget", "small@ffff", "--doc", "x"], "is no version of 'small'"),
        (["forget", "small", "--match-file", "/nowhere"], "/nowhere: cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(trained, gristmill, verb, words):
    store, folder = trained
    before = sorted(store.rglob("*"))
    result = gristmill(*[folder.name if word == "RUN" else word for word in verb], "--store", store, code=2)
    assert words in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert sorted(store.rglob("*")) == before


def test_an_edited_manifest_is_refused(copied, gristmill):
    path = manifest.find(Store(copied), "small").folder / "manifest.json"
    table = json.loads(path.read_text("utf-8"))
    table["length"] = 65
    path.write_text(json.dumps(table), "utf-8")
    result = gristmill("forget", "small", "--doc", "x", "--store", copied, code=2)
    assert "was edited" in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_forget_says_what_it_will_do_does_it_and_states_who_has_read_them(copied, trained, gristmill):
    folder = copied / "runs" / trained[1].name
    piece = trace(folder, 4)["pieces"][0]
    before = sorted(copied.rglob("*"))
    plan = last(gristmill("forget", "small", "--doc", piece["doc_id"], "--store", copied, "--dry-run", "--json"))
    assert plan["dry_run"] and plan["asked_for"] == 1 and plan["shards_touched"] and sorted(copied.rglob("*")) == before
    ids = operation.plan(Store(copied), *addresses.find(Store(copied), "small"), _request(piece["doc_id"])).chosen
    wanted = asked(folder, ids["doc_id"].to_pylist())
    made = last(
        gristmill("forget", "small", "--doc", piece["doc_id"], "--reason", "asked", "--store", copied, "--json")
    )
    [run] = made["statement"]["runs"]
    steps = {step["step"] for each in wanted["documents"] for step in each["steps"]}
    assert {n for first, end in run["steps"] for n in range(first, end + 1)} == steps and 4 in steps
    assert run["checkpoints"] == wanted["checkpoints"]
    new = manifest.find(Store(copied), "small")
    assert made["version"] == new.address and statement.read(new.folder)["sha256"] == made["sha256"]
    words = Path(made["path"]).read_text("utf-8")
    assert made["sha256"] in words and trained[1].name in words and "example" not in words
    assert last(gristmill("audit", "small", "--store", copied, "--json"))["problems"] == []
    assert last(gristmill("verify", "small", "--store", copied, "--json"))["problems"] == []
    found = last(gristmill("where", piece["doc_id"], "--store", copied, "--json"))
    assert found["left"]["reason"] == "forgotten" and "asked" in found["left"]["detail"]
    result = gristmill("apply", "small", "gopher.word_count.below=3", "--store", copied, "--direct", code=2)
    assert "documents were forgotten" in result.stderr
    assert last(gristmill("rebuild", "small", "--check", "--store", copied, "--json"))["equal"]


def test_who_went_on_from_a_run_that_has_read_it_is_named_too(copied, trained, gristmill):
    """A second run from a checkpoint of the first: `where` and the statement of `forget` say what stands behind it."""
    folder = copied / "runs" / trained[1].name
    read = {piece["doc_id"] for step in range(1, 13) for piece in trace(folder, step)["pieces"]}
    made = manifest.find(Store(copied), "small").folder / "manifest.json"
    text = runs.RUN.replace('version = "toy"', "")
    file = runs.write_run(copied.parent / "files", text)
    second = runs.fit(file, made, copied / "runs", after=1, changes=(f"init={folder}", "seed=5")).folder
    doc_id = sorted(read - {piece["doc_id"] for piece in trace(second, 1)["pieces"]})[0]
    words = f"began with the weights of {folder.name} at step 12, which had read"
    found = last(gristmill("where", doc_id, "--store", copied, "--json"))
    before = {Path(run["folder"]).name: run["before"] for run in found["runs"]}
    assert before == {folder.name: [], second.name: [{"run": folder.name, "step": 12, "documents": 1}]}
    assert f"{second.name}: has not read it" in (said := gristmill("where", doc_id, "--store", copied).stdout)
    assert f"{words} it by then" in " ".join(said.split())
    stated = last(gristmill("forget", "small", "--doc", doc_id, "--only", "--store", copied, "--json"))
    assert f"{words} 1 documents by then" in Path(stated["path"]).read_text("utf-8")


def _request(doc_id: str):
    from pipeline.forgetting.selecting import Request

    return Request(doc=(doc_id,))


def test_what_was_interrupted_is_finished_by_the_same_command(copied, gristmill, monkeypatch):
    doc_id = manifest.find(Store(copied), "small").index(["doc_id"])["doc_id"][3].as_py()
    finish = operation.finish
    monkeypatch.setattr(operation, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    gristmill("forget", "small", "--doc", doc_id, "--store", copied, code=130)
    monkeypatch.setattr(operation, "finish", finish)
    assert len(manifest.versions(Store(copied), "small")) == 2
    made = last(gristmill("forget", "small", "--doc", doc_id, "--store", copied, "--json"))
    assert manifest.versions(Store(copied), "small") == [made["version"].partition("@")[2]]
    assert made["statement"]["purged"]["versions"] and operation.unfinished(Store(copied)) == []


def test_hostile_text_side_by_side_stays_escaped(corpus, gristmill, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    words = " ".join(f"wheel{n} turns" for n in range(60))
    lines = [
        json.dumps({"text": f"{words} [bold]x[/bold] {end}", "url": "u", "label": "1"})
        for end in ("\x1b[2J\u202eone", "two")
    ]
    (folder / "hostile.jsonl").write_text("\n".join(lines), "utf-8")
    gristmill("build", folder / "small.toml", "--store", tmp_path / "s", "--direct", "--workers", 1)
    said = gristmill("why", "grain:hostile.jsonl:2", "--store", tmp_path / "s").stdout
    assert "duplicate of grain:hostile.jsonl:1" in said and "\x1b" not in said and "\u202e" not in said
    assert "[bold]x[/bold]" in said and "\\u202e" in said
