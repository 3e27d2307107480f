"""The books of a version, taken from what lies on disk: accounting by stage, and summaries.

Ingested + added = kept + dropped + quarantined. The accounting walks the stages in the
recipe's order; each entry states how many documents entered, joined and left there, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import bands
from pipeline.recipe import Recipe
from pipeline.run import ContractError
from pipeline.schema import LEDGER
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet

FORGOTTEN, BRIDGES = "forgotten.parquet", "bridges.parquet"
EDGES = [0, *(1 << n for n in range(5, 25))]


@dataclass
class SegmentKeys:
    """Where the outputs of one segment lie."""

    parts: list[str]
    judge: str
    relates: list[dict[str, str]] = field(default_factory=list)
    survivors: str = ""

    @property
    def ledgers(self) -> list[str]:
        return [self.judge, *(relate["cluster"] for relate in self.relates)]

    @property
    def cuts(self) -> dict[str, str]:
        """Stage and key of what is cut from the survivors when they enter the next segment, if anything is."""
        return {name: r[name] for r in self.relates if "cuts" in r for name in ("stage", "cuts")}


@dataclass
class BuildKeys:
    """Where everything behind a version lies in the store: the content of build.json.

    `forgotten` is the key of who was forgotten, if anybody was (`forgetting`); `bridges`, in a version that extends
    another, of whose fate is another than in a build of all sources at once (`extending`); `mix`, of what stands how
    often, if the recipe says so (`mixing`).
    """

    segments: list[SegmentKeys]
    vocabulary: str = ""
    encoded: list[str] = field(default_factory=list)
    packed: str = ""
    canaries: str = ""
    forgotten: str = ""
    bridges: str = ""
    mix: str = ""

    @property
    def ledgers(self) -> list[str]:
        forgotten = [self.forgotten] if self.forgotten else []
        mix = [self.mix] if self.mix else []
        return [*forgotten, *(key for segment in self.segments for key in segment.ledgers), *mix]

    def every(self) -> list[str]:
        """Every key, in the order in which it was made."""
        keys: list[str] = []
        for segment in self.segments:
            keys += [*segment.parts, segment.judge]
            keys += [relate[name] for relate in segment.relates for name in ("pairs", "cluster")]
            keys.append(segment.survivors)
        forgotten = [self.forgotten] if self.forgotten else []
        bridges = [self.bridges] if self.bridges else []
        mix = [self.mix] if self.mix else []
        return [*keys, self.vocabulary, *self.encoded, *mix, self.packed, *forgotten, *bridges]

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> BuildKeys:
        return cls(**{**table, "segments": [SegmentKeys(**segment) for segment in table["segments"]]})


def ledger(store: Store, keys: BuildKeys) -> pa.Table:
    """Every document that left, over the whole build."""
    tables = [read_parquet(store.file(key, "ledger.parquet")) for key in keys.ledgers]
    return pa.concat_tables([LEDGER.empty_table(), *tables])


def entered(store: Store, keys: BuildKeys) -> pa.Table:
    """doc_id and text_bytes (null where unreadable) of everything that the sources yielded."""
    return pa.concat_tables([read_parquet(store.file(key, "entered.parquet")) for key in keys.segments[0].parts])


def check_train(store: Store, keys: BuildKeys) -> None:
    """Raise ConfigError where no document is left in train, with the reasons for which most of them left."""
    left = read_parquet(store.file(keys.segments[-1].survivors, "survivors.parquet"), ["split"])["split"]
    if pc.any(pc.equal(left, "train")).as_py():
        return
    gone = ledger(store, keys)
    reasons = Counter(zip(gone["stage"].to_pylist(), gone["reason"].to_pylist(), strict=True))
    most = "; ".join(f"{stage}: {reason} ({count:,})" for (stage, reason), count in reasons.most_common(3))
    raise ConfigError(
        f"no document is left in train ({len(left):,} are in other splits); {gone.num_rows:,} left by: {most or 'none'}"
    )


def check_bands(recipe: Recipe, store: Store, keys: BuildKeys) -> None:
    """Raise ConfigError where a stage, as far as the build has come, removed more or less than its recipe expects."""
    if not any(step.bands for step in recipe.steps):
        return
    entries = [entry for entry in _walk(recipe, store, keys)[0] if entry["kind"] not in ("source", "licence")]
    for number, (step, entry) in enumerate(zip(recipe.steps, entries, strict=False), 1):
        # Of whom nothing is left when it is cut is seen where the survivors enter the next segment.
        if not (step.stage.cuts and entry["segment"] == len(keys.segments) - 1):
            bands.check(entry, step.rules, step.bands, recipe.place(number))


def accounting(recipe: Recipe, store: Store, keys: BuildKeys) -> list[dict[str, Any]]:
    """One entry a stage in the recipe's order, the source first. Raises ContractError if they do not add up."""
    entries, left = _walk(recipe, store, keys)
    count, kept = entries[-1]["left"], store.result(keys.packed)["documents"]
    if left or count != kept:
        raise ContractError(
            f"the books do not balance: {count} documents should be left, {kept} are (unbooked: {left})"
        )
    return entries


