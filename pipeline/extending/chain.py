"""Every output behind a version with more sources: the old ones as they lie, and new ones beside them.

Partitions of a segment are those that were there, then the new ones, in this order: whatever names a document by its
partition names the same one as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc

from pipeline import books, plan
from pipeline.books import BuildKeys, SegmentKeys
from pipeline.build import Mill
from pipeline.recipe import Recipe, Segment
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet

TASKS = "pipeline.extending.tasks"


def chain(mill: Mill, recipe: Recipe, old: BuildKeys, inputs: Sequence[plan.Input]) -> BuildKeys:
    """The keys of the version with `inputs` besides. Raises what `Mill.build` raises."""
    store = mill.store
    keys = BuildKeys([], vocabulary=old.vocabulary, canaries=old.canaries, forgotten=old.forgotten)
    given: list[plan.Partition] | list[str] = list(plan.partitions(inputs, mill.partition_bytes))
    for number, segment in enumerate(recipe.segments):
        before = old.segments[number]
        new = _measured(mill, recipe, segment, number, given, keys, len(before.parts))
        here = SegmentKeys([*before.parts, *new], _judged(mill, recipe, segment, number, before.judge, new))
        keys.segments.append(here)
        for step, relate in zip(segment.relates, before.relates, strict=True):
            here.relates.append(_related(mill, step, relate, here, len(before.parts)))
        here.survivors = _survivors(mill, recipe, number, here, before)
        books.check_bands(recipe, store, keys)
        given = new
    keys.bridges = _bridges(mill, keys)
    last = keys.segments[-1]
    since = len(old.segments[-1].parts)
    encoded = plan.encode_tasks(store, recipe, last.parts, last.survivors, keys.vocabulary, since)
    mill.do("encode", encoded, [store.result(part)["text_bytes"] for part in last.parts[since:]])
    keys.encoded = [*old.encoded, *encoded]
    keys.packed = _packed(mill, recipe, keys, old, encoded)
    return keys


def _measured(
    mill: Mill,
    recipe: Recipe,
    segment: Segment,
    number: int,
    given: list[plan.Partition] | list[str],
    keys: BuildKeys,
    since: int,
) -> list[str]:
    """The new partitions of a segment: the only ones that go through its stages."""
    left = keys.segments[-1].survivors if keys.segments else ""
    parts = plan.segment_tasks(mill.store, recipe, segment, number, given, left, since=since if number else 0)
    names = ", ".join(step.stage.name for step in segment.steps)
    mill.do(f"{'read' if number == 0 else 'go on'}: {names}" if names else "read", parts)
    return parts


def _judged(mill: Mill, recipe: Recipe, segment: Segment, number: int, before: str, new: Sequence[str]) -> str:
    judged = plan.judge_task(mill.store, recipe, segment, number, new)
    mill.do("judge", [judged])
    return _done(mill, "judge", {"task": "joined", "before": before, "new": judged})


def _related(mill: Mill, step: plan.Step, before: dict[str, str], here: SegmentKeys, since: int) -> dict[str, str]:
    """The new documents held against all that is stored of the old ones."""
    known = {"stage": [step.stage.use, step.stage.params], "parts": here.parts, "since": since}
    name, identity = step.stage.name, step.stage.identity
    compared = {"task": "compare new", **known, "before": before["pairs"]}
    pairs = _done(mill, f"compare: {name}", compared, identity)
    clustered = {
        "task": "cluster new",
        **known,
        "pairs": pairs,
        "before": before["cluster"],
        "ledgers": here.ledgers,
        "judged": [here.judge],
        "once": [relate["cluster"] for relate in here.relates],
        "rules": [asdict(rule) for rule in step.rules],
    }
    return {"stage": name, "pairs": pairs, "cluster": _done(mill, f"cluster: {name}", clustered, identity)}


def _survivors(mill: Mill, recipe: Recipe, number: int, here: SegmentKeys, before: SegmentKeys) -> str:
    spec = {
        "task": "survivors new",
        "parts": here.parts,
        "since": len(before.parts),
        "before": before.survivors,
        "ledgers": here.ledgers,
        "assign": number == recipe.assigning,
        "relations": [[relate["stage"], relate["cluster"]] for relate in here.relates],
        "shares": recipe.pack.split,
    }
    return _done(mill, "survivors", spec)


def _bridges(mill: Mill, keys: BuildKeys) -> str:
    relates = [[relate["stage"], relate["cluster"]] for segment in keys.segments for relate in segment.relates]
    return _done(mill, "bridges", {"task": "bridges", "relates": relates})


def _done(mill: Mill, label: str, spec: dict[str, Any], *identity: Any) -> str:
    """The key of a task of `tasks`, done."""
    key = plan.planned(mill.store, TASKS, spec, *identity)
    mill.do(label, [key])
    return key


def _packed(mill: Mill, recipe: Recipe, keys: BuildKeys, old: BuildKeys, encoded: Sequence[str]) -> str:
    """Pack what is new; the shards of the old sources are the files that they were."""
    store = mill.store
    store.check(old.packed)
    _check_labels(store, old, encoded)
    planned = plan.pack_task(store, recipe, keys.encoded, store.result(keys.vocabulary)["eot"])
    spec = {**store.spec(planned), "before": old.packed, "changed": []}
    key = plan.planned(store, "pipeline.tokens.shards", spec)
    mill.do("pack", [key])
    return key


def _check_labels(store: Store, old: BuildKeys, encoded: Sequence[str]) -> None:
    """Raise ConfigError for a label that no document of the version has: rows of the old shards count its labels."""
    known = store.result(old.packed)["labels"]
    if known is None:
        return
    for key in encoded:
        labels = read_parquet(store.file(key, "documents.parquet"), ["label"])["label"].drop_null()
        if unknown := sorted(set(pc.unique(labels).to_pylist()) - set(known)):
            raise ConfigError(
                f"label {unknown[0]!r} is none of the version's labels ({', '.join(known[:20])}), which its shards "
                "count: build the recipe with all sources anew"
            )
