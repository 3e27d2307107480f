"""Runs held against one another: paired bootstrap over items and seeds, loss over tokens, cost.

Runs that differ in nothing but their seed are one side. Two sides are compared on the items (or documents) that all of
their runs answered, under one prompt and one version of the set: items are drawn with replacement, the same ones for
both sides, and of each side its seeds; where both have the same seeds, these are drawn as pairs (Efron & Tibshirani
1993, chapter 8; Koehn 2004, "Statistical significance tests for machine translation evaluation"). What is stated is the
mean of the difference, the other side less the first, and the interval that holds 95 % of the resamples: no difference
is claimed where it holds nought. Of classifiers the accuracy, macro F1 and loss of the documents are compared.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training import TrainingError, bootstrap, classes, journal
from training.journal import Journal
from training.suites import scores
from training.suites.suite import CHOICE, CLOZE

Doubles = NDArray[np.float64]
FORMAT = "gristmill.comparison/1"
BITS = "bits_per_byte"


@dataclass(frozen=True)
class Side:
    """Runs of one configuration and version, of which each has another seed."""

    name: str
    runs: tuple[Journal, ...]


@dataclass(frozen=True)
class Answers:
    """What a run answered of one thing: for each metric two numbers by id, of which the second says what was asked. Of
    `macro_f1` they are the class that was named and the label, of all others numerator and denominator of a ratio of
    sums."""

    how: str
    metrics: dict[str, dict[str, tuple[float, float]]]


def sides(folders: Sequence[Path]) -> list[Side]:
    """The sides in the order given. Raises TrainingError for a folder that is no complete run, or one that is twice."""
    found: dict[str, list[Journal]] = {}
    for folder in folders:
        books = journal.read_books(folder)
        if not books.complete:
            raise TrainingError(f"{folder}: is {books.table.get('status')}, and only complete runs are compared")
        if any(folder.samefile(other.folder) for each in found.values() for other in each):
            raise TrainingError(f"{folder}: is given twice")
        config = {key: value for key, value in books.table["config"].items() if key not in ("seed", "name")}
        read = [books.table["version"]["sha256"], *(one["sha256"] for one in books.table.get("beside", []))]
        found.setdefault(json.dumps([config, read], sort_keys=True), []).append(books)
    return [Side(_name(runs), tuple(sorted(runs, key=_seed))) for runs in found.values()]


def _seed(books: Journal) -> int:
    return int(books.table["seed"])


def _same_seeds(first: Side, other: Side) -> bool:
    """Whether the n-th runs of both sides have the same seed."""
    return [*map(_seed, first.runs)] == [*map(_seed, other.runs)]


def _name(runs: Sequence[Journal]) -> str:
    first = runs[0].folder.absolute().name
    return first if len(runs) == 1 else f"{first} and {len(runs) - 1} more seeds"


def contrast(folders: Sequence[Path], diffs: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Everything that a comparison says, as plain data; `diffs` are what `gristmill diff` says of the versions.

    Raises TrainingError where there are fewer than two runs, or one cannot be read.
    """
    found = sides(folders)
    if sum(len(side.runs) for side in found) < 2:
        raise TrainingError("compare: two runs or more are held against one another")
    answered = {side.name: [_answers(books) for books in side.runs] for side in found}
    first, *others = found
    differences = [
        {"side": other.name, "to": first.name, "what": what, "metric": metric, **said}
        for other in others
        for what, metric, said in _differences(answered[first.name], answered[other.name], _same_seeds(first, other))
    ]
    return {
        "format": FORMAT,
        "sides": [{"name": side.name, "runs": [_run(books) for books in side.runs]} for side in found],
        "scores": [
            {"side": side.name, "what": what, "metric": metric, **said}
            for side in found
            for what, metric, said in _scores(answered[side.name])
        ],
        "differences": differences,
        "diffs": list(diffs),
    }


def _run(books: Journal) -> dict[str, Any]:
    """What a run was trained on, what that cost, and its curve."""
    table = books.table
    trained = table["trained"]
    known = ("name", "seed", "steps", "tokens_read", "seconds", "processes", "device", "peak")
    known_of_curve = ("tokens", "loss", BITS, "accuracy", "macro_f1")
    curve = [{name: one[name] for name in known_of_curve if name in one} for one in table["validations"]]
    model = {
        name: trained.get(name) for name in ("family", "form", "objective", "parameters", "tokens_per_second", "mfu")
    }
    return {
        **{name: table.get(name) for name in known},
        **model,
        "version": table["version"]["address"],
        "curve": curve,
    }


