"""Runs held against one another: what is one side, what the paired bootstrap says, and the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training import runs
from training import TrainingError
from training.__main__ import main
from training.suites import contrast
from training.suites.contrast import Answers

Trained = dict[str, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two seeds of one run, and one with another width, over one version."""
    folder = tmp_path_factory.mktemp("contrast")
    manifest, file = runs.version(folder / "version"), runs.write_run(folder)
    changes: dict[str, tuple[str, ...]] = {"one": (), "two": ("seed=4",), "wide": ("model.width=48", "model.heads=3")}
    return {
        name: runs.fit(file, manifest, folder / "runs", changes=more).folder.rename(folder / "runs" / name)
        for name, more in changes.items()
    }


def answers(rng: np.random.Generator, ability: float, hard: np.ndarray) -> dict[str, Answers]:
    right = (rng.random(len(hard)) < np.clip(ability - hard, 0, 1)).astype(float)
    return {"s: set": Answers("how", {"raw": {f"{n:04}": (value, 1.0) for n, value in enumerate(right)}})}


def test_items_are_paired() -> None:
    """Two judges that agree but for some items: their difference is known far better than either score."""
    rng = np.random.default_rng(0)
    values = (rng.random(800) < 0.5).astype(float)
    other = values.copy()
    other[rng.choice(800, 24, replace=False)] = 1
    a, b = ({"x": Answers("", {"raw": {str(n): (v, 1.0) for n, v in enumerate(one)}})} for one in (values, other))
    ((_, _, said),) = contrast._differences([a], [b])
    difference = other - values
    error = difference.std() / np.sqrt(800)
    assert said["score"] == pytest.approx(difference.mean())
    assert said["low"] == pytest.approx(difference.mean() - 1.96 * error, abs=0.3 * error) and said["low"] > 0
    assert said["high"] == pytest.approx(difference.mean() + 1.96 * error, abs=0.3 * error)
    ((_, _, alone),) = contrast._scores([a])
    assert alone["high"] - alone["low"] > 3 * (said["high"] - said["low"])


def test_the_same_answers_do_not_differ() -> None:
    one = answers(np.random.default_rng(1), 0.8, np.linspace(0, 0.5, 200))
    ((_, _, said),) = contrast._differences([one], [one])
    assert (said["score"], said["low"], said["high"], said["above"]) == (0, 0, 0, 0)


def test_seeds_that_disagree_widen_the_interval() -> None:
    hard = np.linspace(0, 0.5, 300)
    rng = np.random.default_rng(2)
    alike = [answers(np.random.default_rng(7), 0.7, hard)] * 3
    apart = [answers(rng, ability, hard) for ability in (0.5, 0.7, 0.9)]
    other = [answers(rng, 0.75, hard)]
    narrow, wide = (contrast._differences(side, other)[0][2] for side in (alike, apart))
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_other_conditions_are_not_compared() -> None:
    one, other = (answers(np.random.default_rng(n), 0.7, np.zeros(20)) for n in (0, 1))
    assert contrast._differences([one], [{"s: set": Answers("other prompts", other["s: set"].metrics)}]) == []


def test_bits_of_documents_are_ratios_of_sums(trained: Trained) -> None:
    found = contrast.contrast([trained["one"], trained["wide"]])
    (said,) = found["differences"]
    tables = [json.loads((trained[name] / "run.json").read_text("utf-8")) for name in ("one", "wide")]
    first, other = (table["evaluation"]["bits_per_byte"] for table in tables)
    assert said["score"] == pytest.approx(other - first) and said["low"] <= said["score"] <= said["high"]
    assert [side["name"] for side in found["sides"]] == ["one", "wide"]
    assert [one["score"] for one in found["scores"]] == pytest.approx([first, other])


def test_runs_that_differ_by_their_seed_are_one_side(trained: Trained) -> None:
    found = contrast.contrast([trained["one"], trained["wide"], trained["two"]])
    assert [(side["name"], len(side["runs"])) for side in found["sides"]] == [("one and 1 more seeds", 2), ("wide", 1)]
    assert len(found["differences"]) == 1


def test_the_page_and_the_words(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diff: dict[str, Any] = {
        "a": "v@1",
        "b": "v@<b>2</b>",
        "documents": {"a": 5, "b": 6, "removed": 1, "added": 2, "changed": 0},
        "tokens": {"a": 50, "b": 60},
        "recipe": [],
    }
    (tmp_path / "diffs.json").write_text(json.dumps([diff]), "utf-8")
    words = ["compare", trained["one"], trained["wide"], "--out", tmp_path / "page.html"]
    monkeypatch.setattr(sys, "argv", ["training", *map(str, words), "--diffs", str(tmp_path / "diffs.json")])
    with pytest.raises(SystemExit) as ended:
        main()
        raise SystemExit(0)
    assert not ended.value.code
    said, page = capsys.readouterr().out, (tmp_path / "page.html").read_text("utf-8")
    assert "wide less one: split val, bits per byte" in said and "page: " in said
    assert "<b>2</b>" not in page and "1 documents of 5 are gone" in page and page.count("<svg") == 2


def test_what_cannot_be_compared_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="two runs or more"):
        contrast.contrast([trained["one"]])
    with pytest.raises(TrainingError, match="is given twice"):
        contrast.contrast([trained["one"], trained["one"]])
    with pytest.raises(TrainingError, match="no run here"):
        contrast.contrast([trained["one"], tmp_path])
