"""Laws of every suite that ships: it loads, its sets become versions, and who knows nothing scores at chance.

Sets in the data folder are asked where it lies; the one that ships is asked always.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows import evaluating
from flows.making import mill
from flows.screen import Screen
from pipeline.catalog import cards
from tests.conftest import ROOT
from tests.training import exported
from training import loading
from training.loading import Loaded
from training.manifest import Version, open_version
from training.parallel import Group
from training.progress import Silent
from training.suites import items, load, scores, taking
from training.suites.suite import CHOICE, Suite

ITEMS = 200
QUICK = ("riddles", "copa", "xcopa-zh", "winograd-wsc")
DATA = ROOT.parent / "shared" / "data"
ALONE = Group(0, 1, torch.device("cpu"))


def needs_data(name: str) -> bool:
    return "{data}" in str(cards.load(name).params["paths"])


def sets() -> list[Any]:
    """(suite, its set) of every suite that ships."""
    found = []
    for name in evaluating.available():
        for how in load(evaluating.shipped() / f"{name}.toml").set:
            away = needs_data(how.set) and not DATA.is_dir()
            skip = pytest.mark.skipif(away, reason="real data sets (../shared/data) are not beside this checkout")
            marks = [skip] if how.set in QUICK else [skip, pytest.mark.slow]
            found.append(pytest.param(how, id=f"{name}-{how.called}", marks=marks))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def ignorant(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A decoder whose weights were never trained."""
    return loading.load(exported.folder(tmp_path_factory.mktemp("model"), "llama", length=256), "cpu")


def versions(how: Any, store: Path) -> dict[str, Version]:
    at = mill(str(store), str(DATA), 1)
    names = Suite(name="s", set=[how]).sources
    return {name: open_version(evaluating.version_of(name, ROOT, at, Screen(True), False)) for name in names}


@pytest.mark.parametrize("how", sets())
def test_who_knows_nothing_scores_at_chance(how: Any, store: Path, ignorant: Loaded) -> None:
    """Where right choices are drawn anew, nothing gives them away. Of those that are stated some traits do: which
    answer is right most often, and how long it is; who knows nothing does not beat who looks at these alone."""
    given = versions(how, store)
    few = how.model_copy(update={"limit": ITEMS, "shots": min(how.shots, 1)})
    (found,) = taking.take(Suite(name="s", set=[few]), ignorant, given, ALONE, Silent())
    rows = found.table.to_pylist()
    assert len(rows) == min(ITEMS, len(items.read(given[how.set])))
    said = found.said["groups"]["all"]["metrics"]
    if rows[0]["choices"] == 1:
        assert said["exact_match"]["score"] == said["exact_match"]["chance"] == 0
        return
    rng, chance = np.random.default_rng(11), np.mean([1 / row["choices"] for row in rows])
    anew = [rng.integers(0, row["choices"]) for row in rows]
    for metric in set(said) & set(CHOICE):
        assert said[metric]["chance"] == pytest.approx(chance)
        picked = [_picked(metric, row) for row in rows]
        assert np.mean([a == row["gold"] for a, row in zip(picked, rows, strict=True)]) == said[metric]["score"]
        low, high = scores.interval(np.array([float(a == b) for a, b in zip(anew, picked, strict=True)]))
        # One in twenty intervals at 95 % misses, and some thirty are looked at: they are held to twice their width.
        assert abs(chance - (low + high) / 2) <= high - low, metric
        assert said[metric]["low"] <= max(chance, *_blind(rows)), metric


def _blind(rows: list[dict[str, Any]]) -> list[float]:
    """What is right where the same number, the shortest or the longest choice is always taken."""
    always = [np.mean([row["gold"] == number for row in rows]) for number in range(max(r["choices"] for r in rows))]
    shortest, longest = (
        np.mean([row["bytes"][row["gold"]] == most(row["bytes"]) for row in rows]) for most in (min, max)
    )
    return [float(value) for value in (*always, shortest, longest)]


def _picked(metric: str, row: dict[str, Any]) -> int:
    nats, alone = np.array(row["nats"]), np.array(row["nats_alone"] or [0.0] * row["choices"])
    values = {"raw": nats, "normalised": nats / np.array(row["bytes"]), "unconditional": nats - alone}
    return int(np.argmax(values[metric]))
