"""A suite from file to result: its sets are put to the model, scored, and written down item by item.

FOLDER/scores.json       what was asked, how, and every score with its interval, chance and group
FOLDER/SET.parquet       a row an item: doc_id, group, choices, gold, cut, nats and bytes of each choice, and what
                         each metric gives it
FOLDER/scores.html       all of it to be read
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training import TrainingError
from training.loading import Loaded
from training.manifest import Version
from training.parallel import Group
from training.progress import Reporter
from training.suites import items, likelihood, prompts, scores
from training.suites.exposure import Exposure
from training.suites.items import Item
from training.suites.prompts import Asked
from training.suites.suite import Metric, Set, Suite

FORMAT = "gristmill.scores/1"
GROUPS = ("all", "clean", "contaminated")


@dataclass(frozen=True)
class Taken:
    """One set as it was answered: what a result says of it, and the table of its items."""

    said: dict[str, Any]
    table: pa.Table


def take(
    suite: Suite,
    loaded: Loaded,
    versions: Mapping[str, Version],
    group: Group,
    progress: Reporter,
    *,
    batch: int = likelihood.BATCH,
    exposures: Mapping[str, Exposure] | None = None,
) -> list[Taken]:
    """Every set of a suite, on every rank. `versions` are the sets by name; `exposures` say which items of a set
    the model was trained on, where that is known of the set.

    Raises TrainingError for a set that is not given or holds no items, and for a model that continues no text.
    """
    likelihood.check(loaded)
    for name in suite.sources:
        if name not in versions:
            raise TrainingError(f"suite {suite.name!r}: the set {name!r} is not given; has: {', '.join(versions)}")
    return [_set(each, loaded, versions, group, progress, batch, (exposures or {}).get(each.set)) for each in suite.set]


def _set(
    how: Set,
    loaded: Loaded,
    versions: Mapping[str, Version],
    group: Group,
    progress: Reporter,
    batch: int,
    exposure: Exposure | None,
) -> Taken:
    asked, metrics = put(how, loaded, versions)
    requests = [request for one in asked for request in (*one.requests, *one.alone)]
    progress.phase(how.called, likelihood.distinct(requests))
    answers = likelihood.score(loaded, requests, group, progress, batch)
    ends = np.cumsum([0, *(len(one.requests) + len(one.alone) for one in asked)])
    rows = []
    for one, first in zip(asked, ends.tolist(), strict=False):
        middle, last = first + len(one.requests), first + len(one.requests) + len(one.alone)
        nats, alone = answers.nats[first:middle].tolist(), answers.nats[middle:last].tolist()
        greedy = answers.greedy[first:middle].tolist()
        values = {metric: scores.of_item(metric, one, nats, alone, greedy) for metric in metrics}
        rows.append(_row(one, nats, alone, greedy, exposure, values))
    table = pa.Table.from_pylist(rows, schema=_schema(metrics))
    return Taken(_said(how, versions[how.set], table, metrics, exposure), table)


def put(how: Set, loaded: Loaded, versions: Mapping[str, Version]) -> tuple[list[Asked], tuple[Metric, ...]]:
    """The items of a set as they are put to a model, and by which metrics they are judged."""
    pool = items.read(versions[how.set])
    chosen = items.limited(pool, how.limit, how.seed)
    forms = {item.choices > 1 for item in chosen}
    if len(forms) != 1:
        raise TrainingError(f"set {how.called!r}: holds {'both forms of items' if forms else 'no item'}; ask one form")
    metrics = how.chosen(forms == {False})
    examples = items.read(versions[how.shots_from]) if how.shots_from else pool
    alone = "unconditional" in metrics
    return [_put(loaded, item, examples, how, alone) for item in chosen], metrics


def _put(loaded: Loaded, item: Item, pool: list[Item], how: Set, alone: bool) -> Asked:
    shots = prompts.shots(item, pool, how) if how.shots else []
    return prompts.ask(loaded, item, shots, how, alone=alone)


def _schema(metrics: tuple[Metric, ...]) -> pa.Schema:
    known = {
        "doc_id": pa.string(),
        "group": pa.string(),
        "choices": pa.int32(),
        "gold": pa.int32(),
        "cut": pa.bool_(),
        "nats": pa.list_(pa.float64()),
        "nats_alone": pa.list_(pa.float64()),
        "bytes": pa.list_(pa.int32()),
        "greedy": pa.list_(pa.bool_()),
    }
    return pa.schema([*known.items(), *((metric, pa.float64()) for metric in metrics)])


def _row(
    one: Asked,
    nats: list[float],
    alone: list[float],
    greedy: list[bool],
    exposure: Exposure | None,
    values: Mapping[Any, float],
) -> dict[str, Any]:
    group = None if exposure is None else exposure.groups[one.item.doc_id]
    known = {"doc_id": one.item.doc_id, "choices": one.item.choices, "gold": one.item.gold, "cut": one.cut}
    lists = {"nats": nats, "nats_alone": alone, "bytes": list(one.sizes), "greedy": greedy}
    return {**known, "group": group, **lists, **values}


def _said(
    how: Set, version: Version, table: pa.Table, metrics: tuple[Metric, ...], exposure: Exposure | None
) -> dict[str, Any]:
    """What a result says of a set: all of it, and its clean and contaminated items where they are known apart.

    Those that are too short to be looked for are in neither, nor is what may stand in texts that are `unsearched`.
    """
    choices = table["choices"].to_numpy()
    values: dict[str, Any] = {metric: table[metric].to_numpy() for metric in metrics}
    group = np.array(table["group"].to_pylist(), object)
    found = {}
    for name in GROUPS if exposure else GROUPS[:1]:
        chosen = np.ones(len(group), bool) if name == "all" else group == name
        mine = {metric: column[chosen] for metric, column in values.items()}
        found[name] = {"items": int(chosen.sum()), "metrics": scores.summary(metrics, mine, choices[chosen])}
    return {
        "name": how.called,
        "version": version.address,
        "manifest_sha256": version.sha256,
        "how": how.model_dump(mode="json"),
        "cut": int(np.count_nonzero(table["cut"].to_numpy(zero_copy_only=False))),
        "groups": found,
        "unsearched": exposure.unsearched if exposure else [],
    }


def write(folder: Path, taken: list[Taken]) -> None:
    """The tables of the items, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in taken:
        name = f"{one.said['name']}.parquet"
        pq.write_table(one.table, folder / f".{name}", compression="zstd")
        (folder / f".{name}").replace(folder / name)
