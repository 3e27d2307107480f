"""Runs of every family over one version side by side: the same figures in each report, in run.json, on the terminal."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from flows import runs as flow_runs
from tests.training import runs
from training import compare
from training.journal import Journal

TABLES = {
    "gpt": (),
    "bert": ('model.family="bert"', 'objective.use="masked"'),
    "t5": ('model.family="t5"', 'objective.use="span"'),
}
ORDER = ["causal", "masked", "span"]


@pytest.fixture(scope="module")
def three(run_file, manifest, tmp_path_factory) -> list[Journal]:
    place = tmp_path_factory.mktemp("three")
    return [runs.fit(run_file, manifest, place / "runs", changes=changes) for changes in TABLES.values()]


def content(books: Journal) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((books.folder / "report.json").read_text("utf-8"))
    return found


def test_each_report_shows_the_runs_that_were_complete_by_then(three):
    assert [len(content(books)["compared"]) for books in three] == [1, 2, 3]
    last = content(three[-1])["compared"]
    assert [row["objective"] for row in last] == ORDER and [row["family"] for row in last] == list(TABLES)
    page = (three[-1].folder / "report.html").read_text("utf-8")
    assert page.count("Beside other runs over the same version") == 1
    assert "Beside" not in (three[0].folder / "report.html").read_text("utf-8")


def test_a_row_says_what_the_run_s_own_report_says(three):
    for books, row in zip(three, content(three[-1])["compared"], strict=True):
        own = content(books)
        assert row["name"] == books.folder.name and row["tokens_read"] == own["run"]["tokens_seen"]
        assert row["parameters"] == own["run"]["model"]["parameters"] and row["form"] == own["run"]["model"].get("form")
        assert row["tokens_per_second"] == own["run"]["tokens_per_second"] and row["mfu"] == own["run"]["mfu"] > 0
        evaluation = own["evaluation"]
        assert all(row[name] == evaluation[name] for name in ("measure", "targets", "bytes", "split"))
        assert all(row[name] == evaluation["model"][name] for name in ("perplexity", "bits_per_byte"))
        assert row["split_bytes"] == own["version"]["splits"]["val"]["text_bytes"] >= row["bytes"] > 0
    shares = [row["bytes"] / row["split_bytes"] for row in content(three[-1])["compared"]]
    assert shares[0] > 0.9 and max(shares[1:]) < 0.3


def test_the_front_door_tells_the_same_rows(three):
    store = three[0].folder.parent.parent
    found = {run.name: run.result for run in flow_runs.of(store)}
    assert found == {row["name"]: row for row in content(three[-1])["compared"]}
    assert compare.rows(store / "runs", content(three[0])["version"]["manifest_sha256"]) == list(
        content(three[-1])["compared"]
    )


def test_what_is_not_complete_readable_or_of_the_version_has_no_row(three, tmp_path):
    sha256 = content(three[0])["version"]["manifest_sha256"]
    names = [books.folder.name for books in three]
    shutil.copytree(three[0].folder.parent, tmp_path / "runs")
    assert [row["name"] for row in compare.rows(tmp_path / "runs", sha256)] == names
    table = json.loads((tmp_path / "runs" / names[0] / "run.json").read_text("utf-8"))
    other = {**table["version"], "sha256": "0" * 64}
    changed: list[Any] = [{**table, "status": "stopped"}, {**table, "version": other}, [], {**table, "version": None}]
    changed += [{name: value for name, value in table.items() if name != "trained"}]
    for one in changed:
        (tmp_path / "runs" / names[0] / "run.json").write_text(json.dumps(one), "utf-8")
        assert [row["name"] for row in compare.rows(tmp_path / "runs", sha256)] == names[1:]
    for broken in (b"", b"{", b"\xff\xfe"):
        (tmp_path / "runs" / names[0] / "run.json").write_bytes(broken)
        assert [row["name"] for row in compare.rows(tmp_path / "runs", sha256)] == names[1:]


def test_a_report_drawn_again_shows_the_runs_of_today(three, tmp_path):
    shutil.copytree(three[0].folder.parent, tmp_path / "runs")
    folder = tmp_path / "runs" / three[0].folder.name
    runs.command(1, "report", str(folder))
    assert len(json.loads((folder / "report.json").read_text("utf-8"))["compared"]) == 3
    assert "Beside other runs" in (folder / "report.html").read_text("utf-8")


def test_the_best_of_the_same_targets_comes_first():
    def entry(name: str, objective: str, targets: int, bits: float | None) -> dict[str, Any]:
        return {
            "name": name,
            "objective": objective,
            "split": "val",
            "targets": targets,
            "bytes": 9,
            "bits_per_byte": bits,
        }

    rows = [entry("a", "span", 3, 0.1), entry("b", "causal", 9, None), entry("c", "causal", 9, 2.0)]
    rows += [entry("d", "causal", 8, 9.0), entry("e", "causal", 9, 1.0)]
    assert [row["name"] for row in compare.ordered(rows)] == ["d", "e", "c", "b", "a"]


def test_text_of_gaps_claims_no_n_grams_and_no_samples_that_are_not_there(three):
    gpt, bert, t5 = ((books.folder / "report.html").read_text("utf-8") for books in three)
    assert "n-grams (modified Kneser-Ney) were counted" in gpt and "saw both sides" not in gpt
    assert "n-grams (modified Kneser-Ney) were counted" in bert and "saw both sides of each token" in bert
    assert "Kneser-Ney" not in t5 and "there is no n-gram beside it" in t5
    assert all("of its bytes that were asked for" in page for page in (bert, t5)) and "asked for" not in gpt
    assert ["A masked model writes no text" in page for page in (gpt, bert, t5)] == [False, True, False]
