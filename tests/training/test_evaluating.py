"""The verb `eval` on runs, checkpoints and exports; what it writes; and which items a run had read by its step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.training import exported, runs, test_suites, versions
from training import checkpoint
from training.journal import Journal
from training.manifest import ManifestError, open_version, table_digest
from training.suites import exposure, items
from training.where import where

SUITE = 'name = "small"\n[[set]]\nset = "riddles"\nshots = 1\n'
Call = Callable[..., str]


@pytest.fixture(scope="module")
def riddles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = [test_suites.an_item(n) for n in range(20)]
    return test_suites.version(tmp_path_factory.mktemp("v") / "riddles", given).folder


@pytest.fixture
def asked(riddles: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "asked.toml").write_text(SUITE, "utf-8")
    return ["--suite", tmp_path / "asked.toml", "--set", f"riddles={riddles}"]


def planted(folder: Path, given: dict[str, list[str]], riddles: Path, name: str = "riddles.jsonl") -> Path:
    """A version of which a list says that documents hold items: item -> documents; no document: too short."""
    manifest = runs.version(folder)
    table = json.loads(manifest.read_text("utf-8"))
    known = {item.doc_id: exposure.text_digest(item) for item in items.read(open_version(riddles))}
    rows = [
        {"text_digest": known[item], "doc_id": doc_id, "fate": "kept" if doc_id else "too short"}
        for item, documents in given.items()
        for doc_id in documents or [None]
    ]
    kinds = [("text_digest", pa.string()), ("doc_id", pa.string()), ("fate", pa.string())]
    found = pa.Table.from_pylist(rows, schema=pa.schema(kinds))
    pq.write_table(found, folder / "contamination.parquet")
    counts = {"rows": len(rows), "documents": len(rows), "removed": False, "sets": [{"name": name}]}
    table["contamination"] = {"file": "contamination.parquet", "digest": table_digest(found), **counts}
    versions.write_manifest(folder, table)
    return manifest


@pytest.fixture(scope="module")
def trained(riddles: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Journal, dict[str, list[str]], list[str]]:
    """A run, the items planted, and three documents: one read early, one late, one never."""
    folder = tmp_path_factory.mktemp("planted")
    settings = runs.RUN.replace("rows = 6", "rows = 3").replace("every = 4", "every = 4\nkeep = 9")
    plain = runs.fit(runs.write_run(folder / "a", settings), runs.version(folder / "plain"), folder / "plain runs")
    ids = [f"toy:{n:06d}" for n in range(300)]
    steps = {one["doc_id"]: [s["step"] for s in one["steps"]] for one in where(plain.folder, ids)["documents"]}
    early = next(doc for doc, read in steps.items() if read and read[0] <= 4)
    late = next(doc for doc, read in steps.items() if read and read[0] > 8)
    never = next(doc for doc, read in steps.items() if not read)
    names = [item.doc_id for item in items.read(open_version(riddles))]
    given = {names[0]: [early], names[1]: [late], names[2]: [never], names[3]: [never, late], names[4]: []}
    manifest = planted(folder / "version", given, riddles)
    return runs.fit(runs.write_run(folder / "b", settings), manifest, folder / "runs"), given, [early, late, never]


def groups(found: dict[str, Any]) -> dict[str, str]:
    table = pq.read_table(Path(found["folder"]) / "riddles.parquet").to_pylist()
    return {row["doc_id"]: row["group"] for row in table}


def test_an_item_moves_from_clean_to_contaminated_with_the_step_that_reads_it(
    trained: tuple[Journal, dict[str, list[str]], list[str]], training: Call, asked: list[object]
) -> None:
    done, given, _ = trained
    names = list(given)
    by_step = {}
    for place in checkpoint.steps(done.checkpoints):
        found = json.loads(training("eval", place, *asked, "--json"))
        by_step[found["model"]["step"]] = groups(found)
        said = found["sets"][0]["groups"]
        assert said["all"]["items"] == 20 and said["clean"]["items"] + said["contaminated"]["items"] == 19
    assert list(by_step) == [4, 8, 12]
    assert [[by_step[step][name] for name in names] for step in (4, 12)] == [
        ["contaminated", "clean", "clean", "clean", "unknown"],
        ["contaminated", "contaminated", "clean", "contaminated", "unknown"],
    ]
    table = json.loads((done.folder / "run.json").read_text("utf-8"))
    schema = json.loads((ROOT / "catalogs" / "schemas" / "run.schema.json").read_text("utf-8"))
    jsonschema.validate(table, schema)
    assert [(one["suite"], one["step"]) for one in table["evaluations"]] == [("small", n) for n in (12, 4, 8)]


def test_a_set_that_no_list_names_is_not_split(riddles: Path, tmp_path: Path) -> None:
    done = runs.fit(runs.write_run(tmp_path), planted(tmp_path / "v", {}, riddles, "other.jsonl"), tmp_path / "runs")
    version = open_version(riddles)
    assert exposure.of_run(done.folder, 12, {"riddles": version}) == {}
    (tmp_path / "v" / "contamination.parquet").unlink()
    with pytest.raises(ManifestError, match="missing"):
        exposure.of_run(done.folder, 12, {"riddles": version})


def test_what_the_first_weights_had_read_counts_too(
    trained: tuple[Journal, dict[str, list[str]], list[str]],
    riddles: Path,
    training: Call,
    asked: list[object],
    tmp_path: Path,
) -> None:
    """A run that goes on from another's checkpoint is as contaminated as that one was then, without its files; where
    nobody has looked through what was read, nothing is called clean."""
    done, given, _ = trained
    names, version = list(given), {"riddles": open_version(riddles)}
    searched, plain = planted(tmp_path / "searched", {}, riddles), runs.version(tmp_path / "plain")

    def exposed(init: Path, manifest: Path, place: str) -> tuple[dict[str, str], list[str]]:
        books = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / place, after=2, changes=(f"init={init}",))
        last = books.folder
        found = exposure.of_run(last, 2, version)["riddles"]
        return {name: found.groups[name] for name in names}, found.unsearched

    for place in checkpoint.steps(done.checkpoints)[::2]:
        alone = exposure.of_run(done.folder, int(place.name[5:]), version)["riddles"].groups
        found, unsearched = exposed(place, searched, place.name)
        assert not unsearched and found == {name: alone[name] for name in names}
    copy = tmp_path / "copy" / "run"
    shutil.copytree(done.folder, copy)
    shutil.copytree(done.folder / "../../version", tmp_path / "version")
    found, unsearched = exposed(copy, plain, "first")
    assert unsearched == [open_version(plain).address]
    assert [found[name] for name in names] == ["contaminated", "contaminated", "unknown", "contaminated", "unknown"]
    [first] = (tmp_path / "first").iterdir()
    shutil.rmtree(copy)
    assert exposed(first, searched, "second") == (found, unsearched)
    training("export", first, tmp_path / "hf")
    found, [unsearched] = exposed(tmp_path / "hf", searched, "third")
    assert "clean" not in found.values() and unsearched.startswith("what the weights ")
    [third] = (tmp_path / "third").iterdir()
    said = training("eval", third, *asked)
    assert "riddles: what is not contaminated is in no group, for nobody has looked for it in what the weights" in said
    [page] = third.rglob("scores.html")
    assert f"nobody has looked for it in <code>{unsearched}</code>.</p>" in page.read_text("utf-8")


def test_a_run_and_its_export_score_alike(training: Call, asked: list[object], tmp_path: Path) -> None:
    done = runs.fit(runs.write_run(tmp_path), runs.version(tmp_path / "v"), tmp_path / "runs")
    training("export", done.folder, tmp_path / "hf")
    before = (done.folder / "run.json").read_text("utf-8")
    said = []
    for place in (done.folder, tmp_path / "hf"):
        out = [] if place == done.folder else ["--out", tmp_path / "scores"]
        found = json.loads(training("eval", place, *asked, *out, "--json"))
        said.append(pq.read_table(Path(found["folder"]) / "riddles.parquet"))
        page = (Path(found["folder"]) / "scores.html").read_text("utf-8")
        assert "riddles" in page and "<script" not in page
        assert json.loads((Path(found["folder"]) / "scores.json").read_text("utf-8"))["suite"] == "small"
    table, other = json.loads(before), json.loads((done.folder / "run.json").read_text("utf-8"))
    assert table.pop("evaluations") == [] and other.pop("evaluations") and table == other
    # Of every prompt the beginning is cut, and with it the end-of-text token that only a run reads.
    assert said[0] == said[1] and all(said[0]["cut"].to_pylist())
    text = training("eval", done.folder, *asked)
    assert "chance 25.0" in text and "20 items" in text and "scores: " in text


def test_bits_per_byte_are_those_of_the_report(training: Call, tmp_path: Path) -> None:
    done = runs.fit(
        runs.write_run(tmp_path, runs.RUN + "compute = 'float32'\n"), runs.version(tmp_path / "v"), tmp_path / "runs"
    )
    found = json.loads(training("eval", done.folder, "--json"))["prediction"]
    assert found["bits_per_byte"] == pytest.approx(done.table["evaluation"]["bits_per_byte"], rel=1e-4)
    report = json.loads((done.folder / "report.json").read_text("utf-8"))["evaluation"]
    for kind in ("source", "language"):
        assert {n: e["targets"] for n, e in found[f"by_{kind}"].items()} == {
            n: e["targets"] for n, e in report[f"by_{kind}"].items()
        }
    assert list(found["by_domain"]) == ["unknown"]
    training("export", done.folder, tmp_path / "hf")
    options = ("--version", tmp_path / "v", "--out", tmp_path / "out", "--json")
    other = json.loads(training("eval", tmp_path / "hf", *options))["prediction"]
    assert other["bits_per_byte"] == pytest.approx(found["bits_per_byte"], rel=1e-5)
    assert "has no version of its own" in training("eval", tmp_path / "hf", code=2)


def test_tasks_for_lm_eval_hold_the_prompts(training: Call, asked: list[object], tmp_path: Path) -> None:
    model = exported.folder(tmp_path, "llama")
    said = training("eval", model, *asked, "--export-lm-eval", tmp_path / "tasks")
    assert "--tasks gristmill_riddles" in said and str(model) in said
    rows = [json.loads(line) for line in (tmp_path / "tasks" / "riddles.jsonl").read_text("utf-8").splitlines()]
    task = dict(line.split(": ", 1) for line in (tmp_path / "tasks" / "riddles.yaml").read_text("utf-8").splitlines())
    assert json.loads(task["output_type"]) == "multiple_choice" and json.loads(task["target_delimiter"]) == ""
    assert len(rows) == 20 and all(row["context"].count("Question") == 2 for row in rows)


def test_what_is_asked_wrongly_is_one_sentence(training: Call, asked: list[object], tmp_path: Path) -> None:
    model = exported.folder(tmp_path, "llama")
    assert "expected NAME=VERSION" in training("eval", model, *asked[:2], "--set", "riddles", code=2)
    assert "the set 'riddles' is not given" in training("eval", model, *asked[:2], code=2)
    assert "no such suite" in training("eval", model, "--suite", tmp_path / "none.toml", code=2)
    assert "give --suite" in training("eval", model, "--export-lm-eval", tmp_path / "tasks", code=2)


@pytest.mark.slow
def test_torchrun_writes_the_same_bits(asked: list[object], tmp_path: Path) -> None:
    model = exported.folder(tmp_path, "qwen3")
    tables: list[Any] = []
    for world in (1, 2):
        many = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
        out = tmp_path / f"out{world}"
        command = [
            sys.executable,
            "-P",
            *many,
            "-m",
            "training",
            "eval",
            model,
            *asked,
            "--out",
            out,
            "--batch",
            4,
            "--threads",
            1,
        ]
        subprocess.run(list(map(str, command)), check=True, cwd=ROOT, capture_output=True)
        tables.append(pq.read_table(out / "riddles.parquet"))
        tables.append(json.loads((out / "scores.json").read_text("utf-8")))
    assert tables[0] == tables[2]
    assert {**tables[1], "folder": ""} == {**tables[3], "folder": ""}
