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

ITEMS, MODELS = 200, 3
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
            mark = pytest.mark.skipif(away, reason="real data sets (../shared/data) are not beside this checkout")
            found.append(pytest.param(how, id=f"{name}-{how.called}", marks=mark))
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
    """The right choices are drawn anew, so that no trait of a text, say its length, can give any away."""
    given = versions(how, store)
    few = how.model_copy(update={"limit": ITEMS, "shots": min(how.shots, 1)})
    (found,) = taking.take(Suite(name="s", set=[few]), ignorant, given, ALONE, Silent())
    rows = found.table.to_pylist()
    assert len(rows) == min(ITEMS, len(items.read(given[how.set])))
    said = found.said["groups"]["all"]["metrics"]
    if found.table["choices"][0].as_py() == 1:
        assert said["exact_match"]["score"] == said["exact_match"]["chance"] == 0
        return
    rng, choices = np.random.default_rng(11), found.table["choices"].to_numpy()
    for metric in set(said) & set(CHOICE):
        assert said[metric]["chance"] == pytest.approx(np.mean(1 / choices))
        anew = [rng.integers(0, n) for n in choices]
        picked = [_picked(metric, row) for row in rows]
        right = np.array([float(a == b) for a, b in zip(anew, picked, strict=True)])
        low, high = scores.interval(right)
        # One in twenty intervals at 95 % misses, and some thirty are looked at: they are held to twice their width.
        middle, reach = (low + high) / 2, high - low
        assert abs(said[metric]["chance"] - middle) <= reach, metric


def _picked(metric: str, row: dict[str, Any]) -> int:
    nats, alone = np.array(row["nats"]), np.array(row["nats_alone"] or [0.0] * row["choices"])
    values = {"raw": nats, "normalised": nats / np.array(row["bytes"]), "unconditional": nats - alone}
    return int(np.argmax(values[metric]))
