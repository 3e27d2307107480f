"""From a recipe to partitions and keys: what has to be done, and under which name its output lies.

A key is the digest of everything that decides an output: code, parameters, rules and the
keys of its inputs; never a path, a clock, a batch size or a worker count. Partitions are
cut by input bytes alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.agreement import CHAT, rows_of
from pipeline.catalog.cards import Card
from pipeline.digests import digest, source_digest
from pipeline.recipe import Recipe, Segment, Step
from pipeline.rules import of_licence
from pipeline.sources import Item, survey
from pipeline.stage import ConfigError
from pipeline.store import Store, file_digest

Spec = dict[str, Any]


@dataclass(frozen=True)
class Partition:
    """A run of one source's input items."""

    card: Card
    items: tuple[Item, ...]

    @property
    def weight(self) -> int:
        """Bytes that it holds when it is unpacked, as far as they are known."""
        return sum(item.weight for item in self.items)


@dataclass(frozen=True)
class Input:
    """One source as it was found: its items, in order."""

    card: Card
    items: tuple[Item, ...]

    def files(self) -> list[dict[str, Any]]:
        """Path, bytes and sha256 of each file, once, sorted by path."""
        sizes: dict[str, dict[str, Any]] = {}
        for item in self.items:
            entry = sizes.setdefault(item.path, {"path": item.path, "bytes": 0, "sha256": item.sha256})
            entry["bytes"] += item.size
        return [sizes[path] for path in sorted(sizes)]


def look(recipe: Recipe) -> list[Input]:
    """Find, hash and cut the input of every source. Raises SourceError."""
    return [Input(card, tuple(survey(card))) for card in recipe.sources]


def partitions(inputs: Sequence[Input], size: int) -> Iterator[Partition]:
    """Runs of items of about `size` bytes; one source never shares a partition with another."""
    for found in inputs:
        run: list[Item] = []
        held = 0
        for item in found.items:
            run.append(item)
            held += item.weight
            if held >= size:
                yield Partition(found.card, tuple(run))
                run, held = [], 0
        if run:
            yield Partition(found.card, tuple(run))


def segment_tasks(
    store: Store,
    recipe: Recipe,
    segment: Segment,
    number: int,
    inputs: Sequence[Partition] | Sequence[str],
    left: str = "",
    cuts: Mapping[str, str] | None = None,
    since: int = 0,
) -> list[str]:
    """Plan one task for each partition: of a source (the first segment) or of the segment before.

    `left` is the key of the survivors of the segment before, `cuts` stage and key of what is cut from them, `since` the
    number of the first of these partitions there.
    """
    code, shape = _segment(recipe, segment, number)
    keys = []
    for position, given in enumerate(inputs, since):
        if isinstance(given, Partition):
            # Where the card lies is no part of the key: who changes the recipe later finds it there again.
            source = {"card": given.card.model_dump(mode="json"), "items": list(map(asdict, given.items))}
            spec = {**shape, "source": {**source, "file": str(given.card.file), "data": _named(given.card.data_dir)}}
            named: Any = _partition_identity(given)
        else:
            upstream = {"part": given, "survivors": left, "number": position}
            spec = {**shape, "upstream": {**upstream, "cut_by": dict(cuts)} if cuts else upstream}
            named = spec["upstream"]
        keys.append(store.plan(digest([code, shape, named]), spec))
    return keys


def _segment(recipe: Recipe, segment: Segment, number: int) -> tuple[list[Any], Spec]:
    """What decides the output of a segment but for its input: code, and what is done."""
    shape = {
        "task": "segment",
        "stages": [[step.stage.use, step.stage.params] for step in segment.steps],
        "sketches": [[step.stage.use, step.stage.params] for step in segment.relates],
        "licence": number == 0 and recipe.licence is not None,
    }
    code: list[Any] = [step.stage.identity for step in (*segment.steps, *segment.relates)]
    return [*code, source_digest("pipeline.tasks")], shape


def segment_key(recipe: Recipe, segment: Segment, number: int, spec: Spec) -> str:
    """The key that the task of a specification would have now, whatever key it has."""
    code, shape = _segment(recipe, segment, number)
    if "source" not in spec:
        return digest([code, shape, spec.get("upstream")])
    source = spec["source"]
    items = tuple(Item.from_dict(item) for item in source["items"])
    return digest([code, shape, _partition_identity(Partition(Card.model_validate(source["card"]), items))])


def _named(path: Path | None) -> str | None:
    return str(path) if path else None


def _partition_identity(partition: Partition) -> list[Any]:
    card = partition.card
    module = card.kind if "." in card.kind else f"pipeline.sources.{card.kind}"
    known = {"name": card.name, "licence": card.licence, "languages": card.languages, "params": card.params}
    items = [{k: v for k, v in asdict(item).items() if k != "location"} for item in partition.items]
    return [source_digest(module), known, items]


def planned(store: Store, module: str, spec: Spec, *identity: Any) -> str:
    """Plan a task; its key knows the code behind the module that does it, and what identifies it beside."""
    return store.plan(digest([*identity, source_digest(module), spec]), spec)