def _answers(books: Journal) -> dict[str, Answers]:
    """What a run answered: its own evaluation by documents, and the newest of every set of a suite by items."""
    found = {}
    evaluation = books.table.get("evaluation") or {}
    split = evaluation.get("split")
    path = books.folder / "evaluation" / f"{split}.parquet"
    if path.is_file():
        table = pq.ParquetFile(path).read()
        if "predicted" in table.column_names:
            found[f"split {split}"] = _classified(table, evaluation)
        elif "nats_model" in table.column_names:
            said = zip(*(table[name].to_pylist() for name in ("doc_id", "nats_model", "bytes")), strict=True)
            rows = {doc_id: (nats / np.log(2), float(size)) for doc_id, nats, size in said}
            found[f"split {split}"] = Answers(str(evaluation.get("measure")), {BITS: rows})
    for entry in sorted(books.table.get("evaluations", []), key=lambda entry: entry["step"]):
        place = books.folder / entry["folder"]
        try:
            result = json.loads((place / "scores.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{place / 'scores.json'}: cannot be read ({error}); score the run again") from error
        for one in result.get("sets", []):
            table = pq.ParquetFile(place / f"{one['name']}.parquet").read()
            ids = table["doc_id"].to_pylist()
            metrics: dict[str, dict[str, tuple[float, float]]] = {
                metric: {doc_id: (value, 1.0) for doc_id, value in zip(ids, table[metric].to_pylist(), strict=True)}
                for metric in (*CHOICE, *CLOZE)
                if metric in table.column_names
            }
            how = json.dumps([one["how"], one["manifest_sha256"]], sort_keys=True)
            found[f"{result['suite']}: {one['name']}"] = Answers(how, metrics)
    return found


def _classified(table: pa.Table, evaluation: dict[str, Any]) -> Answers:
    """What a classifier said of each document; only what names the same classes compares."""
    ids, label, predicted, nats = (table[name].to_pylist() for name in ("doc_id", "label", "predicted", "nats_model"))
    labels = evaluation.get("labels") or sorted({*label, *predicted})
    number = {name: float(place) for place, name in enumerate(labels)}
    metrics: dict[str, dict[str, tuple[float, float]]] = {"accuracy": {}, "macro_f1": {}, "loss": {}}
    for doc_id, gold, guess, lost in zip(ids, label, predicted, nats, strict=True):
        metrics["accuracy"][doc_id] = (float(gold == guess), 1.0)
        metrics["macro_f1"][doc_id] = (number[guess], number[gold])
        metrics["loss"][doc_id] = (lost, 1.0)
    return Answers(f"classes {json.dumps(labels)}", metrics)


def _scores(runs: Sequence[dict[str, Answers]]) -> list[tuple[str, str, dict[str, Any]]]:
    """The scores of one side on everything that all of its runs answered, with their interval over items and seeds."""
    return [
        (what, metric, {"items": values.shape[2], **_interval(_resampled(metric, values), _score(metric, values))})
        for what, metric, values in _common([runs])
    ]


def _differences(
    first: Sequence[dict[str, Answers]], other: Sequence[dict[str, Answers]], paired: bool = False
) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for what, metric, values in _common([first, other]):
        a, b = values[:, : len(first)], values[:, len(first) :]
        drawn = _resampled(metric, b, 0 if paired else 1) - _resampled(metric, a, 0)
        said = _interval(drawn, _score(metric, b) - _score(metric, a))
        above = float(np.mean(drawn > 0))
        found.append((what, metric, {"items": values.shape[2], **said, "above": above, "paired_seeds": paired}))
    return found


def _common(groups: Sequence[Sequence[dict[str, Answers]]]) -> list[tuple[str, str, Doubles]]:
    """(what, metric, both numbers [2, runs, items]) of what all runs answered under the same conditions; of documents
    those of which all were asked the same: with as many bytes, or the same label."""
    runs = [run for group in groups for run in group]
    found = []
    for what in sorted(set.intersection(*({*run} for run in runs))):
        if len({run[what].how for run in runs}) != 1:
            continue
        for metric in runs[0][what].metrics:
            mine = [run[what].metrics[metric] for run in runs]
            ids = sorted(set.intersection(*(set(one) for one in mine)))
            ids = [one for one in ids if len({each[one][1] for each in mine}) == 1]
            if ids:
                values = np.array([[each[one] for one in ids] for each in mine], np.float64)
                found.append((what, metric, np.moveaxis(values, 2, 0)))
    return found


def _scored(metric: str, values: Doubles) -> Doubles:
    """The score over the last axis of both numbers [2, ..., items]."""
    if metric == "macro_f1":
        predicted, gold = values.astype(np.int64)
        return classes.macro_f1(gold, predicted)
    ratio: Doubles = values[0].sum(-1) / values[1].sum(-1)
    return ratio


def _score(metric: str, values: Doubles) -> float:
    """The mean of the scores of the runs."""
    return float(_scored(metric, values).mean())


def _resampled(metric: str, values: Doubles, side: int = 0) -> Doubles:
    """The score of each resample: its items are the same for every side, its seeds are drawn for each."""
    seeds = np.random.default_rng([1, side]).integers(0, values.shape[1], (bootstrap.RESAMPLES, values.shape[1]))
    found, at = [], 0
    for drawn in scores.resamples(values.shape[2]):
        each = _scored(metric, values[:, :, drawn])
        chosen = seeds[at : at + len(drawn)]
        found.append(each[chosen.T, np.arange(len(drawn))].mean(0))
        at += len(drawn)
    return np.concatenate(found)


def _interval(drawn: Doubles, score: float) -> dict[str, float]:
    low, high = bootstrap.bounds(drawn)
    return {"score": score, "low": low, "high": high}