def _walk(recipe: Recipe, store: Store, keys: BuildKeys) -> tuple[list[dict[str, Any]], list[str]]:
    """The entries of the segments that are done, and whoever has left in a stage that is none of theirs."""
    left: dict[str, Counter[tuple[str, str]]] = {}
    names = ["stage", "verdict", "reason"]
    gone = ledger(store, keys).group_by(names).aggregate([([], "count_all")])
    for stage, verdict, reason, count in zip(*(gone[n].to_pylist() for n in (*names, "count_all")), strict=True):
        left.setdefault(stage, Counter())[(verdict, reason)] = count
    added: Counter[str] = Counter()
    for segment in keys.segments:
        for key in segment.parts:
            added.update(store.result(key)["added"])
    rows = [("source", "source", 0)]
    rows += [("forget", "forget", 0)] * bool(keys.forgotten)
    rows += [("licence", "licence", 0)] * (recipe.licence is not None)
    for number, segment_ in enumerate(recipe.segments[: len(keys.segments)]):
        rows += [(step.stage.name, step.stage.kind, number) for step in (*segment_.steps, *segment_.relates)]
    if keys.mix:
        rows.append(("mix", "mix", len(keys.segments) - 1))
        added["mix"] = store.result(keys.mix)["added"]
    entries, count = [], sum(store.result(key)["entered"] for key in keys.segments[0].parts)
    for name, kind, number in rows:
        entry = _entry(name, kind, number, count, added[name], left.pop(name, Counter()))
        entries.append(entry)
        count = entry["left"]
    return entries, list(left)


def _entry(
    name: str, kind: str, segment: int, entered: int, added: int, left: Counter[tuple[str, str]]
) -> dict[str, Any]:
    verdicts = Counter({"dropped": 0, "quarantined": 0})
    for (verdict, _), count in left.items():
        verdicts[verdict] += count
    reasons = {f"{reason}": count for (_, reason), count in sorted(left.items(), key=lambda pair: (-pair[1], pair[0]))}
    return {
        "stage": name,
        "kind": kind,
        "segment": segment,
        "entered": entered,
        "added": added,
        "dropped": verdicts["dropped"],
        "quarantined": verdicts["quarantined"],
        "left": entered + added - left.total(),
        "reasons": reasons,
    }


def summaries(entries: Sequence[Mapping[str, Any]], store: Store, keys: BuildKeys, index: pa.Table) -> dict[str, Any]:
    """What a report needs and would have to read the whole version for."""
    came = entered(store, keys)
    found = {
        "documents": {
            "ingested": entries[0]["entered"],
            "added": sum(e["added"] for e in entries),
            "kept": index.num_rows,
            "dropped": sum(e["dropped"] for e in entries),
            "quarantined": sum(e["quarantined"] for e in entries),
        },
        "text_bytes": {"ingested": _sum(came["text_bytes"]), "kept": _sum(index["text_bytes"])},
        "languages": _grouped(index, "language"),
        "by_source": _grouped(index, "source"),
        "length_histogram": {
            "edges": EDGES,
            "ingested": _histogram(came["text_bytes"]),
            "kept": _histogram(index["text_bytes"]),
        },
    }
    for source, entry in found["by_source"].items():
        licences = index.filter(pc.equal(index["source"], source))["licence"].to_pylist()
        entry["licences"] = dict(sorted(Counter(licence or "NOASSERTION" for licence in licences).items()))
    if sizes := _cluster_sizes(store, keys):
        total = sum(size * count for size, count in sizes.items())
        found["clusters"] = {"sizes": {str(k): sizes[k] for k in sorted(sizes)}, "documents_in_clusters": total}
    if cut := {s.cuts["stage"]: _cut(store, s.cuts["cuts"]) for s in keys.segments if s.cuts}:
        found["cuts"] = cut
    return found


def _cut(store: Store, key: str) -> dict[str, int]:
    """How many documents lost something there, how many passages and how many bytes."""
    result = store.result(key)
    return {name: result[name] for name in ("documents", "spans", "bytes")}


def _sum(values: pa.ChunkedArray) -> int:
    return int(pc.sum(values).as_py() or 0)


def _grouped(index: pa.Table, column: str) -> dict[str, dict[str, Any]]:
    table = index.group_by(column).aggregate([("doc_id", "count"), ("text_bytes", "sum"), ("tokens", "sum")])
    rows = zip(*(table[n].to_pylist() for n in (column, "doc_id_count", "text_bytes_sum", "tokens_sum")), strict=True)
    return {
        name or "unknown": {"documents": d, "text_bytes": b, "tokens": t} for name, d, b, t in sorted(rows, key=str)
    }


def _histogram(sizes: pa.ChunkedArray) -> list[int]:
    """Documents with EDGES[i] <= bytes < EDGES[i+1]; the last bin is open above."""
    values = sizes.drop_null().to_numpy()
    counts: Iterable[int] = np.bincount(np.searchsorted(EDGES, values, side="right") - 1, minlength=len(EDGES)).tolist()
    return list(counts)


def _cluster_sizes(store: Store, keys: BuildKeys) -> Counter[int]:
    """How many clusters of each size above one were found; each cluster is counted at its survivor."""
    sizes: Counter[int] = Counter()
    for segment in keys.segments:
        for relate in segment.relates:
            if "cuts" in relate:
                continue
            name = relate["stage"]
            columns = [f"{name}.dup_rank", f"{name}.cluster_size"]
            table = read_parquet(store.file(relate["cluster"], "relation.parquet"), columns)
            first = table.filter(pc.equal(table[columns[0]], 0))
            sizes.update(size for size in first[columns[1]].to_pylist() if size and size > 1)
    return sizes
