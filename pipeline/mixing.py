"""How much of what: train is brought to the asked shares by whole documents, some left out and some standing again.

    [mix]
    shares = {web = 0.5, wiki = 0.3, books = 0.15, code = 0.05}    # of train's tokens; every source is named
    temperature = 3.3                  # languages by p^(1/T) of what they have, within each source if there are shares
    caps = {web = 2_000_000_000}       # tokens that a source may give at the most
    tokens = 10_000_000_000            # in all; without it as many as most_copies lets be
    most_copies = 4                    # how often a document may stand
    quality = {column = "filter.score", edges = [0.2, 0.5], weights = [0.5, 1.0, 2.0]}

Shares are met by source. The temperature is that of XLM and mT5 (arXiv 1901.07291, 2010.11934: exponents .5 and .3 are
T = 2 and 3.3): languages that have little get more than their part. Quality says how often the documents of each bucket
stand against each other (below the first edge, between the edges, from the last on): what a group may give is shared
out in that proportion, but no document stands more often than `most_copies`. Four epochs of the same are nearly as good
as new text (Muennighoff et al. 2023, arXiv 2305.16264), which is the default.

Without `tokens` the total is the largest at which no group needs more than `most_copies` and the one that is most
plentiful stands once: nothing is repeated that need not be. Which documents of a group stand once more is decided by
the hash of their ids alone, so neither order nor partition nor worker counts. The last of them are chosen so that they
fill what is left: tokens are met to less than one short document.

A document that is left out leaves by the reason `beyond the mixture`. One that stands again is a document of its own,
`ID#mix1`, `ID#mix2`, ..., with the first as its parent, added by stage `mix`: the books balance id by id. Only train
is mixed; the vocabulary is trained before that.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from pipeline.limits import Limits
from pipeline.mistakes import ConfigError, suggest
from pipeline.schema import LEDGER, ledger
from pipeline.store import Store, Writing, read_parquet

Ints = NDArray[np.int64]

STAGE, REASON, FILE = "mix", "beyond the mixture", "mix.parquet"
COPY = "#mix"
UNKNOWN = "unknown"
# Shares are rounded: a power of a number is not the same to its last bit on every machine.
DIGITS = 12


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Quality(_Table):
    """Buckets of a column that a stage measures, and how often their documents stand against each other."""

    column: str
    edges: list[float] = Field(min_length=1)
    weights: list[float] = Field(min_length=2)


class Mix(_Table):
    """The table [mix] of a recipe."""

    shares: dict[str, float] | None = None
    temperature: float | None = Field(None, ge=1)
    caps: dict[str, PositiveInt] | None = None
    tokens: PositiveInt | None = None
    most_copies: int = Field(4, ge=1, le=100)
    quality: Quality | None = None


def check(mix: Mix, sources: Sequence[str], signals: Mapping[str, pa.DataType], where: str) -> None:
    """Raise ConfigError for what cannot be mixed: sources and columns that there are none of, shares that are none."""
    for table in (mix.shares or {}, mix.caps or {}):
        if unknown := [name for name in table if name not in sources]:
            raise ConfigError(f"{where}: {unknown[0]!r} is no source of the recipe{suggest(unknown[0], sources)}")
    if mix.shares is not None:
        if missing := [name for name in sources if name not in mix.shares]:
            raise ConfigError(
                f"{where} shares: {missing[0]!r} is missing; name every source, with 0 what shall not be in"
            )
        total = math.fsum(mix.shares.values())
        if min(mix.shares.values()) < 0 or abs(total - 1) > 1e-6:
            raise ConfigError(f"{where} shares: they must be 0 or more and add up to 1, not {total:g}")
    if not (mix.shares or mix.temperature or mix.caps or mix.tokens or mix.quality):
        raise ConfigError(f"{where}: says nothing to be met; has: {', '.join(Mix.model_fields)}")
    if quality := mix.quality:
        if not _number(signals.get(quality.column)):
            known = [name for name, kind in signals.items() if _number(kind)]
            raise ConfigError(f"{where} quality: no stage measures {quality.column!r}{suggest(quality.column, known)}")
        if sorted(set(quality.edges)) != quality.edges or len(quality.weights) != len(quality.edges) + 1:
            raise ConfigError(f"{where} quality: edges must rise, and there is one weight more than edges")
        if min(quality.weights) < 0 or not max(quality.weights) or not all(map(math.isfinite, quality.weights)):
            raise ConfigError(f"{where} quality: weights are finite numbers, 0 or more, and not all 0")


def _number(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_integer(kind) or pa.types.is_floating(kind))


@dataclass
class Group:
    """What is shared out together: tokens of each bucket, what it gives if every document stands as its bucket says,
    and what it can give at most."""

    source: str
    language: str | None
    buckets: list[int]
    stands: float = 0.0
    limit: float = 0.0
    target: float = 0.0


def mixed(store: Store, spec: Mapping[str, Any], out: Writing, limits: Limits) -> None:
    """Outputs mix.parquet (doc_id and copies of every document of train) and the ledger of those that stand nowhere."""
    mix = Mix.model_validate(spec["mix"])
    columns = ["doc_id", "source", "language", "tokens", "split"]
    index = pa.concat_tables([read_parquet(store.file(key, "documents.parquet"), columns) for key in spec["encoded"]])
    train = index.filter(pc.equal(index["split"], "train")).sort_by("doc_id").combine_chunks()
    bucket = _buckets(store, spec, mix.quality, train["doc_id"])
    copies, said = share_out(train, bucket, mix, spec["seed"])
    out.table(FILE, pa.table({"doc_id": train["doc_id"], "copies": pa.array(copies, pa.int32())}))
    gone = train["doc_id"].filter(pa.array(copies == 0)).to_pylist()
    rows = [{"doc_id": doc_id, "stage": STAGE, "verdict": "dropped", "reason": REASON} for doc_id in gone]
    out.table("ledger.parquet", pa.Table.from_batches([ledger(rows)], LEDGER))
    out.result = {"added": int(np.maximum(copies - 1, 0).sum()), "left": len(gone), **said}


def _buckets(store: Store, spec: Mapping[str, Any], quality: Quality | None, ids: pa.ChunkedArray) -> Ints:
    """The bucket of each document. Raises ConfigError where one was not measured."""
    if quality is None:
        return np.zeros(len(ids), np.int64)
    names = ["doc_id", quality.column]
    signals = pa.concat_tables([read_parquet(store.file(key, "signals.parquet"), names) for key in spec["measured"]])
    values = signals[quality.column].take(pc.index_in(ids, signals["doc_id"].combine_chunks()))
    blind = pc.is_null(values, nan_is_null=True).to_numpy()
    if blind.any():
        raise ConfigError(
            f"[mix] quality: {quality.column} of {ids[int(np.flatnonzero(blind)[0])].as_py()} was not measured "
            f"({int(blind.sum()):,} such); measure it of every document, or let a rule over it drop them"
        )
    return np.searchsorted(np.array(quality.edges), values.to_numpy(), side="right").astype(np.int64)


def share_out(documents: pa.Table, bucket: Ints, mix: Mix, seed: int) -> tuple[Ints, dict[str, Any]]:
    """(how often each document stands, what was asked); documents have doc_id, source, language and tokens.

    Raises ConfigError where as many tokens as are asked for cannot be had.
    """
    weights = mix.quality.weights if mix.quality else [1.0]
    tokens = documents["tokens"].to_numpy().astype(np.int64)
    names = [documents[n].to_pylist() for n in ("source", "language")]
    keys = [
        (source, (language or UNKNOWN) if mix.temperature else None) for source, language in zip(*names, strict=True)
    ]
    places: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    groups = []
    for key in sorted(places, key=str):
        mine = np.array(places[key], np.int64)
        held = np.bincount(bucket[mine], tokens[mine], minlength=len(weights)).astype(np.int64).tolist()
        groups.append(Group(*key, held))
    total = _targets(groups, mix, weights)
    copies = np.zeros(documents.num_rows, np.int64)
    for group in groups:
        mine = np.array(places[group.source, group.language], np.int64)
        often = _often(group, total * group.target, weights, mix.most_copies)
        for number, factor in enumerate(often):
            some = mine[bucket[mine] == number]
            ids = documents["doc_id"].take(pa.array(some)).to_pylist()
            copies[some] = _chosen(ids, tokens[some], factor, mix.most_copies, seed)
    asked = [
        {
            "source": group.source,
            **({"language": group.language} if group.language else {}),
            "share": round(group.target, 6),
            "tokens": round(total * group.target),
            "available": {"documents": len(places[group.source, group.language]), "tokens": sum(group.buckets)},
        }
        for group in groups
    ]
    return copies, {"asked": asked, "tokens": round(total)}


def _targets(groups: Sequence[Group], mix: Mix, weights: Sequence[float]) -> float:
    """Fill in what each group stands for, its limit and its share; returns the tokens of all."""
    for group in groups:
        group.stands = math.fsum(held * weight for held, weight in zip(group.buckets, weights, strict=True))
        group.limit = float(sum(held for held, w in zip(group.buckets, weights, strict=True) if w) * mix.most_copies)
    for source, cap in (mix.caps or {}).items():
        mine = [group for group in groups if group.source == source]
        had = math.fsum(group.stands for group in mine)
        for group in mine:
            part = cap * group.stands / had if had else 0.0
            group.stands, group.limit = min(group.stands, part), min(group.limit, part)
    for group, share in zip(groups, _shares(groups, mix), strict=True):
        group.target = round(share, DIGITS)
    wanted = [group for group in groups if group.target > 0]
    for source, share in (mix.shares or {}).items():
        if share and not any(group.source == source and group.limit for group in wanted):
            raise ConfigError(f"[mix] shares: source {source!r} has no token in train, and {share:g} of all is asked")
    if not wanted:
        raise ConfigError("[mix]: no document of train may stand: every weight is 0, or train is empty")
    scarce = min(wanted, key=lambda group: group.limit / group.target)
    most = scarce.limit / scarce.target
    if mix.tokens is None:
        return min(most, max(group.stands / group.target for group in wanted))
    if mix.tokens > most * (1 + 1e-9):
        raise ConfigError(
            f"[mix] tokens: {mix.tokens:,} are asked, and {scarce.source} can give {scarce.limit:,.0f} for its share "
            f"of {scarce.target:.3g}, each document {mix.most_copies} times at most: ask for {most:,.0f}, raise "
            "most_copies or its cap, or lower its share"
        )
    return float(mix.tokens)


def _shares(groups: Sequence[Group], mix: Mix) -> list[float]:
    """The share of each group of all tokens."""
    sources = {group.source: 0.0 for group in groups}
    for group in groups:
        sources[group.source] += group.stands
    total = math.fsum(sources.values()) or 1.0
    of = mix.shares or {source: stands / total for source, stands in sources.items()}
    if mix.temperature is None:
        return [of[group.source] for group in groups]
    if mix.shares is not None:
        # Languages within each source.
        return [of[g.source] * _part(g, [o for o in groups if o.source == g.source], mix.temperature) for g in groups]
    languages: dict[str | None, float] = defaultdict(float)
    for group in groups:
        languages[group.language] += group.stands
    heated = {language: (stands / total) ** (1 / mix.temperature) for language, stands in languages.items()}
    whole = math.fsum(heated.values()) or 1.0
    return [heated[g.language] / whole * g.stands / (languages[g.language] or 1.0) for g in groups]


def _part(group: Group, beside: Sequence[Group], temperature: float) -> float:
    """p^(1/T) of a group among those of its source."""
    heated = [other.stands ** (1 / temperature) for other in beside]
    return group.stands ** (1 / temperature) / (math.fsum(heated) or 1.0)


def _often(group: Group, budget: float, weights: Sequence[float], most: int) -> list[float]:
    """How often the documents of each bucket stand so that the group has its budget: in proportion to the weights, as
    far as none stands more often than `most`."""
    full: set[int] = set()
    while True:
        free = [n for n, held in enumerate(group.buckets) if held and weights[n] and n not in full]
        left = budget - math.fsum(group.buckets[n] * most for n in full)
        stands = math.fsum(group.buckets[n] * weights[n] for n in free)
        factor = left / stands if stands else 0.0
        over = {n for n in free if factor * weights[n] > most}
        if not over:
            often = {n: factor * weights[n] for n in free} | dict.fromkeys(full, float(most))
            return [often.get(n, 0.0) for n in range(len(weights))]
        full |= over


def _chosen(ids: Sequence[str], tokens: Ints, often: float, most: int, seed: int) -> Ints:
    """How often each document stands so that they do `often` by tokens: all so many times, and some once more."""
    held = int(tokens.sum())
    wanted = round(held * often)
    base = min(wanted // held, most) if held else 0
    copies, left = np.full(len(ids), base, np.int64), wanted - base * held
    if left <= 0 or base >= most:
        return copies
    order = sorted(range(len(ids)), key=lambda n: _drawn(ids[n], seed))
    for number in order:
        if tokens[number] <= left:
            copies[number] += 1
            left -= int(tokens[number])
    # One more where that comes closer.
    over = [n for n in order if copies[n] == base and tokens[n] < 2 * left]
    if over:
        copies[min(over, key=lambda n: int(tokens[n]))] += 1
    return copies


def _drawn(doc_id: str, seed: int) -> bytes:
    return hashlib.blake2b(f"mix:{seed}:{doc_id}".encode(), digest_size=8).digest()


def repeated(index: pa.Table, mix: pa.Table) -> tuple[pa.Table, Ints]:
    """(document index with what stands again and without what does not stand, row of `index` of each).

    Who is not in the mixture stands once: other splits, and whoever took the place of one who was forgotten.
    """
    place = pc.index_in(index["doc_id"], mix["doc_id"].combine_chunks())
    copies = pc.fill_null(mix["copies"].take(place), 1).to_numpy().astype(np.int64)
    rows = np.repeat(np.arange(index.num_rows), copies)
    nth = np.arange(rows.size) - np.repeat(np.cumsum(copies) - copies, copies)
    table = index.take(pa.array(rows)).combine_chunks()
    again = pa.array(nth > 0)
    ids = table["doc_id"].combine_chunks()
    named = pc.binary_join_element_wise(ids, pa.array(nth).cast(pa.string()), COPY)
    for name, values in (("parent_id", ids), ("doc_id", named)):
        at = table.schema.get_field_index(name)
        column = pc.if_else(again, values, table[name].combine_chunks())
        table = table.set_column(at, table.schema.field(at), column)
    return table, rows


def born(store: Store, key: str) -> Iterator[str]:
    """Ids of the documents that stand again."""
    table = read_parquet(store.file(key, FILE))
    for row in table.filter(pc.greater(table["copies"], 1)).to_pylist():
        yield from (f"{row['doc_id']}{COPY}{n}" for n in range(1, row["copies"]))


def described(store: Store, key: str, index: pa.Table) -> dict[str, Any]:
    """What a manifest says of the mixture of train: what was asked of each group, and what was got, by tokens."""
    said = store.result(key)
    train = index.filter(pc.equal(index["split"], "train"))
    total = pc.sum(train["tokens"]).as_py() or 0
    groups = []
    for asked in said["asked"]:
        mine = train.filter(pc.equal(train["source"], asked["source"]))
        if "language" in asked:
            mine = mine.filter(pc.equal(pc.fill_null(mine["language"], UNKNOWN), asked["language"]))
        tokens = pc.sum(mine["tokens"]).as_py() or 0
        got = {"documents": mine.num_rows, "tokens": tokens, "share": round(tokens / max(total, 1), 6)}
        named = {name: asked[name] for name in ("source", "language", "available") if name in asked}
        groups.append({**named, "asked": {n: asked[n] for n in ("share", "tokens")}, "got": got})
    return {"tokens": {"asked": said["tokens"], "got": total}, "groups": groups}
