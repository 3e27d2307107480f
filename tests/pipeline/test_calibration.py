"""Bounds learnt from a sample, against plain arithmetic over what the stages measure."""

from __future__ import annotations

import json
import random
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import calibration, recipe
from pipeline.recipe import Recipe
from pipeline.stage import ConfigError
from tests import builds

LISTED = ["the", "of"]


def texts(seed: int, count: int, longest: int) -> list[str]:
    draw = random.Random(seed)

    def line() -> str:
        return " ".join(draw.choice(builds.WORDS) for _ in range(draw.randrange(1, longest))) + draw.choice(
            [".", "", "!"]
        )

    return ["\n".join(line() for _ in range(draw.randrange(1, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found: Path = tmp_path_factory.mktemp("corpus")
    for name, seed, longest in (("grain", 1, 12), ("other", 2, 30)):
        (found / f"{name}.toml").write_text(
            builds.CARD.replace('name = "grain"', f'name = "{name}"').replace("*", f"{name}-*")
        )
        rows = [json.dumps({"text": text}) for text in texts(seed, 400, longest)]
        (found / f"{name}-a.jsonl").write_text("\n".join(rows[:150]) + "\n")
        (found / f"{name}-b.jsonl").write_text("\n".join(rows[150:]) + "\n")
    return found


def table(source: str, **changes: Any) -> dict[str, Any]:
    gopher = {
        "use": "gopher",
        "stop_words": LISTED,
        "drop": {"word_count": {"below": 9, "above": 100}, "hash_ratio": {"above": 0.1}},
    }
    fineweb = {"use": "fineweb", "drop": {"punctuated_line_ratio": {"below": 0.3}, "newline_ratio": {"above": 0.2}}}
    return {"name": "small", "sources": [f"{source}.toml"], "stage": [{"use": "normalise"}, gopher, fineweb], **changes}


def loaded(folder: Path, source: str = "grain", **changes: Any) -> Recipe:
    return recipe.parse(table(source, **changes), "small.toml", folder)


def measured(folder: Path, source: str = "grain") -> dict[str, np.ndarray]:
    found = loaded(folder, source)
    _, _, values = calibration._sample(found, calibration._calibrated(found, ()), (), None, 64, None)
    return values


def test_every_bound_by_tail_removes_no_more_and_the_next_tighter_one_does(folder):
    answer = calibration.ask(loaded(folder), tail=0.1)
    values = measured(folder)
    assert (answer.read, answer.documents, len(answer.bounds)) == (400, 400, 5)
    for bound in answer.bounds:
        stage, column, operator = bound.rule.split(".")
        known = values[f"{stage}.{column}"]
        if bound.rule == "gopher.hash_ratio.above":
            assert bound.bound == bound.was == 0.1 and bound.kept is not None and "100.0% have 0" in bound.kept
            continue
        assert bound.kept is None and isinstance(bound.bound, int) == (column == "word_count")
        beyond = (lambda x: (known < x).mean()) if operator == "below" else (lambda x: (known > x).mean())  # noqa: B023
        step = 1 if column == "word_count" else 0.001
        tighter = bound.bound + (step if operator == "below" else -step)
        assert beyond(bound.bound) == pytest.approx(bound.removed, abs=1e-4) and bound.removed <= 0.1 < beyond(tighter)
        assert bound.was_removed == pytest.approx(beyond(bound.was), abs=1e-4) and bound.median == np.median(
            known
        ).round(6)


@given(
    st.lists(st.integers(0, 40).map(lambda n: n / 40) | st.floats(0, 1), min_size=1, max_size=60),
    st.floats(0, 0.49),
    st.sampled_from(["above", "below"]),
)
def test_a_quantile_is_the_tightest_bound(values, share, operator):
    known = np.sort(np.array(values).round(6))  # as signals are stored
    bound = calibration.quantile(known, operator, share)
    assert calibration.removed(known, operator, bound) <= share + 1e-9
    tighter = bound - 0.0011 if operator == "above" else bound + 0.0011
    assert calibration.removed(known, operator, tighter) > share - 1e-9 or np.isclose(share, 0, atol=1e-6)


def test_bounds_follow_those_of_an_origin(folder):
    here, there = measured(folder), measured(folder, "other")
    origin = loaded(folder, "other", name="origin")
    found = {
        method: {bound.rule: bound for bound in calibration.ask(loaded(folder), method, origin=origin).bounds}
        for method in calibration.METHODS[1:]
    }
    mine, theirs = here["gopher.word_count"], there["gopher.word_count"]
    by = {method: bounds["gopher.word_count.above"].bound for method, bounds in found.items()}
    assert (mine > by["quantile"]).mean() == pytest.approx((theirs > 100).mean(), abs=0.02)
    assert by["median-ratio"] == pytest.approx(100 / np.median(theirs) * np.median(mine), abs=1e-3)
    assert by["mean-std"] == pytest.approx(mine.mean() + (100 - theirs.mean()) / theirs.std() * mine.std(), abs=1e-3)
    assert found["mean-std"]["gopher.hash_ratio.above"].kept == "all of origin have one value"


def test_neither_order_nor_batches_decide_anything(folder, tmp_path):
    for path in folder.iterdir():
        lines = path.read_text().splitlines()
        if path.suffix == ".jsonl":
            random.Random(9).shuffle(lines)
        (tmp_path / path.name).write_text("\n".join(lines) + "\n")
    first, again = calibration.ask(loaded(folder)), calibration.ask(loaded(tmp_path), batch_rows=7)
    assert first.bounds == again.bounds and first.toml == again.toml


def test_what_is_written_is_part_of_a_recipe(folder):
    answer = calibration.ask(loaded(folder), tail=0.05)
    tables = tomllib.loads(answer.toml)["stage"]
    assert [one["use"] for one in tables] == ["gopher", "fineweb"]
    assert tables[0]["stop_words"] == LISTED and "dialect" not in tables[0]
    learnt = {rule.name: rule.bound for rule in loaded(folder, stage=tables).rules}
    assert learnt == {bound.rule: bound.bound for bound in answer.bounds}


def test_the_other_stages_choose_the_sample(folder):
    whole = calibration.ask(loaded(folder), stages=["fineweb"])
    words = measured(folder)["gopher.word_count"]
    assert whole.documents == ((words >= 9) & (words <= 100)).sum() < whole.read
    assert {bound.rule.split(".")[0] for bound in whole.bounds} == {"fineweb"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"tail": 0.01},
            "400 documents of its sources pass the rules that are not calibrated, at least 1000 are needed",
        ),
        ({"tail": 0.7}, "tail must lie between 0 and .5, not 0.7"),
        ({"method": "tails"}, "unknown method 'tails'; did you mean 'tail'?"),
        ({"method": "quantile"}, "method quantile needs --origin RECIPE"),
        ({"stages": ["gofer"]}, "small has no stage 'gofer' that measures; did you mean 'gopher'?"),
        ({"stages": ["normalise"]}, "no rule bounds a number"),
        ({"documents": 20}, "20 documents of its sources"),
    ],
)
def test_what_cannot_be_is_refused(folder, asked, said):
    with pytest.raises(ConfigError) as told:
        calibration.ask(loaded(folder), **asked)
    assert said in str(told.value)
