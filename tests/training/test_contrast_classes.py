"""Classifiers held against one another: did it help to train on more texts, over seeds and documents?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from tests.training import runs
from tests.training.versions import make_version
from training import classes
from training.__main__ import main
from training.suites import contrast
from training.suites.contrast import Answers

SEEDS = (3, 4)


def documents(count: int) -> list[dict[str, Any]]:
    """Labelled by whether a wheel or a river is named, with noise: what comes later is more of the same."""
    rng, found = np.random.default_rng(5), []
    for number in range(count):
        label = int(rng.integers(2))
        named = label if rng.random() < 0.9 else 1 - label
        words = [runs.WORDS[i] for i in rng.integers(6, len(runs.WORDS), 9)]
        words[int(rng.integers(9))] = ("wheel", "river")[named]
        found.append({"doc_id": f"toy:{number:06d}", "text": " ".join(words), "label": "ab"[label]})
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seeds on a few texts, and the same two on three times as many; the first texts are the same."""
    folder = tmp_path_factory.mktemp("classes")
    file, found = runs.write_run(folder), {}
    for name, count in (("few", 200), ("many", 600)):
        manifest = make_version(folder / name, documents(count), layout="examples", name=name)
        for seed in SEEDS:
            changes = ('objective.use="classify"', "schedule.steps=30", f"seed={seed}")
            books = runs.fit(file, manifest, folder / "runs", changes=changes)
            found[f"{name}-{seed}"] = books.folder.rename(folder / "runs" / f"{name}-{seed}")
    return found


def of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["doc_id"]: row for row in pq.read_table(folder / "evaluation" / "val.parquet").to_pylist()}


def test_sides_are_versions_and_seeds_and_only_what_all_judged_counts(trained: dict[str, Path]) -> None:
    found = contrast.contrast([trained[name] for name in ("few-4", "few-3", "many-3", "many-4")])
    assert [[run["seed"] for run in side["runs"]] for side in found["sides"]] == [[3, 4], [3, 4]]
    said = {one["metric"]: one for one in found["differences"]}
    assert said.keys() == {"accuracy", "macro_f1", "loss"} and all(one["paired_seeds"] for one in said.values())
    tables = {name: of(folder) for name, folder in trained.items()}
    common = sorted(set.intersection(*(set(table) for table in tables.values())))
    assert len(common) == 20 and all(one["items"] == 20 for one in said.values())

    def mean(side: str, score: Any) -> float:
        rows = [[tables[f"{side}-{seed}"][one] for one in common] for seed in SEEDS]
        return float(
            np.mean([score(*zip(*((r["label"], r["predicted"]) for r in each), strict=True)) for each in rows])
        )

    scores = {
        "accuracy": lambda gold, said: np.mean(np.array(gold) == np.array(said)),
        "macro_f1": lambda gold, said: f1_score(gold, said, average="macro", zero_division=0),
    }
    for metric, score in scores.items():
        assert said[metric]["score"] == pytest.approx(mean("many", score) - mean("few", score))
        assert said[metric]["low"] <= said[metric]["score"] <= said[metric]["high"]
    assert len(found["scores"]) == 6


def test_the_words_and_the_page(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(folder) for folder in trained.values()]
    monkeypatch.setattr(sys, "argv", ["training", "compare", *folders, "--out", str(tmp_path / "page.html")])
    with pytest.raises(SystemExit) as ended:
        main()
        raise SystemExit(0)
    assert not ended.value.code
    said, page = capsys.readouterr().out, (tmp_path / "page.html").read_text("utf-8")
    assert "many-3 and 1 more seeds less few-3 and 1 more seeds: split val, macro F1" in said
    assert "nats a text" in page and page.count("<svg") == 3  # loss, accuracy and F1, and no bits per byte


def answers(gold: np.ndarray, predicted: np.ndarray) -> dict[str, Answers]:
    ids = [f"{n:04}" for n in range(len(gold))]
    metrics = {
        "accuracy": {i: (float(g == p), 1.0) for i, g, p in zip(ids, gold, predicted, strict=True)},
        "macro_f1": {i: (float(p), float(g)) for i, g, p in zip(ids, gold, predicted, strict=True)},
    }
    return {"split val": Answers("classes", metrics)}


def guesses(rng: np.random.Generator, gold: np.ndarray, right: float) -> np.ndarray:
    return np.where(rng.random(len(gold)) < right, gold, (gold + rng.integers(1, 3, len(gold))) % 3)


def test_the_interval_of_macro_f1_is_that_of_drawn_documents() -> None:
    rng = np.random.default_rng(0)
    gold = rng.choice(3, 300, p=[0.7, 0.2, 0.1])
    one, other = guesses(rng, gold, 0.7), guesses(rng, gold, 0.85)
    found = {metric: said for _, metric, said in contrast._differences([answers(gold, one)], [answers(gold, other)])}
    drawn = np.random.default_rng(8).integers(0, 300, (1500, 300))
    theirs = [f1_score(gold[d], other[d], average="macro") - f1_score(gold[d], one[d], average="macro") for d in drawn]
    low, high = np.quantile(theirs, [0.025, 0.975])
    assert found["macro_f1"]["low"] == pytest.approx(low, abs=0.1 * (high - low))
    assert found["macro_f1"]["high"] == pytest.approx(high, abs=0.1 * (high - low))
    alone = {metric: said for _, metric, said in contrast._scores([answers(gold, other)])}
    by_cells = classes.intervals(classes.confusion(gold, other, 3))
    for metric, bounds in by_cells.items():
        width = bounds["high"] - bounds["low"]
        assert alone[metric]["low"] == pytest.approx(bounds["low"], abs=0.12 * width)


def test_pairs_of_seeds_are_drawn_together() -> None:
    """Where a seed is lucky on both sides, the difference is known better than if its luck were drawn for each."""
    rng = np.random.default_rng(1)
    gold = rng.integers(0, 3, 400)
    first, other = [], []
    for right in (0.55, 0.75, 0.9):
        told = guesses(rng, gold, right)
        better = np.where(rng.random(400) < 0.1, gold, told)
        first.append(answers(gold, told))
        other.append(answers(gold, better))
    (_, _, alone), *_ = contrast._differences(first, other, False)
    (_, _, pairs), *_ = contrast._differences(first, other, True)
    assert pairs["score"] == alone["score"] and pairs["low"] > 0
    assert alone["high"] - alone["low"] > 2 * (pairs["high"] - pairs["low"])


def test_other_labels_are_not_compared(trained: dict[str, Path], tmp_path: Path) -> None:
    manifest = make_version(tmp_path / "v", [{**d, "label": d["label"] * 2} for d in documents(200)], layout="examples")
    changes = ('objective.use="classify"', "schedule.steps=6")
    other = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs", changes=changes).folder
    found = contrast.contrast([trained["few-3"], other])
    assert found["differences"] == []
    # Nor is a document whose label is another.
    table = json.loads((other / "run.json").read_text("utf-8"))
    assert table["evaluation"]["labels"] == ["aa", "bb"]
