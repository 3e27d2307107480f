"""Numbers of a classification against scikit-learn, and intervals against the bootstrap done document by document."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, precision_recall_fscore_support

from training import classes

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@settings(deadline=None)  # the first call loads scikit-learn
@given(PAIRS)
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    gold, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    table = classes.confusion(gold, predicted, 5)
    found = classes.scores(table)
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    assert classes.macro_f1(gold, predicted) == pytest.approx(found["macro_f1"])
    theirs = precision_recall_fscore_support(gold, predicted, labels=range(5), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "documents"), theirs, strict=True):
        assert [entry[name] for entry in classes.by_class(table)] == pytest.approx(list(values))


def test_macro_f1_is_taken_over_the_last_axis() -> None:
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 4, (2, 3, 5, 40))
    found = classes.macro_f1(gold, predicted)
    assert found.shape == (3, 5)
    for place in np.ndindex(3, 5):
        assert found[place] == pytest.approx(f1_score(gold[place], predicted[place], average="macro"))


def answers(rng: np.random.Generator, documents: int, labels: int, sharp: float = 1.0) -> Any:
    """Probabilities [documents, labels], labels drawn from them, and the probabilities made too sure by `sharp`."""
    logits = rng.normal(0, 1.5, (documents, labels))

    def softmax(values: Any) -> Any:
        powers = np.exp(values - values.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    true = softmax(logits)
    gold = np.array([rng.choice(labels, p=each) for each in true])
    return softmax(logits * sharp), gold


@pytest.mark.parametrize("sharp", [1.0, 4.0])
def test_calibration_is_that_of_scikit_learn(sharp: float) -> None:
    said, gold = answers(np.random.default_rng(1), 3000, 5, sharp)
    predicted, probability = said.argmax(1), said.max(1)
    right = predicted == gold
    brier = ((said - np.eye(5)[gold]) ** 2).sum(1)
    found = classes.calibration(probability, right, brier)
    share, mean = calibration_curve(right, probability, n_bins=classes.BINS)
    assert [one["accuracy"] for one in found["bins"]] == pytest.approx(list(share))
    assert [one["probability"] for one in found["bins"]] == pytest.approx(list(mean))
    assert found["brier"] == pytest.approx(brier_score_loss(gold, said, scale_by_half=False))
    weights = [one["documents"] / 3000 for one in found["bins"]]
    assert found["error"] == pytest.approx(float(np.sum(np.abs(share - mean) * weights)))
    assert found["error"] < 0.03 if sharp == 1 else found["error"] > 0.15


def test_a_bin_holds_its_upper_edge_and_none_is_lost() -> None:
    probability = np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0])
    found = classes.calibration(probability, np.array([True, False, True, True]), np.zeros(4))
    assert [one["documents"] for one in found["bins"]] == [2, 1, 1]
    assert sum(one["documents"] for one in found["bins"]) == 4
    assert classes.calibration(np.zeros(0), np.zeros(0, bool), np.zeros(0))["bins"] == []


@pytest.mark.parametrize("documents", [40, 600])
def test_intervals_are_those_of_the_bootstrap_by_document(documents: int) -> None:
    said, gold = answers(np.random.default_rng(documents), documents, 4)
    predicted = said.argmax(1)
    found = classes.intervals(classes.confusion(gold, predicted, 4))
    drawn = np.random.default_rng(9).integers(0, documents, (2000, documents))
    theirs = {
        "accuracy": (gold == predicted)[drawn].mean(1),
        "macro_f1": [f1_score(gold[one], predicted[one], average="macro", zero_division=0) for one in drawn[:1000]],
    }
    for name, values in theirs.items():
        low, high = np.quantile(values, [0.025, 0.975])
        near = 0.12 * (high - low)
        assert found[name]["low"] == pytest.approx(low, abs=near)
        assert found[name]["high"] == pytest.approx(high, abs=near)


def test_an_interval_holds_the_true_accuracy_nineteen_times_in_twenty() -> None:
    rng, held = np.random.default_rng(3), 0
    for _ in range(300):
        gold = rng.integers(0, 2, 200)
        predicted = np.where(rng.random(200) < 0.8, gold, 1 - gold)
        bounds = classes.intervals(classes.confusion(gold, predicted, 2))["accuracy"]
        held += bounds["low"] <= 0.8 <= bounds["high"]
    assert 0.90 <= held / 300 <= 0.985


def test_nothing_judged_has_no_numbers() -> None:
    nothing = np.zeros((3, 3), np.int64)
    assert all(np.isnan(value) for value in classes.scores(nothing).values())
    assert all(np.isnan(value) for each in classes.intervals(nothing).values() for value in each.values())