def judge_task(store: Store, recipe: Recipe, segment: Segment, number: int, parts: Sequence[str]) -> str:
    """Plan the judgement of a segment's own rules (and, at the first, of the recipe's licence rule)."""
    rules = [asdict(rule) for step in segment.steps for rule in step.rules]
    if number == 0 and recipe.licence:
        rules = [*map(asdict, of_licence(recipe.licence.model_dump())), *rules]
    spec = {"task": "judge", "parts": list(parts), "rules": rules, "order": [s.stage.name for s in segment.steps]}
    return planned(store, "pipeline.tasks", spec)


def pairs_task(store: Store, step: Step, parts: Sequence[str]) -> str:
    spec = {
        "task": "find" if step.stage.cuts else "pairs",
        "stage": [step.stage.use, step.stage.params],
        "parts": list(parts),
    }
    return planned(store, "pipeline.tasks", spec, step.stage.identity)


def cluster_task(store: Store, step: Step, parts: Sequence[str], pairs: str, ledgers: Sequence[str]) -> str:
    spec = {
        "task": "cut" if step.stage.cuts else "cluster",
        "stage": [step.stage.use, step.stage.params],
        "parts": list(parts),
        "pairs": pairs,
        "ledgers": list(ledgers),
        "rules": [asdict(rule) for rule in step.rules],
    }
    return planned(store, "pipeline.tasks", spec, step.stage.identity)


def survivors_task(
    store: Store,
    recipe: Recipe,
    parts: Sequence[str],
    ledgers: Sequence[str],
    relations: Sequence[tuple[str, str]] | None,
) -> str:
    """Plan who is left; `relations` (stage, cluster key) where splits are to be assigned here, else None."""
    spec = {
        "task": "survivors",
        "parts": list(parts),
        "ledgers": list(ledgers),
        "assign": relations is not None,
        "relations": [list(pair) for pair in relations or []],
        "shares": recipe.pack.split,
    }
    return planned(store, "pipeline.tasks", spec)


def given_vocabulary_task(store: Store, recipe: Recipe) -> str | None:
    """Plan the check of the tokenizer that the recipe names, or None where one is to be trained."""
    if recipe.tokenizer is None:
        return None
    path = recipe.tokenizer
    named = {"task": "vocabulary", "tokenizer": _content(path)}
    key = digest([source_digest("pipeline.tokens.trained"), named])
    return store.plan(key, {"task": "vocabulary", "tokenizer": str(path)})


def vocabulary_task(store: Store, recipe: Recipe, parts: Sequence[str], survivors: str, budget: int) -> str:
    """Plan the training of a tokenizer on `budget` bytes of the survivors."""
    spec = {
        "task": "vocabulary",
        "tokenizer": None,
        "vocab_size": recipe.tokens.vocab_size,
        "lowercase": recipe.tokens.lowercase,
        "budget": budget,
        "seed": recipe.seed,
        "parts": list(parts),
        "survivors": survivors,
    }
    return planned(store, "pipeline.tokens.trained", spec)


def _content(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"[tokens] tokenizer: {path} is not a file")
    return file_digest(path)


def encode_tasks(
    store: Store, recipe: Recipe, parts: Sequence[str], survivors: str, vocabulary: str, since: int = 0
) -> list[str]:
    """Plan the encoding of every partition, or of those from number `since` on."""
    keys, chats = [], sorted(card.name for card in recipe.sources if rows_of(card) == CHAT)
    for number, part in enumerate(parts[since:], since):
        spec = {"task": "encode", "part": part, "number": number, "survivors": survivors, "vocabulary": vocabulary}
        spec |= {"chats": chats} if chats else {}
        keys.append(planned(store, "pipeline.tokens.encoded", spec))
    return keys


def mix_task(store: Store, recipe: Recipe, encoded: Sequence[str], segments: Sequence[Sequence[str]]) -> str:
    """Plan the mixture of what was encoded, if any is asked for; `segments` are the partitions of each segment."""
    if recipe.mix is None:
        return ""
    spec = {"task": "mix", "mix": recipe.mix.model_dump(), "seed": recipe.seed, "encoded": list(encoded)}
    if recipe.mix.quality:
        stage = recipe.mix.quality.column.partition(".")[0]
        number = next(n for n, s in enumerate(recipe.segments) if stage in [step.stage.name for step in s.steps])
        spec["measured"] = list(segments[number])
    return planned(store, "pipeline.mixing", spec)


def pack_task(store: Store, recipe: Recipe, encoded: Sequence[str], eot: int, mix: str = "") -> str:
    """Plan the packing of what was encoded, as the mixture under `mix` says."""
    pack = recipe.pack
    spec = {"task": "pack", "encoded": list(encoded), "length": pack.length, "layout": pack.layout, "eot": eot}
    spec |= {"mix": mix} if mix else {}
    return planned(store, "pipeline.tokens.shards", spec)
