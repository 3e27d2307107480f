"""What if against real rebuilds: `python tests/bench/whatif.py [--changes 10] [--data DIR] [--store DIR]`.

Builds `debian-docs`, draws random changes of one threshold, tighter and looser in turn, over the rules that the recipe
has and over columns that it has no rule for, asks each, builds each, and compares who is kept and why the others are
not, id by id. Prints a line a change: seconds of the question (the first one loads the kernels), and whether it agrees.
The tokenizer of the first build is given to the others: it decides nothing about who is kept.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import books, changes, recipe, whatif
from pipeline.build import Mill
from pipeline.changes import Ruled
from pipeline.manifest import Version
from pipeline.rejudge import Books
from pipeline.runner import Local
from pipeline.store import Store, read_parquet

TIGHTER, LOOSER = "tighter", "looser"


@dataclass(frozen=True)
class Trial:
    """One change: its direction, what the question took, who would be kept, and whether the rebuild agrees."""

    change: str
    direction: str
    seconds: float
    kept: int
    enters: int
    leaves: int
    agrees: bool


def trials(data: Path, folder: Path, count: int, seed: int = 11) -> Iterator[Trial]:
    """Ask and build `count` random changes of a threshold of the shipped recipe over the shared corpus."""
    table = tomllib.loads((recipe.shipped() / "debian-docs.toml").read_text("utf-8"))
    store = Store(folder)
    mill = Mill(store, Local(None))
    version = mill.build(recipe.parse(table, "bench", recipe.shipped(), data))
    table["tokens"] = {"tokenizer": str(version.folder.absolute() / version.manifest["tokenizer"]["file"])}
    stages = changes.ruled(version, store)
    for stage, column, bound, value, direction in draws(store, version, stages, count, random.Random(seed)):
        change = f"{stage}.{column}.{bound}={value!r}"
        began = time.perf_counter()
        answer = whatif.ask(store, version, [change])
        took = time.perf_counter() - began
        judged = Books(version, store, stages).judge(changes.changed(stages, [changes.parse(change)]))
        other = mill.build(recipe.parse(changed(table, stage, column, bound, value), "bench", recipe.shipped(), data))
        kept = other.index(["doc_id"])["doc_id"].to_pylist()
        agrees = sorted(judged.kept["doc_id"].to_pylist()) == sorted(kept) and answer.after.documents == len(kept)
        agrees &= rows(judged.ledger) == rows(books.ledger(store, other.build_keys()))
        moved = answer.moved()
        yield Trial(change, direction, took, len(kept), moved[whatif.ENTERS], moved[whatif.LEAVES], agrees)


def draws(
    store: Store, version: Version, stages: list[Ruled], count: int, draw: random.Random
) -> Iterator[tuple[str, str, str, Any, str]]:
    """(stage, column, bound, value, direction): every third over a column without a rule."""
    bounds = [(s, r.column, r.operator, r.bound) for s in stages for r in s.rules if r.operator in ("below", "above")]
    ruled = {(s.name, column) for s, column, _, _ in bounds}
    free = [
        (s, column, bound, None)
        for s in stages
        for column, kind in s.columns.items()
        for bound in ("below", "above")
        if (s.name, column) not in ruled and (pa.types.is_integer(kind) or pa.types.is_floating(kind))
        # Nobody without a duplicate has a similarity, and who was not measured is quarantined: nothing would be left.
        if column not in ("jaccard", "via_jaccard")
    ]
    for number in range(count):
        stage, column, bound, limit = draw.choice(free if number % 3 == 2 else bounds)
        values = column_of(store, version, stage, column)
        direction = TIGHTER if limit is None or number % 2 else LOOSER
        breaks = (
            np.zeros(len(values), bool) if limit is None else values < limit if bound == "below" else values > limit
        )
        # Not the outermost: a bound there says nothing.
        side = np.sort(values[breaks if direction == LOOSER and breaks.any() else ~breaks])
        side = side[(side > side[0]) & (side < side[-1])] if len(np.unique(side)) > 2 else side
        if direction == TIGHTER:
            side = side[: len(side) // 3 + 1] if bound == "below" else side[-len(side) // 3 :]
        value = draw.choice(side.tolist())
        yield stage.name, column, bound, int(value) if pa.types.is_integer(stage.columns[column]) else value, direction


def column_of(store: Store, version: Version, stage: Ruled, column: str) -> np.ndarray:
    """The known values of a measured column."""
    keys, signal = version.build_keys().segments[stage.segment], f"{stage.name}.{column}"
    places = [(r["cluster"], "relation.parquet") for r in keys.relates if r["stage"] == stage.name]
    places = places or [(key, "signals.parquet") for key in keys.parts]
    tables = [read_parquet(store.file(key, name), [signal]) for key, name in places]
    return pa.concat_tables(tables)[signal].drop_null().to_numpy()


def changed(table: dict[str, Any], stage: str, column: str, bound: str, value: Any) -> dict[str, Any]:
    """The recipe with one bound set, as a person would write it."""
    stages = [dict(entry) for entry in table["stage"]]
    [mine] = [entry for entry in stages if entry["use"] == stage]
    rules = dict(mine.get("drop", {}))
    mine["drop"] = {**rules, column: {**rules.get(column, {}), bound: value}}
    return {**table, "stage": stages}


def rows(ledger: pa.Table) -> list[tuple[str, ...]]:
    return sorted(zip(*(ledger[name].to_pylist() for name in ("doc_id", "stage", "verdict", "reason")), strict=True))


def main() -> None:
    """Run the trials and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=10)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--store", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for trial in trials(options.data, options.store or Path(folder), options.changes):
            words = f"kept {trial.kept:,}, {trial.enters:,} enter, {trial.leaves:,} leave"
            said = "agrees" if trial.agrees else "DIFFERS"
            print(f"{trial.seconds:5.2f} s  {said}  {trial.direction:<8}{trial.change:<48}{words}", flush=True)


if __name__ == "__main__":
    main()
